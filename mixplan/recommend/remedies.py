"""The nearest plans that would do. Every number offered was put into the plan and solved, whole samples
included.

Shape legend: B = grid of token counts, T = tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from mixplan.recommend.alternatives import within_budgets
from mixplan.recommend.evaluate import evaluate, room_within_loss
from mixplan.recommend.problem import Problem
from mixplan.recommend.rounding import Whole, round_samples
from mixplan.recommend.shares import fit_shares
from mixplan.recommend.solve import Solver, rank

_HOPELESS = 0.01
"""A target that can only be met below this is no target: the task is better left out."""
_OUTWARD = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_TRIED = 2
"""Sizes that are tried with a changed limit: those that need least of the change."""


@dataclass(frozen=True)
class Remedy:
    """A change of limits that makes the plan feasible, and what it then gives."""

    changes: dict[str, float | None]
    """New values by limit; None: a task that must be left out."""
    size: str
    tokens: int
    flops: float


def target_of(task: str) -> str:
    """The name of a task's target among the limits."""
    return f"tasks.{task}.target_probability"


def remedy(solver: Solver, problem: Problem, names: list[str], lost: Iterable[str]) -> Remedy | None:
    """The least change of these limits that the solver confirms; None where it finds none.

    Args:
        lost: targets out of any reach; their tasks may be left out.
    """
    # Where targets are weighed, whether there is an answer is asked of the limits alone, which is quicker.
    objective = problem.objective if problem.targets_are_limits else "cheapest"
    current = replace(problem.without(names), objective=objective)
    changes: dict[str, float | None] = {}
    for name in names:
        value, current = _least_change(solver, problem, current, name)
        if value is None and name not in lost and not name.startswith("tasks."):
            return None
        changes[name] = value
    if all(changes.get(target_of(task), 0.0) is None for task in problem.tasks):
        return None  # a plan without tasks is no remedy
    answer = solved(solver, replace(current.settled(), objective=problem.objective))
    return None if answer is None else _as_remedy(problem, changes, answer)


def lowered_targets(solver: Solver, problem: Problem) -> Remedy | None:
    """Targets brought down to what the whole budget gives within every other limit, at the best size."""
    efforts = [solver.best_effort(problem, size) for size in range(len(problem.shapes))]
    reached = [effort.outcome.p_learned[0] for effort in efforts if effort is not None]
    if not reached:
        return None
    best = max(reached, key=lambda p: float((p / problem.target).min()))
    for outward in _OUTWARD:
        changes: dict[str, float | None] = {
            name: _round_outward(float(p) * (1 - outward), -1.0)
            for name, p, target in zip(map(target_of, problem.tasks), best, problem.target, strict=True)
            if p < target + 1e-6
        }
        if any(value is None or value < _HOPELESS for value in changes.values()):
            return None
        answer = solved(solver, problem.with_limits({name: float(v or 0.0) for name, v in changes.items()}))
        if answer is not None:
            return _as_remedy(problem, changes, answer)
    return None


def solved(solver: Solver, problem: Problem, sizes: Iterable[int] | None = None) -> Whole | None:
    """The best whole-sample answer over sizes (all by default), or None."""
    answers = []
    for size in range(len(problem.shapes)) if sizes is None else sizes:
        candidate = solver.best_at(problem, size)
        if candidate.feasible:
            answers.append(round_samples(solver, problem, candidate))
    answers = [answer for answer in answers if answer.candidate.feasible]
    return min(answers, key=lambda answer: rank(problem, answer.candidate), default=None)


def best_probability(solver: Solver, problem: Problem, task: int) -> float:
    """Highest probability of one task within all limits but its own target, which must be dropped."""
    return max(_best_probabilities(solver, problem, task).values(), default=0.0)


def _least_change(
    solver: Solver, original: Problem, dropped: Problem, name: str
) -> tuple[float | None, Problem]:
    """The value next to the plan's that gives `dropped`, where `name` is dropped, a whole-sample answer."""
    index = original.names.index(name)
    given, sign = float(original.limit[index]), float(original.sign[index])
    if name.startswith("tasks."):
        task = original.tasks.index(name.split(".", 1)[1].rpartition(".")[0])
        by_size = _best_probabilities(solver, dropped, task)
    else:
        by_size = _least_values(solver, dropped, index)
    if not by_size:
        return None, dropped
    sizes = sorted(by_size, key=lambda size: sign * by_size[size])
    reached = by_size[sizes[0]]
    reached = max(reached, given) if sign > 0 else min(reached, given)
    for outward in _OUTWARD:
        value = _round_outward(reached + sign * outward * (abs(reached) or 1e-3), sign)
        if name.endswith("max_share"):
            value = min(value, 1.0)
        if name.startswith("tasks.") and value < _HOPELESS:
            return None, dropped
        if value == given:
            continue
        moved = dropped.with_limits({name: value})
        moved = within_budgets(moved) if name.startswith("budget.") else moved
        if solved(solver, moved, sizes[:_TRIED]) is not None:
            return value, moved
    return None, dropped


def _least_values(solver: Solver, problem: Problem, index: int) -> dict[int, float]:
    """Least that a feasible mixture takes of a dropped limit at each size that has one; the most, for a lower
    limit."""
    sign = float(problem.sign[index])
    found = {}
    for size in range(len(problem.shapes)):
        screened, candidate = solver.screen(problem, size), solver.best_at(problem, size)
        held = list(sign * screened.values[screened.feasible, index])
        if candidate.feasible:  # where little is feasible the grid may pass it by
            held.append(sign * float(candidate.outcome.values[0, index]))
        if held and np.isfinite(min(held)):
            found[size] = sign * float(min(held))
    return found


def _best_probabilities(solver: Solver, problem: Problem, task: int) -> dict[int, float]:
    """Highest probability of one task at each size where its target's absence leaves a solution."""
    found = {}
    for size in range(len(problem.shapes)):
        tokens = solver.grid(problem, size)[::4]
        needed = solver.needs.at(problem, size, tokens)
        needed[:, task] = np.inf  # as much of it as there is room for
        index = np.full(len(tokens), size)
        room = room_within_loss(problem, solver.forecast, index, tokens)
        shares = fit_shares(problem, tokens, needed, most_rare=room)
        outcome = evaluate(problem, solver.forecast, index, tokens, shares)
        # Needs are interpolated here; what is offered is checked exactly afterwards.
        held = outcome.p_learned[(outcome.excess <= 1e-3).all(axis=1), task]
        if len(held):
            found[size] = float(held.max())
    return found


def _as_remedy(problem: Problem, changes: dict[str, float | None], answer: Whole) -> Remedy:
    size, tokens = answer.candidate.size, answer.samples * problem.sequence_length
    return Remedy(changes, problem.shapes[size].name, tokens, tokens * float(problem.flops_per_token[size]))


def _round_outward(value: float, sign: float) -> float:
    """Three significant digits, to the loose side: up for upper limits, down for lower ones."""
    if value == 0:
        return 0.0
    digits = 10.0 ** (np.floor(np.log10(abs(value))) - 2)
    rounded = np.ceil(value / digits - 1e-9) if sign > 0 else np.floor(value / digits + 1e-9)
    return float(f"{rounded * digits:.3g}")
