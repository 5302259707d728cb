"""Interference: what a step on common data alone would do to each rare task.

g_t: gradient of the task's choice NLL over its instances. g_c: gradient of the LM loss on clean text.
- cosine: cos(g_t, g_c) over the block parameters (embedding rows of task symbols are the task's own, so they
  would only dilute it).
- loss_change: −lr·⟨g_t, P g_c⟩ over all parameters, with AdamW's preconditioner P = 1/(√v̂ + ε): the
  first-order change of the task's loss, in nats, by one common gradient, its momentum summed up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mixplan.calibrate.model import token_loss
from mixplan.calibrate.probes import INTERFERENCE_INSTANCES
from mixplan.calibrate.probes.scoring import choice_logprobs, choice_nll
from mixplan.calibrate.tasks import Cell


def measure(
    model: Any,
    optimizer: torch.optim.AdamW,
    cells: Sequence[Cell],
    common_BT: np.ndarray,
    contexts: np.ndarray,
    learning_rate: float,
    precision: str,
) -> list[dict[str, float]]:
    """One row per cell: cosine, norms (over block parameters) and loss_change. Leaves no gradients behind."""
    device = next(model.parameters()).device
    names = [name for name, _ in model.named_parameters()]
    block = [("embed_tokens" not in name and "lm_head" not in name) for name in names]
    parameters = list(model.parameters())
    preconditioner = [_preconditioner(optimizer, p) for p in parameters]
    common = _gradient(token_loss(model, torch.from_numpy(common_BT).to(device), precision), parameters)
    common_norm = _dot(common, common, block) ** 0.5
    rows = []
    for cell in cells:
        instances = [*cell.task.train, *cell.task.test][:INTERFERENCE_INSTANCES]
        loss = choice_nll(choice_logprobs(model, instances, contexts, precision), instances).mean()
        own = _gradient(loss, parameters)
        norm = _dot(own, own, block) ** 0.5
        change = sum(
            torch.sum(t * c * p, dtype=torch.float64).item()
            for t, c, p in zip(own, common, preconditioner, strict=True)
        )
        scale = norm * common_norm
        rows.append(
            {
                "cosine": min(1.0, max(-1.0, _dot(own, common, block) / scale)) if scale > 0 else 0.0,
                "task_grad_norm": norm,
                "common_grad_norm": common_norm,
                "loss_change": -learning_rate * change,
            }
        )
    return rows


def _gradient(loss: torch.Tensor, parameters: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def _dot(a: list[torch.Tensor], b: list[torch.Tensor], keep: list[bool]) -> float:
    return sum(
        torch.sum(x * y, dtype=torch.float64).item() for x, y, use in zip(a, b, keep, strict=True) if use
    )


def _preconditioner(optimizer: torch.optim.AdamW, parameter: torch.nn.Parameter) -> torch.Tensor:
    """1/(√v̂ + ε) of a parameter, as AdamW's next update would use it (before its next gradient)."""
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    state = optimizer.state[parameter]
    correction = 1 - group["betas"][1] ** float(state["step"])
    return 1 / ((state["exp_avg_sq"] / correction).sqrt() + group["eps"])
