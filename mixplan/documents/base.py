"""What every document has in common: frozen, closed to unknown keys, units in the names."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

SCHEMA_VERSION = 1


class Part(BaseModel):
    """A piece of a document. Field docstrings become the descriptions in `mixplan schema`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )


class Document(Part):
    """A whole file."""

    schema_version: Literal[1] = 1
    """Version of this file's format."""


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("the number must be finite")
    return value


Number = Annotated[float, BeforeValidator(_no_bool), AfterValidator(_finite)]
Positive = Annotated[float, BeforeValidator(_no_bool), AfterValidator(_finite), Field(gt=0)]
NonNegative = Annotated[float, BeforeValidator(_no_bool), AfterValidator(_finite), Field(ge=0)]
Fraction = Annotated[float, BeforeValidator(_no_bool), AfterValidator(_finite), Field(ge=0, le=1)]
OpenFraction = Annotated[float, BeforeValidator(_no_bool), AfterValidator(_finite), Field(gt=0, lt=1)]
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]
Whole = Annotated[int, BeforeValidator(_no_bool), Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
"""A name that is also safe as a folder name: letters, digits, '_', '.', '-'."""

Provenance = dict[str, Any]
"""Where the numbers came from: hashes, versions, seeds, commands. Free-form, JSON-able."""
