"""Where in a batch the instances of a step go; they never share tokens.

Shape legend: B = sequences a step, T = sequence length, D = documents to place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mixplan.calibrate.tasks.base import Tokens

Placement = Literal["anywhere", "aligned", "start"]
TEXT_OWNER = -1
"""Owner of the tokens of the base text and of the user's sources."""


def place(
    batch: np.ndarray,
    documents: Sequence[Tokens],
    owners: Sequence[int],
    generator: np.random.Generator,
    placement: Placement = "anywhere",
    grid_tokens: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Write documents over a copy of the batch (B, T).

    Args:
        owners: number that stands for each document in the second result, shape (D,).
        grid_tokens: placement aligned starts documents at multiples of this; none may be longer.

    Returns:
        The batch, and the owner of each of its tokens, int32 (B, T), TEXT_OWNER where there is none.

    Raises:
        ValueError: the documents do not fit (checked before any run starts, see `overfull`).
    """
    out, owned = batch.copy(), np.full(batch.shape, TEXT_OWNER, dtype=np.int32)
    rows, length = batch.shape
    lengths = [len(document) for document in documents]
    if placement == "anywhere":
        spots = _anywhere(lengths, rows, length, generator)
    else:
        per_row = length // grid_tokens if placement == "aligned" else 1
        if len(lengths) > rows * per_row:
            raise ValueError(_too_many(len(lengths), rows, length))
        chosen = generator.choice(rows * per_row, size=len(lengths), replace=False)
        spots = [(int(spot) // per_row, int(spot) % per_row * grid_tokens) for spot in chosen]
    for (row, start), document, owner in zip(spots, documents, owners, strict=True):
        out[row, start : start + len(document)] = document
        owned[row, start : start + len(document)] = owner
    return out, owned


def overfull(
    counts: np.ndarray,
    lengths: np.ndarray,
    rows: int,
    length: int,
    placement: Placement,
    grid_tokens: int,
) -> np.ndarray:
    """Whether documents might not fit, for many steps at once: bool (n,).

    False is a promise that `place` succeeds. It holds for the anywhere placement, which is longest first,
    when a document of ℓ tokens cannot find every sequence filled beyond T − ℓ: all documents that are as long
    or longer hold less than B·(T − ℓ + 1) tokens without it, or there are no more documents than
    B·⌊T ÷ longest⌋.

    Args:
        counts: documents of each kind in each step, shape (n, kinds).
        lengths: tokens of a document of each kind, at most, shape (kinds,).
    """
    documents = counts.sum(axis=1)
    if placement != "anywhere":
        return documents > rows * (length // grid_tokens if placement == "aligned" else 1)
    by_number = documents > rows * (length // max(int(lengths.max(initial=1)), 1))
    by_tokens = np.zeros(len(counts), dtype=bool)
    for own in np.unique(lengths):
        longer = lengths >= own
        before = counts[:, longer] @ lengths[longer] - own
        here = counts[:, lengths == own].sum(axis=1) > 0
        by_tokens |= here & (before >= rows * (length - own + 1))
    return by_number & by_tokens


def _anywhere(
    lengths: Sequence[int], rows: int, length: int, generator: np.random.Generator
) -> list[tuple[int, int]]:
    """(sequence, first token) of each document.

    Each document goes to a random sequence that still has room; then the free tokens of each sequence are
    spread at random between its documents.
    """
    room = np.full(rows, length)
    held: list[list[int]] = [[] for _ in range(rows)]
    # Longest first, so that what is left over is always easy to place.
    for index in sorted(generator.permutation(len(lengths)), key=lambda i: -lengths[i]):
        roomy = np.flatnonzero(room >= lengths[index])
        if not len(roomy):
            raise ValueError(_too_many(len(lengths), rows, length))
        row = int(roomy[generator.integers(len(roomy))])
        held[row].append(int(index))
        room[row] -= lengths[index]
    spots = [(0, 0)] * len(lengths)
    for row, mine in enumerate(held):
        if not mine:
            continue
        generator.shuffle(mine)
        cuts = np.sort(generator.integers(0, room[row] + 1, size=len(mine)))
        used = 0
        for cut, index in zip(cuts, mine, strict=True):
            spots[index] = (row, int(cut) + used)
            used += lengths[index]
    return spots


def _too_many(documents: int, rows: int, length: int) -> str:
    return f"{documents} instances do not fit into {rows} sequences of {length} tokens"
