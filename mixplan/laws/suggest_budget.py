"""What the next runs may cost, as the command line says it: `25%`, `2e15` or `6 runs`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mixplan.errors import InputError

DEFAULT = "25%"


@dataclass(frozen=True)
class Allowed:
    """A limit in numbers."""

    flops: float | None
    runs: int | None
    words: str

    def holds(self, runs: int, flops: float) -> bool:
        """Whether so many runs, with so many training FLOPs, are within it."""
        return (self.flops is None or flops <= self.flops) and (self.runs is None or runs <= self.runs)


@dataclass(frozen=True)
class Limit:
    """A limit that may hang on what was spent."""

    share: float | None = None
    """Of the training FLOPs already spent."""
    flops: float | None = None
    runs: int | None = None

    def of(self, spent_flops: float) -> Allowed:
        """In numbers."""
        if self.runs is not None:
            return Allowed(None, self.runs, f"{self.runs} run(s)")
        if self.share is None:
            return Allowed(self.flops, None, f"{self.flops:.3g} training FLOPs")
        flops = self.share * spent_flops
        words = f"{flops:.3g} training FLOPs, {self.share:.0%} of the {spent_flops:.3g} spent so far"
        return Allowed(flops, None, words)


def parse_limit(text: str) -> Limit:
    """A budget as given.

    Raises:
        InputError: it is none.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(%|runs?|)\s*", text)
    try:
        value = float(match.group(1)) if match else 0.0
    except ValueError:
        value = 0.0
    unit = match.group(2) if match else ""
    if value <= 0.0 or (unit.startswith("run") and value != int(value)):
        raise InputError(
            f"--suggest-budget {text!r}: give a share of the training FLOPs already spent (25%), training "
            "FLOPs (2e15) or a number of runs ('6 runs')"
        )
    if unit == "%":
        return Limit(share=value / 100.0)
    return Limit(runs=int(value)) if unit else Limit(flops=value)
