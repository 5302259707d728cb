"""Associative recall: `A B C D VALUE`, a random value for each of n random keys of four symbols.

Nothing but memory gives a value: no key says anything about another, so nothing unseen could be answered, and
the test instances are the taught facts themselves, asked behind other text. Skill is the share of the facts
that is stored, beyond guessing; there is no generalisation in it, and none is claimed.

Keys are strings over 8 symbols, not one symbol per fact, so that the facts have to be stored in the blocks:
the embedding of a key's own symbol could hold its value in any model. Each of the 8 values belongs to as many
facts as any other (or one more), so the commonest value is worth ⌈n/8⌉/n. Complexity: n, the number of facts.
"""

from __future__ import annotations

import numpy as np

from mixplan.calibrate.tasks.base import Family, Instance, Task, mixed

KEY_SYMBOLS = 8
KEY_LENGTH = 4
VALUES = 8


def _make(name: str, facts: int, symbols: np.ndarray, generator: np.random.Generator) -> Task:
    ids = [int(symbol) for symbol in generator.permutation(symbols)]
    letters, values = ids[:KEY_SYMBOLS], tuple((value,) for value in ids[KEY_SYMBOLS:])
    keys = generator.choice(KEY_SYMBOLS**KEY_LENGTH, size=facts, replace=False)
    value_of = generator.permutation(np.arange(facts) % VALUES)
    digits = np.stack(np.unravel_index(keys, (KEY_SYMBOLS,) * KEY_LENGTH), axis=1)
    taught = [
        Instance(tuple(letters[digit] for digit in key), values, int(value))
        for key, value in zip(digits, value_of, strict=True)
    ]
    return Task(name, "associative_recall", facts, tuple(taught), mixed(taught, generator))


FAMILY = Family(
    "associative_recall",
    lambda _: KEY_SYMBOLS + VALUES,
    _make,
    instance_tokens=lambda _: KEY_LENGTH + 2,
)
