"""phases.yaml, which `emit` writes for a recipe with phases: its mixtures, one after another."""

from __future__ import annotations

from pydantic import model_validator

from mixplan.documents.base import Count, Document, Name, Part, Whole


class PhaseFolder(Part):
    """One phase: a mixture of its own."""

    name: Name
    folder: Name
    """Beside this file."""
    first_sample: Whole
    """Samples of the phases before it."""
    samples: Count
    tokens: Count
    """samples × sequence_length."""
    fingerprint: str | None = None
    """Of its mixture; empty with formats that have none."""


class Phases(Document):
    """phases.yaml: train on the first until it ends, then on the second, and so on."""

    name: Name
    format: str
    """What `emit --format` was given."""
    samples: Count
    """Of the whole run."""
    tokens: Count
    phases: list[PhaseFolder]

    @model_validator(mode="after")
    def _adds_up(self) -> Phases:
        before = 0
        for phase in self.phases:
            if phase.first_sample != before:
                raise ValueError(f"phase {phase.name!r} starts at {phase.first_sample}, not at {before}")
            before += phase.samples
        if before != self.samples:
            raise ValueError(f"the phases have {before} samples together, but samples is {self.samples}")
        return self
