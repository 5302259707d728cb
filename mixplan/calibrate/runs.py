"""The runs of a ladder, and the run folder: run.json, metrics.jsonl, progress.json, checkpoint/, done.json.

A run's whole state is in its folder, so that the same command continues it after anything. done.json is
written last and atomically: a run without it is not finished.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mixplan.calibrate import ladder
from mixplan.documents.atomic import write_json, write_text
from mixplan.documents.base import Count, Document, Name, Positive, Whole
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.documents.shapes import ModelShape


class RunSpec(Document):
    """run.json: one training of one rung, for one horizon, with one seed."""

    run_id: Name
    shape: ModelShape
    seed: Whole
    variant: Whole = 0
    """Which of the frequencies of the user's own tasks (see `UserTask.frequencies`)."""
    sequence_length: Count
    batch_sequences: Count
    steps: Count
    learning_rate: Positive
    vocab_size: Count
    """Base vocabulary plus reserved task symbols."""

    @property
    def tokens_per_step(self) -> int:
        """Training tokens a step."""
        return self.batch_sequences * self.sequence_length

    @property
    def tokens(self) -> int:
        """Training tokens of the whole run."""
        return self.steps * self.tokens_per_step

    @property
    def flops(self) -> float:
        """Training FLOPs of the whole run."""
        return self.shape.flops_per_token(self.vocab_size, self.sequence_length) * self.tokens


def plan_runs(spec: CalibrationSpec, vocab_size: int) -> list[RunSpec]:
    """Every run of the ladder, most FLOPs first, so that the longest does not start last.

    Args:
        spec: the calibration.
        vocab_size: base vocabulary plus the reserved symbols of all tasks.
    """
    variants = max((len(task.frequencies) for task in spec.user_tasks), default=1)
    runs = []
    for shape in spec.shapes():
        batch = ladder.batch_sequences(shape, spec.training, spec.sequence_length)
        for wanted in ladder.horizon_tokens(shape, spec):
            steps = max(1, round(wanted / (batch * spec.sequence_length)))
            for seed in spec.seeds:
                for variant in range(variants):
                    suffix = f"-v{variant}" if variants > 1 else ""
                    runs.append(
                        RunSpec(
                            run_id=f"{shape.name}-{wanted}t-s{seed}{suffix}",
                            shape=shape,
                            seed=seed,
                            variant=variant,
                            sequence_length=spec.sequence_length,
                            batch_sequences=batch,
                            steps=steps,
                            learning_rate=ladder.learning_rate(shape, spec.training),
                            vocab_size=vocab_size,
                        )
                    )
    return sorted(runs, key=lambda run: (-run.flops, run.run_id))


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


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.checkpoint = path / "checkpoint" / "state.pt"
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
        """Mark the run as over. The checkpoint is no longer needed and goes."""
        write_json(self.path / "done.json", {"status": status, **facts})
        self.checkpoint.unlink(missing_ok=True)

    def progress(self, step: int, tokens_per_second: float, loss: float) -> None:
        """Tell whoever watches."""
        value = {"step": step, "tokens_per_second": tokens_per_second, "loss": loss, "time": time.time()}
        write_json(self.path / "progress.json", value)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The measurements so far. A last line cut off by a kill is not a measurement."""
        if not self.metrics.is_file():
            return
        with self.metrics.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)

    def rewind(self, step: int) -> None:
        """Drop measurements after a checkpoint's step: they will be made again."""
        kept = [json.dumps(row) + "\n" for row in self.rows() if row["at_step"] <= step]
        write_text(self.metrics, "".join(kept))

    def locked(self) -> bool:
        """Whether a process is training this run now (its steps may be slower than any patience)."""
        try:
            with self.lock.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def state(self) -> RunState:
        """For the progress display and `mixplan status`."""
        run = self.read()
        done = self.done()
        seen = _json(self.path / "progress.json") or {}
        step = int(seen.get("step", 0))
        rate = seen.get("tokens_per_second")
        left = (run.steps - step) * run.tokens_per_step / rate if rate else None
        status: Status
        if done:
            status, left = done["status"], None
            step = int(done.get("step", step))
        elif (self.path / "failed.txt").is_file():
            status, left = "failed", None
        elif not seen:
            status = "waiting"
        else:
            recent = time.time() - seen["time"] < _RECENT_SECONDS
            status = "running" if recent or self.locked() else "stopped"
        return RunState(run.run_id, status, step, run.steps, rate, seen.get("loss"), left)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
