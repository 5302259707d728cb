"""Composition of permutations: `G1 … Gk X ANSWER`, what element X becomes when G1, then G2, … Gk act on it.

Four hidden permutations of five elements (the word problem of permutations of five elements is complete for
NC1, arXiv 2404.08819: long products need depth). All twenty single facts `G X ANSWER` are trained; of the
k-step instances half are, each element as often the answer as any other, and the other half is held out. A
held-out instance proves that facts were put together: each is known from training, and their composition was
never shown. Complexity: k, the number of steps.

At most 4096 k-step instances are used, a random sample of the 4^k·5 (all of them up to k = 4).
"""

from __future__ import annotations

import numpy as np

from mixplan.calibrate.tasks.base import Family, Instance, Task, mixed

ELEMENTS = 5
GENERATORS = 4
MOST_INSTANCES = 4096


def _make(name: str, steps: int, symbols: np.ndarray, generator: np.random.Generator) -> Task:
    ids = [int(symbol) for symbol in generator.permutation(symbols)]
    elements, names = ids[:ELEMENTS], ids[ELEMENTS:]
    choices = tuple((element,) for element in elements)
    acts = _permutations(generator)
    train = [
        Instance((names[g], elements[x]), choices, int(acts[g, x]))
        for g in range(GENERATORS)
        for x in range(ELEMENTS)
    ]
    test: list[Instance] = []
    words = GENERATORS**steps
    count = min(words, MOST_INSTANCES // ELEMENTS)
    undo = np.argsort(acts, axis=1)
    for answer in range(ELEMENTS):
        # A word of generators is a bijection: each answer has one instance per word.
        drawn = (
            generator.permutation(words) if count == words else generator.choice(words, count, replace=False)
        )
        letters = np.stack([drawn // GENERATORS**i % GENERATORS for i in range(steps)], axis=1)
        x = np.full(count, answer)
        for place in reversed(range(steps)):
            x = undo[letters[:, place], x]
        instances = [
            Instance((*(names[g] for g in word), elements[start]), choices, answer)
            for word, start in zip(letters.tolist(), x.tolist(), strict=True)
        ]
        train += instances[: (count + 1) // 2]
        test += instances[(count + 1) // 2 :]
    return Task(name, "permutation_composition", steps, mixed(train, generator), mixed(test, generator))


def _permutations(generator: np.random.Generator) -> np.ndarray:
    """Different permutations, none of which does nothing, that lead from every element to every other.

    Shape (GENERATORS, ELEMENTS): where each element goes.
    """
    while True:
        acts = np.stack([generator.permutation(ELEMENTS) for _ in range(GENERATORS)])
        different = len({tuple(act) for act in [*acts, np.arange(ELEMENTS)]}) == GENERATORS + 1
        step = np.zeros((ELEMENTS, ELEMENTS), dtype=bool)
        step[np.arange(ELEMENTS), acts] = True
        reach = np.linalg.matrix_power(np.eye(ELEMENTS) + step, ELEMENTS) > 0
        if different and reach.all():
            return acts


FAMILY = Family(
    "permutation_composition",
    lambda _: ELEMENTS + GENERATORS,
    _make,
    instance_tokens=lambda steps: steps + 3,
)
