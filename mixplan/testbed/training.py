"""Trains a part: all its models side by side, measured as they go.

Shape legend: S = seeds, R = models of a seed in a stack, Q = gaps, K = tasks, F = features, n = samples.
"""

from __future__ import annotations

from collections.abc import Callable
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


class Trainer:
    """All models of a part; its state is theirs, the generators' and the number of steps done."""

    def __init__(self, part: Part, target: Targets, device: str) -> None:
        self.part, self.target, self.device = part, target, device
        self.stacks = [
            Stack(fresh(part.mixture, widths, len(part.gaps), part.seeds, device))
            for widths in stacks(part.widths)
        ]
        self.done = 0
        self._priors = part.mixture.priors()
        self._counts = np.random.default_rng(list(part.seeds))
        self._inputs = [torch.Generator(device).manual_seed(seed) for seed in part.seeds]

    def step(self) -> None:
        """Train every model on one more batch; models of one seed and gap see the same samples."""
        self.done += 1
        gradients = self._sampled() if self.part.sampled else self._expected()
        for stack in self.stacks:
            both = stack.students.encoder, stack.students.decoder
            stack.optimizer.step(both, gradients(stack.students), self.done, self.part.schedule)

    def _expected(self) -> Callable[[Students], tuple[Tensor, Tensor]]:
        shares = batches.weights(self._priors, self.part.gaps, self.part.batch, self.done)
        weight = self._tensor(shares).repeat_interleave(self.part.mixture.block, dim=1)
        return lambda students: expected_gradients(students, self.target, weight[list(students.settings)])

    def _sampled(self) -> Callable[[Students], tuple[Tensor, Tensor]]:
        part = self.part
        batch = batches.draw(self._priors, part.gaps, part.batch, self.done, self._counts)
        counts = batch.counts.tolist()
        shape = (sum(counts), part.mixture.dim)
        inputs = torch.stack([torch.randn(shape, generator=own, device=self.device) for own in self._inputs])
        weight = self._tensor(batch.seen)
        return lambda students: sampled_gradients(
            students, self.target, inputs, counts, weight[list(students.settings)]
        )

    def _tensor(self, values: batches.FloatArray) -> Tensor:
        return torch.from_numpy(values).to(self.device, torch.float32)


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
    rows, stage, trainer = Rows(), Stage(part, target, device), Trainer(part, target, device)
    students = [stack.students for stack in trainer.stacks]
    evaluations = set(part.evaluations())
    stage.follow(rows, students, 0)
    for step in range(1, part.steps + 1):
        trainer.step()
        stage.follow(rows, students, step)
        if step in evaluations:
            for stack in trainer.stacks:
                stage.evaluate(rows, stack.students, stack.optimizer, step)
            progress(step, rows)
    return rows
