"""calibration.yaml: what ladder to train, on what, with which tasks injected, and what to measure."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from pydantic import field_validator, model_validator

from mixplan.documents.base import Count, Document, Name, OpenFraction, RulesBroken, Whole, distinct
from mixplan.documents.shapes import ModelShape, as_shapes, check_presets
from mixplan.documents.spec_data import Corpus, MatchRepetition, Tokenizer, UserSource
from mixplan.documents.spec_probes import Features, Interference, Probes, Retention
from mixplan.documents.spec_tasks import Dependence, Injection, SyntheticFamily, TaskGrid, UserTask
from mixplan.documents.spec_training import Engine, Hardware, Horizons, Tracking, Training

__all__ = [
    "CalibrationSpec",
    "Corpus",
    "Dependence",
    "Engine",
    "Features",
    "Hardware",
    "Horizons",
    "Injection",
    "Interference",
    "MatchRepetition",
    "Probes",
    "Retention",
    "SyntheticFamily",
    "TaskGrid",
    "Tokenizer",
    "Tracking",
    "Training",
    "UserSource",
    "UserTask",
]


class CalibrationSpec(Document):
    """calibration.yaml."""

    name: Name = "ladder"
    """Name of this calibration."""
    corpus: Corpus
    tokenizer: Tokenizer = Tokenizer()
    architecture: Literal["olmo2", "olmo3"] = "olmo2"
    """Olmo3 differs from Olmo2 by sliding-window attention in three of four layers."""
    ladder: list[str | ModelShape]
    """Rungs: preset names (`mixplan schema presets` lists them) or explicit shapes."""
    horizons: Horizons
    sequence_length: Count = 128
    """Tokens a sequence."""
    training: Training = Training()
    seeds: list[Whole] = [0]
    """One run per rung, horizon and seed."""
    tasks: list[TaskGrid] = []
    user_tasks: list[UserTask] = []
    user_sources: list[UserSource] = []
    symbols: Literal["reserved", "existing"] = "reserved"
    """What synthetic tasks are written in. reserved: new tokens after the base vocabulary; existing: random
    tokens of the tokenizer, which text uses too (as in arXiv 2605.29548)."""
    injection: Injection = Injection()
    dependence: Dependence | None = None
    """Extra runs that check whether cells disturb each other; null: none."""
    probes: Probes = Probes()
    engine: Engine = Engine()
    tracking: Tracking = Tracking()
    hardware: Hardware = Hardware()
    learned_skill: OpenFraction = 0.8
    """Skill from which a task counts as learned."""

    @field_validator("ladder")
    @classmethod
    def _known_rungs(cls, value: list[str | ModelShape]) -> list[str | ModelShape]:
        check_presets(value)
        distinct([rung if isinstance(rung, str) else rung.name for rung in value])
        return value

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: list[int]) -> list[int]:
        return distinct(value)

    @model_validator(mode="after")
    def _something_to_measure(self) -> CalibrationSpec:
        if not self.tasks and not self.user_tasks and not self.user_sources:
            raise ValueError("give at least one task under `tasks`, `user_tasks` or `user_sources`")
        own = [*(task.name for task in self.user_tasks), *(source.name for source in self.user_sources)]
        if own:
            distinct(own)
        return self

    @model_validator(mode="after")
    def _cells_differ(self) -> CalibrationSpec:
        count = Counter(cell.name for grid in self.tasks for cell in grid.cells())
        twice = sorted(name for name, times in count.items() if times > 1)
        if twice:
            raise RulesBroken(
                [(("tasks",), f"the same cell more than once: {', '.join(twice)}; change or remove one")]
            )
        return self

    def shapes(self) -> list[ModelShape]:
        """The rungs, smallest first."""
        return as_shapes(self.ladder)
