"""Whether everything that is to be injected and mixed in fits, exactly, before anything is spent.

Shape legend: n = steps, C = cells, R = injections of the retention probe, B = sequences a step, T = length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixplan.calibrate.engines.resources import engine_problems
from mixplan.calibrate.injection import MUCH_INJECTED, injected_share
from mixplan.calibrate.placement import overfull
from mixplan.calibrate.probes.bursts import burst_notes, burst_problems, first_steps
from mixplan.calibrate.runs import RunSpec
from mixplan.calibrate.schedule import Schedule
from mixplan.calibrate.source_mix import fullest_step, share_schedules
from mixplan.calibrate.sources import spec_problems
from mixplan.calibrate.tasks import Cell, Task, make_probe_tasks
from mixplan.documents.calibration_spec import CalibrationSpec, Retention
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError

if TYPE_CHECKING:
    from mixplan.calibrate.prepared import Prepared

_MOST_INJECTED = 0.8
"""Share of all training tokens: beyond it the base text is no longer what the model learns from."""


def check_fit(prepared: Prepared) -> list[str]:
    """Every instance fits a sequence, every step's injections fit its batch, every cell and source occurs.

    And the engine can run it.

    Returns:
        Notes for the user.

    Raises:
        InputError: with everything that does not fit.
    """
    spec, probe = prepared.spec, prepared.spec.probes.retention
    problems = [*spec_problems(spec), *engine_problems(spec, prepared.runs())]
    notes: list[str] = []
    injections = make_probe_tasks(spec, spec.seeds[0], prepared.base_vocab, prepared.base)
    if probe is not None and probe.instances < probe.burst_steps:
        problems.append(
            f"probes.retention: {probe.instances} instances cannot be spread over {probe.burst_steps} "
            "steps; give at least one a step"
        )
    problems += _dependence_problems(spec)
    # Lengths and numbers of instances do not depend on the seed.
    cells_of: dict[tuple[int, str | None], list[Cell]] = {}
    for run in prepared.runs():
        key = (run.variant, run.only_cell)
        if key not in cells_of:
            cells_of[key] = prepared.cells(run)
        cells = cells_of[key]
        lengths = [max(len(i.document(0)) for i in cell.task.train) for cell in cells]
        for cell, longest in zip(cells, lengths, strict=True):
            problems += _cell_problems(cell, longest, run)
        share = injected_share(lengths, [cell.frequency for cell in cells])
        if share > _MOST_INJECTED:
            problems.append(
                f"{run.run_id}: the injections take {share:.0%} of the tokens, at most {_MOST_INJECTED:.0%} "
                "are allowed; lower the frequencies or inject fewer cells"
            )
        elif max(lengths, default=0) <= spec.sequence_length:
            problems += _step_problems(spec, run, cells, lengths, injections)
        if share > MUCH_INJECTED:
            notes.append(
                f"{run.run_id}: {share:.0%} of the training tokens are injected instances; that is no tail"
            )
        problems += _share_problems(run, share)
        if probe is not None:
            problems += burst_problems(probe, run.steps, run.decay_steps, run.run_id)
            notes += burst_notes(probe, run)
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return list(dict.fromkeys(notes))


def _dependence_problems(spec: CalibrationSpec) -> list[str]:
    known = [shape.name for shape in spec.shapes()]
    asked = spec.dependence.rungs or [] if spec.dependence is not None else []
    return [
        f"dependence.rungs: {name!r} is not a rung of this ladder{did_you_mean(name, known)}"
        for name in asked
        if name not in known
    ]


def _cell_problems(cell: Cell, longest: int, run: RunSpec) -> list[str]:
    problems = []
    if longest > run.sequence_length:
        problems.append(
            f"task {cell.task.name}: an instance of {longest} tokens does not fit sequences of "
            f"{run.sequence_length}; raise sequence_length or shorten the instances"
        )
    if cell.frequency * run.tokens < 1:
        problems.append(
            f"task {cell.task.name}: frequency {cell.frequency:g} gives no instance in the "
            f"{run.tokens} tokens of {run.run_id}; use at least {1 / run.tokens:.3g}"
        )
    if cell.gap_steps > run.steps:
        problems.append(
            f"task {cell.task.name}: a gap of {cell.gap_steps} steps does not fit the {run.steps} steps of "
            f"{run.run_id}; shorten gaps_steps or train longer"
        )
    return problems


def _step_problems(
    spec: CalibrationSpec,
    run: RunSpec,
    cells: Sequence[Cell],
    lengths: Sequence[int],
    injections: Sequence[Sequence[Task]],
) -> list[str]:
    """The first step whose instances do not fit its batch, and cells that never occur."""
    schedule = Schedule(
        [cell.frequency for cell in cells],
        [cell.gap_steps for cell in cells],
        spec.injection.spacing,
        run.tokens_per_step,
        run.steps,
        run.seed,
        [cell.task.name for cell in cells],
    )
    problems = [
        f"task {cell.task.name}: in {run.run_id} none of its instances is injected, with this seed and "
        "schedule; raise its frequency, shorten gaps_steps, or train longer"
        for cell, seen in zip(cells, schedule.seen(run.steps), strict=True)
        if not seen and cell.frequency * run.tokens >= 1 and cell.gap_steps <= run.steps
    ]
    burst_lengths = [max(len(i.document(0)) for task in tasks for i in task.train) for tasks in injections]
    all_lengths = np.array([*lengths, *burst_lengths], dtype=np.int64)
    if not len(all_lengths):
        return problems
    longest = int(all_lengths.max())
    if longest > run.sequence_length:
        return [
            *problems,
            f"probes.retention: an instance of {longest} tokens does not fit sequences of "
            f"{run.sequence_length}; raise sequence_length",
        ]
    for first, counts in _counts(schedule, spec.probes.retention, run.steps):
        bad = overfull(
            counts, all_lengths, run.batch_sequences, run.sequence_length, spec.injection.placement, longest
        )
        if bad.any():
            worst = int(np.argmax(np.where(bad, counts @ all_lengths, -1)))
            burst = int(counts[worst, len(cells) :].sum())
            problems.append(
                f"{run.run_id}: step {first + worst} injects {int(counts[worst].sum())} instances ({burst} "
                f"of them a retention burst) of up to {longest} tokens, which do not fit "
                f"{run.batch_sequences} sequences of {run.sequence_length} tokens with placement "
                f"{spec.injection.placement}; lower the frequencies, shorten gaps_steps, inject fewer cells, "
                "spread the burst over more steps, or use larger batches"
            )
            break
    return problems


def _counts(schedule: Schedule, probe: Retention | None, steps: int) -> Iterator[tuple[int, np.ndarray]]:
    """First step and instances of each cell and each retention injection in each step, (n, C + R)."""
    for first, counts in schedule.counts():
        if probe is None:
            yield first, counts
            continue
        each = probe.replicas * (probe.instances // probe.burst_steps)
        at = first + np.arange(len(counts))
        since = at[:, None] - np.array(first_steps(probe, steps))
        bursts = np.where((since >= 0) & (since < probe.burst_steps), each, 0)
        yield first, np.concatenate([counts, bursts], axis=1)


def _share_problems(run: RunSpec, injected: float) -> list[str]:
    problems = []
    total = sum(run.shares.values())
    if total and total + injected > 1:
        problems.append(
            f"{run.run_id}: the sources take {total:.0%} of the tokens and the injections {injected:.0%}: "
            "nothing is left for the base text; lower the shares or the frequencies"
        )
    schedules = share_schedules(run.shares, run.batch_sequences, run.steps, run.seed)
    for name, schedule in schedules.items():
        if not schedule.seen(run.steps):
            problems.append(
                f"user_sources {name}: share {schedule.share:g} gives no sequence in the "
                f"{run.steps * run.batch_sequences} sequences of {run.run_id}; raise it or train longer"
            )
    fullest = fullest_step(schedules, run.steps)
    if fullest > run.batch_sequences:
        problems.append(
            f"{run.run_id}: in some step the sources want {fullest} sequences, but a step has "
            f"{run.batch_sequences}; use larger batches or lower the shares"
        )
    return problems
