"""The recipe: the chosen whole-sample mixture, what it is predicted to give, what it costs, what binds.

Shape legend: S = sources, T = tasks.
"""

from __future__ import annotations

import math

import numpy as np

from mixplan.documents.base import Provenance
from mixplan.documents.calibration import Calibration
from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.documents.plan import Plan
from mixplan.documents.recipe import (
    Alternative,
    Binding,
    Cost,
    Recipe,
    RecipeSource,
    RecipeTask,
    TaskPrediction,
)
from mixplan.documents.references import reference_warnings
from mixplan.recommend.evaluate import TOLERANCE, at_confidence, evaluate, reached
from mixplan.recommend.problem import Problem
from mixplan.recommend.rounding import Whole
from mixplan.recommend.solve import Candidate, Solver, missed_limits, rank

_CLOSE = 0.005
"""A limit counts as touched within half a percent (or one sample)."""


def build_recipe(
    plan: Plan,
    problem: Problem,
    solver: Solver,
    chosen: Whole,
    best: list[Candidate],
    calibration: Calibration | None,
    provenance: Provenance,
) -> Recipe:
    """All of recipe.yaml. `best` holds the best candidate of every size."""
    outcome = chosen.candidate.outcome
    shape = problem.shapes[chosen.candidate.size]
    tokens = chosen.samples * problem.sequence_length
    natural = evaluate(problem, solver.forecast, outcome.size, outcome.tokens, problem.natural[None, :])
    sources = [
        RecipeSource(
            name=name,
            role="rare" if problem.rare[s] else "common",
            share=int(chosen.choose[s]) / chosen.samples,
            natural_share=float(problem.natural[s]),
            rate=float(outcome.shares[0, s] / problem.natural[s]),
            epochs=float(outcome.epochs[0, s]),
            max_epochs=float(problem.max_epochs[s]),
            tokens=int(chosen.choose[s]) * problem.sequence_length,
            tokens_available=float(problem.unique_tokens[s]),
            choose=int(chosen.choose[s]),
            mds=problem.mds[s],
        )
        for s, name in enumerate(problem.sources)
    ]
    recommended = _predictions(problem, solver.forecast, chosen.candidate, outcome.frequency[0])
    before = _predictions(problem, solver.forecast, chosen.candidate, natural.frequency[0])
    tasks = [
        RecipeTask(
            name=name,
            family=problem.goals[t].family,
            complexity=problem.goals[t].complexity,
            target_probability=float(problem.target[t]),
            natural=before[t],
            recommended=recommended[t],
        )
        for t, name in enumerate(problem.tasks)
    ]
    binds = _binds(plan, problem, solver, chosen)
    recipe = Recipe(
        name=plan.name,
        size=shape,
        block_params=shape.block_params,
        total_params=shape.total_params(plan.vocabulary),
        vocab_size=plan.vocabulary,
        tokenizer=plan.tokenizer,
        sequence_length=problem.sequence_length,
        samples=chosen.samples,
        tokens=tokens,
        sources=sources,
        tasks=tasks,
        cost=_cost(plan, problem, chosen.candidate),
        common_loss_nats=_number(outcome.common_loss[0]),
        common_loss_increase_nats=_number(outcome.loss_increase[0]),
        binds=binds,
        unconstrained=_unconstrained(problem, solver),
        candidates=[alternative(problem, one) for one in best],
        provenance=provenance,
    )
    return recipe.model_copy(update={"warnings": _warnings(recipe, problem, chosen, calibration)})


def alternative(problem: Problem, candidate: Candidate) -> Alternative:
    """A candidate in the recipe's words; what it misses stands in the note."""
    outcome, shape = candidate.outcome, problem.shapes[candidate.size]
    missed = missed_limits(problem, candidate)
    return Alternative(
        size=shape.name,
        block_params=shape.block_params,
        tokens=candidate.tokens,
        flops=candidate.tokens * float(problem.flops_per_token[candidate.size]),
        shares=_fractions(problem.sources, candidate.shares),
        p_learned=_fractions(problem.tasks, outcome.p_learned[0]),
        feasible=candidate.feasible,
        note="misses " + "; ".join(missed) if missed else "",
    )


def _unconstrained(problem: Problem, solver: Solver) -> Alternative:
    """The cheapest answer with the budget and the targets alone."""
    kept = ("budget.", "tasks.")
    free = problem.without([name for name in problem.names if not name.startswith(kept)])
    return alternative(free, cheapest(solver, free))


def cheapest(solver: Solver, problem: Problem) -> Candidate:
    """The best candidate over all sizes, without the random search."""
    found = [solver.best_at(problem, size) for size in range(len(problem.shapes))]
    return min(found, key=lambda candidate: rank(problem, candidate))


def _predictions(
    problem: Problem, forecast: Forecast, candidate: Candidate, frequency: FloatArray
) -> list[TaskPrediction]:
    """One a task, at the candidate's size and tokens and the given frequencies, shape (T,)."""
    count = len(problem.tasks)
    told = forecast.told(
        problem.goals,
        np.arange(count),
        np.full(count, problem.block_params[candidate.size]),
        np.full(count, candidate.tokens),
        np.maximum(frequency, 1e-300),
    )
    drawn = reached(problem, forecast, candidate.outcome.size, candidate.outcome.tokens, frequency[None, :])[
        0
    ]
    low, high = np.quantile(drawn, [0.05, 0.95], axis=1)
    sure = at_confidence(drawn, problem.confidence)
    found = []
    for t, goal in enumerate(problem.goals):
        unit = "skill" if goal.bits_per_byte is None else "bits_per_byte"
        found.append(
            TaskPrediction(
                frequency=float(frequency[t]),
                p_learned=float(np.clip(drawn[t].mean(), 0.0, 1.0)),
                p_learned_low=float(np.clip(low[t], 0.0, 1.0)),
                p_learned_high=float(np.clip(high[t], 0.0, 1.0)),
                p_at_confidence=float(sure[t]) if np.isfinite(problem.confidence[t]) else None,
                extrapolated=bool(told.extrapolated[t]),
                why_extrapolated=list(told.extrapolated[t]),
                **{
                    unit: float(told.value[t]),
                    f"{unit}_low": float(told.low[t]),
                    f"{unit}_high": float(told.high[t]),
                },
            )
        )
    return found


def _cost(plan: Plan, problem: Problem, candidate: Candidate) -> Cost:
    _, flops, hours, money = (float(v) for v in candidate.tokens * problem.budget_per_token[candidate.size])
    if plan.hardware is None:
        return Cost(flops=flops)
    return Cost(flops=flops, gpu_hours=hours, money=money, currency=plan.hardware.currency)


def _binds(plan: Plan, problem: Problem, solver: Solver, chosen: Whole) -> list[Binding]:
    """Limits that the answer touches, each with the FLOPs that would do without it."""
    outcome, samples = chosen.candidate.outcome, chosen.samples
    one_sample = np.array([problem.sequence_length / u for u in problem.unique_tokens])
    per_share = np.full(2 * len(problem.sources), 1.0 / samples)
    grain = np.concatenate(
        [np.full(4, 1.0 / samples), [0.0], one_sample, per_share, np.zeros(len(problem.tasks))]
    )
    active = set(problem.active_names())
    found = []
    for index, name in enumerate(problem.names):
        value, limit = float(outcome.values[0, index]), float(problem.limit[index])
        if name not in active or not math.isfinite(value):
            continue
        allowance = grain[index] * (limit if name.startswith("budget.") else 1.5)
        if abs(limit - value) <= max(_CLOSE * abs(limit), allowance, TOLERANCE):
            without = cheapest(solver, problem.without([name]))
            flops = without.tokens * float(problem.flops_per_token[without.size])
            found.append(
                Binding(
                    constraint=name,
                    value=value,
                    limit=limit,
                    flops_without=flops if without.feasible else None,
                )
            )
    tokens = samples * problem.sequence_length
    if tokens < problem.min_tokens * (1 + _CLOSE) + problem.sequence_length:
        found.append(Binding(constraint="min_tokens", value=tokens, limit=problem.min_tokens))
    return found


def _warnings(recipe: Recipe, problem: Problem, chosen: Whole, calibration: Calibration | None) -> list[str]:
    """What a reader must know before spending the money."""
    told = [] if calibration is None else reference_warnings(calibration.provenance)
    beyond: dict[str, list[str]] = {}
    for task in recipe.tasks:
        for reason in task.recommended.why_extrapolated:
            beyond.setdefault(reason, []).append(task.name)
    told += [f"extrapolated for {', '.join(names)}: {reason}" for reason, names in beyond.items()]
    for source in recipe.sources:
        if source.role == "rare" and source.rate < 1 - 1.5 / max(source.choose, 1):
            told.append(
                f"source {source.name!r} stands below its natural share ({source.share:.3g} instead of "
                f"{source.natural_share:.3g}): a cap or a bound forces it"
            )
    common = sum(source.share for source in recipe.sources if source.role == "common")
    usual = sum(source.natural_share for source in recipe.sources if source.role == "common")
    if common == 0:
        told.append(
            "no common data is left in the mixture; give min_share, or a bound on the common-loss increase"
        )
    elif not math.isfinite(problem.max_loss_increase):
        cost = recipe.common_loss_increase_nats
        by = (
            "an unknown amount (the calibration has no LM-loss law)"
            if cost is None
            else f"{cost:.3g} nats a token"
        )
        told.append(
            f"nothing bounds the loss on common data: its share goes from {usual:.3g} to {common:.3g}, and "
            f"its loss rises by {by}; constraints.max_common_loss_increase_nats bounds it"
        )
    return told + (_coverage(recipe, calibration, common) if calibration is not None else [])


def _coverage(recipe: Recipe, calibration: Calibration, common_share: float) -> list[str]:
    """Warnings from how far the calibration reaches."""
    told = []
    known = {(one.family, one.complexity): one for one in calibration.tasks}
    for task in recipe.tasks:
        coverage = known.get((task.family, task.complexity))
        # Of a kind that was never finished every forecast says so itself.
        if coverage is None or coverage.status in ("bracketed", "never finished"):
            continue
        kind = f"task {task.name!r}: {task.family} of complexity {task.complexity:g}"
        side = (
            "it may lie anywhere above" if coverage.status == "never learned" else "it may lie anywhere below"
        )
        told.append(
            f"{kind} was {coverage.status} on the ladder ({coverage.learned} of {coverage.cells} cells), "
            f"so its threshold was not measured, {side}"
        )
    if recipe.common_loss_increase_nats is not None and calibration.lm_loss is not None:
        used = {"block_params": float(recipe.block_params), "tokens": common_share * recipe.tokens}
        for axis, value in used.items():
            fitted = calibration.lm_loss.ranges.get(axis)
            if fitted is not None and not fitted.low * (1 - 1e-6) <= value <= fitted.high * (1 + 1e-6):
                told.append(
                    f"the common loss is extrapolated: {axis} {value:.4g} lies outside the fitted "
                    f"{fitted.low:.4g} … {fitted.high:.4g}"
                )
    return told


def _fractions(names: tuple[str, ...], values: FloatArray) -> dict[str, float]:
    return {name: float(np.clip(value, 0.0, 1.0)) for name, value in zip(names, values, strict=True)}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
