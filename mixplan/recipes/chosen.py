"""The sources that a recipe takes samples from, checked against their data where it is here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mixplan.documents.mds_index import INDEX, MdsCount, count_tokens
from mixplan.documents.recipe import Recipe, RecipeSource
from mixplan.errors import InputError
from mixplan.recipes.fitting import check_source, source_build, together_problems
from mixplan.recipes.folders import is_url
from mixplan.recipes.shards import check_shards


@dataclass(frozen=True)
class Shards:
    """A source's MDS folder on this machine."""

    folder: Path
    counted: MdsCount
    index_sha256: str
    end_of_document_id: int | None
    """Empty where it is not known: `build` did not write the folder, and the recipe does not say it."""


@dataclass(frozen=True)
class Chosen:
    """A source with at least one sample in the run."""

    name: str
    choose: int
    """Samples over the whole run."""
    shards: Shards | None
    """Empty where the data are elsewhere."""


def chosen_sources(recipe: Recipe, data_needed: bool) -> tuple[list[Chosen], list[str]]:
    """The sources of a recipe that have samples in it, in its order, and notes for the user.

    Args:
        recipe: with absolute MDS folders.
        data_needed: their shards must be on this machine.

    Raises:
        InputError: with every problem of every source: data that are not what the recipe was computed for, or
            not here though they are needed.
    """
    problems: list[str] = []
    notes: list[str] = []
    chosen: list[Chosen] = []
    for source in recipe.sources:
        if source.choose == 0:
            notes.append(f"source {source.name!r} has no samples in this recipe and is left out")
            continue
        shards = None
        if source.mds is not None and not is_url(source.mds):
            try:
                shards, said = _shards(recipe, source, Path(source.mds), data_needed)
                notes += said
            except InputError as error:
                problems += [f"source {source.name!r}: {problem}" for problem in error.problems]
        elif data_needed:
            where = "is remote" if source.mds else "has no `mds`"
            problems.append(
                f"source {source.name!r} {where}; its shards must be in a folder on this machine to be "
                "written in another form: copy them and set `mds`, or leave --with-data out"
            )
        chosen.append(Chosen(source.name, source.choose, shards))
    problems += together_problems(recipe)
    if problems:
        raise InputError(problems)
    return chosen, notes


def _shards(
    recipe: Recipe, source: RecipeSource, folder: Path, data_needed: bool
) -> tuple[Shards, list[str]]:
    counted = count_tokens(folder)
    if data_needed and (damaged := check_shards(folder, hashes=False).problems):
        raise InputError(damaged)
    notes = check_source(recipe, source, folder, counted)
    built = source_build(folder)
    end_of_document = recipe.tokenizer.end_of_document_id if built is None else built.end_of_document_id
    digest = hashlib.sha256((folder / INDEX).read_bytes()).hexdigest()
    return Shards(folder, counted, digest, end_of_document), notes
