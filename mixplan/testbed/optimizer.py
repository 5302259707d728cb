"""AdamW on stacked models, each clipped by its own gradient norm, with the inverse-square-root schedule.

Shape legend: S = seeds, R = models of a seed; every parameter is (S, R, ·, ·).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-8
CLIP_NORM = 1.0
_CLIP_EPSILON = 1e-6
"""As torch's clip_grad_norm_ has it."""


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to a peak, then ∝ 1/√step; the peak is at the end of the warm-up."""

    peak: float
    warmup_steps: int
    weight_decay: float

    def learning_rate(self, step: int) -> float:
        """Of the step with this number, counted from 1."""
        return self.peak * min(step / self.warmup_steps, (self.warmup_steps / step) ** 0.5)


class AdamW:
    """Moments of a stack; arXiv 1711.05101 with torch's defaults for what arXiv 2605.29548 leaves out."""

    def __init__(self, parameters: tuple[Tensor, Tensor]) -> None:
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]

    def step(
        self,
        parameters: tuple[Tensor, Tensor],
        gradients: tuple[Tensor, Tensor],
        step: int,
        schedule: Schedule,
    ) -> None:
        """Change parameters and moments in place; `step` counts from 1."""
        rate = schedule.learning_rate(step)
        scale = clip_scale(gradients)
        for parameter, gradient, first, second in zip(
            parameters, gradients, self.first, self.second, strict=True
        ):
            clipped = gradient.mul_(scale)
            first.lerp_(clipped, 1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(clipped, clipped, value=1 - BETAS[1])
            parameter.mul_(1 - rate * schedule.weight_decay)
            parameter.addcdiv_(first, _denominator(second, step), value=-rate / (1 - BETAS[0] ** step))

    def would_move(self, gradients: tuple[Tensor, Tensor], step: int, schedule: Schedule) -> list[Tensor]:
        """What `step` would add to the parameters, weight decay apart, changing nothing."""
        rate, scale = schedule.learning_rate(step), clip_scale(gradients)
        moved = []
        for gradient, first, second in zip(gradients, self.first, self.second, strict=True):
            clipped = gradient * scale
            mean = torch.lerp(first, clipped, 1 - BETAS[0])
            square = BETAS[1] * second + (1 - BETAS[1]) * clipped**2
            moved.append(-rate / (1 - BETAS[0] ** step) * mean / _denominator(square, step))
        return moved


def clip_scale(gradients: tuple[Tensor, Tensor]) -> Tensor:
    """Factor that brings each model's gradient to a norm of at most 1, shape (S, R, 1, 1)."""
    norm = sum((g.square().sum(dim=(-2, -1), keepdim=True) for g in gradients), torch.zeros(())).sqrt()
    return (CLIP_NORM / (norm + _CLIP_EPSILON)).clamp(max=1.0)


def _denominator(second: Tensor, step: int) -> Tensor:
    return second.sqrt().div_((1 - BETAS[1] ** step) ** 0.5).add_(EPSILON)
