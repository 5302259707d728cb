"""One run, from its folder to its folder.

Everything random is a function of (seed, step), so that model, optimizer and step are the whole state: a run
that was killed continues from its last checkpoint and measures the same numbers (exactly so on CPUs with the
same number of threads).
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mixplan.calibrate import ladder
from mixplan.calibrate.injection import Injector
from mixplan.calibrate.metrics import Diverged, MetricsLog
from mixplan.calibrate.model import build_optimizer, seeded_model, token_loss
from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.probes import interference, learning
from mixplan.calibrate.probes.retention import RetentionProbe
from mixplan.calibrate.probes.scoring import held_out_contexts
from mixplan.calibrate.runs import RunFolder, RunSpec
from mixplan.calibrate.stream import BaseStream
from mixplan.calibrate.tasks import Cell, make_cells, make_probe_tasks

_LOOK_EVERY_STEPS = 10
_TELL_EVERY_SECONDS = 2.0


@dataclass
class _Measuring:
    """What the probes of a run need."""

    cells: list[Cell]
    contexts: np.ndarray
    evaluate_at: set[int]
    interfere_at: set[int]
    retention: RetentionProbe | None


class Run:
    """A run in progress: model, optimizer, step, and the probes' state."""

    def __init__(self, prepared: Prepared, folder: RunFolder, device: str) -> None:
        self.prepared, self.folder, self.device = prepared, folder, device
        self.spec: RunSpec = folder.read()
        self.training = prepared.spec.training
        self.precision = self.training.precision
        self.end_of_document_id = prepared.end_of_document_id
        self.model = seeded_model(self.spec, self.end_of_document_id).to(device)
        self.fast_model: Any = torch.compile(self.model) if self.training.compile else self.model
        self.optimizer = build_optimizer(self.model, self.spec.learning_rate, self.training)
        self.stream = BaseStream(prepared.train, self.spec.sequence_length, self.spec.seed)
        self.measuring = self._measuring()
        cells = self.measuring.cells
        self.injector = Injector(
            [cell.task for cell in cells],
            [cell.frequency for cell in cells],
            self.end_of_document_id,
            self.spec.batch_sequences,
            self.spec.sequence_length,
            self.spec.steps,
            self.spec.seed,
        )
        self.metrics = MetricsLog(folder, self.spec)
        self.step = 0
        self._restore()

    def train(self) -> None:
        """Train to the end, measuring on the way, and write done.json."""
        try:
            self._train()
        except Diverged:
            status: Literal["finished", "diverged"] = "diverged"
        else:
            status = "finished"
        self.metrics.flush()
        self.folder.finish(status, step=self.step, tokens=self.step * self.spec.tokens_per_step)

    def _train(self) -> None:
        saved = told = time.monotonic()
        told_step = self.step
        losses: list[torch.Tensor] = []
        while self.step < self.spec.steps:
            self._before_step()
            losses.append(self._one_step())
            self.step += 1
            if self.step % _LOOK_EVERY_STEPS == 0 or self._measures_now():
                mean = torch.stack(losses).mean().item()
                losses.clear()
                if not math.isfinite(mean):
                    raise Diverged
                now = time.monotonic()
                if now - told > _TELL_EVERY_SECONDS or self.step == self.spec.steps:
                    rate = (self.step - told_step) * self.spec.tokens_per_step / (now - told)
                    self.folder.progress(self.step, rate, mean)
                    told, told_step = now, self.step
            self._after_step()
            if time.monotonic() - saved > self.training.checkpoint_every_seconds:
                self._save()
                saved = time.monotonic()

    def _one_step(self) -> torch.Tensor:
        probe = self.measuring.retention
        batch = self.stream.batch(self.step, self.spec.batch_sequences)
        batch = self.injector.inject(self.step, batch, probe.burst(self.step) if probe else [])
        factor = ladder.schedule(self.step, self.spec.steps, self.training)
        for group in self.optimizer.param_groups:
            group["lr"] = self.spec.learning_rate * factor
        loss = token_loss(self.fast_model, torch.from_numpy(batch).to(self.device), self.precision)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.grad_clip)
        self.optimizer.step()
        return loss.detach()

    def _measures_now(self) -> bool:
        probe = self.measuring.retention
        return (
            self.step in self.measuring.evaluate_at
            or self.step in self.measuring.interfere_at
            or (
                probe is not None
                and (probe.starts_at(self.step) or probe.delay_after(self.step - 1) is not None)
            )
        )

    def _before_step(self) -> None:
        probe = self.measuring.retention
        if probe is not None and probe.starts_at(self.step):
            probe.before = probe.measure(self.model, self.measuring.contexts, self.precision)

    def _after_step(self) -> None:
        """Measurements due after `self.step` completed steps."""
        m, probes = self.measuring, self.prepared.spec.probes
        if self.step in m.evaluate_at:
            loss = learning.lm_loss(
                self.model,
                self.prepared.held_out,
                self.spec.sequence_length,
                probes.lm_loss_tokens,
                self.precision,
            )
            rows = learning.skills(self.model, m.cells, m.contexts, probes.max_instances, self.precision)
            exposures = self.injector.seen(self.step)
            self.metrics.learning(
                self.step, m.cells, self.injector.realised_frequencies, exposures, rows, loss
            )
        if self.step in m.interfere_at and probes.interference is not None:
            common = self.stream.batch(self.step, probes.interference.batch_sequences)
            factor = ladder.schedule(min(self.step, self.spec.steps - 1), self.spec.steps, self.training)
            rows = interference.measure(
                self.model,
                self.optimizer,
                m.cells,
                common,
                m.contexts,
                self.spec.learning_rate * factor,
                self.precision,
            )
            self.metrics.interference(self.step, m.cells, self.injector.realised_frequencies, rows)
        delay = m.retention.delay_after(self.step - 1) if m.retention else None
        if m.retention is not None and delay is not None:
            now = m.retention.measure(self.model, m.contexts, self.precision)
            self.metrics.retention(self.step, m.retention.rows(now, delay, self.spec.tokens_per_step))

    def _measuring(self) -> _Measuring:
        p, probes = self.prepared, self.prepared.spec.probes
        cells = make_cells(p.spec, self.spec.seed, self.spec.variant, p.base_vocab, p.base, p.encoder())
        tasks = make_probe_tasks(p.spec, self.spec.seed, p.base_vocab)
        steps, points = self.spec.steps, probes.interference.points if probes.interference else 0
        retention = probes.retention
        return _Measuring(
            cells=cells,
            contexts=held_out_contexts(p.held_out, np.random.default_rng([self.spec.seed, 4])),
            evaluate_at={
                max(1, round(steps * (k + 1) / probes.evaluations)) for k in range(probes.evaluations)
            },
            interfere_at={max(1, round(steps * (k + 0.5) / points)) for k in range(points)},
            retention=RetentionProbe(retention, tasks, p.end_of_document_id, steps) if retention else None,
        )

    def _save(self) -> None:
        self.metrics.flush()
        path = self.folder.checkpoint
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = self.measuring.retention
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "retention_before": probe.before if probe else None,
        }
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def _restore(self) -> None:
        """Continue from the checkpoint, if there is one; measurements made after it are made again."""
        if self.folder.checkpoint.is_file():
            state = torch.load(self.folder.checkpoint, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            if self.measuring.retention is not None:
                self.measuring.retention.before = state["retention_before"]
        self.folder.rewind(self.step)


def train(out: Path, run_id: str, device: str, threads: int) -> None:
    """Train one run of a prepared ladder in this process.

    Args:
        out: the ladder's folder.
        device: a torch device: `cpu`, `cuda`, `cuda:1`.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    folder = RunFolder(out / "runs" / run_id)
    if folder.done() is None:
        Run(Prepared.read(out), folder, device).train()
