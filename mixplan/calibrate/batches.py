"""All tokens of a run: base text, sources, injected instances and bursts; a pure function of the step.

So a killed run, a branch of it, and every process of a run on several devices see the same.

Shape legend: B = sequences a step, T = sequence length.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from mixplan.calibrate.injection import Injector
from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.probes.retention import RetentionProbe
from mixplan.calibrate.runs import RunSpec
from mixplan.calibrate.source_mix import SourceMix, share_schedules, source_stream
from mixplan.calibrate.sources import sequences_of_run
from mixplan.calibrate.stream import BaseStream
from mixplan.calibrate.tasks import Cell


class Batches:
    """The training batches of one run."""

    def __init__(
        self, prepared: Prepared, run: RunSpec, cells: Sequence[Cell], retention: Sequence[RetentionProbe]
    ) -> None:
        self.run, self.retention = run, retention
        # The orders of text and instances are kept for the pass they belong to, and a probe may ask for a
        # batch while the next one is made ahead.
        self._one_at_a_time = threading.Lock()
        self.stream = BaseStream(prepared.train, run.sequence_length, run.seed)
        self.mix = SourceMix(
            self.stream,
            {name: _source(prepared, run, name) for name in run.shares},
            share_schedules(run.shares, run.batch_sequences, run.steps, run.seed),
            run.batch_sequences,
            run.seed,
        )
        self.injector = Injector(
            [cell.task for cell in cells],
            [cell.frequency for cell in cells],
            prepared.end_of_document_id,
            run.batch_sequences,
            run.sequence_length,
            run.steps,
            run.seed,
            gaps=[cell.gap_steps for cell in cells],
            spacing=prepared.spec.injection.spacing,
            placement=prepared.spec.injection.placement,
            longest_extra=max(
                (
                    len(instance.document(prepared.end_of_document_id))
                    for probe in retention
                    for task in probe.tasks
                    for instance in task.train
                ),
                default=1,
            ),
        )

    def at(self, step: int) -> np.ndarray:
        """The batch of a step, shape (B, T), int64."""
        return self.with_owners(step)[0]

    def with_owners(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The batch of a step, and who owns each of its tokens.

        Returns:
            batch (B, T) int64, and owners (B, T) int32: the index of the cell whose instance covers the token
            (its end of document included); −1 base text or a source; −2 a retention burst.
        """
        burst = [document for probe in self.retention for document in probe.burst(step)]
        with self._one_at_a_time:
            return self.injector.inject(step, self.mix.batch(step), burst)


def _source(prepared: Prepared, run: RunSpec, name: str) -> BaseStream:
    (source,) = (one for one in prepared.spec.user_sources if one.name == name)
    tokens = prepared.source(name, "train")
    keep = sequences_of_run(source, run, len(tokens) // run.sequence_length)
    return source_stream(tokens, run.sequence_length, run.seed, name, keep)
