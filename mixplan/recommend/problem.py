"""The plan as arrays: sources, tasks, sizes, and every limit by name.

Shape legend: S = sources, G = groups of sources, T = tasks, Z = sizes, C = limits, B = candidate mixtures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mixplan.documents.forecast import FloatArray, Goal
from mixplan.documents.shapes import ModelSize

BUDGETS = ("tokens", "flops", "gpu_hours", "money")
LOSS_LIMIT = "constraints.max_common_loss_increase_nats"
FAR = 1000.0
"""How far beyond the budget "any number of tokens" is tried."""


@dataclass(frozen=True)
class Problem:
    """What is searched over. All limits stand in one vector, so that any of them can be dropped or moved."""

    sources: tuple[str, ...]
    rare: np.ndarray
    """Which sources have their rate searched, bool, shape (S,)."""
    unique_tokens: FloatArray
    """U, shape (S,)."""
    natural: FloatArray
    """Natural shares, summing to 1, shape (S,)."""
    half_life: FloatArray
    """R* of arXiv 2305.16264 eq. 5, in epochs, shape (S,)."""
    mds: tuple[str | None, ...]
    groups: tuple[str, ...]
    member: np.ndarray
    """Which sources are in each group, bool, shape (G, S); a source is in one at most."""
    tasks: tuple[str, ...]
    goals: tuple[Goal, ...]
    """What each task asks of a run."""
    confidence: FloatArray
    """Share of the draws in which the probability must be at least its target; NaN: it is averaged over
    them. Shape (T,)."""
    value: FloatArray
    """What each task is worth, shape (T,)."""
    wanted: FloatArray
    """Target probabilities as the plan has them, whether or not they are limits, shape (T,)."""
    density: FloatArray
    """Instances per token of each source, shape (T, S)."""
    shapes: tuple[ModelSize, ...]
    block_params: FloatArray
    """Shape (Z,)."""
    flops_per_token: FloatArray
    """Shape (Z,)."""
    budget_per_token: FloatArray
    """What one training token takes of each of BUDGETS, shape (Z, 4)."""
    sequence_length: int
    inference_tokens: float
    objective: str
    min_tokens: float
    horizon: FloatArray
    """Most tokens that the plan's own budget allows at each size, shape (Z,)."""
    names: tuple[str, ...]
    """Names of the limits, as keys of the plan: budgets, loss bound, epoch caps, upper bounds on shares of
    sources and groups, lower bounds of both, targets."""
    limit: FloatArray
    """Their values; infinite where the plan sets none, shape (C,)."""
    given: FloatArray
    """Values as the plan has them, whatever was dropped or moved since; they say where a rate may be below
    1."""

    def cost(self, size: np.ndarray | int, tokens: FloatArray | float) -> FloatArray:
        """FLOPs of training and of all inference: a forward pass is a third of a training step's."""
        return np.asarray((tokens + self.inference_tokens / 3.0) * self.flops_per_token[size])

    @property
    def sign(self) -> FloatArray:
        """+1 for upper limits, −1 for lower ones (min_share and targets), shape (C,)."""
        count, groups, tasks = len(self.sources), len(self.groups), len(self.tasks)
        upper, lower = 5 + 2 * count + groups, count + groups + tasks
        return np.concatenate([np.ones(upper), -np.ones(lower)])

    @property
    def max_loss_increase(self) -> float:
        """Nats; infinite without a bound."""
        return float(self.limit[4])

    @property
    def max_epochs(self) -> FloatArray:
        """Shape (S,)."""
        return self._part(0)

    @property
    def max_share(self) -> FloatArray:
        """Shape (S,), at most 1 also where dropped."""
        return np.minimum(self._part(1), 1.0)

    @property
    def group_max(self) -> FloatArray:
        """Shape (G,), at most 1 also where dropped."""
        return np.minimum(self._part(2), 1.0)

    @property
    def min_share(self) -> FloatArray:
        """Shape (S,), at least 0 also where dropped."""
        return np.maximum(self._part(3), 0.0)

    @property
    def group_min(self) -> FloatArray:
        """Shape (G,), at least 0 also where dropped."""
        return np.maximum(self._part(4), 0.0)

    @property
    def target(self) -> FloatArray:
        """Probabilities, −inf where dropped, shape (T,)."""
        return self._part(5)

    def _part(self, which: int) -> FloatArray:
        count, groups = len(self.sources), len(self.groups)
        ends = np.cumsum([5, count, count, groups, count, groups, len(self.tasks)])
        return self.limit[ends[which] : ends[which + 1]]

    @property
    def targets_are_limits(self) -> bool:
        """Whether every target must be met; else the objective weighs the tasks."""
        return self.objective in ("cheapest", "common_loss")

    def as_given(self) -> Problem:
        """The same problem with its limits as the plan has them."""
        return replace(self, limit=self.given)

    def settled(self) -> Problem:
        """The same problem as if the plan had these limits."""
        return replace(self, given=self.limit)

    def with_limits(self, changes: Mapping[str, float]) -> Problem:
        """The same problem with some limits moved."""
        limit = self.limit.copy()
        for name, value in changes.items():
            limit[self.names.index(name)] = value
        return replace(self, limit=limit)

    def without(self, names: set[str] | list[str]) -> Problem:
        """The same problem with some limits dropped."""
        sign = dict(zip(self.names, self.sign, strict=True))
        return self.with_limits({name: float(sign[name]) * np.inf for name in names})

    def active_names(self) -> list[str]:
        """Limits that say something: finite, and not a share bound of 0 or 1."""
        named = [f"sources.{name}" for name in self.sources] + [f"groups.{name}" for name in self.groups]
        idle = {f"{name}.max_share": 1.0 for name in named} | {f"{name}.min_share": 0.0 for name in named}
        return [
            name
            for name, value in zip(self.names, self.limit, strict=True)
            if np.isfinite(value) and idle.get(name) != value
        ]

    def excess(self, values: FloatArray) -> FloatArray:
        """How far each value is beyond its limit; positive means violated, shape (B, C).

        Budgets and epochs relative to their limit, shares and probabilities absolute, loss in nats.
        """
        relative = np.zeros(len(self.names), dtype=bool)
        relative[:4] = relative[5 : 5 + len(self.sources)] = True
        finite = np.isfinite(self.limit)
        scale = np.where(relative & finite, self.limit, 1.0)
        over = self.sign * (values - np.where(finite, self.limit, 0.0)) / scale
        return np.where(finite, over, -1.0)


def limit_names(sources: list[str], groups: list[str], tasks: list[str]) -> tuple[str, ...]:
    """The limits by name, in the order of `Problem.limit`."""
    return (
        *(f"budget.{name}" for name in BUDGETS),
        LOSS_LIMIT,
        *(f"sources.{name}.max_epochs" for name in sources),
        *(f"sources.{name}.max_share" for name in sources),
        *(f"groups.{name}.max_share" for name in groups),
        *(f"sources.{name}.min_share" for name in sources),
        *(f"groups.{name}.min_share" for name in groups),
        *(f"tasks.{name}.target_probability" for name in tasks),
    )
