"""Reference calibrations that ship with the package, by name: `ref:NAME` wherever a calibration is read.

mixplan/references/NAME/ is a measurements folder (tables as .csv.gz, provenance.json) with the calibration
fitted to it (calibration.json) and about.yaml. What about.yaml says stands in provenance.json too, under
`reference`: from there it goes into every calibration that is fitted to the tables, and from that into every
recipe, so that no answer loses whose text it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from mixplan.documents.base import Count, Document, Name, Positive, Whole
from mixplan.documents.loading import load
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.units import number

PREFIX = "ref:"
KEY = "reference"
"""Where about.yaml stands in a provenance."""


class Reference(Document):
    """about.yaml: what a reference calibration was measured on."""

    name: Name
    text: str
    """Whose text, and how it was read."""
    licence: str
    """Of the text. The tables hold none of it."""
    tokenizer: str
    corpus_tokens: Count
    """Training tokens of the base text."""
    rungs: dict[str, Count]
    """Sizes: block parameters by rung."""
    tokens: list[Count]
    """Training tokens at which runs, or their branches, end."""
    seeds: list[Whole]
    runs: Count
    families: dict[str, list[Positive]]
    """Task families and their complexities."""
    measured_on: str
    """Date."""
    machine: str
    command: str
    """How it was measured."""


class Resolved(NamedTuple):
    """What `ref:NAME` or a path stands for."""

    path: Path
    """Folder of the reference, or the path as given."""
    warning: str | None
    """Whose text and which sizes the numbers came from; None for a path."""


def references() -> dict[str, Reference]:
    """The references that ship, by name."""
    return {
        folder.name: load(folder / "about.yaml", Reference)
        for folder in sorted(_home().iterdir())
        if (folder / "about.yaml").is_file()
    }


def resolve(given: Path) -> Resolved:
    """A path as it is, or the folder of the reference that `ref:NAME` names.

    Raises:
        InputError: no reference has that name.
    """
    text = str(given)
    if not text.startswith(PREFIX):
        return Resolved(given, None)
    known, name = references(), text.removeprefix(PREFIX)
    if name not in known:
        hint = did_you_mean(name, known)
        raise InputError(
            f"{text}: no such reference calibration{hint} (`mixplan schema references` describes them)"
        )
    return Resolved(_home() / name, warning(known[name]))


def warning(reference: Reference) -> str:
    """What every answer from a reference must say."""
    sizes = sorted(reference.rungs.values())
    lengths = sorted(reference.tokens)
    trained = number(lengths[0]) + (f" to {number(lengths[-1])}" if len(lengths) > 1 else "")
    return (
        f"from the reference calibration {PREFIX}{reference.name}, not from your own text: measured on "
        f"{reference.text}, tokenizer {reference.tokenizer}, with {len(sizes)} sizes of {number(sizes[0])} "
        f"to {number(sizes[-1])} block parameters, {trained} tokens, {len(reference.seeds)} seed(s); "
        "calibrate on your own text before you spend on it"
    )


def reference_in(provenance: Mapping[str, Any]) -> Reference | None:
    """The reference behind measurements or a calibration, by its provenance; None if there is none."""
    found: Any = provenance.get(KEY)
    measured = provenance.get("measurements")
    if found is None and isinstance(measured, Mapping):
        found = measured.get(KEY)
    if found is None:
        return None
    try:
        return Reference.model_validate(found)
    except ValidationError:  # another tool's key of the same name
        return None


def reference_warnings(provenance: Mapping[str, Any]) -> list[str]:
    """The warnings of the references behind a document; empty if there are none."""
    measured = provenance.get("measurements")
    further = (measured if isinstance(measured, Mapping) else provenance).get("further", [])
    behind = [provenance, *(one for one in further if isinstance(one, Mapping))]
    return [warning(found) for one in behind if (found := reference_in(one)) is not None]


def _home() -> Path:
    return Path(str(files("mixplan"))) / "references"
