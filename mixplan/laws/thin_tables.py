"""Tables that are right and say little: what was measured once only, and what is no measurement of its own.

Shape legend: n = rows.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents import Table
from mixplan.laws.evidence import Evidence, ordered
from mixplan.laws.forms import COMBINED
from mixplan.units import number

COMPARED, VALUES = 10, 5
"""Rows that two runs must share, and different skills among them, before equality is a copy and no chance."""
SAME_LENGTH = 1.05
"""Ends of runs within this ratio of tokens are of one training length."""


def copies(learning: Table) -> list[str]:
    """Runs that hold the very numbers of another run of their size: no second measurement."""
    cell = ("tokens", "family", "complexity", "frequency", "task")
    table = learning.where(ordered(learning, ("rung", "run_id", *cell)))
    run = table["run_id"].astype(str)
    numbers = [name for name in ("accuracy", "choice_nll", "lm_loss") if name in table]
    seen: dict[tuple[object, ...], str] = {}
    found = []
    for rows in np.split(np.arange(len(run)), np.flatnonzero(run[1:] != run[:-1]) + 1):
        if len(rows) < COMPARED or len(np.unique(table["skill"][rows])) < VALUES:
            continue
        content = (
            str(table["rung"][rows[0]]),
            *(tuple(table[name][rows].tolist()) for name in ("tokens", "frequency", "complexity")),
            *(table[name][rows].tobytes() for name in numbers),
        )
        first = seen.setdefault(content, str(run[rows[0]]))
        if first != run[rows[0]]:
            found.append(
                f"learning: runs {first!r} and {str(run[rows[0]])!r} hold the same numbers in all "
                f"{len(rows)} rows; a copy counted as a second seed makes noise look small: keep one"
            )
    return found


def thin(evidence: Evidence) -> list[str]:
    """What was not measured, and rests on assumptions; the rows are of one protocol."""
    table, finished = evidence.table, evidence.finished
    found = []
    ended = {evidence.run_ids[run] for run in np.unique(evidence.run[finished])}
    open_ = [run for run in evidence.run_ids if run not in ended]
    if open_:
        found.append(
            f"{len(open_)} of {len(evidence.run_ids)} runs have no end (`decayed` is 1 in none of their "
            f"rows), first {open_[0]}; their rows count as taken before the learning rate decays"
        )
    seeds: dict[str, set[float]] = {}
    for rung, seed in zip(table["rung"], table["seed"].tolist(), strict=True):
        seeds.setdefault(str(rung), set()).add(seed)
    if max(map(len, seeds.values())) == 1:
        found.append(
            "one seed at every size: how much runs differ by luck was not measured, and is taken from how "
            "far they lie from the law; a second seed on the smallest rungs would measure it"
        )
    ends = np.exp(evidence.log_axes[finished, 2])
    if ends.max() < SAME_LENGTH * ends.min():
        found.append(
            f"every run ends at {number(float(ends.max()))} tokens: what shorter or longer training brings "
            "is read off unfinished runs; runs of another length would measure it"
        )
    cells, own = int(finished.sum()), len(COMBINED.parameters) + len(evidence.kinds)
    if cells < own:
        found.append(
            f"{cells} final cells for a law of {own} numbers: forecasts are mostly what the law assumes "
            "before any measurement; measure more task kinds, frequencies and rungs"
        )
    return found
