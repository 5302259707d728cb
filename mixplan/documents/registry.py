"""The documents by name: for `mixplan schema` and `mixplan validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mixplan.documents.calibration import Calibration
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.documents.loading import load
from mixplan.documents.measurements import ROWS, read_measurements
from mixplan.documents.plan import Plan
from mixplan.documents.recipe import Recipe
from mixplan.documents.shapes import PRESETS
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError

KINDS: dict[str, type[BaseModel]] = {
    "calibration-spec": CalibrationSpec,
    "calibration": Calibration,
    "plan": Plan,
    "recipe": Recipe,
}
SCHEMAS = [*KINDS, "measurements", "presets"]
# A key that only this kind of file has.
_TELLTALE = {"ladder": "calibration-spec", "learning": "calibration", "sizes": "plan", "samples": "recipe"}


def schema(name: str) -> dict[str, Any]:
    """JSON Schema of a document; for `measurements` one schema per table, for `presets` the known shapes.

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
    if name not in KINDS:
        raise InputError(f"{name!r} is no document{did_you_mean(name, SCHEMAS)}")
    return KINDS[name].model_json_schema()


def validate(path: Path) -> str:
    """Check one file, or a measurements folder; returns the kind of document it is.

    Raises:
        InputError: with every problem found.
    """
    path = Path(path)
    if path.is_dir() or path.suffix in (".csv", ".parquet"):
        read_measurements(path)
        return "measurements"
    kind = _kind_of(path)
    load(path, KINDS[kind])
    return kind


def _kind_of(path: Path) -> str:
    """By file name first (design names are fixed), then by a telltale key."""
    by_name = {"calibration.yaml": "calibration-spec", "calibration.json": "calibration"}
    if path.name in by_name:
        return by_name[path.name]
    for kind in ("plan", "recipe"):
        if path.stem.endswith(kind):
            return kind
    from mixplan.documents.loading import _parse, read_text

    data, _, problems = _parse(path, read_text(path))
    if problems:
        raise InputError(problems)
    keys = list(data) if isinstance(data, dict) else []
    for key, kind in _TELLTALE.items():
        if key in keys:
            return kind
    raise InputError(
        f"{path}: cannot tell what kind of document this is; name it calibration.yaml, calibration.json, plan.yaml or "
        f"recipe.yaml, or give it the required keys (one of {', '.join(_TELLTALE)})"
    )
