"""The runs of a ladder, and the run folder: run.json, metrics.jsonl, progress.json, checkpoint/, done.json.

A run's whole state is in its folder, so that the same command continues it after anything. done.json is
written last and atomically: a run without it is not finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mixplan.calibrate import ladder, lease
from mixplan.documents.atomic import write_json, write_text
from mixplan.documents.base import Count, Document, Fraction, Name, Part, Positive, Whole
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.documents.shapes import ModelShape


class Branch(Part):
    """A shorter horizon: a decay that leaves the trunk after `fork_step` steps and ends after `end_step`."""

    fork_step: Whole
    end_step: Count


class RunSpec(Document):
    """run.json: one training of one rung with one seed, to its longest horizon and its branches."""

    run_id: Name
    shape: ModelShape
    seed: Whole
    variant: Whole = 0
    """Which of the frequencies of the user's own tasks, and of the shares of their sources."""
    only_cell: str | None = None
    """The only synthetic cell that is injected (dependence check); None: all."""
    shares: Mapping[Name, Fraction] = Field(default={})
    """Share of the training tokens of each of the user's sources."""
    anchor: Name | None = None
    """The source whose skill 1 this run anchors; `zero` for the run that anchors skill 0 of all sources."""
    sequence_length: Count
    batch_sequences: Count
    steps: Count
    """To the longest horizon: the trunk."""
    warmup_steps: Count
    decay_steps: Whole
    """Of the trunk, at its end."""
    branches: list[Branch] = Field(default=[])
    """Shorter horizons, in the order in which they leave the trunk."""
    learning_rate: Positive
    vocab_size: Count
    """Base vocabulary plus reserved task symbols."""

    @property
    def tokens_per_step(self) -> int:
        """Training tokens a step."""
        return self.batch_sequences * self.sequence_length

    @property
    def tokens(self) -> int:
        """Training tokens to the longest horizon."""
        return self.steps * self.tokens_per_step

    @property
    def work_steps(self) -> int:
        """Steps that are trained: the trunk's and those of its branches."""
        return self.steps + sum(branch.end_step - branch.fork_step for branch in self.branches)

    @property
    def flops(self) -> float:
        """Training FLOPs of all steps."""
        per_token = self.shape.flops_per_token(self.vocab_size, self.sequence_length)
        return per_token * self.work_steps * self.tokens_per_step

    def learning_rate_factor(self, step: int, branch: int | None) -> float:
        """Factor on the peak learning rate at a step of the trunk (None) or of a branch."""
        end, decay = self.steps, self.decay_steps
        if branch is not None:
            end = self.branches[branch].end_step
            decay = end - self.branches[branch].fork_step
        return ladder.schedule(step, end, self.warmup_steps, decay)


def plan_runs(spec: CalibrationSpec, vocab_size: int, alone: Sequence[str] = ()) -> list[RunSpec]:
    """Every run of the ladder, most FLOPs first, so that the longest does not start last.

    Args:
        spec: the calibration.
        vocab_size: base vocabulary plus the reserved symbols of all tasks.
        alone: names of the cells that the dependence check trains alone.
    """
    runs = [
        _run(spec, vocab_size, shape, horizons, seed, mix)
        for shape in spec.shapes()
        for horizons in _horizons_of_runs(shape, spec)
        for seed in spec.seeds
        for mix in [*_mixes(spec), *_alone(spec, shape, seed, alone)]
    ]
    return sorted(runs, key=lambda run: (-run.flops, run.run_id))


def _horizons_of_runs(shape: ModelShape, spec: CalibrationSpec) -> list[list[int]]:
    """The horizons (tokens, shortest first) that each run of a rung serves."""
    horizons = ladder.horizon_tokens(shape, spec)
    return [horizons] if spec.horizons.branches else [[tokens] for tokens in horizons]


def _mixes(spec: CalibrationSpec) -> list[dict[str, Any]]:
    """What differs between runs of one rung, horizon and seed: frequencies and shares of the user's own."""
    counts = [len(task.frequencies) for task in spec.user_tasks]
    counts += [len(source.shares) for source in spec.user_sources]
    variants = max(counts, default=1)
    mixes: list[dict[str, Any]] = []
    for variant in range(variants):
        shares = {s.name: s.shares[variant % len(s.shares)] for s in spec.user_sources}
        suffix = f"-v{variant}" if variants > 1 else ""
        mixes.append({"suffix": suffix, "variant": variant, "shares": shares})
    if spec.user_sources:
        mixes.append({"suffix": "-zero", "anchor": "zero"})
    for s in spec.user_sources:
        shares = {s.name: s.saturating_share}
        mixes.append({"suffix": f"-only-{s.name}", "shares": shares, "anchor": s.name})
    return mixes


def _alone(spec: CalibrationSpec, shape: ModelShape, seed: int, cells: Sequence[str]) -> list[dict[str, Any]]:
    """The runs of the dependence check on this rung and seed."""
    if spec.dependence is None or seed != spec.seeds[0]:
        return []
    ladder_names = [rung.name for rung in spec.shapes()]
    if shape.name not in (spec.dependence.rungs or [ladder_names[0], ladder_names[-1]]):
        return []
    return [{"suffix": f"-alone{number}", "only_cell": name} for number, name in enumerate(cells)]


def _run(
    spec: CalibrationSpec,
    vocab_size: int,
    shape: ModelShape,
    horizons: Sequence[int],
    seed: int,
    mix: dict[str, Any],
) -> RunSpec:
    batch = ladder.batch_sequences(shape, spec.training, spec.sequence_length)
    ends = sorted({max(1, round(tokens / (batch * spec.sequence_length))) for tokens in horizons})
    branches = [Branch(fork_step=end - ladder.decay_steps(end, spec.training), end_step=end) for end in ends]
    differs = {key: value for key, value in mix.items() if key != "suffix"}
    return RunSpec(
        run_id=f"{shape.name}-{horizons[-1]}t-s{seed}{mix['suffix']}",
        shape=shape,
        seed=seed,
        sequence_length=spec.sequence_length,
        batch_sequences=batch,
        steps=ends[-1],
        warmup_steps=ladder.warmup_steps(ends, spec.training),
        decay_steps=ends[-1] - branches[-1].fork_step,
        branches=sorted(branches[:-1], key=lambda branch: branch.fork_step),
        learning_rate=ladder.learning_rate(shape, spec.training),
        vocab_size=vocab_size,
        **differs,
    )


Status = Literal["waiting", "running", "stopped", "finished", "diverged", "failed"]
_RECENT_SECONDS = 30.0


@dataclass(frozen=True)
class RunState:
    """What a run folder says about its run."""

    run_id: str
    status: Status
    step: int
    steps: int
    tokens_per_second: float | None
    loss: float | None
    seconds_left: float | None


class DamagedMetrics(Exception):
    """What is on disk of a run is not what was written, and cannot be continued from."""


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoint"
        self.log = path / "log.txt"
        self.lock = path / "lock"

    def create(self, run: RunSpec) -> None:
        """Make the folder and write run.json."""
        write_text(self.path / "run.json", run.model_dump_json(indent=2) + "\n")

    def read(self) -> RunSpec:
        """The run's specification."""
        return RunSpec.model_validate_json((self.path / "run.json").read_text(encoding="utf-8"))

    def done(self) -> dict[str, Any] | None:
        """What done.json says; None when the run is not finished."""
        return _json(self.path / "done.json")

    def finish(self, status: Literal["finished", "diverged"], **facts: Any) -> None:
        """Mark the run as over, with the hash of its measurements; checkpoints are no longer needed."""
        digest = hashlib.sha256(self.metrics.read_bytes() if self.metrics.is_file() else b"").hexdigest()
        write_json(self.path / "done.json", {"status": status, "metrics_sha256": digest, **facts})
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def progress(self, step: int, tokens_per_second: float, loss: float) -> None:
        """Tell whoever watches; `step` counts the trunk's steps and its branches'."""
        value = {"step": step, "tokens_per_second": tokens_per_second, "loss": loss, "time": time.time()}
        write_json(self.path / "progress.json", value)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The measurements so far. A last line cut off by a kill is not a measurement.

        Raises:
            DamagedMetrics: a line is not JSON, or the file of a finished run is not as it was left.
        """
        if not self.metrics.is_file():
            return
        content = self.metrics.read_bytes()
        expected = (self.done() or {}).get("metrics_sha256")
        if expected is not None and hashlib.sha256(content).hexdigest() != expected:
            raise DamagedMetrics(f"{self.metrics} was changed or damaged after the run had finished")
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise DamagedMetrics(f"{self.metrics}: line {number} is damaged") from None
            yield row

    def fingerprint(self) -> list[Any]:
        """Size in bytes and hash of the measurements so far."""
        content = self.metrics.read_bytes() if self.metrics.is_file() else b""
        return [len(content), hashlib.sha256(content).hexdigest()]

    def check(self, fingerprint: Sequence[Any]) -> None:
        """Compare with what the measurements once were; more may have been added since.

        Raises:
            DamagedMetrics: what was there then is not there now.
        """
        size, digest = fingerprint
        content = self.metrics.read_bytes()[:size] if self.metrics.is_file() else b""
        if len(content) < size or hashlib.sha256(content).hexdigest() != digest:
            raise DamagedMetrics(f"{self.metrics} was changed or damaged after it was written")

    def keep_rows(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the other measurements: they will be made again."""
        kept = [json.dumps(row) + "\n" for row in self.rows() if keep(row)]
        write_text(self.metrics, "".join(kept))

    def note(self, text: str) -> None:
        """Leave word for the user: `calibrate` and `status` show it."""
        with (self.path / "notes.txt").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def notes(self) -> list[str]:
        """What was left with `note`."""
        path = self.path / "notes.txt"
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []

    def start_over(self) -> None:
        """Put damaged measurements aside and forget checkpoints and end, so that the run is trained anew."""
        if self.metrics.is_file():
            os.replace(self.metrics, self.metrics.with_suffix(f".damaged-{time.time_ns()}"))
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        (self.path / "done.json").unlink(missing_ok=True)

    def locked(self) -> bool:
        """Whether a process is training this run now (its steps may be slower than any patience)."""
        return lease.held(self.path)

    def state(self) -> RunState:
        """For the progress display and `mixplan status`."""
        run = self.read()
        done = self.done()
        seen = _json(self.path / "progress.json") or {}
        step = int(seen.get("step", 0))
        rate = seen.get("tokens_per_second")
        left = (run.work_steps - step) * run.tokens_per_step / rate if rate else None
        status: Status
        if done:
            status, left = done["status"], None
            step = int(done.get("step", step))
        elif (self.path / "failed.txt").is_file():
            status, left = "failed", None
        elif (seen and time.time() - seen["time"] < _RECENT_SECONDS) or self.locked():
            status = "running"
        else:
            status = "stopped" if seen else "waiting"
        return RunState(run.run_id, status, step, run.work_steps, rate, seen.get("loss"), left)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
