"""Random recipes over token files of OLMo-core that are there by their sizes alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixplan.documents.mds_index import MdsCount
from mixplan.documents.olmo_core import OlmoCoreMixture
from mixplan.documents.recipe import Recipe
from mixplan.recipes.olmo_core import described_mixture, smallest_dtype
from mixplan.recipes.olmo_core_files import SourceFiles, file_rows


def sparse_mixture(folder: Path, rng: np.random.Generator) -> tuple[Recipe, OlmoCoreMixture]:
    """A random recipe, its files there by size alone."""
    length = int(rng.choice([8, 64, 4096]))
    count = int(rng.integers(2, 51))
    available = np.exp(rng.uniform(0, np.log(1e8 / length), count)).astype(int) + 1
    choose = np.maximum(1, np.round(available * np.exp(rng.uniform(np.log(0.01), np.log(20), count)))).astype(
        int
    )
    vocab_size = int(rng.choice([256, 50280, 100278]))
    return sparse_files(folder, length, vocab_size, available.tolist(), choose.tolist())


def sparse_files(
    folder: Path, length: int, vocab_size: int, available: list[int], choose: list[int]
) -> tuple[Recipe, OlmoCoreMixture]:
    """A recipe over sources of so many samples, its files there by size alone."""
    samples = sum(choose)
    sources, files = [], []
    for number, (held, taken) in enumerate(zip(available, choose, strict=True)):
        sources.append(
            {
                "name": f"s{number}",
                "role": "common",
                "share": taken / samples,
                "natural_share": 0.1,
                "rate": 1.0,
                "epochs": taken / held,
                "max_epochs": 100.0,
                "tokens": taken * length,
                "tokens_available": held * length,
                "choose": taken,
            }
        )
        one = SourceFiles(
            source=f"s{number}",
            folder=folder / f"s{number}-0",
            shards=folder,
            counted=MdsCount(held, length, held * length, "tokens", "int32"),
            written=min(held, taken),
            rows=file_rows(min(held, taken), length),
            seed=(0, 0),
            dtype=smallest_dtype(vocab_size),
            vocab_size=vocab_size,
            end_of_document_id=0,
        )
        one.folder.mkdir()
        for path, rows in zip(one.paths, one.rows, strict=True):
            with path.open("wb") as file:
                file.truncate(rows * one.row_bytes)
        files.append(one)
    recipe = Recipe.model_validate(
        {
            "name": "random",
            "size": {"name": "tiny", "d_model": 16, "layers": 2, "heads": 4, "d_ffn": 64},
            "block_params": 8336,
            "total_params": 16560,
            "vocab_size": vocab_size,
            "sequence_length": length,
            "samples": samples,
            "tokens": samples * length,
            "sources": sources,
        }
    )
    return recipe, described_mixture(recipe, files)
