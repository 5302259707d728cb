"""Trains a part: all its models side by side, measured as they go.

Shape legend: S = seeds, R = models of a seed in a stack, Q = gaps, K = tasks, F = features, n = samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mixplan.testbed import batches
from mixplan.testbed.optimizer import AdamW
from mixplan.testbed.parts import Part
from mixplan.testbed.rows import Rows, Stage
from mixplan.testbed.students import (
    Students,
    Targets,
    expected_gradients,
    fresh,
    sampled_gradients,
    stacks,
    targets,
)


@dataclass
class Stack:
    """Students that step together, with their optimizer."""

    students: Students
    optimizer: AdamW = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = AdamW((self.students.encoder, self.students.decoder))


def train(part: Part, device: str, progress: Callable[[int, Rows], None]) -> Rows:
    """Train every model of a part and measure it.

    Args:
        part: checked.
        device: of torch.
        progress: called after each evaluation with the steps done and all rows so far.

    Returns:
        Rows of the learning, retention and interference tables.
    """
    target = targets(part.mixture, 0, device)
    built = [
        Stack(fresh(part.mixture, widths, len(part.gaps), part.seeds, device))
        for widths in stacks(part.widths)
    ]
    rows, stage = Rows(), Stage(part, target, device)
    evaluations = set(part.evaluations())
    feed = _Feed(part, device)
    for step in range(1, part.steps + 1):
        stage.follow(rows, [stack.students for stack in built], step - 1)
        for stack, gradients in feed.gradients([stack.students for stack in built], target, step, built):
            stack.optimizer.step(
                (stack.students.encoder, stack.students.decoder), gradients, step, part.schedule
            )
        if step in evaluations:
            for stack in built:
                stage.evaluate(rows, stack.students, stack.optimizer, step)
            progress(step, rows)
    stage.follow(rows, [stack.students for stack in built], part.steps)
    return rows


class _Feed:
    """The gradients of a part's steps; its state is that of its generators."""

    def __init__(self, part: Part, device: str) -> None:
        self.part, self.device = part, device
        self.priors = part.mixture.priors()
        self.counts = np.random.default_rng(list(part.seeds))
        self.inputs = [torch.Generator(device).manual_seed(seed) for seed in part.seeds]

    def gradients(
        self, students: list[Students], target: Targets, step: int, built: list[Stack]
    ) -> Iterator[tuple[Stack, tuple[Tensor, Tensor]]]:
        """Of every stack in turn: the samples of a step are the same for all models of a seed."""
        part = self.part
        if not part.sampled:
            shares = batches.weights(self.priors, part.gaps, part.batch, step)
            weight = self._tensor(shares).repeat_interleave(part.mixture.block, dim=1)
            for stack, its in zip(built, students, strict=True):
                yield stack, expected_gradients(its, target, weight[list(its.settings)])
            return
        batch = batches.draw(self.priors, part.gaps, part.batch, step, self.counts)
        shape = (int(batch.counts.sum()), part.mixture.dim)
        inputs = torch.stack([torch.randn(shape, generator=own, device=self.device) for own in self.inputs])
        seen = self._tensor(batch.seen)
        for stack, its in zip(built, students, strict=True):
            yield (
                stack,
                sampled_gradients(its, target, inputs, batch.counts.tolist(), seen[list(its.settings)]),
            )

    def _tensor(self, values: batches.FloatArray) -> Tensor:
        return torch.from_numpy(values).to(self.device, torch.float32)
