"""Which calibration a recipe came from, by the hash in its provenance.

Other laws than the recipe's are a warning and no refusal: a ladder that has grown since makes the better
forecast. What the recipe promised stands beside what those laws say, so a calibration given by mistake shows.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from mixplan.documents.recipe import Recipe
from mixplan.documents.references import PREFIX, reference_in, resolve
from mixplan.errors import InputError

KEY = "calibration_sha256"


def calibration_of(recipe: Recipe) -> Path:
    """`ref:NAME`, if the recipe came from that very reference calibration.

    Raises:
        InputError: it did not, and a hash alone does not say where a file is.
    """
    origin = reference_in(recipe.provenance)
    if origin is not None:
        given = Path(f"{PREFIX}{origin.name}")
        folder, _ = resolve(given)
        if _hash(folder / "calibration.json") == recipe.provenance.get(KEY):
            return given
    raise InputError(
        "the recipe does not say where its calibration is, only its hash; give --calibration calibration.json"
    )


def other_calibration(recipe: Recipe, file: Path) -> list[str]:
    """A warning where the calibration is not the recipe's."""
    wanted = recipe.provenance.get(KEY)
    if wanted is None:
        return [f"the recipe's provenance has no {KEY}: whether {file} is what it came from is not known"]
    if _hash(file) != wanted:
        return [f"{file} is not the calibration that the recipe came from; the verdicts are by its laws"]
    return []


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
