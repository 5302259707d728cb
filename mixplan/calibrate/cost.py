"""What a ladder costs, before anything starts: runs × tokens × FLOPs × hours × money. No torch, no corpus.

Hours of a run = start_seconds + (training FLOPs ÷ processes + probe FLOPs) ÷ (peak · mfu) + steps ·
step_overhead_seconds: the processes of a run share its batch, and the first one alone measures. Steps and
FLOPs are of all that is trained: the run to its longest horizon, and the decays of the others. On Slurm a run
that is longer than a job starts again after each time limit.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixplan.calibrate.checks import check_fit
from mixplan.calibrate.engines.local import cpu_slots
from mixplan.calibrate.engines.resources import Allotment, allot, job_seconds
from mixplan.calibrate.injection import MUCH_INJECTED, injected_share
from mixplan.calibrate.memory_cost import memory_bytes, sharded
from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.probe_cost import probe_flops
from mixplan.calibrate.runs import RunSpec
from mixplan.calibrate.sources import ZERO
from mixplan.calibrate.tasks import Cell, Task, make_probe_tasks
from mixplan.calibrate.vocabulary import vocabulary
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.units import byte_size, duration

_STATE_BYTES_PER_PARAM = 12
"""fp32 weight and AdamW's two moments: one saved state."""
_STATES, _STATES_WITH_BRANCHES = 3, 5
"""Saved states of a run, at most: the two latest and the one that is being written; with branches, two of the
trunk as well."""


@dataclass(frozen=True)
class RunCost:
    """The estimate for one run."""

    run_id: str
    rung: str
    seed: int
    kind: str
    """What sets it apart from other runs of its rung and seed: "" (nothing), "variant 1", "share zero", "only
    NAME" (the run in which a source saturates), "CELL alone" (dependence check)."""
    block_params: int
    total_params: int
    tokens: int
    """To its longest horizon."""
    horizons: int
    """How many token horizons it serves."""
    trained_tokens: int
    """With the decay branches of its shorter horizons."""
    steps: int
    """Of all trained tokens."""
    batch_sequences: int
    learning_rate: float
    flops: float
    """Of training (probes not included)."""
    probe_flops: float
    """Of evaluations (with the sources' held-out text), retention, interference and features."""
    hours: float
    """From its start to its end, new starts after time limits included, waiting in a queue not."""
    jobs: int
    """Slurm: jobs, one after the other, that it takes under slurm.time_minutes. 1 elsewhere."""
    memory_bytes: float
    """Of each process while it trains. Rough: weights, gradients, AdamW and saved activations in fp32, and
    the logits; bf16 needs less."""
    measuring_bytes: float
    """Of the first process while it measures."""
    injected_share: float
    """Share of the training tokens that is overwritten by task instances."""
    source_share: float
    """Share of the training tokens that comes from the user's sources."""


@dataclass(frozen=True)
class LadderCost:
    """The estimate for all runs."""

    runs: list[RunCost]
    """Longest first: the order in which they start."""
    vocab_size: int
    """Base vocabulary and the reserved symbols of all tasks."""
    engine: str
    slot: str
    """What a slot is."""
    slots: int
    """Held at the same time, at most."""
    slots_per_run: int
    side_by_side: int
    """Runs at the same time."""
    tokens: int
    """Trained, decay branches included."""
    flops: float
    """Training and probes."""
    slot_hours: float
    """Of all runs: hours × slots that a run holds."""
    wall_hours: float
    """When the next longest run starts as soon as another one ends."""
    money: float
    currency: str
    checkpoint_bytes: float
    """Largest disk space that checkpoints take at once: that of the runs at the same time."""
    warnings: list[str]


def price(spec: CalibrationSpec, base: Path, slots: int | None = None) -> LadderCost:
    """Price every run of a ladder.

    Args:
        spec: the calibration.
        base: folder of calibration.yaml, for tokenizer and user task files.
        slots: local: how many, instead of engine.slots.

    Raises:
        InputError: the tokenizer or a user's task cannot be read, the injections do not fit the sequences, or
            the engine cannot run it.
    """
    words = vocabulary(spec.tokenizer, base)
    ladder = Prepared(Path(), base, spec, words.size, words.end_of_document_id, {})
    check_fit(ladder)
    runs = ladder.runs()
    # Lengths and counts of instances do not depend on the seed.
    kinds = {(run.variant, run.only_cell): run for run in runs}
    made = {key: ladder.cells(run) for key, run in kinds.items()}
    injections = make_probe_tasks(spec, spec.seeds[0], words.size, base)
    given = allot(spec, len(runs), cpu_slots(spec.engine) if spec.engine.device != "cuda" else 1, slots)
    priced = sorted(
        (_price_run(run, spec, given, made[run.variant, run.only_cell], injections) for run in runs),
        key=lambda run: -run.hours,
    )
    slot_hours = given.slots_per_run * math.fsum(run.hours for run in priced)
    states = [run.total_params * (_STATES_WITH_BRANCHES if run.horizons > 1 else _STATES) for run in priced]
    return LadderCost(
        runs=priced,
        vocab_size=runs[0].vocab_size,
        engine=spec.engine.kind,
        slot=given.slot,
        slots=given.side_by_side * given.slots_per_run,
        slots_per_run=given.slots_per_run,
        side_by_side=given.side_by_side,
        tokens=sum(run.trained_tokens for run in priced),
        flops=math.fsum(run.flops + run.probe_flops for run in priced),
        slot_hours=slot_hours,
        wall_hours=wall_hours([run.hours for run in priced], given.side_by_side),
        money=slot_hours * spec.hardware.price_per_slot_hour,
        currency=spec.hardware.currency,
        checkpoint_bytes=float(_STATE_BYTES_PER_PARAM * sum(sorted(states)[-given.side_by_side :])),
        warnings=[*_warnings(spec, priced), *given.notes, *_engine_warnings(spec, priced)],
    )


def wall_hours(hours: Sequence[float], side_by_side: int) -> float:
    """Time until the last run ends when the next longest one starts as soon as another one ends."""
    free = [0.0] * side_by_side
    for run in sorted(hours, reverse=True):
        heapq.heapreplace(free, free[0] + run)
    return max(free)


def _price_run(
    run: RunSpec,
    spec: CalibrationSpec,
    given: Allotment,
    cells: Sequence[Cell],
    injections: Sequence[Sequence[Task]],
) -> RunCost:
    hardware = spec.hardware
    probes = probe_flops(run, spec, cells, injections)
    seconds = (run.flops / given.processes + probes) / (hardware.peak_flops_per_second * hardware.mfu)
    seconds += run.work_steps * hardware.step_overhead_seconds
    jobs = math.ceil(seconds / job_seconds(spec)) if spec.engine.kind == "slurm" else 1
    training, measuring = memory_bytes(run, spec)
    lengths = [_mean_length(cell) for cell in cells]
    return RunCost(
        run_id=run.run_id,
        rung=run.shape.name,
        seed=run.seed,
        kind=_kind(run),
        block_params=run.shape.block_params,
        total_params=run.shape.total_params(run.vocab_size),
        tokens=run.tokens,
        horizons=1 + len(run.branches),
        trained_tokens=run.work_steps * run.tokens_per_step,
        steps=run.work_steps,
        batch_sequences=run.batch_sequences,
        learning_rate=run.learning_rate,
        flops=run.flops,
        probe_flops=probes,
        hours=(seconds + jobs * hardware.start_seconds) / 3600,
        jobs=jobs,
        memory_bytes=training,
        measuring_bytes=measuring,
        injected_share=injected_share(lengths, [cell.frequency for cell in cells]),
        source_share=sum(run.shares.values()),
    )


def _kind(run: RunSpec) -> str:
    if run.only_cell is not None:
        return f"{run.only_cell} alone"
    if run.anchor is not None:
        return "share zero" if run.anchor == ZERO else f"only {run.anchor}"
    return f"variant {run.variant}" if run.variant else ""


def _mean_length(cell: Cell) -> float:
    lengths = [len(instance.document(0)) for instance in cell.task.train]
    return sum(lengths) / len(lengths)


def _warnings(spec: CalibrationSpec, runs: Sequence[RunCost]) -> list[str]:
    found = []
    for kind, share in sorted({(run.kind, run.injected_share) for run in runs}):
        if share > MUCH_INJECTED:
            which = f" ({kind})" if kind else ""
            found.append(
                f"{share:.0%} of the training tokens{which} are injected instances, which is no tail "
                "any more; lower the frequencies or inject fewer cells"
            )
    if len(spec.ladder) < 3:
        found.append(
            f"{len(spec.ladder)} rung(s): a size law needs at least 2, and its test on the largest "
            "one 3; add rungs"
        )
    return found


def _engine_warnings(spec: CalibrationSpec, runs: Sequence[RunCost]) -> list[str]:
    found = []
    longer = [run for run in runs if run.jobs > 1]
    if longer:
        found.append(
            f"{len(longer)} of {len(runs)} runs take longer than slurm.time_minutes = "
            f"{spec.engine.slurm.time_minutes}, the longest {duration(3600 * longer[0].hours)} in "
            f"{longer[0].jobs} jobs: they are saved, requeued and continued, and wait in the queue each time"
        )
    parts = [run for run in runs if sharded(spec, run.total_params)]
    if parts:
        most = max(parts, key=lambda run: run.measuring_bytes)
        found.append(
            f"FSDP2: a process of {most.rung} needs ~{byte_size(most.memory_bytes)} to train, but the first "
            f"one ~{byte_size(most.measuring_bytes)} while it measures, with a whole copy of model and "
            "optimizer beside its part"
        )
    return found
