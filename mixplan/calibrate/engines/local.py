"""The local engine: as many runs side by side as there are slots (cores or GPUs)."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass

from mixplan.calibrate.engines import Launched, Watch
from mixplan.calibrate.engines.process import note_end, start
from mixplan.calibrate.engines.resources import enough_slots
from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.runs import RunSpec, RunState
from mixplan.documents.calibration_spec import Engine
from mixplan.errors import InputError

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Slot:
    """A place for one process of a run."""

    device: str
    gpu: int | None
    threads: int


class LocalRunner:
    """Runs a ladder on this machine.

    Raises:
        InputError: there is no GPU, or there are too few slots for one run.
    """

    def __init__(self, engine: Engine, slots: int | None = None) -> None:
        self.slots = find_slots(engine, slots)
        self.place = f"{len(self.slots)} slot(s)"
        if engine.processes_per_run > 1:
            self.place += f", {engine.processes_per_run} for each run"

    def launch(self, prepared: Prepared, watch: Watch) -> Launched:
        """Run everything that is not done yet and return when all of it is over."""
        return Launched(run_all(prepared, self.slots, watch))


def find_slots(engine: Engine, slots: int | None = None) -> list[Slot]:
    """The slots of this machine.

    Args:
        engine: the calibration's engine section.
        slots: how many, instead of what the engine section says. More slots than GPUs share the GPUs.

    Raises:
        InputError: device `cuda` was asked for and there is none, or one run needs more slots than there are.
    """
    gpus = _gpus() if engine.device != "cpu" else 0
    if engine.device == "cuda" and gpus == 0:
        raise InputError("engine.device is cuda, but torch sees no GPU here; use auto or cpu")
    wanted = slots or engine.slots or gpus or cpu_slots(engine)
    needed = engine.processes_per_run
    enough_slots(engine, wanted)
    if gpus and needed > 1 and wanted > gpus:
        raise InputError(
            f"{wanted} slots on {gpus} GPU(s): the processes of one run cannot share a GPU; give at most "
            f"{gpus} slots, or set engine.processes_per_run to 1"
        )
    if gpus:
        return [Slot("cuda", index % gpus, engine.threads_per_slot) for index in range(wanted)]
    return [Slot("cpu", None, engine.threads_per_slot)] * wanted


def _gpus() -> int:
    import torch  # takes a second, which device cpu need not wait for

    return torch.cuda.device_count()


def cpu_slots(engine: Engine) -> int:
    """Slots that this machine's cores, as far as this process may use them, give."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // engine.threads_per_slot)


def run_all(prepared: Prepared, slots: list[Slot], watch: Watch) -> list[RunState]:
    """Run everything that is not done yet, longest first; finished runs are skipped.

    A run that crashes is recorded (failed.txt with the end of its log) and does not stop the others; the same
    command tries it again. When this process ends, its children save their state and end too; killed, they
    continue from their last checkpoint next time.

    Args:
        prepared: the ladder.
        slots: at least `engine.processes_per_run`, which is how many a run takes.
        watch: called about twice a second with the state of every run.

    Returns:
        The state of every run at the end.
    """
    runs = prepared.runs()
    needed = prepared.spec.engine.processes_per_run
    waiting = [run for run in runs if prepared.folder(run).done() is None]
    for run in waiting:
        (prepared.folder(run).path / "failed.txt").unlink(missing_ok=True)
    free = list(slots)
    busy: dict[subprocess.Popen, tuple[RunSpec, list[Slot]]] = {}
    try:
        while waiting or busy:
            while waiting and len(free) >= needed:
                run, mine = waiting.pop(0), [free.pop() for _ in range(needed)]
                busy[_start(prepared, run, mine)] = (run, mine)
            time.sleep(_POLL_SECONDS)
            for process in [p for p in busy if p.poll() is not None]:
                run, mine = busy.pop(process)
                free += mine
                note_end(prepared.folder(run), process.returncode)
            watch([prepared.folder(run).state() for run in runs])
    finally:
        for process in busy:
            process.terminate()
        for process in busy:
            process.wait()
    return [prepared.folder(run).state() for run in runs]


def _start(prepared: Prepared, run: RunSpec, slots: list[Slot]) -> subprocess.Popen:
    gpus = [slot.gpu for slot in slots if slot.gpu is not None]
    slot = slots[0]
    return start(prepared.out, prepared.folder(run), slot.device, slot.threads, len(slots), gpus)
