"""Linear bottlenecks of several widths, seeds and settings as two stacked arrays, and their gradients.

    ŷ_k = D_k Uᵀx,   loss = Σ_k p_k E‖y_k − D_k Uᵀx‖²

All models of a stack are padded to its widest: columns of zeros have gradients of exactly zero and stay zero,
so that a narrow model inside a wide stack trains as it would alone.

Shape legend: S = seeds, R = models of a seed (width × setting), D = dim, F = K·d features (block by block),
N = widest of the stack, n = samples of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixplan.testbed.mixture import Mixture

WIDEST_PADDING = 2.0
"""Widths that differ by at most this ratio share a stack: beyond it, most products would be with zeros."""


@dataclass
class Students:
    """A stack of models."""

    encoder: Tensor
    """U, shape (S, R, D, N)."""
    decoder: Tensor
    """D_1 … D_K one below the other, shape (S, R, F, N)."""
    widths: tuple[int, ...]
    """R of them."""
    settings: tuple[int, ...]
    """R: which of the protocol's settings (its gaps) the model trains with."""

    def total_params(self, model: int) -> int:
        """Parameters of one of the R models, padding not counted."""
        return (self.encoder.shape[2] + self.decoder.shape[2]) * self.widths[model]

    def of_setting(self, setting: int) -> Students:
        """The models of one setting."""
        own = [r for r, its in enumerate(self.settings) if its == setting]
        return Students(
            encoder=self.encoder[:, own],
            decoder=self.decoder[:, own],
            widths=tuple(self.widths[r] for r in own),
            settings=(setting,) * len(own),
        )


@dataclass(frozen=True)
class Targets:
    """The tasks as a student sees them: y = A x of all tasks, one below the other."""

    readout: Tensor
    """A = Λ^{1/2}Bᵀ, shape (F, D)."""
    energy: Tensor
    """λ of each feature, shape (F,)."""
    basis: Tensor
    """B, the features' directions, shape (F, D): orthonormal rows."""
    tasks: int
    block: int


def targets(mixture: Mixture, seed: int, device: str) -> Targets:
    """The mixture on a random orthonormal basis: AdamW would notice coordinates that are a task's own."""
    generator = torch.Generator().manual_seed(_mixed(seed, 0))
    square = torch.randn(mixture.dim, mixture.dim, generator=generator, dtype=torch.float64)
    features = mixture.tasks * mixture.block
    basis = torch.linalg.qr(square)[0].T[:features]
    energy = torch.from_numpy(mixture.spectra().ravel())
    return Targets(
        readout=(energy.sqrt()[:, None] * basis).to(device, torch.float32),
        energy=energy.to(device),
        basis=basis.to(device),
        tasks=mixture.tasks,
        block=mixture.block,
    )


def stacks(widths: Sequence[int]) -> list[list[int]]:
    """Widths that are trained in one stack, smallest first."""
    grouped: list[list[int]] = []
    for width in sorted(widths):
        if grouped and width <= WIDEST_PADDING * grouped[-1][0]:
            grouped[-1].append(width)
        else:
            grouped.append([width])
    return grouped


def fresh(
    mixture: Mixture, widths: Sequence[int], settings: int, seeds: Sequence[int], device: str
) -> Students:
    """Untrained models: encoder columns orthonormal, decoders uniform on ±1/√N (Kaiming, as torch's Linear).

    The weights of a model depend on its seed and width alone: the settings of one width start alike.
    """
    widest, features = max(widths), mixture.tasks * mixture.block
    encoder = torch.zeros(len(seeds), len(widths), settings, mixture.dim, widest)
    decoder = torch.zeros(len(seeds), len(widths), settings, features, widest)
    for s, seed in enumerate(seeds):
        for r, width in enumerate(widths):
            generator = torch.Generator().manual_seed(_mixed(seed, width))
            gaussian = torch.randn(mixture.dim, width, generator=generator, dtype=torch.float64)
            encoder[s, r, :, :, :width] = torch.linalg.qr(gaussian)[0].float()
            uniform = torch.rand(features, width, generator=generator)
            decoder[s, r, :, :, :width] = (2 * uniform - 1) / width**0.5
    return Students(
        encoder=encoder.flatten(1, 2).to(device),
        decoder=decoder.flatten(1, 2).to(device),
        widths=tuple(width for width in widths for _ in range(settings)),
        settings=tuple(setting for _ in widths for setting in range(settings)),
    )


def expected_gradients(students: Students, target: Targets, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of Σ_k p_k E‖y_k − ŷ_k‖² in encoder and decoder, exact.

    Args:
        students: the stack.
        target: the tasks.
        weight: p of every feature's task, shape (R, F) or (F,).
    """
    encoder, decoder = students.encoder, students.decoder
    weighted = weight[..., None] * decoder
    gram = encoder.mT @ encoder
    missed = decoder @ gram - target.readout @ encoder
    pulled = encoder @ (decoder.mT @ weighted) - target.readout.T @ weighted
    return 2 * pulled, 2 * weight[..., None] * missed


def sampled_gradients(
    students: Students, target: Targets, inputs: Tensor, counts: Sequence[int], weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of Σ_i w_i‖y_i − ŷ_i‖² over samples in encoder and decoder.

    Args:
        students: the stack.
        target: the tasks.
        inputs: x, sorted by task, shape (S, n, D).
        counts: samples of each task, K numbers that sum to n.
        weight: w, shape (R, n); 0 leaves a sample out of a model's batch.
    """
    hidden = inputs[:, None] @ students.encoder
    back = torch.empty_like(hidden)
    decoder_gradient = torch.zeros_like(students.decoder)
    start = 0
    for task, count in enumerate(counts):
        if not count:
            continue
        rows, part = slice(start, start + count), slice(task * target.block, (task + 1) * target.block)
        start += count
        wanted = inputs[:, rows] @ target.readout[part].T
        own = students.decoder[:, :, part]
        seen = hidden[:, :, rows]
        error = 2 * weight[:, rows, None] * (seen @ own.mT - wanted[:, None])
        decoder_gradient[:, :, part] = error.mT @ seen
        back[:, :, rows] = error @ own
    return inputs[:, None].mT @ back, decoder_gradient


def _mixed(*numbers: int) -> int:
    """A seed that differs between any two lists of numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
