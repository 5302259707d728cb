"""The learning table as a grid of final cells: what each size ended up with, over seeds.

Shape legend: n = rows, F = frequencies of one task kind, R = rungs (smallest first).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixplan.documents.table import Table
from mixplan.report.text import kind_name

Array = NDArray[np.float64]
SAME = 1.05  # frequencies, delays and token counts closer than 5 % are the same nominal value


@dataclass(frozen=True)
class Rung:
    """One size of the ladder."""

    name: str
    block_params: float
    tokens: float
    """Longest training among its runs."""
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

    @property
    def name(self) -> str:
        """As shown on the page."""
        return kind_name(self.family, self.complexity)

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
    shorter_runs: int
    """Runs left out because they ended before their rung's longest training."""

    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Learned and measured cells per rung, both of shape (R,)."""
        learned = sum(
            (kind.learned(self.threshold).sum(axis=0) for kind in self.kinds), np.zeros(len(self.rungs))
        )
        measured = sum(((kind.measured > 0).sum(axis=0) for kind in self.kinds), np.zeros(len(self.rungs)))
        return learned.astype(np.int64), measured.astype(np.int64)


def groups(values: Array) -> tuple[Array, NDArray[np.int64]]:
    """Nominal values of a column that may carry small realised differences.

    Returns:
        Representatives (geometric means; 0 stays 0), rising, and each value's index among them, shape (n,).
    """
    distinct, inverse = np.unique(values, return_inverse=True)
    label = np.zeros(len(distinct), dtype=np.int64)
    start = 0
    for i in range(1, len(distinct)):
        fresh = distinct[i] > distinct[start] * SAME
        label[i] = label[i - 1] + int(fresh)
        start = i if fresh else start
    with np.errstate(divide="ignore"):
        logs = np.log(distinct)
    means = np.array([np.exp(logs[label == k].mean()) for k in range(label[-1] + 1)])
    alone = np.array(
        [distinct[label == k][0] if (label == k).sum() == 1 else np.nan for k in range(len(means))]
    )
    return np.where(np.isnan(alone), means, alone), label[inverse.ravel()]


def codes(*columns: np.ndarray) -> NDArray[np.int64]:
    """One integer per distinct combination of the columns' values, shape (n,)."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        _, index = np.unique(column.astype(str) if column.dtype == object else column, return_inverse=True)
        code = code * (int(index.max()) + 1) + index.ravel()
        code = np.unique(code, return_inverse=True)[1].ravel()
    return code


def rungs_of(table: Table) -> tuple[list[tuple[str, float]], NDArray[np.int64]]:
    """(name, block parameters) of a table's rungs, smallest first; each row's index, shape (n,)."""
    code = codes(table["rung"], table["block_params"])
    first = np.unique(code, return_index=True)[1]
    named = [(str(table["rung"][i]), float(table["block_params"][i])) for i in first]
    order = sorted(range(len(named)), key=lambda i: (named[i][1], named[i][0]))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return [named[i] for i in order], rank[code]


def final_rows(learning: Table) -> tuple[Table, int]:
    """Last evaluation of every run that went as far as its rung's longest, and how many runs did not."""
    run = codes(learning["rung"], learning["block_params"], learning["run_id"])
    rung = rungs_of(learning)[1]
    tokens = learning["tokens"]
    last_of_run = np.full(run.max() + 1, -np.inf)
    np.maximum.at(last_of_run, run, tokens)
    last_of_rung = np.full(rung.max() + 1, -np.inf)
    np.maximum.at(last_of_rung, rung, tokens)
    complete = last_of_run[run] * SAME >= last_of_rung[rung]
    return learning.where(complete & (tokens == last_of_run[run])), len(np.unique(run[~complete]))


def ladder_of(learning: Table, threshold: float) -> Ladder:
    """The grid of final cells of a checked learning table with at least one row."""
    final, shorter = final_rows(learning)
    names, at = rungs_of(final)
    run = codes(final["rung"], final["block_params"], final["run_id"])
    rungs = [
        Rung(name, size, float(final["tokens"][at == i].max()), len(np.unique(run[at == i])))
        for i, (name, size) in enumerate(names)
    ]
    kind = codes(final["family"], final["complexity"])
    kinds = [_kind(final, np.flatnonzero(kind == k), at, len(rungs)) for k in range(kind.max() + 1)]
    return Ladder(rungs, sorted(kinds, key=lambda k: (k.family, k.complexity)), threshold, shorter)


def _kind(final: Table, rows: NDArray[np.int64], at: NDArray[np.int64], width: int) -> Kind:
    frequency, which = groups(final["frequency"][rows])
    skill = final["skill"][rows]
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
    )
