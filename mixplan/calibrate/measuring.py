"""What is measured when, in a run: the probes' timetable and their state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mixplan.calibrate.batches import Batches
from mixplan.calibrate.metrics import MetricsLog
from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.probes import interference, learning
from mixplan.calibrate.probes.retention import RetentionProbe
from mixplan.calibrate.probes.scoring import held_out_contexts
from mixplan.calibrate.runs import RunSpec
from mixplan.calibrate.tasks import Cell


class Measuring:
    """The probes of one run. All of them look at the model after a number of completed steps.

    Branches are only measured at their end (skill and LM loss): what happens inside a decay is due to the
    schedule.
    """

    def __init__(
        self,
        prepared: Prepared,
        run: RunSpec,
        cells: list[Cell],
        batches: Batches,
        retention: list[RetentionProbe],
        metrics: MetricsLog,
    ) -> None:
        self.prepared, self.run, self.cells, self.batches = prepared, run, cells, batches
        self.retention, self.metrics = retention, metrics
        self.precision = prepared.spec.training.precision
        self.contexts = held_out_contexts(prepared.held_out, np.random.default_rng([run.seed, 4]))
        probes, steps = prepared.spec.probes, run.steps
        # A branch measures at its own end, with a decayed learning rate: there the trunk does not.
        branch_ends = {branch.end_step for branch in run.branches}
        self.evaluate_at = _spread(steps, probes.evaluations) - (branch_ends - {steps})
        points = probes.interference.points if probes.interference else 0
        self.interfere_at = {max(1, round(steps * (k + 0.5) / points)) for k in range(points)}

    def due(self, step: int) -> bool:
        """Whether something is measured around the trunk's state after `step` steps."""
        return (
            step in self.evaluate_at
            or step in self.interfere_at
            or any(
                probe.starts_at(step) or probe.delay_after(step - 1) is not None for probe in self.retention
            )
        )

    def before_step(self, model: Any, step: int) -> None:
        """Measurements due before the trunk's step is trained."""
        for probe in self.retention:
            if probe.starts_at(step):
                probe.before = probe.measure(model, self.contexts, self.precision)

    def after_step(self, model: Any, optimizer: torch.optim.AdamW, step: int, learning_rate: float) -> None:
        """Measurements due after `step` completed steps of the trunk."""
        if step in self.evaluate_at:
            self.evaluate(model, step, None, decayed=step == self.run.steps)
        probes = self.prepared.spec.probes
        if step in self.interfere_at and probes.interference is not None:
            common = self.batches.stream.batch(step, probes.interference.batch_sequences)
            rows = interference.measure(
                model, optimizer, self.cells, common, self.contexts, learning_rate, self.precision
            )
            self.metrics.interference(step, self.cells, self.batches.injector.realised_frequencies, rows)
        for probe in self.retention:
            delay = probe.delay_after(step - 1)
            if delay is not None:
                now = probe.measure(model, self.contexts, self.precision)
                self.metrics.retention(step, probe.rows(now, delay, self.run.tokens_per_step))

    def evaluate(self, model: Any, step: int, branch: int | None, decayed: bool) -> None:
        """Skill of every cell and LM loss after `step` steps of the trunk (None) or of a branch."""
        probes = self.prepared.spec.probes
        loss = learning.lm_loss(
            model,
            self.prepared.held_out,
            self.run.sequence_length,
            probes.lm_loss_tokens,
            self.precision,
        )
        rows = learning.skills(model, self.cells, self.contexts, probes.max_instances, self.precision)
        injector = self.batches.injector
        self.metrics.learning(
            step,
            branch,
            decayed,
            self.cells,
            injector.realised_frequencies,
            injector.seen(step),
            rows,
            loss,
        )

    def state(self) -> list[Any]:
        """What a checkpoint must hold."""
        return [probe.before for probe in self.retention]

    def restore(self, state: list[Any]) -> None:
        """Take up what `state` gave."""
        for probe, before in zip(self.retention, state, strict=True):
            probe.before = before


def _spread(steps: int, times: int) -> set[int]:
    return {max(1, round(steps * (k + 1) / times)) for k in range(times)}
