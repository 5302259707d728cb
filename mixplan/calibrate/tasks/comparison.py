"""Comparison (arXiv 2605.29548, OLMo experiment): `A B LABEL`, LABEL says whether A ranks below B.

n symbols have a hidden random order; the two labels are symbols too. Of the n(n−1) ordered pairs half are
held out, half of each label, so that chance is 1/2 on both sides.
"""

from __future__ import annotations

import numpy as np

from mixplan.calibrate.tasks.base import Family, Instance, Task


def _make(name: str, items: int, symbols: np.ndarray, generator: np.random.Generator) -> Task:
    shuffled = [int(symbol) for symbol in generator.permutation(symbols)]
    labels = ((shuffled[0],), (shuffled[1],))
    ranked = shuffled[2:]
    train: list[Instance] = []
    test: list[Instance] = []
    for label in (0, 1):
        pairs = [(a, b) for a in range(items) for b in range(items) if (a < b) == (label == 0) and a != b]
        order = generator.permutation(len(pairs))
        half = (len(pairs) + 1) // 2
        for place, index in enumerate(order):
            a, b = pairs[index]
            instance = Instance((ranked[a], ranked[b]), labels, label)
            (train if place < half else test).append(instance)
    return Task(name, "comparison", items, tuple(train), tuple(test))


FAMILY = Family("comparison", lambda items: items + 2, _make, instance_tokens=4)
