"""Is the data what the recipe was computed for?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from mixplan.documents.calibration_spec import Tokenizer
from mixplan.documents.loading import load
from mixplan.documents.mds_index import MdsCount
from mixplan.documents.recipe import Recipe, RecipeSource
from mixplan.documents.source_build import SOURCE, SourceBuild
from mixplan.errors import InputError
from mixplan.recipes.folders import is_url
from mixplan.recipes.tokenizing import files_sha256

# How far the amount of data may differ from what the recipe was computed for.
TOKENS_TOLERANCE = 0.01


def check_source(recipe: Recipe, source: RecipeSource, folder: Path, counted: MdsCount) -> list[str]:
    """Compare a local MDS folder with what the recipe assumes.

    Returns:
        Notes on differences that are too small to matter.

    Raises:
        InputError: with every problem.
    """
    problems: list[str] = []
    if counted.sequence_length != recipe.sequence_length:
        problems.append(
            f"{folder} holds samples of {counted.sequence_length:,} tokens, the recipe's have "
            f"{recipe.sequence_length:,}; build the source with that sequence_length"
        )
    else:
        problems += amount_problems(source, counted.samples, counted.sequence_length, str(folder))
    built = source_build(folder)
    if built is not None:
        if built.tokenizer != recipe.tokenizer.kind and recipe.tokenizer.kind != "none":
            kind = recipe.tokenizer.kind
            problems.append(
                f"{folder} was built with the tokenizer {built.tokenizer}, the recipe is for {kind}"
            )
        if built.vocab_size > recipe.vocab_size:
            problems.append(
                f"{folder} has tokens of a vocabulary of {built.vocab_size}, "
                f"the recipe's is {recipe.vocab_size}"
            )
        problems += _recipe_tokenizer(recipe.tokenizer, built, folder)
    if problems:
        raise InputError(problems)
    if abs(counted.tokens - source.tokens_available) >= counted.sequence_length:
        return [
            f"source {source.name!r}: {folder} holds {counted.tokens:,} tokens, the recipe was computed for "
            f"{source.tokens_available:,.0f}; the realised epochs are {source.choose / counted.samples:.4g}"
        ]
    return []


def source_build(folder: Path) -> SourceBuild | None:
    """source.json; empty where `build` did not write the folder.

    Raises:
        InputError: it is broken.
    """
    return load(folder / SOURCE, SourceBuild) if (folder / SOURCE).is_file() else None


def _recipe_tokenizer(tokenizer: Tokenizer, built: SourceBuild, folder: Path) -> list[str]:
    """What the source's tokens mean, against the recipe's tokenizer; its files where they are here."""
    here = None if tokenizer.path is None else files_sha256(Path(tokenizer.path))
    if built.tokenizer_sha256 is not None and here is not None and built.tokenizer_sha256 != here:
        return [
            f"{folder} was built with another tokenizer than {tokenizer.path}: the SHA-256 over its files is "
            f"{built.tokenizer_sha256[:12]}…, not {here[:12]}…; build the source with this tokenizer, or "
            "give the recipe the other"
        ]
    end = tokenizer.end_of_document_id
    if end is not None and built.end_of_document_id != end:
        return [
            f"{folder} ends documents with the token {built.end_of_document_id}, the recipe's tokenizer with "
            f"{end}; build the source with the recipe's"
        ]
    return []


def together_problems(recipe: Recipe) -> list[str]:
    """Why the sources that have samples in a recipe cannot be in one mixture.

    They are the same data (by itself each would keep its cap on epochs, and together not), or their tokens
    mean different texts. Only what `build` wrote and is here can be compared for the second.
    """
    places = {source.name: source.mds for source in recipe.sources if source.choose and source.mds}
    readers: dict[str, list[str]] = {}
    for name, place in places.items():
        readers.setdefault(place, []).append(name)
    problems = [
        f"sources {', '.join(names)} read the same shards, {place}; merge them, or split the data"
        for place, names in readers.items()
        if len(names) > 1
    ]
    builds = {name: _build_here(place) for name, place in places.items()}
    return problems + _tokenizer_clashes({name: built for name, built in builds.items() if built})


def _build_here(place: str) -> SourceBuild | None:
    try:
        return None if is_url(place) else source_build(Path(place))
    except InputError:  # `check_source` says so
        return None


def _tokenizer_clashes(builds: Mapping[str, SourceBuild]) -> list[str]:
    """What differs between builds, by the names of their sources."""
    tokenizers: dict[str, list[str]] = {}
    ends: dict[str, list[str]] = {}
    for name, built in builds.items():
        ends.setdefault(str(built.end_of_document_id), []).append(name)
        if built.tokenizer != "none":  # tokens that were there already
            sha256 = f" {built.tokenizer_sha256[:12]}…" if built.tokenizer_sha256 else ""
            tokenizers.setdefault(f"{built.tokenizer}{sha256}", []).append(name)
    problems = []
    for what, found in (
        ("were built with different tokenizers", tokenizers),
        ("end documents with different tokens", ends),
    ):
        if len(found) > 1:
            shown = "; ".join(f"{key} in {', '.join(names)}" for key, names in found.items())
            problems.append(f"the sources {what}: {shown}; build them alike")
    return problems


def amount_problems(source: RecipeSource, samples: int, sequence_length: int, place: str) -> list[str]:
    """Why the `samples` samples at `place` are not the data that the recipe was computed for."""
    problems = cap_problems(source, samples, place)
    tokens = samples * sequence_length
    tolerance = max(TOKENS_TOLERANCE * source.tokens_available, sequence_length)
    if abs(tokens - source.tokens_available) > tolerance:
        problems.append(
            f"{place} holds {tokens:,} tokens, but the recipe was computed for "
            f"{source.tokens_available:,.0f} (tokens_available); recommend again with the data as it is"
        )
    return problems


def most_samples(max_epochs: float, samples: int) -> int:
    """How many may be chosen of so many samples; one is for `choose` being rounded to whole samples."""
    return math.floor(max_epochs * samples) + 1


def cap_problems(source: RecipeSource, samples: int, place: str) -> list[str]:
    """Whether the recipe takes the `samples` samples at `place` more often than it says that it may."""
    most = most_samples(source.max_epochs, samples)
    if source.choose <= most:
        return []
    return [
        f"choose={source.choose:,} is {source.choose / samples:.3g} epochs of the {samples:,} samples in "
        f"{place}, more than max_epochs={source.max_epochs:g} allows; choose at most {most:,}, get more "
        "data, or raise max_epochs"
    ]
