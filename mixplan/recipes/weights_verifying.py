"""A folder that holds weights for trainers of every kind, and nothing that can be read back here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError

from mixplan.documents.base import Count, Fraction, Part, Positive, Whole
from mixplan.errors import InputError
from mixplan.recipes.fitting import most_samples
from mixplan.recipes.verified import Verification
from mixplan.recipes.weights import WEIGHTS


class _Weight(Part):
    model_config = ConfigDict(extra="ignore")

    share: Fraction
    tokens: Whole
    choose: Whole
    max_epochs: Positive | None = None
    """Empty in files of versions that did not write it, as the next."""
    tokens_available: Positive | None = None


class Weights(Part):
    """weights.json."""

    model_config = ConfigDict(extra="ignore")

    schema_version: Literal[1]
    name: str
    samples: Count
    sequence_length: Count
    tokens: Count
    sources: dict[str, _Weight]


def verify_weights(folder: Path) -> Verification:
    """Do the numbers in weights.json belong together? Nothing else can be checked without the data.

    Raises:
        InputError: weights.json is missing or broken.
    """
    path = folder / WEIGHTS
    given = read_weights(folder)
    return Verification(
        name=given.name,
        fingerprint="",
        samples_expected=given.samples,
        samples=0,
        shards_checked=0,
        shards_hashed=0,
        problems=[f"{path}: {problem}; emit again" for problem in _contradictions(given)],
        warnings=[
            "only the sums of weights.json were checked: nothing here can be read as a trainer would; emit "
            "with --format streaming, or olmo-core --with-data, for what can"
        ],
        checked="weights",
    )


def read_weights(folder: Path) -> Weights:
    """weights.json of a folder.

    Raises:
        InputError: it is missing or broken.
    """
    path = folder / WEIGHTS
    try:
        return Weights.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        why = _first(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(f"{path}: not what `mixplan emit` writes ({why}); emit again") from None


def _first(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _contradictions(given: Weights) -> list[str]:
    problems = []
    chosen = sum(weight.choose for weight in given.sources.values())
    if chosen != given.samples:
        problems.append(f"`choose` sums to {chosen:,} over the sources, but samples is {given.samples:,}")
    if given.tokens != given.samples * given.sequence_length:
        problems.append(
            f"tokens is {given.tokens:,}, but samples × sequence_length is "
            f"{given.samples * given.sequence_length:,}"
        )
    for name, weight in given.sources.items():
        if weight.tokens != weight.choose * given.sequence_length:
            problems.append(f"source {name!r}: tokens is {weight.tokens:,}, not choose × sequence_length")
        if abs(weight.share - weight.choose / given.samples) > 1e-6:
            problems.append(
                f"source {name!r}: share {weight.share:g} is not choose ÷ samples = "
                f"{weight.choose / given.samples:g}"
            )
        if weight.max_epochs is not None and weight.tokens_available is not None:
            available = max(round(weight.tokens_available / given.sequence_length), 1)
            most = most_samples(weight.max_epochs, available)
            if weight.choose > most:
                problems.append(
                    f"source {name!r}: choose={weight.choose:,} is {weight.choose / available:.3g} epochs of "
                    f"its {available:,} samples, more than max_epochs={weight.max_epochs:g} allows"
                )
    return problems
