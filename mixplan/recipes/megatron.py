"""Format `megatron`: the blend of Megatron-LM's `--data-path`, and with data its indexed datasets.

Megatron's sample is `seq_length` tokens and the one after them, cut from a source's documents in random
order. Its weights are samples, whatever the sizes of the sources. Each next sample, number i from 0, is of
the source that lags most, the one with the greatest share · i − count (helpers.cpp, build_blending_indices).
So with weights `choose`, the first N = Σ choose samples are exactly `choose` of every source. For if a
source were given one more at some i < N, its lag there would be share · i − choose < 0, and no other lag
greater; but the lags sum to 0.

Shape legend: T = tokens of a source, D = its documents.
"""

from __future__ import annotations

import functools
import shlex
import struct
from pathlib import Path

import numpy as np

from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.chosen import Chosen, Shards, chosen_sources
from mixplan.recipes.data_folders import DATA, data_folder, writing
from mixplan.recipes.shard_tokens import write_flat
from mixplan.recipes.written import Options, Written

BLEND, ARGUMENTS = "blend.txt", "megatron.sh"
TOKENS = "tokens"
"""Name of a source's files, without .bin and .idx."""
# As Megatron's preprocessing: DType.optimal_dtype in core/datasets/indexed_dataset.py.
_UINT16_BELOW = 65_500
_DTYPE_CODES = {"uint16": 8, "int32": 4}
_MOST_SOURCES = 32_766
_CHUNK_TOKENS = 1 << 24


def megatron(recipe: Recipe, folder: Path, options: Options) -> Written:
    """blend.txt, megatron.sh, and with data a .bin and .idx file per source.

    Args:
        recipe: with absolute MDS folders.
        folder: where the files will be.
        options: what was asked.

    Raises:
        InputError: with every problem of every source; a folder that Megatron could not name.
    """
    chosen, notes = chosen_sources(recipe, options.with_data)
    if len(str(folder).split()) != 1:
        raise InputError(
            f"{folder}: Megatron splits {BLEND} at white space; give a folder without any in its path"
        )
    if len(chosen) > _MOST_SOURCES:
        raise InputError(f"Megatron blends at most {_MOST_SOURCES:,} sources; the recipe has {len(chosen):,}")
    dtype = "uint16" if recipe.vocab_size < _UINT16_BELOW else "int32"
    places = {source.name: _place(folder, source, dtype) for source in chosen}
    blend = "".join(f"{source.choose} {places[source.name] / TOKENS}\n" for source in chosen)
    if not options.with_data:
        notes.append(
            f"{BLEND} names .bin and .idx files that are not written: add --with-data, or put prefixes of "
            "your own in their place (weights are samples, whatever the sizes of the files)"
        )
    notes += [
        f"source {source.name!r}: its end-of-document token is not known; every sample is taken as a document"
        for source in chosen
        if options.with_data and source.shards is not None and source.shards.end_of_document_id is None
    ]

    data = writing(
        [
            (places[source.name], functools.partial(_fill, source.shards, dtype, recipe.vocab_size))
            for source in chosen
            if source.shards is not None
        ]
    )
    texts = {BLEND: blend, ARGUMENTS: _arguments(recipe, folder)}
    return Written(texts, notes, None, data if options.with_data else None)


def _place(folder: Path, source: Chosen, dtype: str) -> Path:
    if source.shards is None:
        return folder / DATA / source.name
    content: dict[str, str | int | None] = {
        "format": "megatron",
        "index": source.shards.index_sha256,
        "dtype": dtype,
        "end_of_document": source.shards.end_of_document_id,
    }
    return data_folder(folder, source.name, content)


def _arguments(recipe: Recipe, folder: Path) -> str:
    """megatron.sh: an array of arguments."""
    return f"""# Made by `mixplan emit`. In a launch script: source {ARGUMENTS}, then
# torchrun … pretrain_gpt.py "${{MIXTURE_ARGS[@]}}" …
# The weights in {BLEND} are samples of the whole run, and exact at --train-samples: do not change it, and let
# the global batch size divide it (Megatron leaves out an incomplete last batch).
MIXTURE_ARGS=(
  --data-args-path {shlex.quote(str(folder / BLEND))}
  --split 100,0,0
  --seq-length {recipe.sequence_length}
  --train-samples {recipe.samples}
  --seed {recipe.shuffle_seed}
  --dataloader-type single
)
"""


def _fill(shards: Shards, dtype: str, vocab_size: int, fresh: Path) -> None:
    """A source's .bin and .idx."""
    path = fresh / f"{TOKENS}.bin"
    write_flat(shards.folder, path, dtype, vocab_size)
    tokens = np.memmap(path, dtype, "r")
    if shards.end_of_document_id is None:
        length = shards.counted.sequence_length
        lengths = np.full(shards.counted.samples, length, np.int64)
    else:
        lengths = document_lengths(tokens, shards.end_of_document_id)
    if int(lengths.max()) > np.iinfo(np.int32).max:
        raise InputError(f"{shards.folder}: a document of {lengths.max():,} tokens is too long for Megatron")
    (fresh / f"{TOKENS}.idx").write_bytes(index(lengths, dtype))


def document_lengths(tokens: np.ndarray, end_of_document_id: int) -> np.ndarray:
    """Lengths int64 [D] of the documents in tokens [T]; each ends with its end-of-document token, if not the
    last."""
    ends = [
        first + 1 + np.flatnonzero(tokens[first : first + _CHUNK_TOKENS] == end_of_document_id)
        for first in range(0, len(tokens), _CHUNK_TOKENS)
    ]
    edges = np.concatenate([[0], *ends, [len(tokens)]]).astype(np.int64)
    lengths = np.diff(edges)
    return lengths if lengths[-1] else lengths[:-1]


def index(lengths: np.ndarray, dtype: str) -> bytes:
    """The content of an .idx file of one sequence a document.

    b"MMIDIDX", two zero bytes; uint64 version 1; uint8 code of the tokens' type; uint64 sequences; uint64
    document boundaries; int32 length of each sequence; int64 place of each, in bytes; int64 boundaries.

    Args:
        lengths: tokens of each document, [D].
        dtype: type of the tokens.
    """
    count = len(lengths)
    head = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, _DTYPE_CODES[dtype], count, count + 1)
    starts = (np.cumsum(lengths) - lengths) * np.dtype(dtype).itemsize
    boundaries = np.arange(count + 1)
    return (
        head
        + lengths.astype("<i4").tobytes()
        + starts.astype("<i8").tobytes()
        + boundaries.astype("<i8").tobytes()
    )
