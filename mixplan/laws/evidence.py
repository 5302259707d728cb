"""The learning table as arrays in one fixed order, checked for what a law cannot survive.

Shape legend: n = rows (one cell at one checkpoint of one run), R = runs, K = task kinds (family, complexity).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixplan.documents import Table
from mixplan.documents.calibration import TaskCoverage
from mixplan.documents.measurements import STANDARD
from mixplan.documents.protocols import common_ground, protocols_of
from mixplan.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Kind = tuple[str, float]

AXES = ("frequency", "block_params", "tokens")
"""Columns whose logarithms the learning law is linear in, in the order of its slopes."""
SKILL_TOLERANCE = 0.02
"""How far accuracy may be off, rounded by another tool, before it and skill contradict each other."""


@dataclass(frozen=True)
class Evidence:
    """Rows of the learning table, sorted by run, cell and step: the order of the file does not matter."""

    table: Table
    """The sorted rows, with all columns of the file."""
    run_ids: list[str]
    """R run names, sorted."""
    run: IntArray
    """Index into `run_ids`, shape (n,)."""
    kinds: list[Kind]
    """K task kinds, sorted."""
    kind: IntArray
    """Index into `kinds`, shape (n,)."""
    log_axes: FloatArray
    """Natural logarithms of frequency, block_params and tokens, shape (n, 3)."""
    skill: FloatArray
    """Skill as measured, shape (n,). Below 0 where a run guessed worse than chance: laws of the mean need
    that, since cutting guesses off at 0 would leave only the lucky ones (a bias of +0.035 with 128 two-way
    instances)."""
    finished: BoolArray
    """Whether the row stands at the end of a horizon: where `decayed` is 1 (the end of a run or of one of its
    branches), or at the last step of a run that says nothing of decays; shape (n,)."""
    cell: IntArray
    """Index of the row's cell in its run, shape (n,)."""
    cell_share: FloatArray
    """1 ÷ checkpoints of the row's cell in its run, so that every cell of a run weighs 1, shape (n,)."""

    def where(self, keep: BoolArray) -> Evidence:
        """The evidence of some rows only; `finished` is judged anew."""
        return collect_evidence(self.table.where(keep))


def collect_evidence(learning: Table) -> Evidence:
    """Sort and index a learning table that keeps the rules of its columns and has no `contradictions`."""
    table = learning.where(ordered(learning, ("run_id", "family", "complexity", "frequency", "task", "step")))
    run_ids, run = np.unique(table["run_id"].astype(str), return_inverse=True)
    pairs = list(zip((str(f) for f in table["family"]), table["complexity"].tolist(), strict=True))
    kinds = sorted(set(pairs))
    position = {kind: index for index, kind in enumerate(kinds)}
    cell = _groups(table, ("run_id", "family", "complexity", "frequency", "task"))
    return Evidence(
        table=table,
        run_ids=[str(name) for name in run_ids],
        run=run.astype(np.int64),
        kinds=kinds,
        kind=np.array([position[pair] for pair in pairs], dtype=np.int64),
        log_axes=np.log(np.column_stack([table[axis] for axis in AXES])),
        # 0.85 right of a guess of 0.25 is a skill of 0.8 less one bit, and must count as 0.8.
        skill=np.round(table["skill"], 9),
        finished=_finished(table, run, len(run_ids)),
        cell=cell.astype(np.int64),
        cell_share=1.0 / np.bincount(cell)[cell],
    )


def _finished(table: Table, run: IntArray, runs: int) -> BoolArray:
    last = np.full(runs, -np.inf)
    np.maximum.at(last, run, table["step"])
    at_end = table["step"] == last[run]
    if "decayed" not in table:
        return at_end
    said = np.zeros(runs, dtype=bool)
    said[run[np.isfinite(table["decayed"])]] = True
    return np.where(said[run], table["decayed"] == 1, at_end)


def standard_rows(table: Table, name: str) -> tuple[Table, list[str]]:
    """The rows that laws may be fitted to: cells that are spread over the whole run.

    Cells that arrive in bursts, or repeat fewer instances, have thresholds of their own. A ladder whose cells
    all share a departure from the standard (a placement, say) is fitted by what they have in common.

    Returns:
        The rows, and a warning that says what was left out or by which protocol the rest was injected.

    Raises:
        InputError: no protocol is the common ground of the others.
    """
    if "protocol" not in table:
        return table, []
    protocol = protocols_of(table)
    found = sorted(set(protocol))
    base = common_ground(found)
    if base is None:
        raise InputError(
            f"{name}: no row is {STANDARD!r}, and among the protocols ({', '.join(map(repr, found))}) there "
            "is none that the others only add to; laws need cells of one protocol: inject some cells by it"
        )
    said = []
    if base != STANDARD:
        said.append(f"{name}: fitted to cells injected by the protocol {base!r}; forecasts are for it")
    kept = protocol == base
    if not kept.all():
        cells = _groups(table, ("run_id", "family", "complexity", "task", "frequency"))
        others = ", ".join(repr(one) for one in found if one != base)
        said.append(
            f"{name}: {len(np.unique(cells[~kept]))} of {len(np.unique(cells))} cells (counted in every run) "
            f"were injected by other protocols ({others}) and are left out of the laws"
        )
    return table.where(kept), said


def contradictions(learning: Table) -> list[str]:
    """Rows that cannot all be true: a run of two sizes, a cell twice at one step, skill against accuracy."""
    problems = one_value_per(learning, "run_id", ("rung", "block_params", "seed"), "learning")
    problems += one_value_per(learning, "rung", ("block_params",), "learning")
    cell = _groups(learning, ("run_id", "family", "complexity", "frequency", "task", "step"))
    _, first, times = np.unique(cell, return_index=True, return_counts=True)
    if (times > 1).any():
        row = first[np.argmax(times > 1)]
        problems.append(
            f"learning: {int((times > 1).sum())} cell(s) stand twice at the same step of the same run, first "
            f"row {row + 1} (run {learning['run_id'][row]}, task {learning['task'][row]}); keep one row each"
        )
    if "decayed" in learning and not _finished_at_all(learning):
        problems.append(
            "learning: `decayed` is 1 in no row, so no run has an end to forecast; set it to 1 where the "
            "learning rate had decayed, or leave the column out"
        )
    implied = learning["chance"] + learning["skill"] * (1.0 - learning["chance"])
    wrong = np.flatnonzero(np.abs(implied - learning["accuracy"]) > SKILL_TOLERANCE)
    if len(wrong):
        row = wrong[0]
        right = (learning["accuracy"][row] - learning["chance"][row]) / (1.0 - learning["chance"][row])
        problems.append(
            f"learning: skill must be (accuracy − chance) ÷ (1 − chance); {len(wrong)} row(s) differ, first "
            f"row {row + 1} with skill {learning['skill'][row]:.3g} where accuracy and chance give "
            f"{right:.3g}"
        )
    return problems


def _finished_at_all(learning: Table) -> bool:
    run_ids, run = np.unique(learning["run_id"].astype(str), return_inverse=True)
    return bool(_finished(learning, run, len(run_ids)).any())


def one_value_per(table: Table, owner: str, columns: tuple[str, ...], name: str) -> list[str]:
    """Problems where one `owner` (a run, a rung) has several values of what it can only have one of."""
    problems = []
    for column in columns:
        seen: dict[str, set[str]] = {}
        for key, value in zip(table[owner], table[column], strict=True):
            seen.setdefault(str(key), set()).add(str(value) if isinstance(value, str) else f"{value:g}")
        several = sorted(key for key, values in seen.items() if len(values) > 1)
        if several:
            values = ", ".join(sorted(seen[several[0]])[:4])
            problems.append(
                f"{name}: each {owner} must have one {column}; {len(several)} have several, first "
                f"{several[0]!r} with {values}"
            )
    return problems


def coverage(evidence: Evidence, learned_skill: float) -> list[TaskCoverage]:
    """How far the final checkpoints pin each task kind down."""
    tasks = []
    for index, (family, complexity) in enumerate(evidence.kinds):
        skills = evidence.skill[evidence.finished & (evidence.kind == index)]
        learned = int((skills >= learned_skill).sum())
        if not len(skills):
            status = "never finished"
        elif not learned:
            status = "never learned"
        else:
            status = "always learned" if learned == len(skills) else "bracketed"
        tasks.append(
            TaskCoverage.model_validate(
                {
                    "family": family,
                    "complexity": complexity,
                    "cells": len(skills),
                    "learned": learned,
                    "status": status,
                }
            )
        )
    return tasks


def ordered(table: Table, names: tuple[str, ...]) -> IntArray:
    """Indices that sort the table by the named columns, first name first."""
    keys = [_codes(table[name]) for name in reversed(names)]
    return np.lexsort(keys)


def _groups(table: Table, names: tuple[str, ...]) -> IntArray:
    """A number for every combination of values of the named columns, shape (n,)."""
    codes = np.column_stack([_codes(table[name]) for name in names])
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)


def _codes(column: np.ndarray) -> IntArray:
    values = column.astype(str) if column.dtype == object else column
    return np.unique(values, return_inverse=True)[1].reshape(-1)
