"""Interference: what training on everything else does to each task.

The gradient of the batch that is trained next (mean token NLL) is split, for each cell, into the part of the
tokens that belong to the cell's own instances and the part of all other tokens; the two add up to it. Both
are held against the task's reference gradient g_t: of its choice NLL over all its instances, at the same
weights (arXiv 2605.29548, gradient interference).

- cosine: of g_t with the other part over block parameters (embedding rows of a task's symbols are its own, so
  they would only dilute it); cosine_all: over all parameters; cosine_top_neurons: over the neurons of the
  first feed-forward layer with the largest norm of g_t; cosine_own: of g_t with the own part, over block
  parameters.
- loss_change: ⟨g_t, Δθ⟩ with Δθ what the optimizer would really do on the other part: clipping, momentum and
  weight decay included. So it holds the push of earlier batches too, the task's own among them.
- loss_change_gradient_only: −lr·⟨g_t, P·g⟩ with P = 1/(√v̂ + ε) of AdamW and g the clipped other part: what
  this gradient alone comes to, its momentum summed up over later steps.

Shape legend: B = sequences, T = sequence length, p = parameters (block parameters first), F = feed-forward
width, d = d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mixplan.calibrate.model import marked_loss, token_loss
from mixplan.calibrate.optimizer import real_update
from mixplan.calibrate.probes import INTERFERENCE_INSTANCES
from mixplan.calibrate.probes.scoring import Questions, choice_logprobs, choice_nll
from mixplan.calibrate.tasks import Cell, Instance


@dataclass(frozen=True)
class Step:
    """How the batch would be trained."""

    learning_rate: float
    """The schedule's factor included."""
    grad_clip: float
    precision: str


def references(cells: Sequence[Cell], contexts: np.ndarray, device: Any) -> list[Questions]:
    """What each task's reference gradient is taken over: its instances, at most INTERFERENCE_INSTANCES."""
    return [Questions([_all_instances(cell)[:INTERFERENCE_INSTANCES]], contexts, device) for cell in cells]


def _all_instances(cell: Cell) -> list[Instance]:
    """Each once, also where a task is tested on what it taught."""
    return list(dict.fromkeys([*cell.task.train, *cell.task.test]))


def measure(
    model: Any,
    optimizer: torch.optim.AdamW,
    asked: Sequence[Questions],
    batch_BT: np.ndarray,
    owners_BT: np.ndarray,
    step: Step,
    top_neurons: int,
) -> list[dict[str, float | None]]:
    """One row per cell. Leaves no gradients behind, and model and optimizer as they were.

    Args:
        model: at the weights that are measured.
        optimizer: has made at least one step.
        asked: the `references` of all cells.
        batch_BT: what is trained next.
        owners_BT: index of the cell that each token belongs to; below 0: of none.
        step: how it would be trained.
        top_neurons: for cosine_top_neurons.

    Returns:
        cosine_own and own_grad_norm are None where the batch has no token of the cell.
    """
    flat = Flat(model)
    tokens_BT = torch.from_numpy(batch_BT).to(flat.device)
    whole = flat.gradient(token_loss(model, tokens_BT, step.precision))
    precondition = flat.join(_preconditioner(optimizer, p) for p in flat.parameters)

    def update(gradient: torch.Tensor) -> torch.Tensor:
        given = flat.split(gradient)
        return flat.join(real_update(model, optimizer, given, step.learning_rate, step.grad_clip))

    update_whole: torch.Tensor | None = None
    rows: list[dict[str, float | None]] = []
    for cell, questions in enumerate(asked):
        task = flat.gradient(choice_nll(choice_logprobs(model, questions, step.precision), questions).mean())
        own = own_part(model, flat, tokens_BT, owners_BT == cell, step.precision)
        if own is None:
            other = whole
            update_whole = moved = update(whole) if update_whole is None else update_whole
        else:
            other = whole - own
            moved = update(other)
        task_block, other_block = task[flat.block], other[flat.block]
        top = flat.neurons(task).norm(dim=1).topk(min(top_neurons, flat.neuron_count)).indices
        clipped = min(1.0, step.grad_clip / max(_norm(other), 1e-12))
        rows.append(
            {
                "cosine": _cosine(task_block, other_block),
                "task_grad_norm": _norm(task_block),
                "common_grad_norm": _norm(other_block),
                "loss_change": _dot(task, moved),
                "loss_change_gradient_only": -step.learning_rate * clipped * _dot(task, other * precondition),
                "cosine_all": _cosine(task, other),
                "cosine_top_neurons": _cosine(flat.neurons(task)[top], flat.neurons(other)[top]),
                "cosine_own": None if own is None else _cosine(task_block, own[flat.block]),
                "own_grad_norm": None if own is None else _norm(own[flat.block]),
            }
        )
    return rows


def own_part(
    model: Any, flat: Flat, tokens_BT: torch.Tensor, own_BT: np.ndarray, precision: str
) -> torch.Tensor | None:
    """The part of the batch's gradient (of its mean token NLL) that the marked tokens are the targets of.

    Only sequences with such tokens are read, as far as the last of them: others add nothing to it.

    Args:
        own_BT: which tokens are a cell's own.

    Returns:
        shape (p,); None where no marked token is ever a target.
    """
    targets_BT = own_BT.copy()
    targets_BT[:, 0] = False  # the first token of a sequence is predicted by nothing
    rows, columns = np.flatnonzero(targets_BT.any(axis=1)), np.flatnonzero(targets_BT.any(axis=0))
    if not len(rows):
        return None
    length = int(columns[-1]) + 1
    marked = torch.from_numpy(targets_BT[rows, :length]).to(tokens_BT.device)
    part = tokens_BT[torch.from_numpy(rows).to(tokens_BT.device), :length]
    count = len(tokens_BT) * (tokens_BT.shape[1] - 1)
    return flat.gradient(marked_loss(model, part, marked, precision) / count)


class Flat:
    """Gradients of a model as one vector (p,), block parameters first."""

    def __init__(self, model: Any) -> None:
        named = list(model.named_parameters())
        self.parameters = [parameter for _, parameter in named]
        self.device = self.parameters[0].device
        outside = [("embed_tokens" in name or "lm_head" in name) for name, _ in named]
        self._order = sorted(range(len(named)), key=lambda index: outside[index])
        self._sizes = [self.parameters[index].numel() for index in self._order]
        self.block = slice(sum(p.numel() for p, out in zip(self.parameters, outside, strict=True) if not out))
        mlp = model.model.layers[0].mlp
        first = [mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight]
        self._first_mlp = [next(i for i, p in enumerate(self.parameters) if p is w) for w in first]
        self.neuron_count = len(first[0])

    def gradient(self, loss: torch.Tensor) -> torch.Tensor:
        """Of a scalar, shape (p,)."""
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return self.join(
            torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, found, strict=True)
        )

    def join(self, tensors: Any) -> torch.Tensor:
        """One tensor per parameter, in the model's order, as one vector (p,), fp32."""
        given = list(tensors)
        return torch.cat([given[index].reshape(-1).float() for index in self._order])

    def split(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """The other way round; views."""
        found: list[torch.Tensor] = [vector] * len(self.parameters)
        for index, part in zip(self._order, vector.split(self._sizes), strict=True):
            found[index] = part.view_as(self.parameters[index])
        return found

    def neurons(self, vector: torch.Tensor) -> torch.Tensor:
        """Per neuron of the first feed-forward layer its rows of gate and up and column of down, (F, 3d)."""
        tensors = self.split(vector)
        gate, up, down = (tensors[index] for index in self._first_mlp)
        return torch.cat([gate, up, down.t()], dim=1)


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.sum(a * b, dtype=torch.float64).item()


def _norm(a: torch.Tensor) -> float:
    return _dot(a, a) ** 0.5


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """0 where one of them is 0."""
    scale = _norm(a) * _norm(b)
    return min(1.0, max(-1.0, _dot(a, b) / scale)) if scale > 0 else 0.0


def _preconditioner(optimizer: torch.optim.AdamW, parameter: torch.nn.Parameter) -> torch.Tensor:
    """1/(√v̂ + ε) of a parameter, as AdamW's next update would use it (before its next gradient)."""
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    state = optimizer.state[parameter]
    correction = 1 - group["betas"][1] ** float(state["step"])
    return 1 / ((state["exp_avg_sq"] / correction).sqrt() + group["eps"])
