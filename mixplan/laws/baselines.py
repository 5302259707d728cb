"""Forecasts without a law, to be beaten: the same cell at the largest fitted rung, and boosted trees.

How far their means are off is measured on the fitted rungs themselves, so that they too give a distribution.

Shape legend: n = cells, m = final cells of the largest fitted rung.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mixplan.laws.beta_noise import fit_precision
from mixplan.laws.evidence import Evidence, FloatArray, IntArray
from mixplan.laws.protocol import Cells, Scattered
from mixplan.laws.scores import SAME_FREQUENCY, threshold_frequency
from mixplan.laws.trees import Trees, fit_trees

_TIE = 0.01
_UNTESTED_PRECISION = 5.0
"""Where nothing on the fitted rungs says how far a baseline is off."""
FOLDS = 3
REACH, GRID = 100.0, 121
"""How far from a cell's frequency a threshold is looked for, as a ratio, and at how many frequencies."""


def precision_of(skill: FloatArray, mean: FloatArray) -> float:
    """Precision of beta_noise, from what was measured and predicted, shapes (n,); NaNs are passed over."""
    known = np.isfinite(mean)
    if not known.any():
        return _UNTESTED_PRECISION
    return fit_precision(skill[known], np.clip(mean[known], 0.0, 1.0), np.ones(int(known.sum())), 0)


class Copy:
    """Copy the largest fitted rung."""

    name = "copy the largest fitted rung"
    baseline = True

    def fit(self, evidence: Evidence, draws: int, generator: np.random.Generator) -> Copied:
        """Remember the finished cells; its precision is that of copying the second largest rung."""
        sizes = np.unique(evidence.log_axes[:, 1])
        largest = evidence.log_axes[:, 1] == sizes[-1]
        own = _final(evidence, largest)
        if len(sizes) < 2:
            return Copied(own, _UNTESTED_PRECISION)
        before = _final(evidence, evidence.log_axes[:, 1] == sizes[-2])
        tried = Copied(before, _UNTESTED_PRECISION).mean(own.cells)[:, 0]
        return Copied(own, precision_of(own.skill, tried))


@dataclass(frozen=True)
class _Final:
    cells: Cells
    skill: FloatArray


@dataclass(frozen=True)
class Copied:
    """The finished cells of one rung."""

    final: _Final
    precision: float

    def mean(self, cells: Cells) -> FloatArray:
        """Mean final skill of the same cell, NaN where it was not measured; shape (n, 1).

        The same cell: same family and complexity, nearest frequency (within SAME_FREQUENCY), then nearest
        token count; ties are averaged over seeds.
        """
        own = self.final.cells
        families = np.array(own.family, dtype=object)
        frequency, _, tokens = own.log_axes.T
        copied = np.full(len(cells), np.nan)
        for index, (wanted_frequency, _, wanted_tokens) in enumerate(cells.log_axes):
            same = (families == cells.family[index]) & (own.complexity == cells.complexity[index])
            same &= np.abs(frequency - wanted_frequency) <= np.log(SAME_FREQUENCY)
            same = _nearest(same, np.abs(frequency - wanted_frequency))
            same = _nearest(same, np.abs(tokens - wanted_tokens))
            if same.any():
                copied[index] = self.final.skill[same].mean()
        return copied[:, None]

    def new_run(self, cells: Cells) -> Scattered:
        """The copied skill, scattered."""
        mean = self.mean(cells)
        return Scattered(mean, np.full_like(mean, self.precision))

    def log_threshold_frequency(self, cells: Cells, skill: float) -> FloatArray:
        """Of the mean, within REACH of the cells' frequency; shape (n, 1)."""
        return _scanned(self.mean, cells, skill)


class BoostedTrees:
    """Gradient-boosted trees on log frequency, log size, log tokens, family and complexity."""

    name = "gradient-boosted trees"
    baseline = True

    def fit(self, evidence: Evidence, draws: int, generator: np.random.Generator) -> Grown:
        """Grow them on all checkpoints; precision from runs left out in FOLDS parts."""
        families = sorted({family for family, _ in evidence.kinds})
        features = _features(Cells.measured(evidence), evidence.finished, families)
        skill = np.clip(evidence.skill, 0.0, 1.0)
        tried = np.full(len(skill), np.nan)
        part = _parts(evidence)
        for fold in np.unique(part) if part.max() else []:
            away = part == fold
            grown = fit_trees(features[~away], skill[~away], evidence.cell_share[~away])
            tried[away] = grown.predict(features[away])
        done = evidence.finished
        precision = precision_of(evidence.skill[done], tried[done])
        return Grown(fit_trees(features, skill, evidence.cell_share), families, precision)


@dataclass(frozen=True)
class Grown:
    """Trees with what they need to be asked."""

    trees: Trees
    families: list[str]
    precision: float

    def mean(self, cells: Cells) -> FloatArray:
        """Mean skill, NaN where the family was not measured; shape (n, 1)."""
        features = _features(cells, np.ones(len(cells), dtype=bool), self.families)
        known = np.isin(np.array(cells.family, dtype=object), self.families)
        mean = np.clip(self.trees.predict(features), 0.0, 1.0)
        return np.where(known, mean, np.nan)[:, None]

    def new_run(self, cells: Cells) -> Scattered:
        """The mean, scattered."""
        mean = self.mean(cells)
        return Scattered(mean, np.full_like(mean, self.precision))

    def log_threshold_frequency(self, cells: Cells, skill: float) -> FloatArray:
        """Of the mean, within REACH of the cells' frequency; shape (n, 1)."""
        return _scanned(self.mean, cells, skill)


def _scanned(mean: Callable[[Cells], FloatArray], cells: Cells, skill: float) -> FloatArray:
    """ln of the frequency at which a mean crosses `skill`, NaN where it does not; shape (n, 1)."""
    found = np.full((len(cells), 1), np.nan)
    for index, (family, complexity, at) in enumerate(
        zip(cells.family, cells.complexity, cells.log_axes, strict=True)
    ):
        axes = np.tile(at, (GRID, 1))
        axes[:, 0] += np.linspace(-np.log(REACH), np.log(REACH), GRID)
        curve = mean(Cells([family] * GRID, np.full(GRID, complexity), axes))[:, 0]
        known = np.isfinite(curve)
        crossed = threshold_frequency(np.exp(axes[known, 0]), curve[known], skill, same=1.0)
        found[index] = np.nan if crossed is None else np.log(crossed)
    return found


def _final(evidence: Evidence, keep: np.ndarray) -> _Final:
    rows = evidence.finished & keep
    cells = Cells.measured(evidence)
    names = np.array(cells.family, dtype=object)[rows]
    chosen = Cells(list(names), cells.complexity[rows], cells.log_axes[rows])
    return _Final(chosen, np.clip(evidence.skill[rows], 0.0, 1.0))


def _features(cells: Cells, finished: np.ndarray, families: list[str]) -> FloatArray:
    """Shape (n, 5 + families)."""
    names = np.array(cells.family, dtype=object)
    one_hot = [(names == family).astype(np.float64) for family in families]
    return np.column_stack([cells.log_axes, np.log(cells.complexity), finished.astype(np.float64), *one_hot])


def _parts(evidence: Evidence) -> IntArray:
    """Which fold each row's run belongs to, shape (n,): spread over the sizes, and within them by what the
    runs measured, so that no name and no seed's number decides."""
    runs = len(evidence.run_ids)
    size = np.zeros(runs)
    size[evidence.run] = evidence.log_axes[:, 1]
    total = np.bincount(evidence.run, evidence.skill, runs)
    fold = np.empty(runs, dtype=np.int64)
    fold[np.lexsort((total, size))] = np.arange(runs) % FOLDS
    return fold[evidence.run]


def _nearest(candidates: np.ndarray, distance: FloatArray) -> np.ndarray:
    if not candidates.any():
        return candidates
    return candidates & (distance <= distance[candidates].min() + _TIE)
