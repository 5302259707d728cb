"""The optimizer's real update, without making it: what one step would do to every parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


@torch.no_grad()
def real_update(
    model: Any,
    optimizer: torch.optim.Optimizer,
    gradients: Sequence[torch.Tensor],
    learning_rate: float,
    grad_clip: float,
) -> list[torch.Tensor]:
    """The change that `optimizer` would make to each parameter by one step on `gradients`.

    The step is made and taken back, so that momentum, bias correction, weight decay and clipping are the
    optimizer's own; parameters, gradients, optimizer state and learning rates are left as they were.

    Args:
        model: the module that is trained.
        optimizer: its optimizer.
        gradients: one per parameter in the order of `model.parameters()`, same shapes; not clipped.
        learning_rate: of the step, the schedule's factor included.
        grad_clip: largest L2 norm of all gradients together, as in training.

    Returns:
        Parameter after less parameter before, one per parameter, same shapes.

    Raises:
        ValueError: not one gradient per parameter.
    """
    parameters = list(model.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    held = [parameter.grad for parameter in parameters]
    state = {parameter: _copy(values) for parameter, values in optimizer.state.items()}
    rates = [group["lr"] for group in optimizer.param_groups]
    try:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.detach().clone()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
        optimizer.step()
        return [parameter.detach() - old for parameter, old in zip(parameters, before, strict=True)]
    finally:
        for parameter, old, gradient in zip(parameters, before, held, strict=True):
            parameter.copy_(old)
            parameter.grad = gradient
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        for parameter in [parameter for parameter in optimizer.state if parameter not in state]:
            del optimizer.state[parameter]  # made by the very first step
        optimizer.state.update(state)


def _copy(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if torch.is_tensor(value) else value for key, value in values.items()}
