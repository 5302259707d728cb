"""How much of one text stands in another, wherever documents were cut.

Shape legend: T = tokens, n = sampled positions, W = tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_WINDOW = 64
"""Tokens that must be the same in a row."""
_ONE_IN = np.uint64(32)
"""Share of the positions that are looked at: those whose next tokens say so, the same in both texts."""
_AT_ONCE = 2**20
_MULTIPLIERS = np.random.default_rng(64).integers(1, 2**63, size=_WINDOW, dtype=np.uint64) * np.uint64(2) + (
    np.uint64(1)
)


def shared(tokens: np.ndarray, other: np.ndarray) -> float:
    """Share of the 64-token windows of `tokens` that occur in `other`; 0 where there are none.

    Args:
        tokens: ids, shape (T,), of any integer type.
        other: likewise.
    """
    mine = np.concatenate([np.empty(0, dtype=np.uint64), *_hashes(tokens)])
    if not len(mine):
        return 0.0
    left = np.unique(mine)
    found = np.zeros(len(left), dtype=bool)
    for theirs in _hashes(other):
        found |= np.isin(left, theirs)
    return float(np.isin(mine, left[found]).mean())


def _hashes(tokens: np.ndarray) -> Iterator[np.ndarray]:
    """Hashes of the windows at sampled positions, uint64 (n,), in pieces."""
    for first in range(0, max(0, len(tokens) - _WINDOW + 1), _AT_ONCE):
        part = np.asarray(tokens[first : first + _AT_ONCE + _WINDOW - 1]).astype(np.uint64)
        last = len(part) - _WINDOW + 1
        # The upper bits of a product depend on all bits of its factors.
        local = sum(part[k : k + last] * _MULTIPLIERS[k] for k in range(4)) >> np.uint64(32)
        at = np.flatnonzero(local % _ONE_IN == 0)
        found = np.zeros(len(at), dtype=np.uint64)
        for k in range(_WINDOW):
            found += part[at + k] * _MULTIPLIERS[k]
        yield found
