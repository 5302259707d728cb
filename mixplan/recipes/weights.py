"""Format `weights`: shares, rates, epochs and samples of every source, for trainers of every kind."""

from __future__ import annotations

import json
from pathlib import Path

from mixplan.documents.recipe import Recipe
from mixplan.recipes.written import Options, Written

WEIGHTS = "weights.json"


def weights(recipe: Recipe, folder: Path, options: Options) -> Written:
    """weights.json; needs no data."""
    return Written({WEIGHTS: _weights(recipe)}, [], None)


def _weights(recipe: Recipe) -> str:
    """weights.json: for trainers of every kind."""
    sources = {
        source.name: source.model_dump(
            mode="json", include={"share", "natural_share", "rate", "epochs", "tokens", "choose"}
        )
        for source in recipe.sources
    }
    head = {
        "schema_version": 1,
        "name": recipe.name,
        "samples": recipe.samples,
        "sequence_length": recipe.sequence_length,
        "tokens": recipe.tokens,
        "shuffle_seed": recipe.shuffle_seed,
    }
    return json.dumps({**head, "sources": sources}, indent=2, allow_nan=False) + "\n"
