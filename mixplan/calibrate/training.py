"""One run, from its folder to its folder.

Everything random is a function of (seed, step), so that model, optimizer and step are the whole state: a run
that was killed continues from its last checkpoint and measures the same numbers (exactly so on CPUs with the
same number of threads).

The trunk trains to the longest horizon. Where a shorter horizon's decay begins, the state is saved, the
decay is trained and measured, and the trunk goes on from the saved state (warmup-stable-decay, arXiv
2404.06395).
"""

from __future__ import annotations

import errno
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from mixplan.calibrate.batches import Batches
from mixplan.calibrate.distributed import GO_ON, SAVE_AND_STOP, Stopped, World
from mixplan.calibrate.measuring import Measuring
from mixplan.calibrate.metrics import Diverged, MetricsLog
from mixplan.calibrate.model import TokenLoss, build_optimizer, seeded_model
from mixplan.calibrate.prefetch import Feed
from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.probes.retention import retention_probes
from mixplan.calibrate.provenance import Clock, configuration_sha256, resolved_configuration, run_facts
from mixplan.calibrate.runs import DamagedMetrics, RunFolder, RunSpec
from mixplan.calibrate.trackers import NullTracker, Tracker, open_trackers

_log = logging.getLogger(__name__)
_LOOK_EVERY_STEPS = 10
_TELL_EVERY_SECONDS = 2.0


class Run:
    """A run in progress: model, optimizer, step, branch, and the probes' state."""

    def __init__(self, prepared: Prepared, folder: RunFolder, world: World) -> None:
        self.folder, self.world = folder, world
        self.spec: RunSpec = folder.read()
        self.training = prepared.spec.training
        self.model = seeded_model(self.spec, prepared.end_of_document_id, prepared.spec.architecture)
        self.model.to(world.device)
        loss = TokenLoss(self.model, self.training.precision, self.training.compile)
        self.loss = world.wrap(loss, self.model, prepared.spec.engine.fsdp_from_params)
        self.optimizer = build_optimizer(self.model, self.spec.learning_rate, self.training)
        cells = prepared.cells(self.spec)
        retention = retention_probes(
            prepared.spec,
            self.spec.seed,
            prepared.base_vocab,
            prepared.end_of_document_id,
            self.spec.steps,
            prepared.base,
        )
        self.batches = Batches(prepared, self.spec, cells, retention)
        self.feed = Feed(lambda step: world.rows(self.batches.at(step)), world.device)
        self.metrics = MetricsLog(folder, self.spec)
        self.measuring = Measuring(prepared, self.spec, cells, self.batches, retention, self.metrics)
        self.checkpoints = world.checkpoints(folder.checkpoints)
        self.clock = Clock()
        self.facts, self.tracker = self._introduce(prepared)
        self.step = 0
        self.branch: int | None = None
        """Index of the branch that is being trained; None: the trunk."""
        self.branches_done = 0
        self.worked = 0
        """Steps trained so far, of the trunk and of branches."""
        self._losses: list[torch.Tensor] = []
        self._saved = self._told = time.monotonic()
        self._told_worked = 0
        self._restore()

    def _introduce(self, prepared: Prepared) -> tuple[dict[str, Any], Tracker]:
        """What done.json says of the run beside its numbers; and the trackers (only in the first process)."""
        corpus = prepared.facts["corpus_sha256"]
        configuration = resolved_configuration(prepared.spec, self.spec, corpus)
        digest = configuration_sha256(configuration)
        facts = {
            **run_facts(self.world.device, torch.get_num_threads()),
            "seed": self.spec.seed,
            "corpus_sha256": corpus,
            "tokenizer_sha256": prepared.facts.get("tokenizer_sha256"),
            "configuration_sha256": digest,
        }
        opened: list[Tracker] = []
        tracking, name, log = prepared.spec.tracking, prepared.spec.name, _log.warning
        self.world.on_first(
            lambda: opened.append(
                open_trackers(tracking, name, self.spec.run_id, digest, configuration, self.folder.path, log)
            )
        )
        return facts, opened[0] if opened else NullTracker()

    def train(self) -> None:
        """Train to the end, measuring on the way, and write done.json."""
        try:
            self._train()
        except Diverged:
            status: Literal["finished", "diverged"] = "diverged"
        else:
            status = "finished"
        self.metrics.flush()
        self.tracker.close()
        tokens = self.worked * self.spec.tokens_per_step
        facts = {"step": self.worked, "tokens": tokens, **self.clock.facts(tokens), **self.facts}
        self.folder.finish(status, **facts)

    def _train(self) -> None:
        while self.branch is not None or self.step < self.spec.steps:
            if self.branch is not None:
                self._finish_branch(self.branch)
            elif self._forks_now():
                self._save("trunk")
                self.branch = self.branches_done
            else:
                if self.measuring.due(self.step):
                    self._measure(lambda model, _: self.measuring.before_step(model, self.step))
                self.one_step()
                self._look(self.measuring.due(self.step))
                if self.measuring.due(self.step):
                    self._measure(self._after_step)
                self._save_when_due()

    def _forks_now(self) -> bool:
        left = self.spec.branches[self.branches_done :]
        return bool(left) and left[0].fork_step == self.step

    def _finish_branch(self, branch: int) -> None:
        """Train and measure what is left of a branch, then go back to the trunk."""
        end = self.spec.branches[branch].end_step
        while self.step < end:
            self.one_step()
            self._look(self.step == end)
            self._save_when_due()
        self._measure(lambda model, _: self.measuring.evaluate(model, end, branch, decayed=True))
        state, damaged = self.checkpoints.load(self.world.device, "trunk")
        if state is None:
            raise RuntimeError("; ".join(damaged) + f"; start {self.folder.path} over from an empty folder")
        self._take(state)
        self.branches_done = branch + 1
        self._save()
        self.checkpoints.remove("trunk")

    def one_step(self) -> None:
        """Train one step of the trunk or of the branch."""
        batch = self.feed.at(self.step)
        rate = self._learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.grad_clip)
        self.optimizer.step()
        self._losses.append(loss.detach())
        self.step += 1
        self.worked += 1

    def _learning_rate(self, step: int) -> float:
        return self.spec.learning_rate * self.spec.learning_rate_factor(step, self.branch)

    def _look(self, now: bool) -> None:
        """Every few steps, and before measurements: is the loss finite? Tell whoever watches."""
        if not now and self.worked % _LOOK_EVERY_STEPS:
            return
        mean = self.world.mean(torch.stack(self._losses).mean())
        self._losses.clear()
        if not math.isfinite(mean):
            raise Diverged
        seconds = time.monotonic() - self._told
        if seconds > _TELL_EVERY_SECONDS or self.worked == self.spec.work_steps:
            rate = (self.worked - self._told_worked) * self.spec.tokens_per_step / seconds
            self.folder.progress(self.worked, rate, mean)
            self.tracker.log(self.worked, {"loss": mean, "tokens_per_second": rate})
            self._told, self._told_worked = time.monotonic(), self.worked

    def _measure(self, what: Callable[[Any, torch.optim.AdamW], None]) -> None:
        if self.world.device.startswith("cuda"):
            torch.cuda.synchronize()  # or steps still in the queue would count as measuring
        with self.clock.probing():
            model, optimizer = self.world.full(self.model, self.optimizer)
            self.world.on_first(lambda: what(model, optimizer))

    def _after_step(self, model: Any, optimizer: torch.optim.AdamW) -> None:
        rate = self._learning_rate(min(self.step, self.spec.steps - 1))
        self.measuring.after_step(model, optimizer, self.step, rate)

    def _save_when_due(self) -> None:
        """Save now and then, and when the run is told to stop.

        Raises:
            Stopped: it was, and the state is saved.
        """
        order = self.world.order(time.monotonic() - self._saved > self.training.checkpoint_every_seconds)
        if order != GO_ON:
            self._save()
        if order == SAVE_AND_STOP:
            raise Stopped

    def _save(self, kind: str = "state") -> None:
        self.metrics.flush()
        state = {
            "step": self.step,
            "branch": self.branch,
            "branches_done": self.branches_done,
            "worked": self.worked,
            "clock": self.clock.state(),
            "measuring": self.measuring.state(),
            "metrics": self.world.on_first(self.folder.fingerprint),
            **self.world.state(self.model, self.optimizer),
        }
        self.checkpoints.save(state, kind)
        self._saved = time.monotonic()

    def _take(self, state: dict[str, Any]) -> None:
        """Put everything back but the number of steps worked, which is what was spent."""
        self.world.load(self.model, self.optimizer, state)
        self.measuring.restore(state["measuring"])
        self.step, self.branch = state["step"], state["branch"]
        self.branches_done = state["branches_done"]

    def _restore(self) -> None:
        """Continue from the latest whole checkpoint; measurements made after it are made again."""
        states = [self.checkpoints.load(self.world.device, kind) for kind in ("state", "trunk")]
        for _, notes in states:
            for note in notes:
                self.folder.note(note)
        found = [state for state, _ in states if state is not None]
        if found:
            # The trunk's state before a branch is the later one until the branch was checkpointed itself.
            latest = max(found, key=lambda state: state["worked"])
            self.world.on_first(lambda: self.folder.check(latest["metrics"]))
            self._take(latest)
            self.clock.restore(latest["clock"])
            self._check_trunk(states[1][0])
            self.worked = self._told_worked = latest["worked"]
        self.world.on_first(lambda: self.folder.keep_rows(self._made))
        _log.info("%s: from step %d of %d", self.spec.run_id, self.worked, self.spec.work_steps)

    def _check_trunk(self, trunk: dict[str, Any] | None) -> None:
        """A branch can only be continued with the state that the trunk goes on from after it."""
        if self.branch is None:
            return
        fork = self.spec.branches[self.branch].fork_step
        if trunk is None or trunk["step"] != fork:
            where = self.folder.checkpoints
            raise DamagedMetrics(f"{where}: the state of step {fork}, before a branch, is lost or damaged")

    def _made(self, row: dict[str, Any]) -> bool:
        """Whether a measurement was made before the state that the run continues from."""
        branch = row.get("branch")
        if branch is not None:
            # A branch is measured once, at its end, and is done in the next state that is saved.
            return branch < self.branches_done
        trunk = self.spec.branches[self.branch].fork_step if self.branch is not None else self.step
        return row["at_step"] <= trunk


def train(out: Path, run_id: str, threads: int, world: World) -> None:
    """Train one run of a prepared ladder in this process, or with the others of its world.

    Args:
        out: the ladder's folder.
        threads: CPU threads of each process.
        world: the processes that train the run, and their device.

    Raises:
        Stopped: the world was told to stop; the state is saved.
        OSError: something cannot be written. What was saved before is untouched.
    """
    torch.set_num_threads(threads)
    try:
        _train(out, run_id, world)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        way_out = "free some space and run the same command: it continues from the last checkpoint"
        path = error.filename or str(out / "runs" / run_id)
        raise OSError(error.errno, f"{error.strerror}; {way_out}", path) from None


def _train(out: Path, run_id: str, world: World) -> None:
    folder = world.folder(out / "runs" / run_id)
    prepared = Prepared.read(out)
    try:
        if world.on_first(folder.done) is not None:
            return
        run = Run(prepared, folder, world)
    except DamagedMetrics as damage:
        folder.note(f"{damage}; put aside, and the run starts over")
        folder.start_over()
        run = Run(prepared, folder, world)
    run.train()
