"""Is what a trainer will get what the recipe says?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixplan.documents.loading import load
from mixplan.documents.mixture import Mixture
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.mixture_verifying import How, verify_mixture
from mixplan.recipes.streams import RECIPE, STREAMS
from mixplan.recipes.verified import Verification
from mixplan.recipes.weights import WEIGHTS

__all__ = ["How", "Verification", "verify"]


def verify(
    folder: Path,
    how: How = How(),  # noqa: B008 frozen
    progress: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Check what `emit` wrote, and compare it with its recipe.

    Args:
        folder: what `emit` wrote.
        how: how thoroughly, and as which trainer.
        progress: called with a line now and then.

    Returns:
        The counts, with every reason why they are not what the recipe says in `problems`.

    Raises:
        InputError: the folder is no emitted mixture, or its documents are broken.
    """
    mixture, recipe = _documents(Path(folder))
    return verify_mixture(mixture, recipe, how, progress)


def _documents(folder: Path) -> tuple[Mixture, Recipe]:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; give the folder that `mixplan emit --format streaming -o` wrote"
        )
    missing = [name for name in (STREAMS, RECIPE) if not (folder / name).is_file()]
    if missing:
        hint = "it holds weights only: emit with --format streaming" if (folder / WEIGHTS).is_file() else ""
        raise InputError(
            f"{folder} holds no {' and no '.join(missing)}; {hint or '`mixplan emit` writes them'}"
        )
    problems: list[str] = []
    read: list[Any] = []
    for name, kind in ((STREAMS, Mixture), (RECIPE, Recipe)):
        try:
            read.append(load(folder / name, kind))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return read[0], read[1]
