"""How a measured skill scatters around a run's mean: a Beta distribution a little wider than [0, 1], cut
back to it.

    (skill + δ₀)/(1 + δ₀ + δ₁) ~ Beta(μ'φ, (1 − μ')φ),   μ' = (mean + δ₀)/(1 + δ₀ + δ₁)

Measured skill falls below 0 by guessing badly, and is exactly 0 or 1 often: what lies beyond [0, 1] is cut
to its ends, which thereby have a probability of their own. The variance is (mean + δ₀)(1 + δ₁ − mean) ÷ (1
+ φ): noise does not vanish where nothing is learned. One precision φ for all cells; φ below 1 is a skill
that a run either has or has not. Binomial noise of the accuracy is part of φ, as it is part of the skills
that forecasts are held against.

Shape legend: n = cells, D = parameter draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

FloatArray = NDArray[np.float64]

BELOW, ABOVE = 0.05, 0.01
"""δ₀ and δ₁. A two-way task of 128 instances that guesses has a skill of 0 ± 0.09: with φ between 4 and 10,
δ₀ = 0.05 gives 0.10 to 0.07. At 1 every answer is right and next to no noise is left."""
UNIT_WIDTH = 1.0 + BELOW + ABOVE
PRECISION_RANGE = (0.02, 1e4)
"""A precision outside this range could not be told from its nearer end by any table of runs."""
RESOLUTION = 0.01
"""Interval ends are rounded outwards to this step of skill."""
NODES = 40
"""Points by which a cell's draws are stood for."""
_HALVINGS = 8
_CHUNK = 4096


def to_unit(skill: FloatArray) -> FloatArray:
    """(skill + δ₀)/(1 + δ₀ + δ₁)."""
    return (skill + BELOW) / UNIT_WIDTH


def fit_precision(skill: FloatArray, mean: FloatArray, weights: FloatArray, parameters: int) -> float:
    """Precision φ from the residuals of finished runs.

    By moments, as a ratio of sums, which bounded residuals at sharp means cannot upset, times n ÷ (n −
    parameters) for the fitted means. The likelihood is no choice here: its density is infinite or zero at
    the ends.

    Args:
        skill, mean, weights: finished cells, shape (n,).
        parameters: fitted parameters behind the means.
    """
    observed, expected = to_unit(skill), to_unit(mean)
    freedom = len(skill) / max(len(skill) - parameters, 1)
    residual = float((weights * (observed - expected) ** 2).sum()) * freedom
    largest = float((weights * expected * (1.0 - expected)).sum())
    if residual <= 0.0:
        return PRECISION_RANGE[1]
    return float(np.clip(largest / residual - 1.0, *PRECISION_RANGE))


def probability_at_least(threshold: float, mean: FloatArray, precision: FloatArray) -> FloatArray:
    """P(skill ≥ threshold), averaged over draws.

    Args:
        threshold: of skill, in (0, 1).
        mean: shape (n, D).
        precision: shape (D,), or (n, D) where cells scatter differently.

    Returns:
        shape (n,).
    """
    mean, precision = _condensed(mean, precision)
    centre = to_unit(mean)
    # Not scipy.special.betaincc: it is ten times slower, and 1e-16 of a probability is nothing here.
    return 1.0 - betainc(
        centre * precision, (1.0 - centre) * precision, (threshold + BELOW) / UNIT_WIDTH
    ).mean(axis=1)


def interval(mean: FloatArray, precision: FloatArray, level: float = 0.9) -> tuple[FloatArray, FloatArray]:
    """Central interval of skill cut to [0, 1] over the mixture of the draws' distributions, shapes (n,) and
    (n,).

    Ends are rounded outwards to RESOLUTION: measured skill is a count of correct answers.
    """
    centre = mean.mean(axis=1)
    mean, every = _condensed(mean, precision)
    ends = []
    for tail in ((1.0 - level) / 2.0, (1.0 + level) / 2.0):
        parts = [
            _quantile(tail, mean[start : start + _CHUNK], every[start : start + _CHUNK])
            for start in range(0, len(mean), _CHUNK)
        ]
        ends.append(np.concatenate(parts) if parts else np.empty(0))
    steps = 1.0 / RESOLUTION
    low = np.floor((ends[0] - 2.0**-_HALVINGS) * steps) / steps
    high = np.ceil((ends[1] + 2.0**-_HALVINGS) * steps) / steps
    # The middle of a mixture with one draw in twenty far away lies beyond its 5 %: it belongs inside.
    return np.clip(np.minimum(low, centre), 0.0, 1.0), np.clip(np.maximum(high, centre), 0.0, 1.0)


def _condensed(mean: FloatArray, precision: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Each cell's draws, sorted by mean and averaged in NODES equal groups; shapes (n, NODES).

    The incomplete Beta function takes nearly all of a forecast's time, and a mixture of 200 neighbours is one
    of NODES to within 0.003 of a probability.
    """
    precision = np.broadcast_to(precision, mean.shape)
    draws = mean.shape[1]
    if draws < 2 * NODES:
        return mean, precision
    order = np.argsort(mean, axis=1, kind="stable")
    starts = np.arange(NODES) * draws // NODES
    size = np.diff([*starts, draws])
    # Variances, which go with 1 ÷ (1 + φ), are what averages.
    parts = (np.take_along_axis(values, order, axis=1) for values in (mean, 1.0 / (1.0 + precision)))
    one, spread = (np.add.reduceat(values, starts, axis=1) / size for values in parts)
    return one, 1.0 / spread - 1.0


def _quantile(level: float, mean: FloatArray, precision: FloatArray) -> FloatArray:
    """Skill in [0, 1] below which `level` of the mixture lies, by bisection to 2^-_HALVINGS; shape (n,)."""
    centre = to_unit(mean)
    a, b = centre * precision, (1.0 - centre) * precision
    low, high = np.zeros(len(mean)), np.ones(len(mean))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        below = betainc(a, b, to_unit(middle)[:, None]).mean(axis=1) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2.0
