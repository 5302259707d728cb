"""calibration.yaml, the injected tasks and how they are injected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationInfo, field_validator

from mixplan.documents.base import (
    Count,
    Name,
    Part,
    Positive,
    distinct,
)

SyntheticFamily = Literal[
    "comparison",
    "modular_addition",
    "table_lookup",
    "associative_recall",
    "permutation_composition",
    "parity",
    "regular_language",
]

_COMPLEXITIES: dict[str, tuple[int, int | None, str]] = {
    "comparison": (3, None, "or no instance is left to hold out"),
    "modular_addition": (3, None, "or no instance is left to hold out"),
    "table_lookup": (3, None, "or no instance is left to hold out"),
    "associative_recall": (8, 4096, "facts: each of the 8 answers belongs to one, and there are 4096 keys"),
    "permutation_composition": (2, 16, "steps: one step is a fact that is taught, and many are enough"),
    "parity": (2, 16, "bits: a single bit is copied, and twice as many positions are written out"),
    "regular_language": (2, 12, "states: one accepts all or nothing, and strings have eight letters"),
}
"""Smallest and largest complexity of each family, and why."""


def complexity_problem(family: str, complexity: int) -> str | None:
    """What is wrong with a complexity of a family: given, rule, way out; None if nothing is."""
    least, most, why = _COMPLEXITIES[family]
    if complexity < least:
        return f"each complexity must be at least {least} for {family} ({why}); given {complexity}"
    if most is not None and complexity > most:
        return f"each complexity must be at most {most} for {family} ({why}); given {complexity}"
    return None


@dataclass(frozen=True)
class GridCell:
    """One cell of the grid: a task of its own, with symbols of its own."""

    name: str
    """family-complexity@frequency, and `~u` unique instances, `~g` gap where they are not the default."""
    family: SyntheticFamily
    complexity: int
    frequency: float
    unique_instances: int | None
    gap_steps: int


class TaskGrid(Part):
    """One family at several complexities, each at several frequencies: one task of its own per cell."""

    family: SyntheticFamily
    """comparison: which of two symbols is larger; modular_addition: (a + b) mod p; table_lookup: a random
    function of two symbols, asked in other ways than it was taught; associative_recall: random facts, nothing
    to generalise; permutation_composition: several permutations applied in turn; parity: of a hidden subset
    of bits; regular_language: does a hidden automaton accept a string."""
    complexities: list[Count]
    """comparison: items compared; modular_addition: the modulus; table_lookup: the side of the table;
    associative_recall: facts; permutation_composition: permutations applied; parity: bits in the subset;
    regular_language: states of the automaton."""
    frequencies: list[Positive]
    """Injected instances per training token."""
    unique_instances: list[Count] | None = None
    """Numbers of different training instances, an axis of its own: exposures per instance are not frequency.
    Default: all that the task has."""
    gaps_steps: list[Count] = [1]
    """Matched-frequency gaps, an axis of its own (arXiv 2605.29548): withheld for this many steps, then all
    at once, at the same long-run frequency. 1: spread over all steps."""

    @field_validator("unique_instances", "gaps_steps")
    @classmethod
    def _distinct_counts(cls, value: list[int] | None) -> list[int] | None:
        return value if value is None else distinct(value)

    @field_validator("complexities")
    @classmethod
    def _distinct_complexities(cls, value: list[int], info: ValidationInfo) -> list[int]:
        family = info.data.get("family")  # absent when it was not valid itself
        problems = [complexity_problem(family, complexity) for complexity in value] if family else []
        if any(problems):
            raise ValueError("; ".join(problem for problem in problems if problem))
        return distinct(value)

    @field_validator("frequencies")
    @classmethod
    def _distinct_frequencies(cls, value: list[float]) -> list[float]:
        return distinct(value)

    def cells(self) -> list[GridCell]:
        """family × complexity × frequency × unique instances × gap."""
        return [
            GridCell(
                f"{self.family}-{complexity}@{frequency:g}"
                + (f"~u{unique}" if unique is not None else "")
                + (f"~g{gap}" if gap > 1 else ""),
                self.family,
                complexity,
                frequency,
                unique,
                gap,
            )
            for complexity in self.complexities
            for frequency in self.frequencies
            for unique in (self.unique_instances or (None,))
            for gap in self.gaps_steps
        ]


class UserTask(Part):
    """A task of the team's own: rows of prompt, answer, choices, split (train or test)."""

    name: Name
    """Becomes the family name in the measurements."""
    path: str
    """JSONL file, or a folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk` (whose splits
    train and test stand for a missing split column), relative to this file."""
    complexity: Count = 1
    """A number that grows with difficulty within the family, if there are several such tasks."""
    family: Name | None = None
    """Family that several files share. Default: the task's own name."""
    frequencies: list[Positive]
    """Injected instances per training token. A text can only have one frequency in a run, so each further
    frequency is a further run of every rung (variant j takes the j-th)."""

    @field_validator("frequencies")
    @classmethod
    def _distinct_frequencies(cls, value: list[float]) -> list[float]:
        return distinct(value)


class Injection(Part):
    """How instances are spread over the run and inside a step."""

    spacing: Literal["even", "poisson"] = "even"
    """even: the gaps between encounters differ by at most one step; poisson: every token of the run is as
    likely to start one. Tasks with `gaps_steps` above 1 arrive in bursts instead."""
    placement: Literal["anywhere", "aligned", "start"] = "anywhere"
    """anywhere in a sequence; aligned: at multiples of the longest instance's length; start: at the start of
    a sequence, one instance a sequence (as in arXiv 2605.29548)."""


class Dependence(Part):
    """Runs with a single task against the run with all of them: may many cells share a run?
    (arXiv 2509.23383)"""

    cells: Count = 3
    """Cells that are trained alone too, evenly chosen among those of the grid."""
    rungs: list[Name] | None = None
    """Rungs on which that is done. Default: the smallest and the largest."""
