"""What a ladder costs, before anything starts: runs × tokens × FLOPs × hours × money. No torch, no corpus.

Hours of a run = start_seconds + (training + probe FLOPs) ÷ (peak · mfu) + steps · step_overhead_seconds.
Steps and FLOPs are of all that is trained: the run to its longest horizon, and the decays of the others.

Shape legend: N = block parameters, P = all parameters, T = sequence length, V = vocabulary.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixplan.calibrate.checks import check_fit
from mixplan.calibrate.engines.local import cpu_slots
from mixplan.calibrate.injection import MUCH_INJECTED, injected_share
from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.probe_cost import probe_flops
from mixplan.calibrate.runs import RunSpec
from mixplan.calibrate.sources import ZERO
from mixplan.calibrate.tasks import Cell, Task, make_probe_tasks
from mixplan.calibrate.vocabulary import vocabulary
from mixplan.documents.calibration_spec import CalibrationSpec

_BYTES_PER_PARAM = 16
"""fp32 weight, gradient and AdamW's two moments."""
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
    memory_bytes: float
    """Rough: weights, gradients, AdamW and saved activations in fp32, and the logits; bf16 needs less."""
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
    slots: int
    tokens: int
    """Trained, decay branches included."""
    flops: float
    """Training and probes."""
    slot_hours: float
    wall_hours: float
    """When each slot takes the next longest run as soon as it is free."""
    money: float
    currency: str
    checkpoint_bytes: float
    """Largest disk space that checkpoints take at once: one run per slot."""
    warnings: list[str]


def price(spec: CalibrationSpec, base: Path, slots: int | None = None) -> LadderCost:
    """Price every run of a ladder.

    Args:
        spec: the calibration.
        base: folder of calibration.yaml, for tokenizer and user task files.
        slots: runs side by side, instead of what `engine` says.

    Raises:
        InputError: the tokenizer or a user's task cannot be read, or the injections do not fit the sequences.
    """
    words = vocabulary(spec.tokenizer, base)
    ladder = Prepared(Path(), base, spec, words.size, words.end_of_document_id, {})
    check_fit(ladder)
    runs = ladder.runs()
    # Lengths and counts of instances do not depend on the seed.
    kinds = {(run.variant, run.only_cell): run for run in runs}
    made = {key: ladder.cells(run) for key, run in kinds.items()}
    injections = make_probe_tasks(spec, spec.seeds[0], words.size, base)
    priced = sorted(
        (_price_run(run, spec, made[run.variant, run.only_cell], injections) for run in runs),
        key=lambda run: -run.hours,
    )
    count = slots or _slots(spec)
    slot_hours = math.fsum(run.hours for run in priced)
    states = [run.total_params * (_STATES_WITH_BRANCHES if run.horizons > 1 else _STATES) for run in priced]
    warnings = _warnings(spec, priced)
    if slots is None and spec.engine.slots is None:
        warnings.append(f"slots: {count} assumed; give --slots or engine.slots for another number")
    return LadderCost(
        runs=priced,
        vocab_size=runs[0].vocab_size,
        slots=count,
        tokens=sum(run.trained_tokens for run in priced),
        flops=math.fsum(run.flops + run.probe_flops for run in priced),
        slot_hours=slot_hours,
        wall_hours=wall_hours([run.hours for run in priced], count),
        money=slot_hours * spec.hardware.price_per_slot_hour,
        currency=spec.hardware.currency,
        checkpoint_bytes=float(_STATE_BYTES_PER_PARAM * sum(sorted(states)[-count:])),
        warnings=warnings,
    )


def wall_hours(hours: Sequence[float], slots: int) -> float:
    """Time until the last run ends when each slot takes the next longest run as soon as it is free."""
    free = [0.0] * slots
    for run in sorted(hours, reverse=True):
        heapq.heapreplace(free, free[0] + run)
    return max(free)


def _price_run(
    run: RunSpec, spec: CalibrationSpec, cells: Sequence[Cell], injections: Sequence[Sequence[Task]]
) -> RunCost:
    hardware = spec.hardware
    probes = probe_flops(run, spec, cells, injections)
    seconds = (run.flops + probes) / (hardware.peak_flops_per_second * hardware.mfu)
    seconds += hardware.start_seconds + run.work_steps * hardware.step_overhead_seconds
    lengths = [_mean_length(cell) for cell in cells]
    total = run.shape.total_params(run.vocab_size)
    return RunCost(
        run_id=run.run_id,
        rung=run.shape.name,
        seed=run.seed,
        kind=_kind(run),
        block_params=run.shape.block_params,
        total_params=total,
        tokens=run.tokens,
        horizons=1 + len(run.branches),
        trained_tokens=run.work_steps * run.tokens_per_step,
        steps=run.work_steps,
        batch_sequences=run.batch_sequences,
        learning_rate=run.learning_rate,
        flops=run.flops,
        probe_flops=probes,
        hours=seconds / 3600,
        memory_bytes=_BYTES_PER_PARAM * total + run.tokens_per_step * _activation_bytes_per_token(run),
        injected_share=injected_share(lengths, [cell.frequency for cell in cells]),
        source_share=sum(run.shares.values()),
    )


def _kind(run: RunSpec) -> str:
    if run.only_cell is not None:
        return f"{run.only_cell} alone"
    if run.anchor is not None:
        return "share zero" if run.anchor == ZERO else f"only {run.anchor}"
    return f"variant {run.variant}" if run.variant else ""


def _activation_bytes_per_token(run: RunSpec) -> float:
    """What the backward pass keeps of an Olmo2 model: 4·L·(16d + 4F) + 8V bytes a token, in fp32.

    Counted by autograd's saved tensors on the cpu_ presets: 6,399 to 26,564 bytes a token against 6,632 to
    27,112 by this formula (2 to 4 % less). Attention scores are not kept (fused kernels).
    """
    shape = run.shape
    return 4.0 * shape.layers * (16 * shape.d_model + 4 * shape.d_ffn) + 8.0 * run.vocab_size


def _mean_length(cell: Cell) -> float:
    lengths = [len(instance.document(0)) for instance in cell.task.train]
    return sum(lengths) / len(lengths)


def _slots(spec: CalibrationSpec) -> int:
    """As many as the local engine would use on this machine without GPUs."""
    if spec.engine.slots is not None:
        return spec.engine.slots
    if spec.engine.device == "cuda":
        return 1
    return cpu_slots(spec.engine)


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
