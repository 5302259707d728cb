"""Regular language: `START L1 … Lm LABEL`, LABEL says whether a hidden automaton accepts the string.

A random minimal automaton of q states over two letters; strings of up to eight letters. A learner must keep
track of a state while it reads. No shortcut: among held-out strings of each length as many are accepted as
not, and no single letter, counted from the start or from the end, gives the label of more than two thirds of
the strings (automata that break this are drawn again). The training part holds a characteristic sample, so
that one automaton alone of at most q states agrees with it: a held-out instance proves that the automaton was
found. Complexity: q, the number of states.
"""

from __future__ import annotations

import numpy as np

from mixplan.calibrate.tasks.automata import (
    LETTERS,
    String,
    characteristic_sample,
    draw_minimal,
)
from mixplan.calibrate.tasks.base import Family, Instance, Task, mixed

MOST_LETTERS = 8
MOST_BY_ONE_LETTER = 2 / 3
LEAST_TEST_INSTANCES = 100


def _make(name: str, states: int, symbols: np.ndarray, generator: np.random.Generator) -> Task:
    ids = [int(symbol) for symbol in generator.permutation(symbols)]
    start, letters, labels = ids[0], ids[1 : 1 + LETTERS], tuple((label,) for label in ids[1 + LETTERS :])
    while True:
        moves, accepts = draw_minimal(states, generator)
        sample = characteristic_sample(moves, accepts)
        if max(map(len, sample)) > MOST_LETTERS:
            continue
        train, test = _halves(moves, accepts, sample, generator)
        if len(test) >= LEAST_TEST_INSTANCES and best_single_letter(train + test) <= MOST_BY_ONE_LETTER:
            break
    made = [
        [Instance((start, *(letters[letter] for letter in string)), labels, label) for string, label in half]
        for half in (train, test)
    ]
    return Task(name, "regular_language", states, mixed(made[0], generator), mixed(made[1], generator))


def _halves(
    moves: np.ndarray, accepts: np.ndarray, sample: set[String], generator: np.random.Generator
) -> tuple[list[tuple[String, int]], list[tuple[String, int]]]:
    """Training and held-out strings with their labels; the sample is in training.

    Of each length as many strings of either label are used, but for strings of the sample beyond that.
    """
    train: list[tuple[String, int]] = []
    test: list[tuple[String, int]] = []
    reached: dict[String, int] = {(): 0}
    for _ in range(MOST_LETTERS + 1):
        groups: list[list[String]] = [[], []]
        for string in (list(reached)[i] for i in generator.permutation(len(reached))):
            groups[int(accepts[reached[string]])].append(string)
        used = min(map(len, groups))
        held_out = min(used // 2, *(sum(string not in sample for string in group) for group in groups))
        for label, group in enumerate(groups):
            group.sort(key=lambda string: string not in sample)
            taught = max(used - held_out, sum(string in sample for string in group))
            train += [(string, label) for string in group[:taught]]
            test += [(string, label) for string in group[len(group) - held_out :]]
        reached = {
            (*string, letter): int(moves[state, letter])
            for string, state in reached.items()
            for letter in range(LETTERS)
        }
    return train, test


def best_single_letter(labelled: list[tuple[String, int]]) -> float:
    """Share of the strings whose label the most telling place gives, counted from the start or the end."""
    labels = np.array([label for _, label in labelled])
    best = 0.0
    for place in range(-MOST_LETTERS, MOST_LETTERS):
        seen = np.array(
            [string[place] if -len(string) <= place < len(string) else LETTERS for string, _ in labelled]
        )
        counts = np.bincount(seen * 2 + labels, minlength=2 * LETTERS + 2).reshape(-1, 2)
        best = max(best, float(counts.max(axis=1).sum() / len(labels)))
    return best


FAMILY = Family(
    "regular_language",
    lambda _: 1 + LETTERS + 2,
    _make,
    instance_tokens=lambda _: 1 + MOST_LETTERS + 2,
)
