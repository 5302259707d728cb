"""What is measured when, in a run: the probes' timetable and their state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mixplan.calibrate.batches import Batches
from mixplan.calibrate.metrics import MetricsLog
from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.probes import features, interference, learning
from mixplan.calibrate.probes.contexts import held_out_contexts
from mixplan.calibrate.probes.retention import RetentionProbe
from mixplan.calibrate.probes.scoring import Questions
from mixplan.calibrate.probes.source_loss import source_losses, source_rows
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
        self.contexts = held_out_contexts(
            prepared.held_out, np.random.default_rng([run.seed, 4]), prepared.spec.injection.placement
        )
        self._unseen: Questions | None = None
        self._references: list[Questions] | None = None
        self._feature_probe: features.FeatureProbe | None = None
        probes, steps = prepared.spec.probes, run.steps
        # A branch measures at its own end, with a decayed learning rate: there the trunk does not.
        branch_ends = {branch.end_step for branch in run.branches}
        self.evaluate_at = _spread(steps, probes.evaluations) - (branch_ends - {steps})
        points = probes.interference.points if probes.interference else 0
        self.interfere_at = {max(1, round(steps * (k + 0.5) / points)) for k in range(points)}
        self.read_out_at = _spread(steps, probes.features.points) if probes.features else set()

    def due(self, step: int) -> bool:
        """Whether something is measured around the trunk's state after `step` steps."""
        return (
            step in self.evaluate_at
            or step in self.interfere_at
            or step in self.read_out_at
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
        if step in self.interfere_at:
            self._interference(model, optimizer, step, learning_rate)
        if step in self.read_out_at:
            self._features(model, step)
        for probe in self.retention:
            delay = probe.delay_after(step - 1)
            if delay is not None:
                now = probe.measure(model, self.contexts, self.precision)
                decaying = step > self.run.steps - self.run.decay_steps
                rows = probe.rows(now, delay, self.run.tokens_per_step, decaying)
                self.metrics.retention(step, rows)

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
        if self._unseen is None:
            self._unseen = learning.unseen(self.cells, probes.max_instances, self.contexts, _device(model))
        rows = learning.skills(model, self._unseen, self.precision) if self.cells else []
        injector = self.batches.injector
        frequencies, seen = injector.realised_frequencies, injector.seen(step)
        self.metrics.learning(step, branch, decayed, self.cells, frequencies, seen, rows, loss)
        losses = source_losses(model, self.prepared, self.run, self.precision, probes.lm_loss_tokens)
        found = source_rows(self.prepared, self.batches.mix, step, losses)
        self.metrics.sources(step, branch, decayed, found, loss)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"retention_before": [probe.before for probe in self.retention]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        for probe, before in zip(self.retention, state["retention_before"], strict=True):
            probe.before = before

    def _interference(
        self, model: Any, optimizer: torch.optim.AdamW, step: int, learning_rate: float
    ) -> None:
        spec = self.prepared.spec
        assert spec.probes.interference is not None
        if self._references is None:
            self._references = interference.references(self.cells, self.contexts, _device(model))
        # The batch that the run trains next; after the last step, the one that would come.
        batch, owners = self.batches.with_owners(min(step, self.run.steps - 1))
        first = slice(spec.probes.interference.batch_sequences)
        rows = interference.measure(
            model,
            optimizer,
            self._references,
            batch[first],
            owners[first],
            interference.Step(learning_rate, spec.training.grad_clip, self.precision),
            spec.probes.interference.top_neurons,
        )
        frequencies = self.batches.injector.realised_frequencies
        self.metrics.of_cells("interference", step, self.cells, frequencies, [[row] for row in rows])

    def _features(self, model: Any, step: int) -> None:
        spec = self.prepared.spec.probes.features
        assert spec is not None
        if self._feature_probe is None:
            tasks = [cell.task for cell in self.cells]
            self._feature_probe = features.FeatureProbe(
                spec, tasks, self.contexts, self.run.seed, _device(model)
            )
        rows = self._feature_probe.measure(model, self.precision)
        frequencies = self.batches.injector.realised_frequencies
        self.metrics.of_cells("features", step, self.cells, frequencies, rows)


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device


def _spread(steps: int, times: int) -> set[int]:
    return {max(1, round(steps * (k + 1) / times)) for k in range(times)}
