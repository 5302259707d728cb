"""What is measured of a stack of students: signals, losses, gradients; exact, not on samples.

Shape legend: S = seeds, R = models of a seed, D = dim, K = tasks, d = block, F = K·d, N = widest width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixplan.testbed.optimizer import AdamW, Schedule
from mixplan.testbed.students import Students, Targets, expected_gradients

RANK_TOLERANCE = 1e-12
"""Directions of the encoder with less than this share of its largest squared singular value are rounding."""


def signals(students: Students, target: Targets) -> Tensor:
    """Share of each feature inside the encoder's span, ‖P_U b_{k,j}‖², shape (S, R, K, d), float64."""
    encoder = students.encoder.double()
    values, vectors = torch.linalg.eigh(encoder.mT @ encoder)
    real = values > RANK_TOLERANCE * values.amax(dim=-1, keepdim=True)
    inverse = torch.where(real, 1 / values.clamp_min(1e-300), torch.zeros_like(values))
    along = target.basis @ encoder @ vectors
    share = (along.square() * inverse[..., None, :]).sum(dim=-1)
    return share.unflatten(-1, (target.tasks, target.block))


def task_signals(share: Tensor, target: Targets) -> Tensor:
    """s_k = Tr(P_U C_k)/Tr(C_k) of `signals`, shape (S, R, K)."""
    return (share * target.energy.unflatten(0, (target.tasks, target.block))).sum(dim=-1)


def losses(students: Students, target: Targets) -> Tensor:
    """E‖y_k − ŷ_k‖² of each task, shape (S, R, K); 1 for a student that says nothing, as Tr(C_k) = 1."""
    encoder, decoder = students.encoder.double(), students.decoder.double()
    # ‖D Uᵀ − A‖² of every row, with A = Λ^{1/2}B: D (UᵀU) Dᵀ − 2 D (AU)ᵀ + λ.
    heard = target.energy.sqrt()[:, None] * (target.basis @ encoder)
    row = (decoder * (decoder @ (encoder.mT @ encoder) - 2 * heard)).sum(dim=-1) + target.energy
    return row.clamp_min(0.0).unflatten(-1, (target.tasks, target.block)).sum(dim=-1)


@dataclass(frozen=True)
class Conflict:
    """Each task's gradient in the encoder against that of the frequent tasks; arrays of shape (S, R, K)."""

    cosine: Tensor
    task_norm: Tensor
    common_norm: Tensor
    """The same for all tasks."""
    loss_change: Tensor
    """First-order change of the task's loss by the optimizer's next step on the frequent tasks alone."""


def conflicts(
    students: Students,
    target: Targets,
    priors: Tensor,
    frequent: int,
    optimizer: AdamW,
    step: int,
    plan: Schedule,
) -> Conflict:
    """Gradients of every task against the expected gradient of the frequent ones.

    The encoder is what tasks share; decoders are a task's own, and only the loss change sees them.

    Args:
        students: the stack.
        target: the tasks.
        priors: π, shape (K,), most frequent first.
        frequent: how many of the first tasks are the frequent ones.
        optimizer: of the stack; read only.
        step: number of the next step, counted from 1.
        plan: the learning rates.
    """
    weight = torch.where(torch.arange(target.tasks, device=priors.device) < frequent, priors, 0.0)
    common = expected_gradients(students, target, weight.repeat_interleave(target.block))
    moved = optimizer.would_move(common, step, plan)
    shape = (*students.encoder.shape[:2], target.tasks)
    cosine, norm, change = (torch.zeros(shape, device=priors.device) for _ in range(3))
    common_norm = common[0].flatten(2).norm(dim=-1)
    for task in range(target.tasks):
        part = slice(task * target.block, (task + 1) * target.block)
        own, readout = students.decoder[:, :, part], target.readout[part]
        missed = own @ students.encoder.mT - readout  # (S, R, d, D)
        shared, private = 2 * missed.mT @ own, 2 * missed @ students.encoder
        norm[..., task] = shared.flatten(2).norm(dim=-1)
        aligned = (shared * common[0]).sum(dim=(-2, -1))
        both = norm[..., task] * common_norm
        cosine[..., task] = torch.where(both > 0, aligned / both.clamp_min(1e-30), 0.0)
        change[..., task] = (shared * moved[0]).sum(dim=(-2, -1)) + (private * moved[1][:, :, part]).sum(
            dim=(-2, -1)
        )
    return Conflict(cosine.clamp(-1, 1), norm, common_norm[..., None].expand(shape), change)
