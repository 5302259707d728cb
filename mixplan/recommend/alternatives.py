"""What the answer is shown beside: a cheaper mixture, the other sizes, the natural mixture.

Shape legend: S = sources, T = tasks, Z = sizes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.documents.plan import Plan
from mixplan.documents.recipe import Alternative, Cost
from mixplan.recommend.evaluate import evaluate
from mixplan.recommend.objective import primary
from mixplan.recommend.predictions import drawn_at, spread_of
from mixplan.recommend.problem import LOSS_LIMIT, Problem
from mixplan.recommend.solve import Candidate, Solver, missed_limits, rank

SAVED = 0.1
"""The cheaper mixture costs this part less than the chosen one."""
CHOSEN, ASKED, CHEAPER, NATURAL = "chosen", "as asked", "a tenth cheaper", "natural mixture"
DOWN, UP, OTHER = "next size down", "next size up", "other size"
AT_A_SIZE = (CHOSEN, DOWN, UP, OTHER)
"""Roles of what is the best at its size."""


def alternatives(
    plan: Plan, problem: Problem, solver: Solver, chosen: Candidate, best: list[Candidate]
) -> list[Alternative]:
    """The chosen mixture and what it was chosen against; `best` holds the best candidate of every size."""
    at_size = {chosen.size: CHOSEN, chosen.size - 1: DOWN, chosen.size + 1: UP}
    found = [(at_size.get(one.size, OTHER), chosen if one.size == chosen.size else one) for one in best]
    saving = cheaper(solver, problem, chosen)
    if saving is not None:
        found.append((CHEAPER, saving))
    found.append((NATURAL, natural(problem, solver.forecast, chosen.size, chosen.tokens)))
    return [alternative(plan, problem, solver.forecast, one, role) for role, one in found]


def alternative(
    plan: Plan, problem: Problem, forecast: Forecast, candidate: Candidate, role: str
) -> Alternative:
    """A candidate in the recipe's words; the limits of `problem` that it breaks stand in the note."""
    outcome, shape = candidate.outcome, problem.shapes[candidate.size]
    spread = spread_of(drawn_at(problem, forecast, candidate.size, candidate.tokens, outcome.frequency[0]))
    paid = cost(plan, problem, candidate)
    missed = broken_limits(plan, problem, candidate)
    loss, increase = told_loss(plan, candidate)
    weighed = problem.objective in ("most_tasks", "value")
    return Alternative(
        role=role,
        size=shape.name,
        block_params=shape.block_params,
        tokens=candidate.tokens,
        flops=paid.flops,
        lifetime_flops=paid.lifetime_flops,
        gpu_hours=paid.gpu_hours,
        money=paid.money,
        shares=_named(problem.sources, np.clip(candidate.shares, 0.0, 1.0)),
        epochs=_named(problem.sources, outcome.epochs[0]),
        p_learned=_named(problem.tasks, spread.mean),
        p_learned_low=_named(problem.tasks, spread.low),
        p_learned_high=_named(problem.tasks, spread.high),
        common_loss_nats=loss,
        common_loss_increase_nats=increase,
        worth=-float(primary(problem, outcome)[0]) if weighed else None,
        feasible=candidate.feasible,
        note="misses " + "; ".join(missed) if missed else "",
    )


def cost(plan: Plan, problem: Problem, candidate: Candidate) -> Cost:
    """FLOPs of training and of the model's lifetime, hours and money, as far as the plan tells."""
    _, flops, hours, money = (float(v) for v in candidate.tokens * problem.budget_per_token[candidate.size])
    flops = candidate.tokens * float(problem.flops_per_token[candidate.size])
    lifetime = float(problem.cost(candidate.size, candidate.tokens)) if problem.inference_tokens else None
    if plan.hardware is None:
        return Cost(flops=flops, lifetime_flops=lifetime)
    currency = plan.hardware.currency
    return Cost(flops=flops, lifetime_flops=lifetime, gpu_hours=hours, money=money, currency=currency)


def natural(problem: Problem, forecast: Forecast, size: int, tokens: float) -> Candidate:
    """The natural mixture at a size and token count, whatever limits it breaks."""
    return Candidate(
        evaluate(problem, forecast, np.array([size]), np.array([tokens]), problem.natural[None, :])
    )


def cheaper(solver: Solver, problem: Problem, chosen: Candidate) -> Candidate | None:
    """The best mixture that costs a tenth less than the chosen one; None where `min_tokens` leaves no such.

    With `most_tasks`, of what reaches the same the one with the largest expected value. Where targets are
    limits, every task is given the same fraction of the frequency it needs, as large as the
    other limits allow: what comes nearest to all targets at once. The cost is what the plan counts: of
    training and inference.
    """
    paid = (1 - SAVED) * float(problem.cost(chosen.size, chosen.tokens))
    allowed = paid / problem.flops_per_token - problem.inference_tokens / 3.0  # tokens, (Z,)
    found = []
    for size in range(len(problem.shapes)):
        longest = min(float(allowed[size]), float(problem.horizon[size]))
        if longest < problem.min_tokens:
            continue
        horizon = np.minimum(problem.horizon, longest)
        tight = replace(problem.with_limits({"budget.tokens": longest}), horizon=horizon)
        if problem.objective == "cheapest":
            one = solver.best_effort(tight, size)
        else:
            one = solver.best_at(tight, size)
            one = one if one.feasible else solver.best_effort(tight, size)
            if problem.objective == "most_tasks":  # where nothing is reached, the cheapest is the shortest
                found.append(solver.best_at(replace(tight, objective="value"), size))
        if one is not None:
            found.append(one)
    if problem.objective == "most_tasks":
        return min(found, key=lambda one: _reached_or_expected(problem, one), default=None)
    return _first(problem, found)


def best_of(solver: Solver, problem: Problem, bounds: FloatArray | None = None) -> Candidate:
    """The best candidate over the plan's sizes, without the random search.

    Args:
        bounds: what the objective cannot be better than at each size, shape (Z,): a size that cannot win is
            not solved, and one with an infinite bound never.
    """
    limits = np.full(len(problem.shapes), -np.inf) if bounds is None else bounds
    best: Candidate | None = None
    for size in np.argsort(limits, kind="stable"):
        beaten = best is not None and best.feasible and limits[size] >= primary(problem, best.outcome)[0]
        if beaten or (best is not None and limits[size] == np.inf):
            continue
        one = solver.best_at(problem, int(size))
        best = one if best is None else min(best, one, key=lambda each: rank(problem, each))
    assert best is not None  # a plan has a size
    return best


def within_budgets(problem: Problem) -> Problem:
    """The problem with the longest trainings that its budgets now allow; where all are dropped, as before."""
    with np.errstate(divide="ignore"):
        longest = (problem.limit[:4] / problem.budget_per_token).min(axis=1)  # (Z,)
    return replace(problem, horizon=np.where(np.isfinite(longest), longest, problem.horizon))


def unbounded(problem: Problem) -> Problem:
    """The problem with its budget and targets alone: no caps, no bounds."""
    return problem.without([name for name in problem.names if not name.startswith(("budget.", "tasks."))])


def least_at_sizes(solver: Solver, problem: Problem) -> FloatArray:
    """What the objective is at best at each size without caps and bounds, shape (Z,)."""
    loose = unbounded(problem)
    found = [solver.best_at(loose, size) for size in range(len(problem.shapes))]
    return np.array([primary(loose, one.outcome)[0] if one.feasible else np.inf for one in found])


def broken_limits(plan: Plan, problem: Problem, candidate: Candidate) -> list[str]:
    """Each limit that a candidate breaks, in words; of a common loss that no model has, only that."""
    missed = missed_limits(problem, candidate)
    if sensible_loss(plan, candidate):
        return missed
    left = "no" if np.isnan(candidate.outcome.common_loss[0]) else "hardly any"
    said = f"{LOSS_LIMIT}: {left} common data is left against {problem.max_loss_increase:.4g}"
    return [said if text.startswith(LOSS_LIMIT) else text for text in missed]


def sensible_loss(plan: Plan, candidate: Candidate) -> bool:
    """Whether the predicted common loss is one that a model can have: at most that of guessing, ln V nats."""
    loss = float(candidate.outcome.common_loss[0])
    return np.isfinite(loss) and loss <= np.log(plan.vocabulary)


def told_loss(plan: Plan, candidate: Candidate) -> tuple[float | None, float | None]:
    """Common loss and its increase for a document; None where no model has such a loss."""
    if not sensible_loss(plan, candidate):
        return None, None
    return number(candidate.outcome.common_loss[0]), number(candidate.outcome.loss_increase[0])


def number(value: float) -> float | None:
    """A float for a document; None where it says nothing."""
    return float(value) if np.isfinite(value) else None


def _first(problem: Problem, found: list[Candidate]) -> Candidate | None:
    return min(found, key=lambda one: rank(problem, one), default=None)


def _reached_or_expected(problem: Problem, one: Candidate) -> tuple[bool, float, float]:
    """Sort key: feasible, the value of targets reached, then the expected value."""
    expected = float(one.outcome.p_learned[0] @ problem.value)
    return not one.feasible, float(primary(problem, one.outcome)[0]), -expected


def _named(names: tuple[str, ...], values: FloatArray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
