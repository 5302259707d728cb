"""Modular addition (arXiv 2605.29548, OLMo experiment): `A B C` with C = (A + B) mod p over p novel symbols.

Half of the p² ordered pairs are held out; which symbol stands for which number is random.
"""

from __future__ import annotations

import numpy as np

from mixplan.calibrate.tasks.base import Family, Instance, Task


def _make(name: str, modulus: int, symbols: np.ndarray, generator: np.random.Generator) -> Task:
    value = [int(symbol) for symbol in generator.permutation(symbols)]
    choices = tuple((symbol,) for symbol in value)
    pairs = [(a, b) for a in range(modulus) for b in range(modulus)]
    order = generator.permutation(len(pairs))
    half = (len(pairs) + 1) // 2
    instances = [
        Instance((value[a], value[b]), choices, (a + b) % modulus)
        for a, b in (pairs[index] for index in order)
    ]
    train, test = tuple(instances[:half]), tuple(instances[half:])
    return Task(name, "modular_addition", modulus, train, test, tuple(value))


FAMILY = Family("modular_addition", lambda modulus: modulus, _make, instance_tokens=lambda _: 4)
