"""What a run takes of its engine (slots, processes, time), and whether it can: from the calibration alone.

A slot is what `hardware` describes and what is paid for: a GPU, or `threads_per_slot` CPU cores. Neither
torch nor Slurm is needed here, so that `mixplan plan` says the same on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mixplan.calibrate.runs import RunSpec
from mixplan.documents.calibration_spec import CalibrationSpec, Engine, Hardware
from mixplan.errors import InputError

SLOTS_ARE_LOCAL = "--slots is for the local engine; set engine.slurm.max_parallel"
_OWN_SETTINGS = {
    "time": "time_minutes",
    "gpus-per-node": "gpus_per_run",
    "cpus-per-task": "cpus_per_run",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
}
"""sbatch options that have a setting of their own, which the estimate and the checks read."""
_NOT_OURS_TO_GIVE = (
    "job-name", "array", "output", "error", "open-mode", "signal", "nodes", "ntasks", "ntasks-per-node",
)  # fmt: skip
"""sbatch options that jobs are found, stopped and continued by."""


@dataclass(frozen=True)
class Allotment:
    """What the runs of a ladder get."""

    slot: str
    """What a slot is, in words."""
    slots_per_run: int
    """Held, and paid for, while a run runs."""
    processes: int
    """That train a run together."""
    side_by_side: int
    """Runs at the same time."""
    notes: list[str]


def allot(spec: CalibrationSpec, runs: int, here: int, slots: int | None = None) -> Allotment:
    """What each run gets, and how many run at the same time.

    Args:
        spec: the calibration.
        runs: how many there are.
        here: slots of this machine, where the local engine is not told how many.
        slots: local: how many, instead of engine.slots.

    Raises:
        InputError: one run needs more slots than there are, or slots were given for Slurm.
    """
    engine = spec.engine
    processes, slot = engine.processes_per_run, _slot(spec)
    notes = _hardware_notes(spec)
    if engine.kind == "slurm":
        if slots is not None:
            raise InputError(SLOTS_ARE_LOCAL)
        gpus, cores = slurm_resources(engine)
        together = engine.slurm.max_parallel
        if together is None:
            notes.append(
                f"slurm.max_parallel is empty: all {runs} runs are taken to run at the same time; set it to "
                "what the cluster will give you"
            )
        wanted = processes * engine.threads_per_slot
        if cores < wanted:
            notes.append(
                f"slurm.cpus_per_run is {cores}, but {processes} process(es) of {engine.threads_per_slot} "
                f"thread(s) want {wanted}; runs will take longer than estimated"
            )
        held = gpus or max(processes, math.ceil(cores / engine.threads_per_slot))
        return Allotment(slot, held, processes, min(together or runs, runs), notes)
    count = slots or engine.slots
    if count is None:
        count = max(here, processes)
        notes.append(f"slots: {count} assumed; give --slots or engine.slots for another number")
    enough_slots(engine, count)
    if count % processes:
        notes.append(
            f"{count % processes} of {count} slots stay idle: a run takes {processes} "
            "(engine.processes_per_run)"
        )
    return Allotment(slot, processes, processes, count // processes, notes)


def enough_slots(engine: Engine, slots: int) -> None:
    """Raises InputError where the local engine has too few slots for one run."""
    needed = engine.processes_per_run
    if slots < needed:
        raise InputError(
            f"engine.processes_per_run is {needed}, but there are {slots} slot(s) here; lower it, or give "
            "more slots"
        )


def slurm_resources(engine: Engine) -> tuple[int, int]:
    """GPUs and CPU cores that one run asks of Slurm."""
    gpus = engine.slurm.gpus_per_run
    if gpus is None:
        gpus = engine.processes_per_run if engine.device == "cuda" else 0
    return gpus, engine.slurm.cpus_per_run or engine.processes_per_run * engine.threads_per_slot


def job_seconds(spec: CalibrationSpec) -> float:
    """Training time of one Slurm job: its limit without its start, and without the time to save."""
    slurm = spec.engine.slurm
    return 60.0 * slurm.time_minutes - slurm.signal_seconds - spec.hardware.start_seconds


def engine_problems(spec: CalibrationSpec, runs: Sequence[RunSpec]) -> list[str]:
    """Why the engine could not run these runs."""
    processes = spec.engine.processes_per_run
    odd = {run.shape.name: run.batch_sequences for run in runs if run.batch_sequences % processes}
    problems = [
        f"rung {name}: {batch} sequences a step cannot be split evenly over engine.processes_per_run = "
        f"{processes}; set training.batch_sequences to a multiple, or lower processes_per_run"
        for name, batch in odd.items()
    ]
    return problems + _slurm_problems(spec) if spec.engine.kind == "slurm" else problems


def _slurm_problems(spec: CalibrationSpec) -> list[str]:
    slurm = spec.engine.slurm
    problems = []
    if job_seconds(spec) <= 0:
        problems.append(
            f"slurm.time_minutes is {slurm.time_minutes}, but a run is told to save {slurm.signal_seconds} s "
            f"before that (slurm.signal_seconds) and takes {spec.hardware.start_seconds:g} s to start "
            "(hardware.start_seconds): no job would train; raise time_minutes or lower signal_seconds"
        )
    for given in slurm.extra:
        option = given.replace("_", "-")
        if option in _OWN_SETTINGS:
            problems.append(f"slurm.extra: use slurm.{_OWN_SETTINGS[option]} instead of {given}")
        elif option in _NOT_OURS_TO_GIVE:
            problems.append(f"slurm.extra: {given} is how mixplan finds and stops its jobs; leave it out")
    return problems


def _slot(spec: CalibrationSpec) -> str:
    engine, named = spec.engine, spec.hardware.name
    cores = engine.threads_per_slot
    slot = "one CPU core" if cores == 1 else f"{cores} CPU cores"
    if _on_gpus(engine):
        slot = "one GPU"
    if named in (slot, Hardware().name):
        return slot
    # Local, with device auto, the machine that trains decides what a slot is.
    return named if (engine.kind, engine.device) == ("local", "auto") else f"{slot}, {named}"


def _on_gpus(engine: Engine) -> bool:
    if engine.kind == "slurm":
        return slurm_resources(engine)[0] > 0
    return engine.device == "cuda"


def _hardware_notes(spec: CalibrationSpec) -> list[str]:
    """The default rate is that of one CPU core."""
    other = _on_gpus(spec.engine) or spec.engine.threads_per_slot > 1
    if not other or spec.hardware.peak_flops_per_second != Hardware().peak_flops_per_second:
        return []
    return [
        f"hardware describes one CPU core, but a slot is {_slot(spec)}: give hardware.peak_flops_per_second, "
        "mfu and step_overhead_seconds, or the hours are not those of your slots"
    ]
