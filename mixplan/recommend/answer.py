"""The recipe: a whole-sample mixture, what it is predicted to give, what it costs, what it stands against.

Shape legend: S = sources, T = tasks, D = draws.
"""

from __future__ import annotations

from mixplan.documents.base import Provenance
from mixplan.documents.calibration import Calibration
from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.documents.plan import Plan
from mixplan.documents.recipe import Recipe, RecipeSource, RecipeTask
from mixplan.recommend.alternatives import CHOSEN, alternative, alternatives, cost, natural, told_loss
from mixplan.recommend.alternatives import NATURAL as NATURAL_MIXTURE
from mixplan.recommend.cautions import cautions
from mixplan.recommend.closing import closing
from mixplan.recommend.predictions import drawn_at, loss_interval, predictions
from mixplan.recommend.prices import prices
from mixplan.recommend.problem import Problem
from mixplan.recommend.regimes import regimes
from mixplan.recommend.rounding import Whole
from mixplan.recommend.sensitivity import all_targets, sensitivities, size_holds
from mixplan.recommend.solve import Candidate, Solver


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
    recipe = mixture_recipe(plan, problem, solver.forecast, chosen, provenance)
    gap = closing(plan, problem, solver, chosen.candidate)
    recipe = recipe.model_copy(
        update={
            "p_size_cheapest": size_holds(problem, solver.forecast, best, chosen.candidate.size),
            "binds": prices(problem, solver, chosen),
            "unconstrained": gap.unconstrained,
            "missing_data": gap.missing,
            "with_data": gap.with_data,
            "candidates": alternatives(plan, problem, solver, chosen.candidate, best),
        }
    )
    return recipe.model_copy(update={"warnings": cautions(recipe, problem, calibration)})


def mixture_recipe(
    plan: Plan,
    problem: Problem,
    forecast: Forecast,
    chosen: Whole,
    provenance: Provenance,
    role: str = CHOSEN,
) -> Recipe:
    """What can be said of one mixture alone: predictions, regimes, doubts, cost. Without warnings."""
    candidate = chosen.candidate
    outcome, size, tokens = candidate.outcome, candidate.size, candidate.tokens
    shape = problem.shapes[size]
    drawn = drawn_at(problem, forecast, size, tokens, outcome.frequency[0])  # (T, D)
    loss, increase = told_loss(plan, candidate)
    ends = loss_interval(problem, forecast, size, tokens, candidate.shares) if loss is not None else None
    usual = natural(problem, forecast, size, tokens)
    return Recipe(
        name=plan.name,
        size=shape,
        block_params=shape.block_params,
        total_params=shape.total_params(plan.vocabulary),
        vocab_size=plan.vocabulary,
        tokenizer=plan.tokenizer,
        sequence_length=problem.sequence_length,
        samples=chosen.samples,
        tokens=chosen.samples * problem.sequence_length,
        sources=_sources(problem, chosen),
        tasks=_tasks(plan, problem, forecast, candidate, usual, drawn),
        cost=cost(plan, problem, candidate),
        common_loss_nats=loss,
        common_loss_increase_nats=increase,
        common_loss_increase_low=None if ends is None else ends[0],
        common_loss_increase_high=None if ends is None else ends[1],
        objective=plan.objective,
        p_all_targets=all_targets(problem, drawn),
        sensitivity=sensitivities(problem, forecast, drawn),
        candidates=[
            alternative(plan, problem, forecast, candidate, role),
            alternative(plan, problem, forecast, usual, NATURAL_MIXTURE),
        ],
        provenance=provenance,
    )


def _sources(problem: Problem, chosen: Whole) -> list[RecipeSource]:
    outcome = chosen.candidate.outcome
    return [
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
            repetition_half_life_epochs=float(problem.half_life[s]),
        )
        for s, name in enumerate(problem.sources)
    ]


def _tasks(
    plan: Plan,
    problem: Problem,
    forecast: Forecast,
    candidate: Candidate,
    usual: Candidate,
    drawn: FloatArray,
) -> list[RecipeTask]:
    """Each task under the mixture and under the natural one; `drawn` of shape (T, D) is the mixture's."""
    size, tokens = candidate.size, candidate.tokens
    frequency, before = candidate.outcome.frequency[0], usual.outcome.frequency[0]
    recommended = predictions(problem, forecast, size, tokens, frequency, drawn)
    drawn_before = drawn_at(problem, forecast, size, tokens, before)
    natural_ones = predictions(problem, forecast, size, tokens, before, drawn_before)
    limits = regimes(problem, forecast, candidate)
    return [
        RecipeTask(
            name=task.name,
            family=problem.goals[t].family,
            complexity=problem.goals[t].complexity,
            density={
                name: float(problem.density[t, s])
                for s, name in enumerate(problem.sources)
                if problem.density[t, s] > 0
            },
            equivalent=task.equivalent is not None,
            target_probability=task.target_probability,
            confidence=task.confidence,
            target_skill=problem.goals[t].skill,
            target_bits_per_byte=problem.goals[t].bits_per_byte,
            value=task.value,
            natural=natural_ones[t],
            recommended=recommended[t],
            regime=limits[t].kind,
            lever=limits[t].lever,
        )
        for t, task in enumerate(plan.tasks)
    ]
