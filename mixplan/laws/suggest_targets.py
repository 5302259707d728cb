"""Where the next runs should sharpen the laws: a plan's cells, or every kind at the top of the ladder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixplan.documents.plan import Plan
from mixplan.documents.shapes import ModelShape, ModelSize
from mixplan.errors import InputError
from mixplan.laws.evidence import Kind
from mixplan.laws.suggest_information import Targets


@dataclass(frozen=True)
class Target:
    """One threshold frequency that is wanted."""

    kind: Kind
    rung: str
    block_params: float
    tokens: float


def plan_targets(plan: Plan, measured: list[Kind]) -> list[Target]:
    """Every kind that a task of the plan needs, at every size, after all tokens that the budget buys there.

    Raises:
        InputError: a task is of a kind that was not measured.
    """
    problems = []
    families: dict[str, list[float]] = {}
    for family, complexity in measured:
        families.setdefault(family, []).append(complexity)
    found = []
    # A target in bits per byte is another law's, which these runs do not sharpen.
    for task in (one for one in plan.tasks if one.target_bits_per_byte is None):
        try:
            found.append(task.measured_kind(families))
        except ValueError as error:
            problems.append(f"plan: {error}; add it to the tasks of calibration.yaml and measure it first")
    wanted = sorted(set(found))
    if not wanted and not problems:
        problems.append("plan: it has no tasks, so there is nothing to forecast more sharply")
    if problems:
        raise InputError(problems)
    return [
        Target(kind, shape.name, float(shape.block_params), affordable_tokens(plan, shape))
        for kind in wanted
        for shape in plan.shapes()
    ]


def affordable_tokens(plan: Plan, shape: ModelSize) -> float:
    """Training tokens that every limit of the plan's budget allows a size."""
    budget, hardware = plan.budget, plan.hardware
    per_token = shape.flops_per_token(plan.vocabulary, plan.sequence_length)
    limits = [] if budget.tokens is None else [budget.tokens]
    if budget.flops is not None:
        limits.append(budget.flops / per_token)
    if hardware is not None:
        per_hour = 3600.0 * hardware.peak_flops_per_second * hardware.mfu / per_token
        if budget.gpu_hours is not None:
            limits.append(budget.gpu_hours * per_hour)
        if budget.money is not None:
            limits.append(budget.money / hardware.price_per_device_hour * per_hour)
    return min(limits)


def top_targets(measured: list[Kind], shapes: list[ModelShape], tokens: dict[float, float]) -> list[Target]:
    """Every kind on the largest measured rung and on the one above.

    Args:
        measured: kinds.
        shapes: those two rungs.
        tokens: longest training of each, by block parameters.
    """
    return [
        Target(kind, shape.name, float(shape.block_params), tokens[float(shape.block_params)])
        for kind in measured
        for shape in shapes
    ]


def as_targets(targets: list[Target]) -> Targets:
    """As arrays."""
    return Targets(
        [target.kind for target in targets],
        np.log([target.block_params for target in targets]),
        np.log([target.tokens for target in targets]),
    )
