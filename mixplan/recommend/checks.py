"""plan.yaml becomes a Problem, or a list of everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixplan.documents.forecast import Forecast, Goal
from mixplan.documents.plan import Plan
from mixplan.documents.plan_parts import PlanSource, PlanTask
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.recommend.problem import BUDGETS, Problem, limit_names


def build_problem(plan: Plan, forecast: Forecast, folder: Path) -> Problem:
    """Resolve what the plan leaves open and check it against the laws.

    Args:
        plan: the plan.
        forecast: the fitted laws.
        folder: folder of the plan file; relative `mds` paths start there.

    Raises:
        InputError: with every problem found: sources of unknown size, tasks that were not calibrated, a loss
            bound without a loss law, budgets and caps that no training can meet.
    """
    goals, problems = _goals(plan, forecast)
    unique = [_unique_tokens(source, folder, plan.sequence_length, problems) for source in plan.sources]
    known = all(count is not None for count in unique)
    shapes = plan.shapes()
    block_params = np.array([float(shape.block_params) for shape in shapes])
    bound = plan.constraints.max_common_loss_increase_nats
    if bound is not None and forecast.lm_loss(block_params, np.full(len(shapes), 1e6)) is None:
        problems.append(
            "constraints.max_common_loss_increase_nats is given, but the calibration has no LM-loss law: "
            "drop the constraint, or fit on measurements with `lm_loss` from several sizes and token counts"
        )
    if plan.objective == "common_loss" and forecast.lm_loss(block_params, np.full(len(shapes), 1e6)) is None:
        problems.append(
            "objective is common_loss, but the calibration has no LM-loss law: choose another objective, or "
            "fit on measurements with `lm_loss` from several sizes and token counts"
        )
    flops_per_token = np.array(
        [shape.flops_per_token(plan.vocabulary, plan.sequence_length) for shape in shapes]
    )
    per_token = _budget_per_token(plan, flops_per_token)
    budget = np.array([getattr(plan.budget, name) or np.inf for name in BUDGETS])
    with np.errstate(divide="ignore"):
        horizon = (budget / per_token).min(axis=1)  # (Z,)
    min_tokens = _min_tokens(plan, float(horizon.max()), problems)
    if known:
        _fillable(plan, [count or 0.0 for count in unique], min_tokens, problems)
    if problems:
        raise InputError(problems)
    tokens = np.array(unique, dtype=np.float64)
    given = [source.natural_share for source in plan.sources]
    natural = tokens if given[0] is None else np.array(given, dtype=np.float64)
    sources, tasks = [source.name for source in plan.sources], [task.name for task in plan.tasks]
    groups = [group.name for group in plan.groups]
    wanted = [task.target_probability for task in plan.tasks]
    weighed = plan.objective in ("most_tasks", "value")
    limit = [
        *budget,
        np.inf if bound is None else bound,
        *(source.max_epochs for source in plan.sources),
        *(source.max_share for source in plan.sources),
        *(group.max_share for group in plan.groups),
        *(source.min_share for source in plan.sources),
        *(group.min_share for group in plan.groups),
        *(-np.inf if weighed else target for target in wanted),
    ]
    return Problem(
        sources=tuple(sources),
        rare=np.array([source.role == "rare" for source in plan.sources]),
        unique_tokens=tokens,
        natural=natural / natural.sum(),
        half_life=np.array([source.repetition_half_life_epochs for source in plan.sources]),
        mds=tuple(_location(source.mds, folder) for source in plan.sources),
        groups=tuple(groups),
        member=np.array([[name in group.sources for name in sources] for group in plan.groups]).reshape(
            len(groups), len(sources)
        ),
        tasks=tuple(tasks),
        goals=tuple(goals),
        confidence=np.array([task.confidence or np.nan for task in plan.tasks]),
        value=np.array([task.value for task in plan.tasks]),
        wanted=np.array(wanted),
        density=np.array([[task.densities().get(name, 0.0) for name in sources] for task in plan.tasks]),
        shapes=tuple(shapes),
        block_params=block_params,
        flops_per_token=flops_per_token,
        budget_per_token=per_token,
        sequence_length=plan.sequence_length,
        inference_tokens=plan.inference_tokens,
        objective=plan.objective,
        min_tokens=min_tokens,
        horizon=horizon,
        names=limit_names(sources, groups, tasks),
        limit=np.array(limit, dtype=np.float64),
        given=np.array(limit, dtype=np.float64),
    )


def _goals(plan: Plan, forecast: Forecast) -> tuple[list[Goal], list[str]]:
    """What each task asks of a run, and what is wrong with it."""
    families, measured = forecast.families(), forecast.sources()
    goals, problems = [], []
    if not plan.tasks:
        problems.append(
            "the plan has no tasks; give `tasks` at least one, or there is nothing to recommend for"
        )
    for task in plan.tasks:
        try:
            goals.append(_goal(task, families, measured))
        except ValueError as error:
            problems.append(str(error))
    return goals, problems


def _goal(task: PlanTask, families: dict[str, list[float]], measured: list[str]) -> Goal:
    if task.target_bits_per_byte is None:
        family, complexity = task.measured_kind(families)
        return Goal(family, complexity, task.target_gain)
    source = task.kind[0]
    if source not in measured:
        known = f"calibrated: {', '.join(measured)}" if measured else "none was calibrated"
        raise ValueError(
            f"task {task.name!r}: target_bits_per_byte needs a source with a law of bits per byte, and "
            f"{source!r} has none ({known}){did_you_mean(source, measured)}; measure it as one of "
            "`user_sources`, or name a measured one as `family`"
        )
    return Goal(source, bits_per_byte=task.target_bits_per_byte)


def _is_url(place: str) -> bool:
    return "://" in place


def _location(mds: str | None, folder: Path) -> str | None:
    if mds is None or _is_url(mds):
        return mds
    return (folder / mds).resolve().as_posix()


def _unique_tokens(
    source: PlanSource, folder: Path, sequence_length: int, problems: list[str]
) -> float | None:
    """Tokens available: as given, or counted from the MDS folder's index."""
    if source.natural_share == 0:
        problems.append(
            f"source {source.name!r}: natural_share is 0, and no rate can raise nothing: give it a share "
            "above 0, or leave natural_share out everywhere to take it from the tokens available"
        )
    if source.tokens_available is not None:
        if source.tokens_available < sequence_length:
            problems.append(
                f"source {source.name!r}: tokens_available={source.tokens_available:g} is less than one "
                f"sample of {sequence_length:,}, and a recipe chooses whole ones: leave the source "
                "out, add data, or lower sequence_length"
            )
        return source.tokens_available
    if source.mds is None:
        form = "data" if source.data is not None else "text" if source.text else ""
        problems.append(
            f"source {source.name!r} has neither tokens_available nor mds; "
            + (f"`mixplan scan` counts its {form} and fills it in" if form else "give one of them")
        )
        return None
    if _is_url(source.mds):
        problems.append(
            f"source {source.name!r}: tokens behind {source.mds} are not counted; give "
            "tokens_available (`mixplan scan` counts a local copy that `data` names)"
        )
        return None
    from mixplan.documents.mds_index import count_tokens

    try:
        counted = count_tokens(folder / source.mds)
    except InputError as error:
        problems += [
            f"source {source.name!r}: {text} (or give tokens_available; `mixplan scan` counts text and "
            "other forms)"
            for text in error.problems
        ]
        return None
    if counted.sequence_length != sequence_length:
        problems.append(
            f"source {source.name!r}: {source.mds} holds samples of {counted.sequence_length} tokens, but "
            f"the plan's sequence_length is {sequence_length}; a recipe chooses whole samples: use one length"
        )
        return None
    return float(counted.tokens)


def _budget_per_token(plan: Plan, flops_per_token: np.ndarray) -> np.ndarray:
    """Tokens, FLOPs, GPU-hours and money that one training token takes at each size, shape (Z, 4)."""
    one = np.ones_like(flops_per_token)
    if plan.hardware is None:
        return np.stack([one, flops_per_token, 0 * one, 0 * one], axis=1)
    hours = flops_per_token / (plan.hardware.peak_flops_per_second * plan.hardware.mfu * 3600.0)
    return np.stack([one, flops_per_token, hours, hours * plan.hardware.price_per_device_hour], axis=1)


def _min_tokens(plan: Plan, longest: float, problems: list[str]) -> float:
    """Shortest training to consider; at least one sample."""
    sample = float(plan.sequence_length)
    if longest < sample:
        problems.append(
            f"the budget allows {longest:.4g} tokens at the smallest size, less than one sample of "
            f"{plan.sequence_length} tokens: raise the budget, or shorten sequence_length"
        )
    if plan.min_tokens is None:
        return max(longest / 100.0, sample)
    if longest >= sample and plan.min_tokens > longest:
        problems.append(
            f"min_tokens is {plan.min_tokens:g}, but the budget allows at most {longest:.4g} tokens, at "
            "the smallest size: lower min_tokens, or raise the budget"
        )
    return max(plan.min_tokens, sample)


def _fillable(plan: Plan, unique: list[float], min_tokens: float, problems: list[str]) -> None:
    """The sources, each repeated as often as allowed, must fill the shortest training."""
    most = sum(source.max_epochs * count for source, count in zip(plan.sources, unique, strict=True))
    if most < min_tokens:
        origin = "min_tokens" if plan.min_tokens is not None else "min_tokens by default"
        problems.append(
            f"all sources at their max_epochs give {most:.4g} tokens, less than the shortest training to "
            f"consider ({origin}: {min_tokens:.4g}): raise max_epochs, add data, or give a smaller min_tokens"
        )
