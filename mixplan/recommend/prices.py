"""Which limits the answer touches, and what each costs: without it, and a little looser.

Every price comes from solving the plan anew. Shape legend: Z = sizes, C = limits.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mixplan.documents.forecast import FloatArray
from mixplan.documents.recipe import Binding
from mixplan.recommend.alternatives import best_of, least_at_sizes, within_budgets
from mixplan.recommend.evaluate import TOLERANCE
from mixplan.recommend.objective import primary
from mixplan.recommend.problem import LOSS_LIMIT, Problem
from mixplan.recommend.rounding import Whole
from mixplan.recommend.solve import Candidate, Solver

_CLOSE = 0.005
"""A limit counts as touched within half a percent (or one sample)."""
_EASED_BUDGET, _EASED_BOUND, _EASED_TARGET, _EASED_EPOCHS = 0.01, 0.1, 0.01, 1.0
_SOLUTIONS = 2000.0
"""Divided by the root of tasks × sources: how often the plan is solved anew for prices, 20 to 200 times."""
_SHOWN = 5e-4
_SHOWN_NATS = 1e-5
"""Gains below this part of the objective, or below so many nats, are the solver's own inexactness."""


def prices(problem: Problem, solver: Solver, chosen: Whole) -> list[Binding]:
    """The limits that the answer touches, with what they cost.

    In a plan of many tasks and sources not every limit can be priced in a minute: then those are that matter
    most at the chosen size, and the others only named.
    """
    touched = _touched(problem, chosen)
    base = solver.best_at(problem, chosen.candidate.size)
    bounds = least_at_sizes(solver, problem)
    solutions = float(np.clip(_SOLUTIONS / np.sqrt(len(problem.tasks) * len(problem.sources)), 20.0, 200.0))
    names = _largest(problem, solver, base, [name for name, _, _ in touched], int(solutions / 4))
    found = [
        _priced(problem, solver, base, bounds, name, value, limit)
        if name in names
        else Binding(constraint=name, value=value, limit=limit)
        for name, value, limit in touched
    ]
    return found + _shortest_training(problem, solver, chosen)


def _touched(problem: Problem, chosen: Whole) -> list[tuple[str, float, float]]:
    """Name, value and limit of each."""
    outcome, samples = chosen.candidate.outcome, chosen.samples
    epochs = dict(zip(problem.sources, problem.sequence_length / problem.unique_tokens, strict=True))
    active = set(problem.active_names())
    found = []
    for index, name in enumerate(problem.names):
        value, limit = float(outcome.values[0, index]), float(problem.limit[index])
        if name not in active or not math.isfinite(value):
            continue
        if name.startswith("budget."):
            grain = limit / samples
        elif name.endswith(".max_epochs"):
            grain = 1.5 * epochs[name.split(".", 1)[1].rsplit(".", 1)[0]]
        else:
            grain = 1.5 / samples if name.endswith("_share") else 0.0
        if abs(limit - value) <= max(_CLOSE * abs(limit), grain, TOLERANCE):
            found.append((name, value, limit))
    return found


def _largest(problem: Problem, solver: Solver, base: Candidate, names: list[str], count: int) -> list[str]:
    """Of more limits than `count`, those whose absence changes most at the chosen size.

    Twice `count` are looked at: first the limits on everything (budgets, loss, groups), then sources by their
    share, then tasks by the share that they would take alone.
    """
    if len(names) <= count:
        return names
    with np.errstate(divide="ignore", invalid="ignore"):
        taken = base.outcome.frequency[0] / problem.density.max(axis=1)
    size_of = {"sources": dict(zip(problem.sources, base.shares, strict=True)),
               "tasks": dict(zip(problem.tasks, taken, strict=True))}  # fmt: skip

    def order(name: str) -> tuple[int, float]:
        head, rest = name.split(".", 1)
        if head not in size_of:
            return 0, 0.0
        return (1 if head == "sources" else 2), -float(size_of[head][rest.rpartition(".")[0]])

    def effect(name: str) -> float:
        without = problem.without([name])
        best = solver.best_at(without, base.size)
        return float(primary(without, best.outcome)[0]) if best.feasible else np.inf

    return sorted(sorted(names, key=order)[: 2 * count], key=effect)[:count]


def _priced(
    problem: Problem,
    solver: Solver,
    base: Candidate,
    bounds: FloatArray,
    name: str,
    value: float,
    limit: float,
) -> Binding:
    """One limit, dropped and eased. Of a budget there is nothing to say without it where more is always
    better.

    Args:
        bounds: the objective at best at each size without caps and bounds, shape (Z,). A size that is worse
            is not solved; where the limit is a target or a budget, the chosen size and its neighbours are.
    """
    if name.startswith(("budget.", "tasks.")):
        near = np.abs(np.arange(len(bounds)) - base.size) <= 1
        bounds = np.where(near, -np.inf, np.inf)
    told = Binding(constraint=name, value=value, limit=limit)
    if problem.objective == "cheapest" or not name.startswith("budget."):
        free = problem.without([name])
        without = best_of(solver, free, bounds)
        if without.feasible:
            gain = gained(problem, base, without)
            told = told.model_copy(update={"flops_without": _flops(problem, without), "gain_without": gain})
    eased = eased_limit(name, limit)
    if eased is None:
        return told
    looser = with_limit(problem, name, eased)
    answer = best_of(solver, looser, bounds)
    if not answer.feasible:
        return told.model_copy(update={"eased": eased})
    gain = gained(problem, base, answer)
    return told.model_copy(
        update={"eased": eased, "flops_eased": _flops(problem, answer), "gain_eased": gain}
    )


def eased_limit(name: str, limit: float) -> float | None:
    """A limit moved a little to the loose side; None where it cannot be.

    One more epoch, 1 % more budget, a bound on a share or on the loss 10 % wider, a target 0.01 lower.
    """
    if name.startswith("budget."):
        return limit * (1 + _EASED_BUDGET)
    if name.endswith(".max_epochs"):
        return limit + _EASED_EPOCHS
    if name.endswith(".target_probability"):
        return limit - _EASED_TARGET if limit > _EASED_TARGET else None
    if name.endswith(".min_share"):
        return limit * (1 - _EASED_BOUND)
    eased = limit * (1 + _EASED_BOUND)
    if name == LOSS_LIMIT:
        return eased if limit > 0 else None
    return min(eased, 1.0) if limit < 1 else None


def with_limit(problem: Problem, name: str, value: float) -> Problem:
    """The problem as if the plan had this limit; with a budget the longest training moves too."""
    found = problem.with_limits({name: value}).settled()
    return within_budgets(found) if name.startswith("budget.") else found


def gained(problem: Problem, base: Candidate, answer: Candidate) -> str:
    """What an answer has over another, in the unit of the plan's objective; FLOPs between equals by it."""
    before, after = (float(primary(problem, one.outcome)[0]) for one in (base, answer))
    saved = before - after
    if saved > (_SHOWN_NATS if problem.objective == "common_loss" else _SHOWN * abs(before)):
        if problem.objective == "common_loss":
            return f"{saved:.4g} nats less common loss"
        if problem.objective == "most_tasks":
            return f"{saved:.4g} more value of targets reached"
        if problem.objective == "value":
            return f"{saved:.4g} more expected value"
    paid, pays = (float(problem.cost(one.size, one.tokens)) for one in (base, answer))
    equal = saved >= -_SHOWN * abs(before) and problem.objective in ("cheapest", "most_tasks")
    if not equal or paid - pays <= _SHOWN * paid:
        return "nothing"
    shortest = problem.min_tokens * (1 + _CLOSE)
    if answer.tokens <= shortest < base.tokens:  # how much that saves says only where min_tokens stands
        return "down to min_tokens"
    return f"{1 - pays / paid:.2%} fewer {'lifetime ' if problem.inference_tokens else ''}FLOPs"


def _shortest_training(problem: Problem, solver: Solver, chosen: Whole) -> list[Binding]:
    """The plan's shortest training, where the answer stands at it."""
    tokens = float(chosen.samples * problem.sequence_length)
    if tokens >= problem.min_tokens * (1 + _CLOSE) + problem.sequence_length:
        return []
    told = Binding(constraint="min_tokens", value=tokens, limit=problem.min_tokens)
    if problem.min_tokens <= problem.sequence_length:
        return [told]
    free = replace(problem, min_tokens=float(problem.sequence_length))
    without = best_of(Solver(solver.forecast), free)  # its needs are remembered from there on
    if not without.feasible:
        return [told]
    base = solver.best_at(problem, chosen.candidate.size)
    gain = gained(problem, base, without)
    return [told.model_copy(update={"flops_without": _flops(problem, without), "gain_without": gain})]


def _flops(problem: Problem, candidate: Candidate) -> float:
    """Of training."""
    return candidate.tokens * float(problem.flops_per_token[candidate.size])
