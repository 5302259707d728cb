"""The documents by name: for `mixplan schema` and `mixplan validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mixplan.documents.calibration import Calibration
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.documents.loading import check, read_data
from mixplan.documents.measurements import ROWS, read_measurements
from mixplan.documents.mixture import Mixture
from mixplan.documents.olmo_core import OlmoCoreMixture
from mixplan.documents.phases import Phases
from mixplan.documents.plan import Plan
from mixplan.documents.recipe import Recipe
from mixplan.documents.references import references
from mixplan.documents.shapes import PRESETS
from mixplan.documents.sources_lock import SourcesLock
from mixplan.documents.suggest import did_you_mean
from mixplan.documents.table import ENDINGS
from mixplan.documents.whatif import WhatIf
from mixplan.errors import InputError

KINDS: dict[str, type[BaseModel]] = {
    "calibration-spec": CalibrationSpec,
    "calibration": Calibration,
    "plan": Plan,
    "recipe": Recipe,
    "mixture": Mixture,
    "what-if": WhatIf,
    "phases": Phases,
    "olmo-core": OlmoCoreMixture,
    "sources-lock": SourcesLock,
}
SCHEMAS = [*KINDS, "measurements", "presets", "references"]


def schema(name: str) -> dict[str, Any]:
    """JSON Schema of a document; for `measurements` one schema per table; all known `presets`, `references`.

    Raises:
        InputError: no document has that name.
    """
    if name == "measurements":
        return {table: row.model_json_schema() for table, row in ROWS.items()}
    if name == "presets":
        return {
            shape.name: {**shape.model_dump(exclude={"name"}), "block_params": shape.block_params}
            for shape in PRESETS.values()
        }
    if name == "references":
        return {one.name: one.model_dump(mode="json") for one in references().values()}
    if name not in KINDS:
        raise InputError(f"{name!r} is no document{did_you_mean(name, SCHEMAS)}")
    return KINDS[name].model_json_schema()


def validate(path: Path) -> str:
    """Check one file, or a measurements folder; returns the kind of document it is.

    Raises:
        InputError: with every problem found.
    """
    path = Path(path)
    if path.is_dir() or path.name.endswith(ENDINGS):
        read_measurements(path)
        return "measurements"
    parsed = read_data(path)
    kind = _kind_of(path, list(parsed.data))
    check(parsed, path, KINDS[kind])
    return kind


def _kind_of(path: Path, keys: list[Any]) -> str:
    """The kind that knows most of the file's keys; the fixed file names decide between equals."""
    by_name = {
        "calibration.yaml": "calibration-spec",
        "calibration.json": "calibration",
        "streams.yaml": "mixture",
        "what-if.yaml": "what-if",
        "phases.yaml": "phases",
        "olmo_core.yaml": "olmo-core",
        "sources.lock": "sources-lock",
    }
    named = by_name.get(path.name) or next(
        (kind for kind in ("plan", "recipe") if path.stem.endswith(kind)), ""
    )
    known = {kind: sum(key in document.model_fields for key in keys) for kind, document in KINDS.items()}
    most = max(known.values())
    best = [kind for kind in KINDS if known[kind] == most]
    if named in best:
        return named
    if len(best) > 1:
        raise InputError(
            f"{path}: cannot tell what kind of document this is; name it calibration.yaml, calibration.json, "
            f"plan.yaml, recipe.yaml, streams.yaml or what-if.yaml, or give it the keys of one "
            f"({', '.join(KINDS)}): `mixplan schema NAME` lists them"
        )
    return best[0]
