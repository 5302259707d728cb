"""Why a plan has no answer: which limits cannot hold together, and the nearest plans that would do.

Every number that is offered has been put into the plan and solved again, whole samples included.

Shape legend: B = grid of token counts, S = sources, T = tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mixplan.documents.forecast import FloatArray
from mixplan.recommend.evaluate import evaluate, room_within_loss
from mixplan.recommend.problem import FAR, Problem
from mixplan.recommend.rounding import Whole, round_samples
from mixplan.recommend.solve import Candidate, Solver, fit_shares, missed_limits, rank

_SHOWN = 4
_HOPELESS = 0.01
"""A target that can only be met below this is no target: the task is better left out."""
_OUTWARD = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Remedy:
    """A change of limits that makes the plan feasible, and what it then gives."""

    changes: dict[str, float | None]
    """New values by limit; None: a task that must be left out."""
    size: str
    tokens: int
    flops: float


@dataclass(frozen=True)
class Diagnosis:
    """Why there is no answer."""

    unreachable: dict[str, float]
    """Tasks that no size reaches even with every other limit dropped; the best probability they reach."""
    clash: list[str]
    """Limits that cannot hold together, each of them needed for the contradiction."""
    remedies: list[Remedy]
    """Smallest sets of limits to move, one remedy a set."""


def diagnose(solver: Solver, problem: Problem) -> Diagnosis:
    """Find what clashes in an infeasible problem and what would help."""
    unreachable = _unreachable(solver, problem)
    lost = [_target(task) for task in unreachable]
    rest = problem.without(lost)
    if _solved(solver, rest) is not None:
        remedy = _remedy(solver, problem, lost, lost)
        return Diagnosis(unreachable, lost, [remedy] if remedy else [])
    clash = _clash(solver, rest)
    found = [_remedy(solver, problem, [*names, *lost], lost) for names in _corrections(solver, rest, clash)]
    remedies = [remedy for remedy in found if remedy][:_SHOWN]
    if not remedies:  # what was smallest would have left every task out: keep the targets, whatever it takes
        loose = [name for name in rest.active_names() if not name.startswith("tasks.")]
        remedy = _remedy(solver, problem, [*_reduced(solver, rest, loose), *lost], lost)
        remedies = [remedy] if remedy else []
    lowered = _lowered_targets(solver, problem)
    if lowered and all(set(lowered.changes) != set(remedy.changes) for remedy in remedies):
        remedies.append(lowered)
    return Diagnosis(unreachable, lost + clash, remedies)


def _target(task: str) -> str:
    return f"tasks.{task}.target_probability"


def _unreachable(solver: Solver, problem: Problem) -> dict[str, float]:
    found = {}
    for index, task in enumerate(problem.tasks):
        alone = problem.without([name for name in problem.active_names() if name != _target(task)])
        if not solver.may_exist(alone):
            found[task] = _best_probability(solver, alone, index)
    return found


def _clash(solver: Solver, problem: Problem) -> list[str]:
    """An irreducible set of limits without a solution: what can be dropped while none appears, is dropped.

    Share bounds are tried first, budgets last, so that the set names what costs money where it can.
    """
    order = sorted(reversed(problem.active_names()), key=lambda name: not name.endswith("_share"))
    dropped: list[str] = []
    for name in order:
        if not solver.may_exist(problem.without([*dropped, name])):
            dropped.append(name)
    kept = [name for name in problem.active_names() if name not in dropped]
    if solver.may_exist(problem):  # they hold by a hair, but not with whole samples
        return _touched(solver, problem)
    return kept


def _touched(solver: Solver, problem: Problem) -> list[str]:
    best = min(
        (solver.at_size(problem, size) for size in range(len(problem.shapes))), key=lambda c: rank(problem, c)
    )
    close = best.outcome.excess[0] > -0.02
    active = set(problem.active_names())
    return [name for name, near in zip(problem.names, close, strict=True) if near and name in active]


def _corrections(solver: Solver, problem: Problem, clash: list[str]) -> list[list[str]]:
    """The smallest sets of limits whose removal leaves a solution: single ones, else pairs, else one more."""
    single = [[name] for name in clash if solver.may_exist(problem.without([name]))]
    if single:
        return single
    active = problem.active_names()
    pairs = [
        [first, second]
        for first, second in combinations(active, 2)
        # One of the two must break the clash that is known, or the pair cannot help.
        if (first in clash or second in clash) and solver.may_exist(problem.without([first, second]))
    ]
    return pairs or [_reduced(solver, problem, active)]


def _reduced(solver: Solver, problem: Problem, names: list[str]) -> list[str]:
    """Of limits whose joint removal leaves a solution, a set of which none can be put back."""
    needed = list(names)
    for name in names:
        if solver.may_exist(problem.without([other for other in needed if other != name])):
            needed.remove(name)
    return needed


def _remedy(solver: Solver, problem: Problem, names: list[str], lost: Iterable[str]) -> Remedy | None:
    """The least change of these limits that the solver confirms; None where it finds none."""
    current = problem.without(names)
    changes: dict[str, float | None] = {}
    for name in names:
        value, current = _least_change(solver, problem, current, name)
        if value is None and name not in lost and not name.startswith("tasks."):
            return None
        changes[name] = value
    if all(changes.get(_target(task), 0.0) is None for task in problem.tasks):
        return None  # a plan without tasks is no remedy
    answer = _solved(solver, current.settled())
    return None if answer is None else _as_remedy(problem, changes, answer)


def _least_change(
    solver: Solver, original: Problem, dropped: Problem, name: str
) -> tuple[float | None, Problem]:
    """The value next to the plan's that gives `dropped`, where `name` is dropped, a whole-sample answer."""
    index = original.names.index(name)
    given, sign = float(original.limit[index]), float(original.sign[index])
    if name.startswith("tasks."):
        task = original.tasks.index(name.split(".", 1)[1].rsplit(".", 1)[0])
        reached = _best_probability(solver, dropped, task)
    else:
        reached = _least_value(solver, dropped, index)
    if not np.isfinite(reached):
        return None, dropped
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
        if _solved(solver, moved) is not None:
            return value, moved
    return None, dropped


def _lowered_targets(solver: Solver, problem: Problem) -> Remedy | None:
    """Targets brought down to what the whole budget gives within every other limit, at the best size."""
    efforts = [solver.best_effort(problem, size) for size in range(len(problem.shapes))]
    reached = [effort.outcome.p_learned[0] for effort in efforts if effort is not None]
    if not reached:
        return None
    best = max(reached, key=lambda p: float((p / problem.target).min()))
    for outward in _OUTWARD:
        changes: dict[str, float | None] = {
            name: _round_outward(float(p) * (1 - outward), -1.0)
            for name, p, target in zip(map(_target, problem.tasks), best, problem.target, strict=True)
            if p < target + 1e-6
        }
        if any(value is None or value < _HOPELESS for value in changes.values()):
            return None
        answer = _solved(solver, problem.with_limits({name: float(v or 0.0) for name, v in changes.items()}))
        if answer is not None:
            return _as_remedy(problem, changes, answer)
    return None


def _as_remedy(problem: Problem, changes: dict[str, float | None], answer: Whole) -> Remedy:
    size, tokens = answer.candidate.size, answer.samples * problem.sequence_length
    return Remedy(changes, problem.shapes[size].name, tokens, tokens * float(problem.flops_per_token[size]))


def _least_value(solver: Solver, problem: Problem, index: int) -> float:
    """Least that a feasible mixture takes of a dropped limit; the most, for a lower limit."""
    sign = float(problem.sign[index])
    best = np.inf
    for size in range(len(problem.shapes)):
        candidate = solver.at_size(problem, size)
        if candidate.feasible:
            best = min(best, sign * float(candidate.outcome.values[0, index]))
        screened = solver.screen(problem, size)
        held = screened.values[screened.feasible, index]
        best = min(best, float((sign * held).min(initial=np.inf)))
    return sign * best


def _best_probability(solver: Solver, problem: Problem, task: int) -> float:
    """Highest probability of one task within all limits but its own target, which must be dropped."""
    best = 0.0
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
        best = max(best, float(held.max(initial=0.0)))
    return best


def _solved(solver: Solver, problem: Problem) -> Whole | None:
    """The cheapest whole-sample answer, or None."""
    answers = []
    for size in range(len(problem.shapes)):
        candidate = solver.best_at(problem, size)
        if candidate.feasible:
            answers.append(round_samples(solver, problem, candidate))
    answers = [answer for answer in answers if answer.candidate.feasible]
    return min(answers, key=lambda answer: rank(problem, answer.candidate), default=None)


def _round_outward(value: float, sign: float) -> float:
    """Three significant digits, to the loose side: up for upper limits, down for lower ones."""
    if value == 0:
        return 0.0
    digits = 10.0 ** (np.floor(np.log10(abs(value))) - 2)
    rounded = np.ceil(value / digits - 1e-9) if sign > 0 else np.floor(value / digits + 1e-9)
    return float(f"{rounded * digits:.3g}")


def describe(problem: Problem, diagnosis: Diagnosis, nearest: Candidate) -> list[str]:
    """The diagnosis in words, one problem a line."""
    sizes = ", ".join(shape.name for shape in problem.shapes)
    lines = [f"no size ({sizes}) and mixture reaches every target within the plan's limits"]
    for task, best in diagnosis.unreachable.items():
        target = float(problem.target[problem.tasks.index(task)])
        lines.append(
            f"task {task!r}: no size of the plan reaches {target:g}, not even with {FAR:g} times the "
            f"budget and every other limit dropped; at best {best:.3f}"
        )
    clash = [f"{name} ({value_of(problem, name):g})" for name in diagnosis.clash]
    if clash:
        lines.append("these limits cannot hold together: " + ", ".join(clash))
    for remedy in diagnosis.remedies:
        changes = " and ".join(_change(problem, name, value) for name, value in remedy.changes.items())
        lines.append(
            f"it would do with {changes}: then {remedy.size} with {remedy.tokens:,} tokens, "
            f"{remedy.flops:.3g} FLOPs"
        )
    if not diagnosis.remedies:
        lines.append("no small change of the limits was found that would do; loosen several of those named")
    shape, missed = problem.shapes[nearest.size].name, "; ".join(missed_limits(problem, nearest))
    lines.append(f"nearest as the plan stands: {shape} with {nearest.tokens:,.0f} tokens misses {missed}")
    return lines


def value_of(problem: Problem, name: str) -> float:
    """A limit by name."""
    return float(problem.limit[problem.names.index(name)])


def as_json(problem: Problem, diagnosis: Diagnosis, nearest: Candidate, lines: list[str]) -> dict[str, Any]:
    """The diagnosis for programs."""
    return {
        "feasible": False,
        "problems": lines,
        "unreachable": diagnosis.unreachable,
        "clash": [{"constraint": name, "limit": value_of(problem, name)} for name in diagnosis.clash],
        "remedies": [
            {"changes": r.changes, "size": r.size, "tokens": r.tokens, "flops": r.flops}
            for r in diagnosis.remedies
        ],
        "nearest": {
            "size": problem.shapes[nearest.size].name,
            "tokens": nearest.tokens,
            "shares": dict(zip(problem.sources, _floats(nearest.shares), strict=True)),
            "p_learned": dict(zip(problem.tasks, _floats(nearest.outcome.p_learned[0]), strict=True)),
        },
    }


def _floats(values: FloatArray) -> list[float]:
    return [float(value) for value in values]


def _change(problem: Problem, name: str, value: float | None) -> str:
    if value is None:
        return f"task {name.split('.', 1)[1].rsplit('.', 1)[0]!r} left out"
    return f"{name} {value:g} instead of {value_of(problem, name):g}"
