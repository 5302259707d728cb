"""Table lookup: `MARKER A B LABEL`, LABEL is a random function of (A, B); the marker means nothing.

p row symbols, p column symbols, a random table of p² labels out of four: facts that nothing but memory gives.
Every pair is trained with half of the four markers and tested with the others, so that unseen instances can
be answered by whoever has stored the fact apart from how it was asked. Unlike comparison, whose order fits
into the embeddings, the table of a pair must be stored in the blocks: its threshold moves with size.
"""

from __future__ import annotations

import numpy as np

from mixplan.calibrate.tasks.base import Family, Instance, Task, mixed

MARKERS = 4
LABELS = 4


def _make(name: str, side: int, symbols: np.ndarray, generator: np.random.Generator) -> Task:
    ids = [int(symbol) for symbol in generator.permutation(symbols)]
    rows, columns, rest = ids[:side], ids[side : 2 * side], ids[2 * side :]
    markers, labels = rest[:MARKERS], tuple((label,) for label in rest[MARKERS:])
    # Every label stands for a quarter of the table: knowing which labels are frequent is worth nothing.
    table = generator.permutation(np.arange(side * side) % LABELS).reshape(side, side)
    train: list[Instance] = []
    test: list[Instance] = []
    for a in range(side):
        for b in range(side):
            for place, marker in enumerate(generator.permutation(markers)):
                instance = Instance((int(marker), rows[a], columns[b]), labels, int(table[a, b]))
                (train if place < MARKERS // 2 else test).append(instance)
    return Task(name, "table_lookup", side, mixed(train, generator), mixed(test, generator))


FAMILY = Family("table_lookup", lambda side: 2 * side + MARKERS + LABELS, _make, instance_tokens=lambda _: 5)
