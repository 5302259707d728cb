"""What can be said of a task kind whose threshold the ladder does not bracket, and of one that levels off.

Shape legend: D = draws.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents.calibration import FittedLaw, TaskCoverage
from mixplan.laws.drawn import interval_90
from mixplan.laws.evidence import Evidence, FloatArray
from mixplan.laws.learning import ceiling_name
from mixplan.laws.protocol import Cells
from mixplan.laws.surface import Surface
from mixplan.laws.thin_tables import SAME_LENGTH
from mixplan.units import number

SURE = 0.95


def coverage_warnings(
    tasks: list[TaskCoverage],
    evidence: Evidence,
    laws: list[FittedLaw],
    weights: dict[str, float],
    learned_skill: float,
) -> list[str]:
    """One-sided statements about kinds that were never learned, or always; and which have no final cell.

    Args:
        tasks: coverage of the kinds of `evidence`.
        evidence: rows of one protocol.
        laws: as fitted, with draws where they have a share in the forecasts.
        weights: their shares.
        learned_skill: the threshold.
    """
    found = []
    statuses = {task.status for task in tasks} - {"never finished"}
    if statuses == {"never learned"}:
        found.append(
            "no final cell of any task was learned: thresholds lie beyond this ladder, and only that can be "
            "said; use larger rungs, more tokens, higher frequencies or easier tasks"
        )
    elif statuses == {"always learned"}:
        found.append(
            "every final cell of every task was learned: thresholds lie below this ladder, and only that can "
            "be said; use lower frequencies, smaller rungs or harder tasks"
        )
    shares = [(Surface(law), weights[law.law]) for law in laws if weights.get(law.law)]
    for task in tasks:
        name = f"{task.family} of complexity {task.complexity:g}"
        if task.status == "never learned":
            found.append(
                f"{name}: censored, learned in none of {task.cells} final cells; "
                f"{_bound(task, evidence, shares, learned_skill)}; where it lies beyond that is not known, a "
                "probability above these cells is a guess from the other tasks"
            )
        elif task.status == "always learned":
            found.append(
                f"{name}: censored, learned in all {task.cells} final cells; "
                f"{_bound(task, evidence, shares, learned_skill)}; where it stops being learned below that "
                "is not known"
            )
        elif task.status == "never finished":
            found.append(
                f"{name}: measured before the ends of runs only; what is said about finished runs of it is "
                "read off those rows and off how other kinds end"
            )
    return found


def _bound(
    task: TaskCoverage, evidence: Evidence, laws: list[tuple[Surface, float]], learned_skill: float
) -> str:
    """Beyond which frequency the threshold lies, where the table says most about it.

    That is the largest size and longest training of a kind that was never learned, the smallest and shortest
    of one that always was. The bound is where SURE of the draws agree, and no further out than was measured:
    of what lies beyond, the draws know from other kinds only.
    """
    never = task.status == "never learned"
    best = np.max if never else np.min
    kind = evidence.kinds.index((task.family, task.complexity))
    rows = np.flatnonzero(evidence.finished & (evidence.kind == kind))
    for axis in (1, 2):
        values = evidence.log_axes[rows, axis]
        rows = rows[np.abs(values - best(values)) < np.log(SAME_LENGTH)]
    at = evidence.log_axes[rows[0]].copy()
    at[0] = best(evidence.log_axes[rows, 0])
    measured, size, tokens = np.exp(at)
    where = f"at {number(size)} block parameters and {number(tokens)} tokens"
    cells = Cells([task.family], np.array([task.complexity]), at[None, :])
    thresholds = [(law.log_threshold_frequency(cells, learned_skill)[0], share) for law, share in laws]
    if never:
        bound = min(quantile(thresholds, 1.0 - SURE), float(at[0]))
        return f"{where} its threshold frequency is above {np.exp(bound):.2g} ({100 * SURE:g} %)"
    bound = max(quantile(thresholds, SURE), float(at[0]))
    if not np.isfinite(bound) or bound >= 0.0:
        return (
            f"{where} it was learned at frequency {measured:.2g}, and the draws bound its threshold nowhere"
        )
    return f"{where} its threshold frequency is below {np.exp(bound):.2g} ({100 * SURE:g} %)"


def quantile(parts: list[tuple[FloatArray, float]], level: float) -> float:
    """Quantile of a mixture of draws, one of them; they may be infinite.

    Args:
        parts: draws, shape (D,), and the weight of all of them together.
        level: in (0, 1); a low one is rounded down to a draw, a high one up.
    """
    values = np.concatenate([drawn for drawn, _ in parts])
    weights = np.concatenate([np.full(len(drawn), share / len(drawn)) for drawn, share in parts])
    order = np.argsort(values)
    below = np.cumsum(weights[order]) / weights.sum()
    if level < 0.5:
        return float(values[order[max(int(np.searchsorted(below, level, side="right")) - 1, 0)]])
    return float(values[order[min(int(np.searchsorted(below, level, side="left")), len(order) - 1)]])


def ceiling_warnings(law: FittedLaw, tasks: list[TaskCoverage], learned_skill: float) -> list[str]:
    """Task kinds whose final cells level off below what counts as learned."""
    found = []
    for task in tasks:
        at = law.parameters.index(ceiling_name((task.family, task.complexity)))
        low, high = interval_90(np.array([draw[at] for draw in law.draws]))
        seen = task.status not in ("never learned", "never finished")
        if seen and law.values[at] < learned_skill:
            found.append(
                f"{task.family} of complexity {task.complexity:g} levels off at skill {law.values[at]:.2f} "
                f"(90 % interval {low:.2f} to {high:.2f}), below the {learned_skill:g} that "
                "counts as learned: more of anything makes it learned by luck only"
            )
    return found
