"""The learning table as a grid of final cells: what each size ended up with, over seeds.

Shape legend: n = rows, F = frequencies of one task kind, R = rungs (smallest first).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixplan.documents.table import Table
from mixplan.report.choice import final_rows
from mixplan.report.grouping import codes, groups, rungs_of
from mixplan.report.text import kind_name, one_in, percent

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rung:
    """One size of the ladder."""

    name: str
    block_params: float
    tokens: float
    """Longest horizon of its runs."""
    runs: int
    """Runs that reached it."""


@dataclass(frozen=True)
class Kind:
    """One task kind (family and complexity) over the ladder."""

    family: str
    complexity: float
    frequency: Array
    """Shape (F,), instances per training token, rising."""
    skill: Array
    """Mean over seeds and tasks, shape (F, R); NaN where nothing was measured."""
    low: Array
    """Smallest of them, shape (F, R)."""
    high: Array
    """Largest of them, shape (F, R)."""
    measured: NDArray[np.int64]
    """How many, shape (F, R)."""
    source: bool = False
    """A source of the team's own: its frequency is its share of the training tokens."""

    @property
    def name(self) -> str:
        """As shown on the page."""
        return kind_name(self.family, self.complexity)

    def often(self, frequency: float) -> str:
        """A frequency in words: `1 in 4.35 K tokens`; of a source `2.5 % of the tokens`."""
        return f"{percent(frequency)} of the tokens" if self.source else one_in(frequency)

    def learned(self, threshold: float) -> NDArray[np.bool_]:
        """Where the mean skill reaches the threshold, shape (F, R); unmeasured cells are False."""
        return np.nan_to_num(self.skill, nan=-np.inf) >= threshold


@dataclass(frozen=True)
class Ladder:
    """All final cells of a learning table."""

    rungs: list[Rung]
    kinds: list[Kind]
    threshold: float
    """Skill from which a cell counts as learned."""
    shorter_ends: int
    """Ends of horizons left out because their rung has a longer one."""

    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Learned and measured cells per rung, both of shape (R,)."""
        learned = sum(
            (kind.learned(self.threshold).sum(axis=0) for kind in self.kinds), np.zeros(len(self.rungs))
        )
        measured = sum(((kind.measured > 0).sum(axis=0) for kind in self.kinds), np.zeros(len(self.rungs)))
        return learned.astype(np.int64), measured.astype(np.int64)


def ladder_of(
    table: Table, threshold: float, sources: frozenset[str] = frozenset(), column: str = "skill"
) -> Ladder:
    """The grid of final cells of a checked table.

    Args:
        table: rows of one protocol, at least one of them at the end of a horizon.
        threshold: skill from which a cell counts as learned.
        sources: names of the team's own sources.
        column: what the cells hold.
    """
    final, shorter = final_rows(table)
    names, at = rungs_of(final)
    run = codes(final["rung"], final["block_params"], final["run_id"])
    rungs = [
        Rung(name, size, float(final["tokens"][at == i].max()), len(np.unique(run[at == i])))
        for i, (name, size) in enumerate(names)
    ]
    kind = codes(final["family"], final["complexity"])
    each = [np.flatnonzero(kind == k) for k in range(kind.max() + 1)]
    kinds = [_kind(final, rows, at, len(rungs), sources, column) for rows in each]
    return Ladder(rungs, sorted(kinds, key=lambda k: (k.family, k.complexity)), threshold, shorter)


def _kind(
    final: Table,
    rows: NDArray[np.int64],
    at: NDArray[np.int64],
    width: int,
    sources: frozenset[str],
    column: str,
) -> Kind:
    frequency, which = groups(final["frequency"][rows])
    skill = final[column][rows]
    cell = which * width + at[rows]
    size = len(frequency) * width
    measured = np.bincount(cell, minlength=size)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(cell, weights=skill, minlength=size) / measured
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, cell, skill)
    np.maximum.at(high, cell, skill)
    empty = measured == 0
    low[empty] = high[empty] = np.nan
    shape = (len(frequency), width)
    return Kind(
        str(final["family"][rows[0]]),
        float(final["complexity"][rows[0]]),
        frequency,
        mean.reshape(shape),
        low.reshape(shape),
        high.reshape(shape),
        measured.reshape(shape),
        # The learning table names such a cell after its source and the share that was asked for.
        source=any(str(task).rpartition("@")[0] in sources for task in final["task"][rows]),
    )
