"""Which instance goes where and when: a function of (seed, step) alone, so a resumed run injects the same.

Shape legend: B = sequences a step, T = sequence length, C = cells.

How many: see schedule.py. Where: see placement.py. Which instance: all training instances of a cell in a
random order, then all again in another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixplan.calibrate.placement import Placement, place
from mixplan.calibrate.schedule import Schedule, Spacing, named
from mixplan.calibrate.tasks.base import Task, Tokens

MUCH_INJECTED = 0.5
"""Share of the training tokens from which injected instances are no tail any more: users are told."""
EXTRA_OWNER = -2
"""Owner of the tokens of retention bursts."""


class Injector:
    """The injections of one run."""

    def __init__(
        self,
        tasks: Sequence[Task],
        frequencies: Sequence[float],
        end_of_document_id: int,
        batch_sequences: int,
        sequence_length: int,
        steps: int,
        seed: int,
        *,
        gaps: Sequence[int] | None = None,
        spacing: Spacing = "even",
        placement: Placement = "anywhere",
        longest_extra: int = 1,
    ) -> None:
        """
        Args:
            gaps: steps between the bursts of each task; default: none has any.
            longest_extra: tokens of the longest of the `extra` documents that `inject` will be given.
        """
        self.documents = [[i.document(end_of_document_id) for i in task.train] for task in tasks]
        self.seed = seed
        # By name, so that a cell alone (dependence check) has the same schedule as among all others.
        self.names = [task.name for task in tasks]
        self.placement: Placement = placement
        self.grid_tokens = max([longest_extra, *(len(d) for own in self.documents for d in own)])
        self.schedule = Schedule(
            frequencies,
            gaps or [1] * len(tasks),
            spacing,
            batch_sequences * sequence_length,
            steps,
            seed,
            self.names,
        )
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    @property
    def realised_frequencies(self) -> np.ndarray:
        """Instances per training token over the whole run, exactly, shape (C,)."""
        return self.schedule.realised_frequencies

    def seen(self, step: int) -> np.ndarray:
        """Instances injected before `step`, shape (C,)."""
        return self.schedule.seen(step)

    def documents_at(self, step: int) -> tuple[list[Tokens], list[int]]:
        """The token strings injected in this step, and the index of the task of each."""
        found: list[Tokens] = []
        owners: list[int] = []
        for cell, (start, stop) in enumerate(zip(self.seen(step), self.seen(step + 1), strict=True)):
            own = self.documents[cell]
            found += [
                own[self._order(cell, int(j) // len(own))[int(j) % len(own)]] for j in range(start, stop)
            ]
            owners += [cell] * int(stop - start)
        return found, owners

    def inject(
        self, step: int, batch: np.ndarray, extra: Sequence[Tokens] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """The batch (B, T) with this step's instances, and `extra` ones, written over the text.

        Returns:
            The batch; and owners, int32 (B, T): the index of the task whose instance covers the token
            (end of document included), TEXT_OWNER, or EXTRA_OWNER.
        """
        generator = np.random.default_rng([self.seed, 2, step])
        documents, owners = self.documents_at(step)
        return place(
            batch,
            [*documents, *extra],
            [*owners, *[EXTRA_OWNER] * len(extra)],
            generator,
            self.placement,
            self.grid_tokens,
        )

    def _order(self, cell: int, epoch: int) -> np.ndarray:
        key = (cell, epoch)
        if key not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k[0] != cell or k[1] >= epoch - 1}
            self._orders[key] = named(self.seed, 3, self.names[cell], epoch).permutation(
                len(self.documents[cell])
            )
        return self._orders[key]


def injected_share(lengths: Sequence[float], frequencies: Sequence[float]) -> float:
    """Share of the training tokens that is overwritten by instances: Σ frequency × instance length."""
    return float(np.dot(lengths, frequencies))
