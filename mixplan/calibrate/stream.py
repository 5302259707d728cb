"""A text as training batches: a pure function of the step.

Shape legend: B = sequences a step, T = sequence length, S = sequences in the corpus.
"""

from __future__ import annotations

import numpy as np


class BaseStream:
    """Cuts the tokens into S sequences and reads them in a random order, a new one each pass.

    The order depends on the seed alone: all rungs of a seed read the same text in the same order.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        sequence_length: int,
        seed: int,
        key: tuple[int, ...] = (0,),
        only: np.ndarray | None = None,
    ) -> None:
        """
        Args:
            tokens: shape (at least S·T,).
            key: which text this is: texts with different keys have independent orders.
            only: indices of the sequences that are used; None: all.
        """
        there = len(tokens) // sequence_length
        if there == 0:
            raise ValueError(f"{len(tokens)} tokens are less than one sequence of {sequence_length}")
        self.rows = tokens[: there * sequence_length].reshape(there, sequence_length)
        self.only = only
        self.sequences = there if only is None else len(only)
        self.seed, self.key = seed, key
        self._order: tuple[int, np.ndarray] | None = None

    def batch(self, step: int, batch_sequences: int) -> np.ndarray:
        """The sequences of one step, shape (B, T), int64."""
        return self.rows_at(step * batch_sequences, batch_sequences)

    def rows_at(self, first: int, count: int) -> np.ndarray:
        """`count` sequences, in the order in which they are read, from the `first` on: (count, T), int64."""
        found = np.empty((count, self.rows.shape[1]), dtype=np.int64)
        for place, index in enumerate(range(first, first + count)):
            found[place] = self._row(index)
        return found

    def _row(self, index: int) -> np.ndarray:
        epoch, place = divmod(index, self.sequences)
        if self._order is None or self._order[0] != epoch:
            generator = np.random.default_rng([self.seed, *self.key, epoch])
            self._order = (epoch, generator.permutation(self.sequences))
        row = self._order[1][place]
        return self.rows[row if self.only is None else self.only[row]]
