"""FLOPs of everything that is measured during a run. No torch.

Counted as if every token that is read cost what a training token costs (a third of it for a forward pass
alone), its unembedding included although most probes need few logits: somewhat too much rather than too
little.

Shape legend: T = sequence length.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixplan.calibrate.probes import CONTEXT_TOKENS, INTERFERENCE_INSTANCES
from mixplan.calibrate.probes.bursts import first_steps
from mixplan.calibrate.runs import RunSpec
from mixplan.calibrate.tasks import Cell, Instance, Task
from mixplan.documents.calibration_spec import CalibrationSpec, Probes

_CONTEXTS = 64
"""Pieces of held-out text that instances stand after; each is read once, however many stand after it."""


def probe_flops(
    run: RunSpec, spec: CalibrationSpec, cells: Sequence[Cell], injections: Sequence[Sequence[Task]]
) -> float:
    """FLOPs of the evaluations, sources, retention, interference and features of a run.

    Args:
        cells: of the run.
        injections: the tasks of each burst of the retention probe.
    """
    probes = spec.probes
    sources = len(spec.user_sources) if run.only_cell is None else 0
    text = max(probes.lm_loss_tokens, run.sequence_length) // run.sequence_length * run.sequence_length
    scored = _asked([cell.task.test[: probes.max_instances] for cell in cells])
    forward = float(_evaluations(run, probes) * (text * (1 + sources) + scored))
    if probes.retention is not None:
        for first, tasks in zip(first_steps(probes.retention, run.steps), injections, strict=True):
            left = run.steps - first - probes.retention.burst_steps
            delays = sum(delay <= left for delay in probes.retention.delays_steps)
            forward += (delays + 1) * _asked([task.train[: probes.retention.instances] for task in tasks])
    if probes.features is not None:
        contexts = min(probes.features.contexts, _CONTEXTS)
        symbols = sum(len(cell.task.order or ()) for cell in cells)
        forward += probes.features.points * contexts * (symbols + CONTEXT_TOKENS) if symbols else 0
    training = _interference_tokens(run, probes, cells) if probes.interference is not None else 0.0
    return run.shape.flops_per_token(run.vocab_size, run.sequence_length) * (forward / 3 + training)


def _evaluations(run: RunSpec, probes: Probes) -> int:
    """Of the trunk (not where a branch ends, which measures there itself) and of the branches."""
    ends = {branch.end_step for branch in run.branches}
    trunk = {max(1, round(run.steps * (k + 1) / probes.evaluations)) for k in range(probes.evaluations)}
    return len(trunk - ends) + len(ends)


def _interference_tokens(run: RunSpec, probes: Probes, cells: Sequence[Cell]) -> float:
    """Tokens read forward and backward: the batch, each cell's instances, and the sequences that hold it."""
    assert probes.interference is not None
    rows = min(probes.interference.batch_sequences, run.batch_sequences)
    tokens = rows * run.sequence_length
    per_point = float(tokens)
    for cell in cells:
        each = list(dict.fromkeys([*cell.task.train, *cell.task.test]))[:INTERFERENCE_INSTANCES]
        per_point += _asked([each])
        per_point += min(rows, cell.frequency * tokens) * run.sequence_length
    return probes.interference.points * per_point


def _asked(groups: Sequence[Sequence[Instance]]) -> int:
    """Tokens that score instances once: contexts, and one row each, or one per choice of several tokens."""
    contexts = min(_CONTEXTS, max((len(group) for group in groups), default=0))
    total = contexts * CONTEXT_TOKENS
    for group in groups:
        for instance in group:
            longest = [len(choice) for choice in instance.choices]
            rows = [1] if max(longest) == 1 else longest
            total += sum(len(instance.prompt) + length - 1 for length in rows)
    return total
