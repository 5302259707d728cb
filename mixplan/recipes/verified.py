"""What `verify` answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mixplan.recipes.comparing import SourceReading

Checked = Literal["weights", "files", "plan", "reading"]


@dataclass(frozen=True)
class Resumption:
    """The loader stopped in the middle and taken up again in new processes."""

    stopped_at_samples: int
    """Samples that all ranks had had."""
    samples: int
    """Samples read on from there."""
    samples_left: int
    """Samples that the run still had from there."""
    same_order: bool
    """Whether they are those that the uninterrupted order has there, one by one."""
    other_state_refused: bool
    """Whether a state of another mixture was refused."""


@dataclass(frozen=True)
class Verification:
    """The whole answer."""

    name: str
    fingerprint: str
    samples_expected: int
    samples: int
    """Samples read; with `checked` plan, in the planned order."""
    shards_checked: int
    shards_hashed: int
    sources: list[SourceReading] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Why the answer is no; empty when it is yes."""
    warnings: list[str] = field(default_factory=list)
    checked: Checked = "reading"
    """What the answer rests on: every sample read, the order alone, another trainer's weights and files, or
    the sums of a table of weights."""
    ranks: int = 1
    workers: int = 0
    padding_samples: int = 0
    """Samples that Streaming repeats at the end, so that all ranks get the same number."""
    order_as_planned: bool | None = None
    """Whether the order that was read is the one that Streaming's functions plan; empty when not compared."""
    resumption: Resumption | None = None
    """Empty when it was not tried."""
    phases: dict[str, Verification] = field(default_factory=dict)
    """Of a recipe with phases: each by its folder, in order."""

    @property
    def passed(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        phases = {name: phase.to_json() for name, phase in self.phases.items()}
        return {"passed": self.passed, **asdict(self), "phases": phases}
