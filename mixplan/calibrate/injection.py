"""Which instance goes where and when: a function of (seed, step) alone, so a resumed run injects the same.

Shape legend: B = sequences a step, T = sequence length, C = cells.

Spacing: by step s a cell has had floor(s·total/steps + phase) instances (phase random in [0, 1)), so the gaps
between encounters differ by at most one step. Inside a step instances are spread at random over the sequences
and never share tokens. Which instance: all training instances in a random order, then all again in another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixplan.calibrate.tasks.base import Task, Tokens

MUCH_INJECTED = 0.5
"""Share of the training tokens from which injected instances are no tail any more: users are told."""


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
    ) -> None:
        self.documents = [[i.document(end_of_document_id) for i in task.train] for task in tasks]
        self.steps = steps
        self.seed = seed
        self.tokens = steps * batch_sequences * sequence_length
        self.totals = np.array([round(f * self.tokens) for f in frequencies], dtype=np.int64)
        self.phases = np.random.default_rng([seed, 1]).random(len(tasks))
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    @property
    def realised_frequencies(self) -> np.ndarray:
        """Instances per training token over the whole run, exactly, shape (C,)."""
        return self.totals / self.tokens

    def seen(self, step: int) -> np.ndarray:
        """Instances injected before `step`, shape (C,)."""
        return np.floor(self.totals * (step / self.steps) + self.phases).astype(np.int64)

    def documents_at(self, step: int) -> list[Tokens]:
        """The token strings injected in this step."""
        found: list[Tokens] = []
        for cell, (start, stop) in enumerate(zip(self.seen(step), self.seen(step + 1), strict=True)):
            own = self.documents[cell]
            found += [
                own[self._order(cell, int(j) // len(own))[int(j) % len(own)]] for j in range(start, stop)
            ]
        return found

    def inject(self, step: int, batch: np.ndarray, extra: Sequence[Tokens] = ()) -> np.ndarray:
        """The batch (B, T) with this step's instances, and `extra` ones, written over the text."""
        generator = np.random.default_rng([self.seed, 2, step])
        return place(batch, [*self.documents_at(step), *extra], generator)

    def _order(self, cell: int, epoch: int) -> np.ndarray:
        key = (cell, epoch)
        if key not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k[0] != cell or k[1] >= epoch - 1}
            self._orders[key] = np.random.default_rng([self.seed, 3, cell, epoch]).permutation(
                len(self.documents[cell])
            )
        return self._orders[key]


def place(batch: np.ndarray, documents: Sequence[Tokens], generator: np.random.Generator) -> np.ndarray:
    """Write documents over a copy of the batch (B, T), at random places that never overlap.

    Each document goes to a random sequence that still has room; then the free tokens of each sequence are
    spread at random between its documents.

    Raises:
        ValueError: the documents do not fit (checked before any run starts by `check_fit`).
    """
    rows, length = batch.shape
    room = np.full(rows, length)
    held: list[list[Tokens]] = [[] for _ in range(rows)]
    # Longest first, so that what is left over is always easy to place.
    order = sorted(generator.permutation(len(documents)), key=lambda i: -len(documents[i]))
    for index in order:
        document = documents[index]
        roomy = np.flatnonzero(room >= len(document))
        if not len(roomy):
            raise ValueError(
                f"{len(documents)} instances do not fit into {rows} sequences of {length} tokens"
            )
        row = int(roomy[generator.integers(len(roomy))])
        held[row].append(document)
        room[row] -= len(document)
    out = batch.copy()
    for row, mine in enumerate(held):
        if not mine:
            continue
        generator.shuffle(mine)
        cuts = np.sort(generator.integers(0, room[row] + 1, size=len(mine)))
        used = 0
        for cut, document in zip(cuts, mine, strict=True):
            start = int(cut) + used
            out[row, start : start + len(document)] = document
            used += len(document)
    return out


def injected_share(lengths: Sequence[float], frequencies: Sequence[float]) -> float:
    """Share of the training tokens that is overwritten by instances: Σ frequency × instance length."""
    return float(np.dot(lengths, frequencies))
