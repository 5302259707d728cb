"""A recipe becomes files that a trainer reads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mixplan.documents.atomic import refuse_foreign, write_text
from mixplan.documents.loading import load
from mixplan.documents.recipe import Recipe
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.recipes.folders import is_url
from mixplan.recipes.olmo_core import olmo_core
from mixplan.recipes.streams import LOADER, RECIPE, STREAMS, streaming
from mixplan.recipes.weights import WEIGHTS, weights
from mixplan.recipes.written import Format, Options, Progress

FORMATS: dict[str, Format] = {"streaming": streaming, "olmo-core": olmo_core, "weights": weights}


@dataclass(frozen=True)
class Emitted:
    """What was written."""

    files: list[Path]
    fingerprint: str | None
    """Of the mixture. Empty with formats that have none."""
    notes: list[str]
    """What the user should know: sources dropped, sizes that differ."""


def emit(
    recipe_path: Path,
    folder: Path,
    format: str = "streaming",
    options: Options = Options(),  # noqa: B008 frozen
    force: bool = False,
    progress: Progress = lambda _: None,
) -> Emitted:
    """Write a recipe for a trainer; weights.json comes with every format.

    Args:
        recipe_path: the recipe; relative `mds` paths start from its folder.
        folder: output folder: new, empty, or written by emit before.
        format: one of FORMATS.
        options: what concerns single formats.
        force: replace files of another mixture.
        progress: called with a line now and then while data are written.

    Raises:
        InputError: with every problem: unknown format, missing or unfit MDS folders, more epochs than
            allowed, an output folder that holds something else.
    """
    if format not in FORMATS:
        near = did_you_mean(format, FORMATS)
        raise InputError(f"format {format!r} is not known{near}; use one of {', '.join(FORMATS)}")
    recipe = load(recipe_path, Recipe)
    recipe = _resolved(recipe, Path(recipe_path).resolve().parent)
    folder = Path(folder).absolute()
    refuse_foreign(folder, [STREAMS, WEIGHTS], "emit")
    written = FORMATS[format](recipe, folder, options)
    texts = {**weights(recipe, folder, options).texts, **written.texts}
    _refuse_changes(folder, texts, force)
    for name, text in texts.items():
        write_text(folder / name, text)
    files = [folder / name for name in texts]
    if written.data is not None:
        files += written.data(progress)
    return Emitted(files, written.fingerprint, written.notes)


def _resolved(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with absolute MDS folders, so that its copy means the same."""
    sources = []
    for source in recipe.sources:
        place = source.mds
        if place is not None and not is_url(place):
            place = os.path.normpath(base / Path(place).expanduser())
        sources.append(source.model_copy(update={"mds": place}))
    return recipe.model_copy(update={"sources": sources})


def _refuse_changes(folder: Path, texts: dict[str, str], force: bool) -> None:
    """Files of the same mixture may be written again; those of another one only with force."""
    changed = [
        name
        for name, text in texts.items()
        if (folder / name).exists() and (folder / name).read_bytes() != text.encode("utf-8")
    ]
    if not changed:
        return
    if not force:
        raise InputError(
            f"{folder} holds another mixture ({', '.join(changed)} would change), which a run may be "
            "training on: give another folder with -o, or add --force"
        )
    for name in (STREAMS, RECIPE, LOADER):  # of the other mixture, when only weights are written now
        if name not in texts:
            (folder / name).unlink(missing_ok=True)
