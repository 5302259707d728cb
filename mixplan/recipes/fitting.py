"""Is the data what the recipe was computed for?"""

from __future__ import annotations

import math
from pathlib import Path

from mixplan.documents.loading import load
from mixplan.documents.mds_index import MdsCount
from mixplan.documents.recipe import Recipe, RecipeSource
from mixplan.documents.source_build import SOURCE, SourceBuild
from mixplan.errors import InputError

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
    if (folder / SOURCE).is_file():
        built = load(folder / SOURCE, SourceBuild)
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
    if problems:
        raise InputError(problems)
    if abs(counted.tokens - source.tokens_available) >= counted.sequence_length:
        return [
            f"source {source.name!r}: {folder} holds {counted.tokens:,} tokens, the recipe was computed for "
            f"{source.tokens_available:,.0f}; the realised epochs are {source.choose / counted.samples:.4g}"
        ]
    return []


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


def cap_problems(source: RecipeSource, samples: int, place: str) -> list[str]:
    """Whether the recipe takes the `samples` samples at `place` more often than it says that it may."""
    most = math.floor(source.max_epochs * samples) + 1  # `choose` is rounded to whole samples
    if source.choose <= most:
        return []
    return [
        f"choose={source.choose:,} is {source.choose / samples:.3g} epochs of the {samples:,} samples in "
        f"{place}, more than max_epochs={source.max_epochs:g} allows; choose at most {most:,}, get more "
        "data, or raise max_epochs"
    ]
