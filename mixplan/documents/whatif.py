"""what-if.yaml: a mixture written by hand, for `mixplan recommend --what-if` to evaluate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Discriminator, Tag, field_validator, model_validator

from mixplan.documents.base import Document, Fraction, Name, NonNegative, Place, Positive, RulesBroken
from mixplan.documents.shapes import PRESETS, CountedSize, ModelShape, ModelSize, check_presets, kind_of_size


class WhatIf(Document):
    """A size, a training length, and exactly one of shares, rates, natural, exponent."""

    name: Name = "what-if"
    size: Annotated[
        Annotated[str, Tag("name")]
        | Annotated[ModelShape, Tag("shape")]
        | Annotated[CountedSize, Tag("counted")],
        Discriminator(lambda value: "name" if isinstance(value, str) else kind_of_size(value)),
    ]
    """Preset name, name of a size of the plan, or explicit shape (or counts, as in a plan)."""
    tokens: Positive
    """Training tokens; rounded down to whole samples."""
    shares: dict[Name, Fraction] = {}
    """Share of each source; they sum to 1, and a source that is left out has none."""
    rates: dict[Name, NonNegative] = {}
    """Share ÷ natural share of each source, 1 for those left out; then scaled to sum to 1."""
    natural: bool = False
    """The natural mixture."""
    exponent: NonNegative | None = None
    """Shares ∝ natural share ^ exponent: temperature sampling, at the temperature 1 ÷ exponent."""

    @field_validator("size")
    @classmethod
    def _not_empty(cls, value: str | ModelSize) -> str | ModelSize:
        if value == "":
            raise ValueError("a size is needed: a preset name, a size of the plan, or a shape")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> WhatIf:
        problems: list[str | tuple[Place, str]] = []
        stated = {
            "shares": bool(self.shares),
            "rates": bool(self.rates),
            "natural": self.natural,
            "exponent": self.exponent is not None,
        }
        given = [way for way, asked in stated.items() if asked]
        if len(given) != 1:
            problems.append(
                f"give exactly one of {', '.join(stated)}; given: {', '.join(given) or 'none of them'}"
            )
        total = sum(self.shares.values())
        if self.shares and not math.isclose(total, 1.0, abs_tol=1e-6):
            problems.append((("shares",), f"shares sum to {total:.6g}; they must sum to 1"))
        if problems:
            raise RulesBroken(problems)
        return self

    def shape(self, known: Sequence[ModelSize]) -> ModelSize:
        """The size, by name among `known` ones first and then among the presets.

        Raises:
            ValueError: there is no such size, or a known one of that name has another shape.
        """
        named = {one.name: one for one in known}
        if isinstance(self.size, str):
            if self.size not in named:
                check_presets([self.size])
            return named.get(self.size) or PRESETS[self.size]
        if named.get(self.size.name, self.size) != self.size:
            raise ValueError(
                f"{self.size.name!r} has another shape in the plan; give it another name, or only its name"
            )
        return self.size
