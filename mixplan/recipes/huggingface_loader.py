"""The mixture that hf_mixture.json, beside this file, describes, as a Dataset. Needs datasets and numpy, and
mosaicml-streaming where the sources are MDS shards.

    from hf_mixture import mixture
    rows = mixture()              # {"input_ids": [sequence_length], "source": number of the source}

`mixture` has exactly the recipe's samples of each source, in one random order. `interleaved` draws the source
of every sample at random (interleave_datasets): for streaming; its counts are only near the recipe's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import (
    Dataset,
    Features,
    IterableDataset,
    List,
    Value,
    concatenate_datasets,
    interleave_datasets,
    load_dataset,
)

HERE = Path(__file__).resolve().parent


def read_settings(folder: Path = HERE) -> dict[str, Any]:
    """hf_mixture.json as a dict."""
    return json.loads((Path(folder) / "hf_mixture.json").read_text(encoding="utf-8"))


def load_sources(folder: Path = HERE, cache: str | None = None) -> list[Dataset]:
    """Every source whole and once, in the order of hf_mixture.json.

    Args:
        folder: where hf_mixture.json is.
        cache: folder for the Arrow files; `datasets` has a default.
    """
    settings = read_settings(folder)
    return [
        _load(source, number, settings["sequence_length"], cache)
        for number, source in enumerate(settings["sources"])
    ]


def mixture(folder: Path = HERE, cache: str | None = None) -> Dataset:
    """The run: exactly `choose` samples of every source, in one random order that the seed fixes.

    A source is repeated whole as often as it fits; what is left is a random subset of it. Nothing is copied:
    the result is an index over the sources, 8 bytes a sample.
    """
    settings = read_settings(folder)
    sources = load_sources(folder, cache)
    random = np.random.RandomState(settings["seed"])
    picked, first = [], 0
    for source, rows in zip(settings["sources"], sources, strict=True):
        epochs, rest = divmod(source["choose"], len(rows))
        picked.append(first + np.tile(np.arange(len(rows)), epochs))
        picked.append(first + random.permutation(len(rows))[:rest])
        first += len(rows)
    order = np.concatenate(picked)
    random.shuffle(order)
    return concatenate_datasets(sources).select(order)


def interleaved(folder: Path = HERE, cache: str | None = None) -> IterableDataset:
    """As many samples as the recipe has, each from a source drawn with its share: counts are multinomial.

    Sources are in random order, and begin again where they end.
    """
    settings = read_settings(folder)
    parts = [
        rows.shuffle(seed=settings["seed"])
        .to_iterable_dataset()
        .repeat(math.ceil(source["choose"] / len(rows)) + 1)
        for source, rows in zip(settings["sources"], load_sources(folder, cache), strict=True)
    ]
    drawn = interleave_datasets(
        parts,
        probabilities=[source["choose"] / settings["samples"] for source in settings["sources"]],
        seed=settings["seed"],
        stopping_strategy="all_exhausted",
    )
    return drawn.take(settings["samples"])


def _load(source: dict[str, Any], number: int, length: int, cache: str | None) -> Dataset:
    if source["parquet"] is not None:
        return load_dataset("parquet", data_files=source["parquet"], split="train", cache_dir=cache)
    features = Features({"input_ids": List(Value("int32"), length=length), "source": Value("int16")})
    # The digest is for the cache of `datasets`: other shards in the same folder are another dataset.
    shards = {
        "mds": source["mds"],
        "column": source["column"],
        "digest": source["index_sha256"],
        "number": number,
    }
    return Dataset.from_generator(_rows, features=features, cache_dir=cache, gen_kwargs=shards)


def _rows(mds: str, column: str, digest: str, number: int) -> Iterator[dict[str, Any]]:
    from streaming import LocalDataset

    shards = LocalDataset(mds)
    for at in range(len(shards)):
        yield {"input_ids": shards[at][column].astype(np.int32), "source": number}
