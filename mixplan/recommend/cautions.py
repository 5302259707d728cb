"""What a reader must know before spending the money."""

from __future__ import annotations

import math

from mixplan.documents.calibration import Calibration
from mixplan.documents.recipe import Recipe
from mixplan.documents.references import reference_warnings
from mixplan.recommend.problem import LOSS_LIMIT, Problem

_WIDE = 0.2
"""A probability whose 90 % interval starts this far below its target is not sure."""


def cautions(
    recipe: Recipe, problem: Problem, calibration: Calibration | None, by_hand: bool = False
) -> list[str]:
    """Warnings, most important first: foreign laws, extrapolation, assumptions, doubt, what gives way.

    Args:
        by_hand: the shares were asked for, and not chosen within the plan's limits.
    """
    told = [] if calibration is None else reference_warnings(calibration.provenance)
    told += _extrapolated(recipe) + _assumed(recipe) + _unsure(recipe)
    told += [] if by_hand else _below_natural(recipe)
    told += _common_data(recipe, problem)
    return told + ([] if calibration is None else _coverage(recipe, calibration))


def _extrapolated(recipe: Recipe) -> list[str]:
    beyond: dict[str, list[str]] = {}
    for task in recipe.tasks:
        for reason in task.recommended.why_extrapolated:
            beyond.setdefault(reason, []).append(task.name)
    return [f"extrapolated for {', '.join(names)}: {reason}" for reason, names in beyond.items()]


def _assumed(recipe: Recipe) -> list[str]:
    return [
        f"task {task.name!r} was not measured; the plan takes it to be as hard as {task.family} of "
        f"complexity {task.complexity:g}, and everything said of it rests on that"
        for task in recipe.tasks
        if task.equivalent
    ]


def _unsure(recipe: Recipe) -> list[str]:
    """Targets that hold on average but are far from sure; a stated confidence has been seen to."""
    wide = [
        f"{task.name} ({task.recommended.p_learned:.2f}, between {task.recommended.p_learned_low:.2f} and "
        f"{task.recommended.p_learned_high:.2f})"
        for task in recipe.tasks
        if task.confidence is None
        and task.recommended.p_learned >= task.target_probability - 1e-6
        and task.recommended.p_learned_low is not None
        and task.recommended.p_learned_low < task.target_probability - _WIDE
    ]
    if not wide:
        return []
    return [
        f"the laws leave open how likely these are: {', '.join(wide)}; `confidence` in the plan asks for "
        "more than the average, more measurements narrow the interval"
    ]


def _below_natural(recipe: Recipe) -> list[str]:
    return [
        f"source {source.name!r} stands below its natural share ({source.share:.3g} instead of "
        f"{source.natural_share:.3g}): a cap or a bound forces it"
        for source in recipe.sources
        if source.role == "rare" and source.rate < 1 - 1.5 / max(source.choose, 1)
    ]


def _common_data(recipe: Recipe, problem: Problem) -> list[str]:
    common = sum(source.share for source in recipe.sources if source.role == "common")
    usual = sum(source.natural_share for source in recipe.sources if source.role == "common")
    if common == 0:
        return ["no common data is left in the mixture; min_share of its sources keeps some"]
    increase, worst = recipe.common_loss_increase_nats, recipe.common_loss_increase_high
    bound = problem.max_loss_increase
    if math.isfinite(bound):
        if worst is None or worst <= 1.1 * bound + 1e-6:
            return []
        return [
            f"the bound on the common loss, {bound:.3g} nats, holds for the loss law's best estimate; within "
            f"its 90 % interval the increase may be {worst:.3g}"
        ]
    if common >= usual - len(recipe.sources) / recipe.samples:  # none was given up; the rest is rounding
        return []
    has_law = any(one.common_loss_nats is not None for one in recipe.candidates)
    if increase is not None:
        by = f"{abs(increase):.3g} nats a token"
    else:
        by = "more than a loss law can say" if has_law else "an unknown amount (there is no LM-loss law)"
    way = LOSS_LIMIT if has_law else "min_share of its sources"
    return [
        f"nothing bounds the loss on common data: its share goes from {usual:.3g} to {common:.3g}, and "
        f"its loss {'falls' if increase is not None and increase < 0 else 'rises'} by {by}; {way} bounds it"
    ]


def _coverage(recipe: Recipe, calibration: Calibration) -> list[str]:
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
    if recipe.common_loss_increase_nats is None or calibration.lm_loss is None:
        return told
    common = sum(source.share for source in recipe.sources if source.role == "common")
    used = {"block_params": float(recipe.block_params), "tokens": common * recipe.tokens}
    for axis, value in used.items():
        fitted = calibration.lm_loss.ranges.get(axis)
        if fitted is not None and not fitted.low * (1 - 1e-6) <= value <= fitted.high * (1 + 1e-6):
            told.append(
                f"the common loss is extrapolated: {axis} {value:.4g} lies outside the fitted "
                f"{fitted.low:.4g} … {fitted.high:.4g}"
            )
    return told
