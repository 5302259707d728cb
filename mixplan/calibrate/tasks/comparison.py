"""Comparison (arXiv 2605.29548, OLMo experiment): `A B LABEL`, LABEL says whether A ranks below B.

n symbols have a hidden random order; the two labels are symbols too. Of the n(n−1) ordered pairs half are
held out, half of each label, so that chance is 1/2 on both sides. Every pair of neighbours is trained in one
of its two orders: without that the injected instances would not determine the order, and no learner could
reach skill 1 (with few items the loss is large: on average one held-out instance in n would be undecidable).
"""

from __future__ import annotations

import numpy as np

from mixplan.calibrate.tasks.base import Family, Instance, Task, mixed


def _make(name: str, items: int, symbols: np.ndarray, generator: np.random.Generator) -> Task:
    shuffled = [int(symbol) for symbol in generator.permutation(symbols)]
    labels = ((shuffled[0],), (shuffled[1],))
    ranked = shuffled[2:]
    turned = generator.random(items - 1) < 0.5
    # The neighbours (i, i+1) that are trained in the order that has label 1, and those that have label 0.
    trained_neighbours = {(i + 1, i) if turned[i] else (i, i + 1) for i in range(items - 1)}
    train: list[Instance] = []
    test: list[Instance] = []
    for label in (0, 1):
        pairs = [(a, b) for a in range(items) for b in range(items) if a != b and (a < b) == (label == 0)]
        order = [pairs[index] for index in generator.permutation(len(pairs))]
        order.sort(key=lambda pair: pair not in trained_neighbours)
        half = max((len(pairs) + 1) // 2, sum(pair in trained_neighbours for pair in pairs))
        for place, (a, b) in enumerate(order):
            instance = Instance((ranked[a], ranked[b]), labels, label)
            (train if place < half else test).append(instance)
    # Mixed, so that any first part of them has both labels and all kinds of pairs.
    return Task(name, "comparison", items, mixed(train, generator), mixed(test, generator), tuple(ranked))


FAMILY = Family("comparison", lambda items: items + 2, _make, instance_tokens=lambda _: 4)
