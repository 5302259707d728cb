"""Format `weights`: shares, rates, epochs and samples of every source, for trainers of every kind."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.fitting import together_problems
from mixplan.recipes.written import Options, Written

WEIGHTS, WEIGHTS_CSV = "weights.json", "weights.csv"
_COLUMNS = ("share", "natural_share", "rate", "epochs", "tokens", "samples")
_FIELDS = {"share", "natural_share", "rate", "epochs", "tokens", "choose", "max_epochs", "tokens_available"}


def weights(recipe: Recipe, folder: Path, options: Options) -> Written:
    """weights.json and weights.csv; needs no data.

    Raises:
        InputError: the sources cannot be in one mixture. With phases this sees those of all phases.
    """
    if problems := together_problems(recipe):
        raise InputError(problems)
    return Written({WEIGHTS: _weights(recipe), WEIGHTS_CSV: _weights_csv(recipe)}, [], None)


def _weights(recipe: Recipe) -> str:
    """weights.json: for trainers of every kind."""
    sources = {source.name: source.model_dump(mode="json", include=_FIELDS) for source in recipe.sources}
    head = {
        "schema_version": 1,
        "name": recipe.name,
        "samples": recipe.samples,
        "sequence_length": recipe.sequence_length,
        "tokens": recipe.tokens,
        "shuffle_seed": recipe.shuffle_seed,
    }
    return json.dumps({**head, "sources": sources}, indent=2, allow_nan=False) + "\n"


def _weights_csv(recipe: Recipe) -> str:
    """weights.csv: a row a source; numbers as in weights.json, `choose` as `samples`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("source", *_COLUMNS))
    for source in recipe.sources:
        row = {**source.model_dump(mode="json"), "samples": source.choose}
        writer.writerow((source.name, *(row[column] for column in _COLUMNS)))
    return text.getvalue()
