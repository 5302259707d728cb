"""What a ladder costs, before anything starts: runs × tokens × FLOPs × hours × money. No torch, no corpus.

Hours of a run = start_seconds + (training + probe FLOPs) ÷ (peak · mfu) + steps · step_overhead_seconds.

Shape legend: N = block parameters, P = all parameters, T = sequence length, V = vocabulary.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixplan.calibrate.checks import check_fit
from mixplan.calibrate.encoding import encoder_for
from mixplan.calibrate.engines.local import cpu_slots
from mixplan.calibrate.injection import MUCH_INJECTED, injected_share
from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.probes import CONTEXT_TOKENS, INTERFERENCE_INSTANCES
from mixplan.calibrate.runs import RunSpec, plan_runs
from mixplan.calibrate.tasks import Cell, Instance, Task, make_cells, make_probe_tasks, reserved_symbols
from mixplan.calibrate.vocabulary import vocabulary
from mixplan.documents.calibration_spec import CalibrationSpec

_BYTES_PER_PARAM = 16
"""fp32 weight, gradient and AdamW's two moments."""
_CHECKPOINT_BYTES_PER_PARAM = 24
"""fp32 weight and two moments, twice while a new checkpoint replaces the old one."""


@dataclass(frozen=True)
class RunCost:
    """The estimate for one run."""

    run_id: str
    rung: str
    seed: int
    variant: int
    block_params: int
    total_params: int
    tokens: int
    steps: int
    batch_sequences: int
    learning_rate: float
    flops: float
    """Of training (probes not included)."""
    probe_flops: float
    """Of evaluations, retention and interference."""
    hours: float
    memory_bytes: float
    """Rough: weights, gradients, AdamW and saved activations in fp32, and the logits; bf16 needs less."""
    injected_share: float
    """Share of the training tokens that is overwritten by task instances."""


@dataclass(frozen=True)
class LadderCost:
    """The estimate for all runs."""

    runs: list[RunCost]
    """Longest first: the order in which they start."""
    vocab_size: int
    """Base vocabulary and the reserved symbols of all tasks."""
    slots: int
    tokens: int
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
    encode = encoder_for(spec.tokenizer, base) if spec.user_tasks else None
    runs = plan_runs(spec, words.size + reserved_symbols(spec))
    check_fit(Prepared(Path(), base, spec, words.size, words.end_of_document_id, {}))
    # Lengths and counts of instances do not depend on the seed, only on the variant of the user's own tasks.
    cells = {
        variant: make_cells(spec, spec.seeds[0], variant, words.size, base, encode)
        for variant in {run.variant for run in runs}
    }
    injections = make_probe_tasks(spec, spec.seeds[0], words.size, base)
    priced = sorted(
        (_price_run(run, spec, cells[run.variant], injections) for run in runs), key=lambda run: -run.hours
    )
    count = slots or _slots(spec)
    slot_hours = math.fsum(run.hours for run in priced)
    largest = sorted((run.total_params for run in priced), reverse=True)[:count]
    warnings = _warnings(spec, priced)
    if slots is None and spec.engine.slots is None:
        warnings.append(f"slots: {count} assumed; give --slots or engine.slots for another number")
    return LadderCost(
        runs=priced,
        vocab_size=runs[0].vocab_size,
        slots=count,
        tokens=sum(run.tokens for run in priced),
        flops=math.fsum(run.flops + run.probe_flops for run in priced),
        slot_hours=slot_hours,
        wall_hours=wall_hours([run.hours for run in priced], count),
        money=slot_hours * spec.hardware.price_per_slot_hour,
        currency=spec.hardware.currency,
        checkpoint_bytes=float(_CHECKPOINT_BYTES_PER_PARAM * sum(largest)),
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
    probes = _probe_flops(run, spec, cells, injections)
    seconds = (run.flops + probes) / (hardware.peak_flops_per_second * hardware.mfu)
    seconds += hardware.start_seconds + run.steps * hardware.step_overhead_seconds
    lengths = [_mean_length(cell) for cell in cells]
    total = run.shape.total_params(run.vocab_size)
    return RunCost(
        run_id=run.run_id,
        rung=run.shape.name,
        seed=run.seed,
        variant=run.variant,
        block_params=run.shape.block_params,
        total_params=total,
        tokens=run.tokens,
        steps=run.steps,
        batch_sequences=run.batch_sequences,
        learning_rate=run.learning_rate,
        flops=run.flops,
        probe_flops=probes,
        hours=seconds / 3600,
        memory_bytes=_BYTES_PER_PARAM * total + run.tokens_per_step * _activation_bytes_per_token(run),
        injected_share=injected_share(lengths, [cell.frequency for cell in cells]),
    )


def _activation_bytes_per_token(run: RunSpec) -> float:
    """What the backward pass keeps of an Olmo2 model: 4·L·(16d + 4F) + 8V bytes a token, in fp32.

    Counted by autograd's saved tensors on the cpu_ presets: 6,399 to 26,564 bytes a token against 6,632 to
    27,112 by this formula (2 to 4 % less). Attention scores are not kept (fused kernels).
    """
    shape = run.shape
    return 4.0 * shape.layers * (16 * shape.d_model + 4 * shape.d_ffn) + 8.0 * run.vocab_size


def _probe_flops(
    run: RunSpec, spec: CalibrationSpec, cells: Sequence[Cell], injections: Sequence[Sequence[Task]]
) -> float:
    """FLOPs of everything that is measured; a forward pass is a third of a training pass."""
    probes = spec.probes
    scored = sum(_scored_tokens(cell.task.test[: probes.max_instances]) for cell in cells)
    forward = float(probes.evaluations * (probes.lm_loss_tokens + scored))
    training = 0.0
    if probes.retention is not None:
        for fraction, tasks in zip(probes.retention.at_fractions, injections, strict=True):
            left = run.steps - round(fraction * run.steps) - probes.retention.burst_steps
            delays = sum(delay <= left for delay in probes.retention.delays_steps)
            injected = sum(_scored_tokens(task.train[: probes.retention.instances]) for task in tasks)
            forward += (delays + 1) * injected
    if probes.interference is not None:
        per_point = probes.interference.batch_sequences * run.sequence_length
        behind = [(*cell.task.train, *cell.task.test)[:INTERFERENCE_INSTANCES] for cell in cells]
        per_point += sum(_scored_tokens(instances) for instances in behind)
        training += probes.interference.points * per_point
    return run.shape.flops_per_token(run.vocab_size, run.sequence_length) * (forward / 3 + training)


def _scored_tokens(instances: Sequence[Instance]) -> int:
    """Tokens that score instances once: one row each, or one per choice where choices have several tokens."""
    total = 0
    for instance in instances:
        longest = max(map(len, instance.choices))
        rows = 1 if longest == 1 else len(instance.choices)
        total += rows * (CONTEXT_TOKENS + len(instance.prompt) + longest)
    return total


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
    for variant, share in sorted({(run.variant, run.injected_share) for run in runs}):
        if share > MUCH_INJECTED:
            which = f" in variant {variant}" if variant else ""
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
