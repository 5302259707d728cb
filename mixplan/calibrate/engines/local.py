"""The local engine: as many runs side by side as there are slots (cores or GPUs), one process each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.runs import RunFolder, RunSpec, RunState
from mixplan.documents.atomic import write_text
from mixplan.documents.calibration_spec import Engine

_POLL_SECONDS = 0.5
_LOG_LINES = 15


@dataclass(frozen=True)
class Slot:
    """A place for one run."""

    device: str
    gpu: int | None
    threads: int


def find_slots(engine: Engine, slots: int | None = None) -> list[Slot]:
    """The slots of this machine.

    Args:
        engine: the calibration's engine section.
        slots: how many, instead of what the engine section says. More slots than GPUs share the GPUs.

    Raises:
        InputError: device `cuda` was asked for and there is none.
    """
    import torch

    from mixplan.errors import InputError

    gpus = torch.cuda.device_count() if engine.device != "cpu" else 0
    if engine.device == "cuda" and gpus == 0:
        raise InputError("engine.device is cuda, but torch sees no GPU here; use auto or cpu")
    wanted = slots or engine.slots
    if gpus:
        return [Slot("cuda", index % gpus, engine.threads_per_slot) for index in range(wanted or gpus)]
    return [Slot("cpu", None, engine.threads_per_slot)] * (wanted or cpu_slots(engine))


def cpu_slots(engine: Engine) -> int:
    """Runs that this machine's cores, as far as this process may use them, take side by side."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // engine.threads_per_slot)


def run_all(prepared: Prepared, slots: list[Slot], watch: Callable[[list[RunState]], None]) -> list[RunState]:
    """Run everything that is not done yet, longest first; finished runs are skipped.

    A run that crashes is recorded (failed.txt with the end of its log) and does not stop the others; the same
    command tries it again. Children die with this process and continue from their checkpoints next time.

    Args:
        watch: called about twice a second with the state of every run.

    Returns:
        The state of every run at the end.
    """
    runs = prepared.runs()
    waiting = [run for run in runs if prepared.folder(run).done() is None]
    for run in waiting:
        (prepared.folder(run).path / "failed.txt").unlink(missing_ok=True)
    free = list(slots)
    busy: dict[subprocess.Popen, tuple[RunSpec, Slot]] = {}
    try:
        while waiting or busy:
            while waiting and free:
                slot, run = free.pop(), waiting.pop(0)
                busy[_start(prepared.out, prepared.folder(run), slot)] = (run, slot)
            time.sleep(_POLL_SECONDS)
            for process in [p for p in busy if p.poll() is not None]:
                run, slot = busy.pop(process)
                free.append(slot)
                _note_failure(prepared.folder(run), process.returncode)
            watch([prepared.folder(run).state() for run in runs])
    finally:
        for process in busy:
            process.terminate()
        for process in busy:
            process.wait()
    return [prepared.folder(run).state() for run in runs]


def _start(out: Path, folder: RunFolder, slot: Slot) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": str(slot.threads), "TOKENIZERS_PARALLELISM": "false"}
    if slot.gpu is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[slot.gpu] if visible != [""] else str(slot.gpu)
    command = [sys.executable, "-m", "mixplan.calibrate.worker"]
    command += [str(out), folder.path.name, slot.device, str(slot.threads)]
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )


def _note_failure(folder: RunFolder, code: int) -> None:
    if folder.done() is None:
        tail = folder.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        write_text(folder.path / "failed.txt", "\n".join([f"exit code {code}", *tail]) + "\n")
