"""Training held against theory: transitions, evicted tasks, the order of learning, retention by gap.

Shape legend: K = tasks, W = widths (rising), Q = gaps, n = rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from mixplan.testbed import theory
from mixplan.testbed.batches import SPREAD
from mixplan.testbed.mixture import FloatArray, Mixture
from mixplan.testbed.parts import LONG, Part
from mixplan.testbed.rows import Rows

CAPTURED = 0.5
"""Normalised signal of a feature from which it counts as captured: an optimum has 1 or less than 0."""
Row = dict[str, Any]


def findings(part: Part, rows: Rows) -> dict[str, Any]:
    """What a finished part shows, for JSON.

    Returns:
        `transitions`, `order` and `implied_exponent` (of the frequency that a width just learns) for parts
        without gaps; `evicted` for a long horizon; `retention` for parts with gaps.
    """
    final = [row for row in rows.learning if row["step"] == part.steps]
    if part.gaps != (SPREAD,):
        return {"retention": retention(part, final)}
    if part.name == LONG:
        return {"evicted": evicted(part, final)}
    return {
        "transitions": transitions(part, final),
        "order": order(part, rows.learning),
        "implied_exponent": theory.implied_exponent(part.mixture, CAPTURED),
    }


def transitions(part: Part, final: list[Row]) -> list[dict[str, Any]]:
    """Where each task's first feature is captured, in theory and in the mean over seeds of the last rows.

    `steps_off` counts widths of the grid between the two; a task that no width of the grid should capture,
    and none did, is 0 off. Beyond the grid counts as one step beyond its last width.
    """
    grid = sorted(part.widths)
    signal = _grid(final, grid, part.mixture, "first_feature_signal")
    critical = theory.critical_widths(part.mixture)[:, 0]
    found = []
    for k in range(part.mixture.tasks):
        expected = int(np.searchsorted(grid, critical[k]))
        reached = np.flatnonzero(signal[k] >= CAPTURED)
        measured = int(reached[0]) if len(reached) else len(grid)
        found.append(
            {
                "task": k + 1,
                "critical_width": int(critical[k]),
                "expected_on_grid": grid[expected] if expected < len(grid) else None,
                "measured_on_grid": grid[measured] if measured < len(grid) else None,
                "steps_off": measured - expected,
            }
        )
    return found


def evicted(part: Part, final: list[Row]) -> list[dict[str, Any]]:
    """Final normalised signal of the tasks that the optimum of their width leaves out altogether.

    Such a task belongs at or below the random level, 0, however long the run.
    """
    found = []
    for width in sorted(part.widths):
        left_out = np.flatnonzero(theory.captured(part.mixture, width).sum(axis=1) == 0)
        skills = _grid(final, [width], part.mixture, "skill")[left_out, 0]
        if len(left_out):
            found.append(
                {
                    "width": width,
                    "steps": part.steps,
                    "tasks": (left_out + 1).tolist(),
                    "highest_skill": float(skills.max()),
                    "mean_skill": float(skills.mean()),
                }
            )
    return found


def order(part: Part, rows: list[Row]) -> dict[str, float]:
    """Rank correlation of what is learned first with utility and with frequency, over tasks' first features.

    In width: a feature's mean signal over the widths at the end. In time: its mean over the evaluations at
    the largest width, which double in steps.
    """
    final = [row for row in rows if row["step"] == part.steps]
    in_width = _grid(final, sorted(part.widths), part.mixture, "first_feature_signal").mean(axis=1)
    widest = [row for row in rows if row["block_params"] == max(part.widths)]
    in_time = _mean(widest, part.mixture, "first_feature_signal")
    utility, frequency = part.mixture.utilities()[:, 0], part.mixture.priors()
    return {
        f"{axis}_by_{name}": rank_correlation(learned, truth)
        for axis, learned in (("width", in_width), ("time", in_time))
        for name, truth in (("utility", utility), ("frequency", frequency))
    }


def retention(part: Part, final: list[Row]) -> list[dict[str, Any]]:
    """Final normalised signal of the rarest task by width and gap: mean and spread over seeds."""
    by_cell: dict[tuple[int, int], list[float]] = defaultdict(list)
    for row in final:
        if row["task"] == f"task_{part.mixture.tasks}":
            by_cell[int(row["block_params"]), round(row["gap_tokens"] / part.batch)].append(row["skill"])
    return [
        {
            "width": width,
            "gap_steps": gap,
            "skill": float(np.mean(skills)),
            "skill_sd": float(np.std(skills, ddof=1)) if len(skills) > 1 else None,
            "seeds": len(skills),
        }
        for (width, gap), skills in sorted(by_cell.items())
    ]


def rank_correlation(first: FloatArray, second: FloatArray) -> float:
    """Spearman's, with mean ranks for ties; 0 where one of them has a single value."""
    a, b = _ranks(first), _ranks(second)
    if not a.any() or not b.any():
        return 0.0
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _ranks(values: FloatArray) -> FloatArray:
    """Centred ranks, shape (n,); values that differ by rounding only are tied."""
    close = np.abs(values[:, None] - values) <= theory.TIE * np.abs(values)
    below = (values[:, None] > values) & ~close
    rank = below.sum(axis=1) + (close.sum(axis=1) - 1) / 2
    return rank - rank.mean()


def _grid(rows: list[Row], widths: list[int], mixture: Mixture, column: str) -> FloatArray:
    """Mean over seeds, shape (K, W)."""
    return np.column_stack(
        [_mean([row for row in rows if row["block_params"] == width], mixture, column) for width in widths]
    )


def _mean(rows: Iterable[Row], mixture: Mixture, column: str) -> FloatArray:
    """Mean of a column by task, shape (K,)."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        values[row["task"]].append(row[column])
    return np.array([np.mean(values[f"task_{k + 1}"]) for k in range(mixture.tasks)])
