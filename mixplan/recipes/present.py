"""Is everything there that emit wrote? Of a folder that lost a file, the rest may still look whole."""

from __future__ import annotations

import json
from pathlib import Path

from mixplan.documents.loading import load
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.emitted_files import EMITTED
from mixplan.recipes.phases import PHASES
from mixplan.recipes.streams import RECIPE

_MOST_NAMED = 5


def check_present(folder: Path) -> None:
    """Compare a folder, or that of one phase, with emitted.json and with the recipe in it.

    Raises:
        InputError: files of emitted.json are missing, or phases.yaml of a recipe with phases is.
    """
    listed = _listed(folder)
    missing = [name for name in listed if not (folder / name).is_file()]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED:,} more" if len(missing) > _MOST_NAMED else ""
        raise InputError(
            f"{folder}: {', '.join(missing[:_MOST_NAMED])}{more} {'is' if len(missing) == 1 else 'are'} "
            f"missing, which {EMITTED} lists; copy the folder again, or emit again"
        )
    if (
        (folder / RECIPE).is_file()
        and not (folder / PHASES).is_file()
        and load(folder / RECIPE, Recipe).phases
    ):
        raise InputError(
            f"{folder}: the recipe in it has phases, and {PHASES}, which lists them, is missing; copy the "
            "folder again, or emit again"
        )


def _listed(folder: Path) -> list[str]:
    """The files that belong here, relative to the folder. A phase's stand in the emitted.json above it."""
    if (folder / EMITTED).is_file():
        return _names(folder / EMITTED)
    folder = folder.absolute()
    if not (folder.parent / EMITTED).is_file():
        return []
    start = f"{folder.name}/"
    return [name.removeprefix(start) for name in _names(folder.parent / EMITTED) if name.startswith(start)]


def _names(path: Path) -> list[str]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["files"]
        return sorted({str(name) for names in dict(listed).values() for name in names})
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is broken; copy it again, or emit into another folder") from None
