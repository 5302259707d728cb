"""How evenly a source is spread over a run.

Shape legend: n = samples of the run, m = samples of one source, W = windows (100, or n in a shorter run);
`order` is int [n]: the number of the source that each sample, in the order of training, came from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

WINDOWS = 100


@dataclass(frozen=True)
class Evenness:
    """One source's share per 1 % window of the run, and its longest gap."""

    windows: int
    mean_share: float
    """Mean over windows of the source's fraction of the window's samples."""
    cv: float
    """Standard deviation of that share over windows ÷ its mean."""
    cv_iid: float
    """The expected value of the same under a random order (hypergeometric), rms over windows."""
    cv_ratio: float
    """cv ÷ cv_iid: about 1 when the source is as even as independent draws, well above 1 when in bursts."""
    empty_windows: int
    """Windows without any sample of it."""
    longest_gap_samples: int
    """Most samples from one encounter to the next; the run's start and end count as encounters."""
    longest_gap_iid_samples: float
    """The expected value of the same under a random order."""


def evenness(order: np.ndarray, source: int) -> Evenness:
    """Evenness of one source in an order of samples.

    In a random order the count of the source in a window of w samples is hypergeometric: variance
    w·p·(1 − p)·(n − w)/(n − 1) with p = m/n.

    Raises:
        ValueError: the source does not occur.
    """
    is_source = np.asarray(order) == source
    n, m = len(is_source), int(is_source.sum())
    if m == 0:
        raise ValueError(f"source {source} does not occur in the order")
    windows = min(WINDOWS, n)
    edges = np.linspace(0, n, windows + 1).round().astype(np.int64)
    sizes = np.diff(edges)  # [W]
    counts = np.add.reduceat(is_source.astype(np.int64), edges[:-1])  # [W]
    shares = counts / sizes
    p = m / n
    variances = p * (1 - p) / sizes * ((n - sizes) / max(n - 1, 1))  # [W]
    cv = float(shares.std() / shares.mean())
    cv_iid = float(np.sqrt(variances.mean()) / p)
    positions = np.concatenate([[-1], np.flatnonzero(is_source), [n]])
    return Evenness(
        windows=windows,
        mean_share=float(shares.mean()),
        cv=cv,
        cv_iid=cv_iid,
        cv_ratio=cv / cv_iid if cv_iid > 0 else 1.0,
        empty_windows=int((counts == 0).sum()),
        longest_gap_samples=int(np.diff(positions).max()),
        longest_gap_iid_samples=expected_longest_gap(n, m),
    )


def expected_longest_gap(n: int, m: int) -> float:
    """Expected longest gap, in samples, when m of n samples are of the source, in random order.

    The m samples cut the run into m + 1 gaps of one distribution. The longest of m + 1 random spacings of a
    line is expected at H(m + 1)/(m + 1) of it, H the harmonic number. Samples are whole, so gaps are nearly
    geometric with q = (m + 1)/(n + 1) and the longest is ½ + H(m + 1)/(−ln(1 − q)), the same for small q.
    Within 2 % of simulations with n from 1000 to 20,000 and q from 0.002 to 0.99.
    """
    if m >= n:
        return 1.0
    harmonic = float(np.sum(1.0 / np.arange(1, m + 2)))
    return 0.5 + harmonic / -math.log1p(-(m + 1) / (n + 1))
