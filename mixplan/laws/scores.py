"""How good a forecast was: scores that hold predictions against what was measured.

Shape legend: n = cells, D = parameter draws, B = bins of skill, m = distinct frequencies of one series.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata

from mixplan.laws.beta_noise import probability_at_least

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

SAME_FREQUENCY = 1.25
"""Largest ratio of two frequencies that count as the same cell: realised ones differ between runs."""
FLOOR = 1e-3
"""Least probability that a forecast is charged with, so that one sure miss costs no more than ln 1000."""
BIN_EDGES = np.arange(1, 10) / 10.0
"""Inner edges of ten equal bins of skill."""
_EDGE_ROUNDING = 1e-9
"""An accuracy of 0.9 gives a skill of 0.8 minus rounding, which belongs to the bin that 0.8 opens."""


def brier(probability: FloatArray, outcome: FloatArray | BoolArray) -> float:
    """Mean squared difference of a forecast and what happened, both shape (n,).

    Of a probability and whether a cell was learned, or of a mean skill and the measured one.
    """
    return float(np.mean((np.asarray(probability) - np.asarray(outcome, dtype=np.float64)) ** 2))


def log_loss(probability: FloatArray, learned: BoolArray, clip: float = FLOOR) -> float:
    """Mean of −ln of the probability given to what happened, nats; lower is better.

    Args:
        probability: that a cell is learned, shape (n,); cut to [clip, 1 − clip].
        learned: shape (n,).
        clip: in (0, 0.5).
    """
    sure = np.clip(probability, clip, 1.0 - clip)
    return float(-np.mean(np.log(np.where(learned, sure, 1.0 - sure))))


def skill_bins(mean: FloatArray, precision: FloatArray) -> FloatArray:
    """`bins_between` for skill that scatters around its mean as in `mixplan.laws.beta_noise`.

    Args:
        mean: mean skill of the cells in every draw, shape (n, D).
        precision: shape (D,).

    Returns:
        shape (n, B), averaged over draws.
    """
    return bins_between(
        np.column_stack([probability_at_least(float(edge), mean, precision) for edge in BIN_EDGES])
    )


def bins_between(above: FloatArray) -> FloatArray:
    """Probability of each of ten equal bins of measured skill, floored.

    Bins are closed below, as "learned" is (skill at least the threshold): [0, 0.1), …, [0.9, 1]. The first
    holds all guesses below 0 too. The floor is a mixture with the uniform distribution that leaves every bin
    at least FLOOR: (1 − B·FLOOR)·p + FLOOR.

    Args:
        above: probability that skill is at least each of BIN_EDGES, shape (n, B − 1).

    Returns:
        shape (n, B); rows sum to 1.
    """
    every = np.column_stack([np.ones(len(above)), above, np.zeros(len(above))])
    # Differences of tail probabilities can be −1e-17.
    bins = np.maximum(-np.diff(every, axis=1), 0.0)
    bins /= bins.sum(axis=1, keepdims=True)
    return (1.0 - bins.shape[1] * FLOOR) * bins + FLOOR


def skill_log_score(bins: FloatArray, skill: FloatArray) -> FloatArray:
    """ln of the probability that each forecast gave to the bin in which the skill fell; higher is better.

    Between ln FLOOR = −6.9 and 0; the uniform forecast has −ln 10 = −2.3 everywhere. A proper score:
    nothing is gained in expectation by stating another distribution than the one that is meant.

    Args:
        bins: of `skill_bins`, shape (n, B).
        skill: as measured, shape (n,).

    Returns:
        shape (n,), nats.
    """
    index = np.searchsorted(BIN_EDGES, np.asarray(skill) + _EDGE_ROUNDING, side="right")
    return np.log(bins[np.arange(len(bins)), index])


def auroc(learned: BoolArray, score: FloatArray) -> float | None:
    """Probability that a learned cell scores above one that was not (ties half); None if all are alike."""
    ones = int(learned.sum())
    zeros = len(learned) - ones
    if not ones or not zeros:
        return None
    return float((rankdata(score)[learned].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def coverage(low: FloatArray, high: FloatArray, observed: FloatArray) -> float:
    """Share of observations inside their closed intervals; all shape (n,)."""
    return float(np.mean((low <= observed) & (observed <= high)))


def threshold_frequency(
    frequency: FloatArray, skill: FloatArray, learned_skill: float, same: float = SAME_FREQUENCY
) -> float | None:
    """Frequency at which mean skill crosses `learned_skill`, of one task kind at one size and token count.

    Skill is averaged over rows of the same frequency (the seeds), made to never fall with frequency by
    isotonic regression weighted with the rows, and interpolated linearly in log frequency.

    Args:
        frequency: share of tokens, shape (n,), in any order.
        skill: measured in each row, or predicted for it, shape (n,).
        learned_skill: the threshold.
        same: rows count as one frequency while they are within this ratio of the lowest of them; 1 for a
            predicted curve, whose frequencies are exact.

    Returns:
        None where the rows do not bracket the crossing: every frequency is learned, or none is.
    """
    if not len(frequency):
        return None
    log_frequency, means, rows = _seed_means(np.log(frequency), np.asarray(skill, dtype=np.float64), same)
    rising = isotonic_regression(means, weights=rows).x
    learned = rising >= learned_skill
    if learned[0] or not learned[-1]:
        return None
    right = int(np.argmax(learned))
    part = (learned_skill - rising[right - 1]) / (rising[right] - rising[right - 1])
    return float(np.exp(log_frequency[right - 1] + part * np.diff(log_frequency)[right - 1]))


def _seed_means(
    log_frequency: FloatArray, skill: FloatArray, same: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean log frequency, mean skill and number of rows per frequency, ascending; each shape (m,)."""
    order = np.lexsort((skill, log_frequency))
    log_frequency, skill = log_frequency[order], skill[order]
    starts: list[int] = []
    for row, value in enumerate(log_frequency):
        if not starts or value > log_frequency[starts[-1]] + np.log(same):
            starts.append(row)
    rows = np.diff([*starts, len(skill)]).astype(np.float64)
    return np.add.reduceat(log_frequency, starts) / rows, np.add.reduceat(skill, starts) / rows, rows


def ratio_error(predicted: FloatArray, observed: FloatArray) -> FloatArray:
    """By what factor the larger of two positive numbers exceeds the other: 1 is right, 2 is twice or half."""
    return np.exp(np.abs(np.log(predicted) - np.log(observed)))
