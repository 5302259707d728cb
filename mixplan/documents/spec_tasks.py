"""calibration.yaml, the injected tasks and how they are injected."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from mixplan.documents.base import (
    Count,
    Name,
    Part,
    Positive,
    distinct,
)

SyntheticFamily = Literal["comparison", "modular_addition", "table_lookup"]


class TaskGrid(Part):
    """One family at several complexities, each at several frequencies: one task of its own per cell."""

    family: SyntheticFamily
    """comparison: which of two symbols is larger; modular_addition: (a + b) mod p; table_lookup: a random
    function of two symbols, asked in other ways than it was taught."""
    complexities: list[Count]
    """comparison: items compared; modular_addition: the modulus; table_lookup: the side of the table."""
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
    def _hard_enough(cls, value: list[int]) -> list[int]:
        if not value or min(value) < 3:
            raise ValueError("each complexity must be at least 3, or no instance is left to hold out")
        return distinct(value)

    @field_validator("frequencies")
    @classmethod
    def _distinct_frequencies(cls, value: list[float]) -> list[float]:
        return distinct(value)


class UserTask(Part):
    """A task of the team's own, from JSONL with prompt, answer, choices, split (train or test)."""

    name: Name
    """Becomes the family name in the measurements."""
    path: str
    """JSONL file, relative to this file."""
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
