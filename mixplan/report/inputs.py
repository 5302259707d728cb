"""Finds the documents of a working folder by their fixed names, and says what is missing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mixplan.documents.calibration import Calibration
from mixplan.documents.loading import load
from mixplan.documents.measurements import ROWS, Measurements, read_measurements
from mixplan.documents.recipe import Recipe
from mixplan.documents.table import ENDINGS
from mixplan.documents.verification import Verified
from mixplan.errors import InputError

T = TypeVar("T")
TABLES = [f"{name}{end}" for name in ROWS for end in ENDINGS]


@dataclass(frozen=True)
class Inputs:
    """What a working folder holds; None where it does not."""

    name: str
    """Name of the folder."""
    measurements: Measurements | None
    calibration: Calibration | None
    recipe: Recipe | None
    verified: Verified | None
    missing: list[str]
    """One sentence per missing document: what it would show, and the command that writes it."""
    files: list[tuple[str, str]]
    """Files read: path relative to the folder, SHA-256."""


def find_inputs(directory: Path) -> Inputs:
    """Read every known document in `directory`, or one level below where the folder itself has none.

    Raises:
        InputError: no such folder, nothing known in it, two candidates for one document, or a document that
            breaks its own rules; all problems at once.
    """
    directory = Path(directory)
    if not directory.is_dir():
        what = "is a file; report needs the folder around it" if directory.exists() else "no such folder"
        raise InputError(f"{directory}: {what}")
    problems: list[str] = []
    files: list[Path] = []

    def read(find: Callable[[Path], list[Path]], parse: Callable[[Path], T]) -> T | None:
        try:
            found = _first(directory, find)
            if found is None:
                return None
            files.extend(
                sorted(p for p in found.iterdir() if p.name in TABLES) if found.is_dir() else [found]
            )
            return parse(found)
        except InputError as error:
            problems.extend(error.problems)
            return None

    measurements = read(_tables, read_measurements)
    calibration = read(_named("calibration.json"), lambda path: load(path, Calibration))
    recipe = read(_named("recipe.yaml"), lambda path: load(path, Recipe))
    verified = read(_named("verify.json"), lambda path: load(path, Verified))
    if problems:
        raise InputError(problems)
    if not files:
        raise InputError(
            f"{directory}: nothing to report on; report looks here and one folder below for measurements/ "
            "(learning.csv, retention.csv, interference.csv, or .parquet), calibration.json, recipe.yaml and "
            "verify.json: give the folder that holds them"
        )
    return Inputs(
        directory.resolve().name,
        measurements,
        calibration,
        recipe,
        verified,
        _missing(measurements, calibration, recipe, verified),
        [
            (path.relative_to(directory).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
            for path in files
        ],
    )


def _first(directory: Path, find: Callable[[Path], list[Path]]) -> Path | None:
    """The one candidate in the folder itself, else the one in the folders below."""
    below = sorted(
        entry for entry in directory.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    for level in ([directory], below):
        found = list(dict.fromkeys(path for folder in level for path in find(folder)))
        if len(found) > 1:
            shown = ", ".join(path.relative_to(directory).as_posix() or "." for path in found)
            raise InputError(
                f"{directory}: more than one candidate for the same document ({shown}); keep one of them"
            )
        if found:
            return found[0]
    return None


def _tables(folder: Path) -> list[Path]:
    return [
        place
        for place in (folder, folder / "measurements")
        if any((place / name).is_file() for name in TABLES)
    ]


def _named(name: str) -> Callable[[Path], list[Path]]:
    return lambda folder: [folder / name] if (folder / name).is_file() else []


def _missing(
    measurements: Measurements | None,
    calibration: Calibration | None,
    recipe: Recipe | None,
    verified: Verified | None,
) -> list[str]:
    said = []
    if measurements is None:
        said.append("measurements/: what each size learned, kept and lost; `mixplan collect` writes it.")
    else:
        if measurements.retention is None:
            said.append(
                "The retention table: how much of an injection each size keeps; the retention probe"
                " writes it."
            )
        if measurements.interference is None:
            said.append(
                "The interference table: what a common step does to rare tasks; the interference probe"
                " writes it."
            )
    if calibration is None:
        said.append(
            "calibration.json: the fitted laws, their intervals and the backtest; `mixplan fit` writes it."
        )
    elif calibration.backtest is None:
        said.append(
            "The backtest in calibration.json: whether the law can be trusted one size up; it needs three"
            " rungs."
        )
    if recipe is None:
        said.append("recipe.yaml: the recommended size and mixture; `mixplan recommend` writes it.")
    if verified is None:
        said.append(
            "verify.json: whether the emitted mixture delivers the recipe; `mixplan verify --json >"
            " verify.json` writes it."
        )
    return said
