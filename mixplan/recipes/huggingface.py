"""Format `huggingface`: a program that gives the mixture as a Dataset, and with data its Parquet files.

Its unit is the example, here a sample of fixed length. `interleave_datasets` draws each example's source at
random, so its counts are multinomial: the standard deviation of a source of share p among N samples is
√(N·p·(1 − p)); and how long it is depends on which source ends first. The emitted program therefore makes the
run by picking rows, which is exact, and offers interleaving beside it, for streaming.

Shape legend: n = samples of a shard, L = tokens a sample.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.mds_index import read_index
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.chosen import Chosen, Shards, chosen_sources
from mixplan.recipes.data_folders import data_folder, writing
from mixplan.recipes.shard_tokens import samples_of
from mixplan.recipes.written import Options, Written

PROGRAM, SETTINGS = "hf_mixture.py", "hf_mixture.json"
TOKENS = "tokens.parquet"
_PROGRAM_HERE = "huggingface_loader.py"
# What torch's embedding takes; `datasets` gives torch 64 bits of the narrower one.
_UINT16_UP_TO, _INT32_UP_TO = 2**16, 2**31
_ROW_GROUP_TOKENS = 1 << 22


def huggingface(recipe: Recipe, folder: Path, options: Options) -> Written:
    """hf_mixture.py, hf_mixture.json, and with data a Parquet file per source.

    Args:
        recipe: with absolute MDS folders.
        folder: where the files will be.
        options: what was asked.

    Raises:
        InputError: with every problem of every source: the program reads their shards, or they are to be
            written in another form.
    """
    chosen, notes = chosen_sources(recipe, data_needed=True)
    if recipe.vocab_size > _INT32_UP_TO:
        raise InputError(f"a vocabulary of {recipe.vocab_size:,} tokens does not fit into 32 bits")
    here = [source.shards for source in chosen if source.shards is not None]
    zipped = [
        source.name
        for source, shards in zip(chosen, here, strict=True)
        if not options.with_data and not _uncompressed(shards)
    ]
    if zipped:
        raise InputError(
            f"the shards of {', '.join(zipped)} are compressed, and the emitted program cannot read them so: "
            "add --with-data"
        )
    dtype = "uint16" if recipe.vocab_size <= _UINT16_UP_TO else "int32"
    places = [
        _place(folder, source.name, shards, dtype, number)
        for number, (source, shards) in enumerate(zip(chosen, here, strict=True))
    ]
    settings = {
        "name": recipe.name,
        "samples": recipe.samples,
        "sequence_length": recipe.sequence_length,
        "seed": recipe.shuffle_seed,
        "sources": [
            _settings(source, shards, place / TOKENS if options.with_data else None)
            for source, shards, place in zip(chosen, here, places, strict=True)
        ],
    }

    data = writing(
        [
            (place, functools.partial(_fill, shards, dtype, recipe.vocab_size, number))
            for number, (place, shards) in enumerate(zip(places, here, strict=True))
        ]
    )
    texts = {
        PROGRAM: Path(__file__).with_name(_PROGRAM_HERE).read_text(encoding="utf-8"),
        SETTINGS: json.dumps(settings, indent=2) + "\n",
    }
    return Written(texts, notes, None, data if options.with_data else None)


def _uncompressed(shards: Shards) -> bool:
    index = read_index(shards.folder)
    return all((shards.folder / shard["raw_data"]["basename"]).is_file() for shard in index)


def _settings(source: Chosen, shards: Shards, parquet: Path | None) -> dict[str, Any]:
    return {
        "name": source.name,
        "choose": source.choose,
        "parquet": None if parquet is None else str(parquet),
        "mds": str(shards.folder),
        "column": shards.counted.column,
        "index_sha256": shards.index_sha256,
    }


def _place(folder: Path, source: str, shards: Shards, dtype: str, number: int) -> Path:
    content: dict[str, str | int | None] = {
        "format": "huggingface",
        "index": shards.index_sha256,
        "dtype": dtype,
        "number": number,
    }
    return data_folder(folder, source, content)


def _fill(shards: Shards, dtype: str, vocab_size: int, number: int, fresh: Path) -> None:
    """A source's samples as rows: `input_ids`, a list of fixed length, and `source`, its number."""
    import pyarrow
    from pyarrow import parquet

    length = shards.counted.sequence_length
    kind = pyarrow.list_(pyarrow.from_numpy_dtype(np.dtype(dtype)), length)
    schema = pyarrow.schema({"input_ids": kind, "source": pyarrow.int16()})
    at_once = max(1, _ROW_GROUP_TOKENS // length)
    with parquet.ParquetWriter(fresh / TOKENS, schema, compression="zstd") as writer:
        for tokens in samples_of(shards.folder, vocab_size):
            for first in range(0, len(tokens), at_once):
                rows = tokens[first : first + at_once].astype(dtype)
                lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.reshape(-1)), length)
                numbers = pyarrow.array(np.full(len(rows), number, np.int16))
                writer.write_table(pyarrow.Table.from_arrays([lists, numbers], schema=schema))
