"""A mixture that somebody wrote by hand, told in the same words as a recommended one.

Shape legend: S = sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixplan.documents.base import Provenance, RulesBroken
from mixplan.documents.calibration import Calibration
from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.documents.plan import Plan
from mixplan.documents.recipe import Recipe
from mixplan.documents.suggest import did_you_mean
from mixplan.documents.whatif import WhatIf
from mixplan.errors import InputError
from mixplan.recommend.alternatives import ASKED, broken_limits
from mixplan.recommend.answer import mixture_recipe
from mixplan.recommend.cautions import cautions
from mixplan.recommend.checks import build_problem
from mixplan.recommend.evaluate import evaluate
from mixplan.recommend.mixture import largest_remainder
from mixplan.recommend.problem import Problem
from mixplan.recommend.rounding import Whole
from mixplan.recommend.solve import Candidate

_MOST_TOKENS = 1e18  # samples are counted in whole numbers of 64 bits


@dataclass(frozen=True)
class WhatIfAnswer:
    """What the laws say of a mixture."""

    recipe: Recipe
    broken: list[str]
    """Limits of the plan that it breaks, with values; targets among them where the plan asks for all."""


def what_if(
    plan: Plan,
    asked: WhatIf,
    forecast: Forecast,
    folder: Path,
    *,
    calibration: Calibration | None = None,
    provenance: Provenance | None = None,
) -> WhatIfAnswer:
    """Predictions, cost and broken limits of one mixture, in whole samples.

    Args:
        plan: its sources, tasks and limits; its sizes need not hold the one asked for.
        asked: the mixture.
        forecast: the fitted laws.
        folder: folder of the plan file.
        calibration: where the laws came from; adds warnings.
        provenance: recorded in the recipe.

    Raises:
        InputError: an unknown size or source, no whole sample, or a plan that these laws cannot answer; every
            problem at once.
    """
    problems = _problems(plan, asked)
    shapes = plan.shapes()
    try:
        shape = asked.shape(shapes)
    except (RulesBroken, ValueError) as error:
        raise InputError([*problems, f"size: {error}"]) from None
    if problems:
        raise InputError(problems)
    new = shape.name not in {one.name for one in shapes}
    wider = plan.model_copy(update={"name": asked.name, "sizes": [*plan.sizes, *([shape] if new else [])]})
    problem = build_problem(wider, forecast, folder)
    size = [one.name for one in problem.shapes].index(shape.name)
    whole = _whole(
        problem, forecast, size, int(asked.tokens) // plan.sequence_length, _shares(problem, asked)
    )
    broken = broken_limits(wider, problem, whole.candidate)
    tokens = whole.samples * problem.sequence_length
    if plan.min_tokens is not None and tokens <= plan.min_tokens - problem.sequence_length:
        broken.append(f"min_tokens: {tokens:.4g} against {plan.min_tokens:.4g}")
    recipe = mixture_recipe(wider, problem, forecast, whole, provenance or {}, ASKED)
    warnings = [f"breaks {text}" for text in broken]
    if new:
        warnings.append(f"size {shape.name!r} is none of those that the plan considers")
    warnings += cautions(recipe, problem, calibration, by_hand=True)
    return WhatIfAnswer(recipe.model_copy(update={"warnings": warnings}), broken)


def _problems(plan: Plan, asked: WhatIf) -> list[str]:
    known = [source.name for source in plan.sources]
    problems = [
        f"{way}: {name!r} is no source of the plan{did_you_mean(name, known)}"
        for way, given in (("shares", asked.shares), ("rates", asked.rates))
        for name in given
        if name not in known
    ]
    if asked.tokens < plan.sequence_length:
        problems.append(
            f"tokens is {asked.tokens:g}, less than one sample of {plan.sequence_length} tokens: ask for more"
        )
    if asked.tokens > _MOST_TOKENS:
        problems.append(
            f"tokens is {asked.tokens:g}, at most {_MOST_TOKENS:g} can be evaluated: ask for fewer"
        )
    if asked.rates and all(asked.rates.get(name, 1.0) == 0 for name in known):
        problems.append("rates: all are 0, so nothing is left to train on; give one above 0")
    return problems


def _shares(problem: Problem, asked: WhatIf) -> FloatArray:
    """Shape (S,), summing to 1."""
    if asked.shares:
        weights = np.array([asked.shares.get(name, 0.0) for name in problem.sources])
    elif asked.rates:
        weights = problem.natural * np.array([asked.rates.get(name, 1.0) for name in problem.sources])
    else:
        weights = problem.natural ** (1.0 if asked.exponent is None else asked.exponent)
    return np.asarray(weights / weights.sum())


def _whole(problem: Problem, forecast: Forecast, size: int, samples: int, shares: FloatArray) -> Whole:
    """Largest remainders; what holds a cap or a bound before rounding holds it after."""
    exact = shares * samples
    with np.errstate(over="ignore"):
        by_epochs = problem.max_epochs * problem.unique_tokens / problem.sequence_length
        most = np.minimum(np.minimum(problem.max_share * samples, by_epochs), samples)
    least = np.minimum(problem.min_share * samples, samples)
    high = np.where(exact <= most * (1 + 1e-9), np.floor(most + 1e-9), samples).astype(np.int64)
    low = np.where(exact >= least * (1 - 1e-9), np.ceil(least - 1e-9), 0).astype(np.int64)
    choose = largest_remainder(exact, low, high, samples)
    if choose is None:  # no whole samples hold them all
        free = np.zeros(len(exact), dtype=np.int64), np.full(len(exact), samples, dtype=np.int64)
        choose = largest_remainder(exact, *free, samples)
        assert choose is not None  # 0 … samples always holds `samples`
    tokens = np.array([float(samples) * problem.sequence_length])
    outcome = evaluate(problem, forecast, np.array([size]), tokens, choose[None, :] / samples)
    return Whole(Candidate(outcome), choose)
