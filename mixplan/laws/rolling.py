"""Every rung predicted from every set of smaller ones (rolling origin): what each candidate would have said.

Shape legend: n = left-out final cells, B = bins of skill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixplan.laws.beta_noise import interval, probability_at_least
from mixplan.laws.evidence import BoolArray, Evidence, FloatArray
from mixplan.laws.protocol import Cells, FittedLearning, LearningLaw, Scattered
from mixplan.laws.scores import skill_bins, skill_log_score, threshold_frequency

MIN_FITTED = 2
"""Fewest rungs that a law of size can be fitted to."""
REACH = 10.0
DRAWS = 100
"""Most draws that a backtest uses: its scores are averages over cells, and gain nothing from more."""


@dataclass(frozen=True)
class Said:
    """What one candidate said about the left-out cells."""

    name: str
    baseline: bool
    known: BoolArray
    """Cells it said something about; the arrays below hold those only, in order."""
    skill: FloatArray
    p_learned: FloatArray
    low: FloatArray
    high: FloatArray
    bins: FloatArray
    """Probability of each tenth of the skill scale, shape (n, B)."""
    found: Scattered
    """All that, per draw, of all cells."""
    thresholds: list[float | None]
    """Predicted threshold frequency of each of the fold's crossings; None: none within reach."""

    def log_scores(self, observed: FloatArray) -> FloatArray:
        """Of every known cell; `observed` has shape (n,) over all cells."""
        return skill_log_score(self.bins, observed[self.known])


@dataclass(frozen=True)
class Crossing:
    """A task kind at one training length whose measured cells bracket the threshold."""

    family: str
    complexity: float
    block_params: float
    tokens: float
    frequencies: FloatArray
    threshold_frequency: float


@dataclass(frozen=True)
class Fold:
    """One left-out rung under one set of fitted rungs."""

    fitted: list[float]
    """Block parameters of the fitted rungs, ascending."""
    rungs_ahead: int
    left_out: Evidence
    crossed: list[Crossing]
    said: list[Said]

    @property
    def observed(self) -> FloatArray:
        """Measured skill within 0 and 1, shape (n,)."""
        return np.clip(self.left_out.skill, 0.0, 1.0)


def distribution(found: Scattered, learned_skill: float) -> dict[str, Any]:
    """A distribution of new runs, in the numbers that scores need: the first fields of `Said`."""
    known = np.isfinite(found.mean).all(axis=1)
    mean, precision = found.mean[known], found.precision[known]
    low, high = interval(mean, precision)
    return {
        "known": known,
        "skill": mean.mean(axis=1),
        "p_learned": probability_at_least(learned_skill, mean, precision),
        "low": low,
        "high": high,
        "bins": skill_bins(mean, precision),
        "found": found,
    }


def folds(
    evidence: Evidence,
    laws: Callable[[float], list[LearningLaw]],
    learned_skill: float,
    draws: int,
    seed: int,
) -> Iterator[Fold]:
    """Folds in ascending order of fitted rungs, then of left-out size; those without a cell that the fitted
    rungs can speak about are passed over.

    Args:
        evidence: all rows.
        laws: candidates, given the largest fitted block parameters.
        learned_skill: the threshold.
        draws: at most DRAWS are used.
        seed: of the draws.
    """
    size = evidence.table["block_params"]
    sizes = np.unique(size)
    for count in range(MIN_FITTED, len(sizes)):
        fitted = evidence.where(size <= sizes[count - 1])
        if not fitted.finished.any():
            continue
        ready = [
            (law, law.fit(fitted, min(draws, DRAWS), np.random.default_rng([seed, count, index])))
            for index, law in enumerate(laws(float(sizes[count - 1])))
        ]
        for ahead, left in enumerate(sizes[count:], start=1):
            rung = evidence.where(size == left)
            rung = rung.where(rung.finished & _measured(rung, fitted))
            if not len(rung.skill):
                continue
            cells = Cells.measured(rung)
            crossed = crossings(rung, learned_skill)
            said = [
                Said(
                    name=law.name,
                    baseline=law.baseline,
                    **distribution(found.new_run(cells), learned_skill),
                    thresholds=[predicted_crossing(found, one, learned_skill) for one in crossed],
                )
                for law, found in ready
            ]
            yield Fold([float(one) for one in sizes[:count]], ahead, rung, crossed, said)


def _measured(rung: Evidence, fitted: Evidence) -> BoolArray:
    """Rows of task kinds that the fitted rungs measured at the ends of runs."""
    kinds = {fitted.kinds[kind] for kind in fitted.kind[fitted.finished]}
    return np.array([rung.kinds[kind] in kinds for kind in rung.kind], dtype=bool)


def crossings(rung: Evidence, learned_skill: float) -> list[Crossing]:
    """The measured threshold frequencies of one rung's final cells."""
    keys = np.column_stack([rung.kind.astype(float), np.round(rung.log_axes[:, 2], 2)])
    _, group = np.unique(keys, axis=0, return_inverse=True)
    found = []
    for one in np.unique(group):
        rows = np.flatnonzero(group.reshape(-1) == one)
        frequencies = np.exp(rung.log_axes[rows, 0])
        crossed = threshold_frequency(frequencies, np.clip(rung.skill[rows], 0.0, 1.0), learned_skill)
        if crossed is not None:
            family, complexity = rung.kinds[rung.kind[rows[0]]]
            _, size, tokens = np.exp(rung.log_axes[rows[0]])
            found.append(
                Crossing(family, complexity, float(size), float(tokens), frequencies, float(crossed))
            )
    return found


def predicted_crossing(found: FittedLearning, at: Crossing, learned_skill: float) -> float | None:
    """Middle of the draws' threshold frequencies; None beyond REACH times the measured frequencies."""
    cell = Cells.of([at.family], at.complexity, at.block_params, at.tokens, at.threshold_frequency)
    middle = float(np.exp(np.median(found.log_threshold_frequency(cell, learned_skill)[0])))
    low, high = at.frequencies.min() / REACH, at.frequencies.max() * REACH
    return middle if low <= middle <= high else None
