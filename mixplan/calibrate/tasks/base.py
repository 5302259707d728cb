"""What a task is to the rest of the stage: instances to inject, instances to test on, possible answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Instance:
    """One question with its possible answers, as token ids."""

    prompt: Tokens
    choices: tuple[Tokens, ...]
    """Possible answers; the same for all instances of a synthetic task."""
    answer: int
    """Index of the right choice."""

    def document(self, end_of_document_id: int) -> Tokens:
        """What is injected: prompt, right answer, end of document."""
        return (*self.prompt, *self.choices[self.answer], end_of_document_id)


@dataclass(frozen=True)
class Task:
    """One concrete skill with its own tokens. Only `train` is ever injected; skill is measured on `test`.

    The two are disjoint, but for families of facts that nothing unseen could be inferred from
    (associative_recall): there `test` are the taught instances, and skill is the share that was stored.
    """

    name: str
    family: str
    complexity: int
    train: tuple[Instance, ...]
    test: tuple[Instance, ...]
    order: Tokens | None = None
    """Symbols in the order hidden behind them (ranks, residues), for the feature probe; None: no order."""


@dataclass(frozen=True)
class Family:
    """A synthetic family: how many symbols a task of given complexity needs, and how to make it from them."""

    name: str
    symbols: Callable[[int], int]
    """complexity → number of novel symbols."""
    make: Callable[[str, int, np.ndarray, np.random.Generator], Task]
    """(task name, complexity, symbol ids, generator) → task, the same for the same generator state."""
    instance_tokens: Callable[[int], int]
    """complexity → length of the longest injected instance, end of document included."""


def chance(instances: Sequence[Instance]) -> float:
    """Accuracy of guessing among the choices: mean of 1 ÷ choices, which may differ in number."""
    return float(np.mean([1 / len(instance.choices) for instance in instances]))


def mixed(instances: Sequence[Instance], generator: np.random.Generator) -> tuple[Instance, ...]:
    """In random order, so that any first part of them is a fair sample."""
    return tuple(instances[index] for index in generator.permutation(len(instances)))
