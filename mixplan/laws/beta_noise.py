"""How a new run's skill scatters around its mean: a Beta distribution with one precision for all cells.

Shape legend: n = cells, D = parameter draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

FloatArray = NDArray[np.float64]

EDGE = 1e-9
"""Means are kept this far from 0 and 1, where a Beta distribution has no density."""
PRECISION_RANGE = (0.02, 1e4)
"""A precision outside this range could not be told from its nearer end by any table of runs."""
RESOLUTION = 0.01
"""Interval ends are rounded outwards to this step of skill."""
_HALVINGS = 14
_CHUNK = 4096


def fit_precision(skill: FloatArray, mean: FloatArray, weights: FloatArray, parameters: int) -> float:
    """Precision φ of Beta(μφ, (1 − μ)φ) from the residuals of finished runs.

    By moments: Var(y) = μ(1 − μ) ÷ (1 + φ), as a ratio of sums, which bounded residuals at sharp means cannot
    upset, with n ÷ (n − parameters) for the fitted means. The likelihood is no choice here: its density is
    infinite at the exact zeros and ones that accuracies are full of. φ below 1 is a skill that a run either
    has or has not; binomial noise of the accuracy is part of φ, as it is part of the skills it is held
    against.

    Args:
        skill, mean, weights: finished cells, shape (n,).
        parameters: fitted parameters behind the means.
    """
    freedom = len(skill) / max(len(skill) - parameters, 1)
    residual = float((weights * (skill - mean) ** 2).sum()) * freedom
    largest = float((weights * mean * (1.0 - mean)).sum())
    if residual <= 0.0:
        return PRECISION_RANGE[1]
    return float(np.clip(largest / residual - 1.0, *PRECISION_RANGE))


def probability_at_least(threshold: float, mean: FloatArray, precision: FloatArray) -> FloatArray:
    """P(skill ≥ threshold), averaged over draws.

    Args:
        threshold: of skill, in (0, 1).
        mean: shape (n, D).
        precision: shape (D,).

    Returns:
        shape (n,).
    """
    centre = np.clip(mean, EDGE, 1.0 - EDGE)
    # Not scipy.special.betaincc: it is ten times slower, and 1e-16 of a probability is nothing here.
    return 1.0 - betainc(centre * precision, (1.0 - centre) * precision, threshold).mean(axis=1)


def interval(mean: FloatArray, precision: FloatArray, level: float = 0.9) -> tuple[FloatArray, FloatArray]:
    """Central interval of the mixture of the draws' Beta distributions, shapes (n,) and (n,).

    Ends are rounded outwards to RESOLUTION: measured skill is a count of correct answers and does take the
    values 0 and 1, which a Beta distribution cannot, so an end closer to them than that includes them.
    """
    ends = []
    for tail in ((1.0 - level) / 2.0, (1.0 + level) / 2.0):
        parts = [
            _quantile(tail, mean[start : start + _CHUNK], precision) for start in range(0, len(mean), _CHUNK)
        ]
        ends.append(np.concatenate(parts) if parts else np.empty(0))
    steps = 1.0 / RESOLUTION
    low = np.floor((ends[0] - 2.0**-_HALVINGS) * steps) / steps
    high = np.ceil((ends[1] + 2.0**-_HALVINGS) * steps) / steps
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


def _quantile(level: float, mean: FloatArray, precision: FloatArray) -> FloatArray:
    """Where the mixture's distribution function reaches `level`, by bisection to 2^-_HALVINGS; shape (n,)."""
    centre = np.clip(mean, EDGE, 1.0 - EDGE)
    a, b = centre * precision, (1.0 - centre) * precision
    low, high = np.zeros(len(mean)), np.ones(len(mean))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        below = betainc(a, b, middle[:, None]).mean(axis=1) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2.0
