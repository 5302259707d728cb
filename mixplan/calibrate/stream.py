"""The base text as training batches: a pure function of the step.

Shape legend: B = sequences a step, T = sequence length, S = sequences in the corpus.
"""

from __future__ import annotations

import numpy as np


class BaseStream:
    """Cuts the tokens into S sequences and reads them in a random order, a new one each pass.

    The order depends on the seed alone: all rungs of a seed read the same text in the same order.
    """

    def __init__(self, tokens: np.ndarray, sequence_length: int, seed: int) -> None:
        self.sequences = len(tokens) // sequence_length
        if self.sequences == 0:
            raise ValueError(f"{len(tokens)} tokens are less than one sequence of {sequence_length}")
        self.rows = tokens[: self.sequences * sequence_length].reshape(self.sequences, sequence_length)
        self.seed = seed
        self._order: tuple[int, np.ndarray] | None = None

    def batch(self, step: int, batch_sequences: int) -> np.ndarray:
        """The sequences of one step, shape (B, T), int64."""
        first = step * batch_sequences
        return np.stack([self._row(index) for index in range(first, first + batch_sequences)]).astype(
            np.int64
        )

    def _row(self, index: int) -> np.ndarray:
        epoch, place = divmod(index, self.sequences)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(self.sequences))
        return self.rows[self._order[1][place]]
