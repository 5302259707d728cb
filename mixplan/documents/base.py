"""What every document has in common: frozen, closed to unknown keys, units in the names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

SCHEMA_VERSION = 1
T = TypeVar("T")


class Part(BaseModel):
    """A piece of a document. Field docstrings become the descriptions in `mixplan schema`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


class Document(Part):
    """A whole file."""

    schema_version: Literal[1] = 1
    """Version of this file's format."""


Place = tuple[str | int, ...]


class RulesBroken(ValueError):
    """Several rules broken at once, each with the place (below the validated part) that breaks it."""

    def __init__(self, problems: Iterable[str | tuple[Place, str]]) -> None:
        self.problems: list[tuple[Place, str]] = [((), p) if isinstance(p, str) else p for p in problems]
        super().__init__("; ".join(text for _, text in self.problems))


def _plain_number(value: Any) -> Any:
    # Pydantic would read true as 1 and "12" as 12: in a document these are slips, not numbers.
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    if isinstance(value, str):
        raise ValueError("a number is needed, not text")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("the number must be finite")
    return value


Number = Annotated[float, BeforeValidator(_plain_number), AfterValidator(_finite)]
Positive = Annotated[float, BeforeValidator(_plain_number), AfterValidator(_finite), Field(gt=0)]
NonNegative = Annotated[float, BeforeValidator(_plain_number), AfterValidator(_finite), Field(ge=0)]
Fraction = Annotated[float, BeforeValidator(_plain_number), AfterValidator(_finite), Field(ge=0, le=1)]
OpenFraction = Annotated[float, BeforeValidator(_plain_number), AfterValidator(_finite), Field(gt=0, lt=1)]
Count = Annotated[int, BeforeValidator(_plain_number), Field(ge=1)]
Whole = Annotated[int, BeforeValidator(_plain_number), Field(ge=0)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]
"""A name that is also safe as a folder name: letters, digits, '_', '.', '-'."""

Provenance = dict[str, Any]
"""Where the numbers came from: hashes, versions, seeds, commands. Free-form, JSON-able."""


def distinct(value: list[T]) -> list[T]:
    """The list, if it has at least one value and none twice; ValueError otherwise."""
    if not value:
        raise ValueError("at least one value is needed")
    twice = sorted({str(item) for item in value if value.count(item) > 1})
    if twice:
        raise ValueError(f"given twice: {', '.join(twice)}")
    return value
