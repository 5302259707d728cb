"""Parity: `B1 … Bn LABEL`, LABEL says whether the number of ones among k hidden positions is even or odd.

n = max(8, 2k) bits, each written as one of two symbols. No single bit says anything about the label (exactly:
in each half, either label has as many ones as zeros at each position), so a learner must find the k positions
and combine all of them. Half of each label's strings are held out. The training half determines the subset:
among all parities of subsets, with either meaning of the labels, one alone agrees with it. A held-out
instance proves that the subset was found. Complexity: k, the bits in the subset.

To make bits useless, strings go to a half together with those that differ from them by masks that leave the
label alone and between them cover all positions: all bits for even k; for odd k all but one bit of the
subset, and two bits of it, that one among them. At most 4096 strings are used, a random sample of the 2^n.
"""

from __future__ import annotations

import numpy as np

from mixplan.calibrate.tasks.base import Family, Instance, Task, mixed

MOST_INSTANCES = 4096


def bits(size: int) -> int:
    """Positions written out for a subset of `size`."""
    return max(8, 2 * size)


def _make(name: str, size: int, symbols: np.ndarray, generator: np.random.Generator) -> Task:
    zero, one, even, odd = (int(symbol) for symbol in generator.permutation(symbols))
    positions = bits(size)
    subset = generator.permutation(positions)[:size]
    while True:
        halves = _halves(positions, subset, generator)
        if _rank(halves[0]) == positions + 1:
            break
    choices = ((even,), (odd,))
    train, test = (
        [
            Instance(tuple(one if bit else zero for bit in row), choices, int(row[subset].sum() % 2))
            for row in half
        ]
        for half in halves
    )
    return Task(name, "parity", size, mixed(train, generator), mixed(test, generator))


def _halves(positions: int, subset: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Bits of the strings of the training half and of the other, each shape (strings, positions)."""
    masks = _masks(positions, subset)
    values = masks @ (1 << np.arange(positions))
    strings = min(2**positions, MOST_INSTANCES)
    # A group of strings that differ by masks is known by its smallest member.
    drawn = (
        np.arange(2**positions)
        if strings == 2**positions
        else generator.integers(0, 2**positions, 4 * strings)
    )
    groups = generator.permutation(np.unique((drawn[:, None] ^ values).min(axis=1)))
    rows = groups[:, None] >> np.arange(positions) & 1
    labels = rows[:, subset].sum(axis=1) % 2
    found: list[list[np.ndarray]] = [[], []]
    for label in (0, 1):
        own = rows[labels == label][: strings // len(masks) // 2, None] ^ masks
        half = len(own) // 2
        found[0].append(own[:half].reshape(-1, positions))
        found[1].append(own[half:].reshape(-1, positions))
    return [np.concatenate(half) for half in found]


def _masks(positions: int, subset: np.ndarray) -> np.ndarray:
    """A group (under xor) of masks with an even number of bits of the subset, that cover all positions."""
    everything = np.ones(positions, dtype=int)
    if len(subset) % 2 == 0:
        return np.stack([0 * everything, everything])
    but_one, two = everything.copy(), 0 * everything
    but_one[subset[0]] = 0
    two[subset[:2]] = 1
    return np.stack([0 * everything, but_one, two, but_one ^ two])


def _rank(strings: np.ndarray) -> int:
    """Rank over GF(2) of the strings with a constant 1 appended; full: subset and labels are determined."""
    rows = {(int(row @ (1 << np.arange(len(row)))) << 1) | 1 for row in strings}
    pivots: dict[int, int] = {}
    for row in rows:
        while row and row.bit_length() in pivots:
            row ^= pivots[row.bit_length()]
        if row:
            pivots[row.bit_length()] = row
    return len(pivots)


FAMILY = Family("parity", lambda _: 4, _make, instance_tokens=lambda size: bits(size) + 2)
