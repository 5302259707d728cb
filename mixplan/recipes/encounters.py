"""How long a run goes without a source: gaps between encounters, and windows without any.

Shape legend: n = samples of the run, m = samples of the source, W = windows.

In a random order the other n − m samples fall into the m + 1 spaces before, between and after the source's,
and a space holds g of them or more with probability C(n − g, m) ÷ C(n, m) (exact: that many placements leave
g samples free of the source).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixplan.recipes.evenness import WINDOWS, expected_longest_gap


@dataclass(frozen=True)
class Encounters:
    """Gaps of one source, beside what a random order of the same samples would have."""

    median_gap_samples: float
    """Median samples from one encounter to the next; the run's start and end count as encounters."""
    median_gap_iid_samples: int
    """The median of the same in a random order."""
    longest_gap_samples: int
    longest_gap_iid_samples: float
    """Its expected value in a random order."""
    median_gap_tokens: float
    median_gap_iid_tokens: float
    longest_gap_tokens: float
    longest_gap_iid_tokens: float
    empty_windows_iid: float
    """Windows of 1 % of the run without the source, expected in a random order."""


def encounters(positions: np.ndarray, samples: int, sequence_length: int) -> Encounters:
    """Gaps of a source.

    Args:
        positions: int [m], ascending: where in the run its samples come, from 0; at least one.
        samples: n.
        sequence_length: tokens a sample.
    """
    n, m = samples, len(positions)
    gaps = np.diff(np.concatenate([[-1], positions, [n]]))  # [m + 1]
    median, median_iid = float(np.median(gaps)), median_gap(n, m)
    longest, longest_iid = int(gaps.max()), expected_longest_gap(n, m)
    sizes = np.diff(np.linspace(0, n, min(WINDOWS, n) + 1).round())
    return Encounters(
        median_gap_samples=median,
        median_gap_iid_samples=median_iid,
        longest_gap_samples=longest,
        longest_gap_iid_samples=longest_iid,
        median_gap_tokens=median * sequence_length,
        median_gap_iid_tokens=float(median_iid * sequence_length),
        longest_gap_tokens=float(longest * sequence_length),
        longest_gap_iid_tokens=longest_iid * sequence_length,
        empty_windows_iid=float(sum(_free(n, m, int(size)) for size in sizes)),
    )


def median_gap(n: int, m: int) -> int:
    """The least gap, in samples, that a random order's gaps exceed with probability ½ at most."""
    low, high = 1, n - m + 1  # the longest that there can be
    while low < high:
        middle = (low + high) // 2
        if _free(n, m, middle) <= 0.5:
            high = middle
        else:
            low = middle + 1
    return low


def _free(n: int, m: int, g: int) -> float:
    """Probability that g given samples next to each other are not of the source: C(n − g, m) ÷ C(n, m)."""
    from scipy.special import gammaln

    if g > n - m:
        return 0.0
    logs = gammaln(n - g + 1) - gammaln(n - g - m + 1) - gammaln(n + 1) + gammaln(n - m + 1)
    return float(np.exp(logs))
