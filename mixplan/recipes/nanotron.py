"""Format `nanotron`: dataset folders and weights, and with data the token files of datatrove that it reads.

nanotron's sample is a window of sequence_length + 1 tokens, cut from a .ds file without overlap. Its sources
are blended as Megatron's are (see megatron.py), so `choose` comes out exactly; within a source it reads the
windows in the file's order, and of a longer file only the beginning. Older versions (Nanoset) instead repeat
one shuffled index of as many windows as there are. So the files hold just the windows of the run, in the
order in which they are read: `choose` of them, each epoch in an order of its own, the last, incomplete one a
random subset. Both ways then read each window once. A window is a sample of the shards and the first token
of the next sample, its last label.

Shape legend: S = samples of a source, c = its `choose`, L = tokens a sample.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mixplan.documents.recipe import Recipe
from mixplan.recipes.chosen import Chosen, Shards, chosen_sources
from mixplan.recipes.data_folders import DATA, data_folder, writing
from mixplan.recipes.shard_tokens import write_flat
from mixplan.recipes.written import Options, Written

NANOTRON = "nanotron.yaml"
TOKENS = "00000.ds"
# As datatrove: PipelineStepWithTokenizer.token_size in utils/tokenization.py.
_UINT16_UP_TO = 65_536
_CHUNK_TOKENS = 1 << 24

_HEADER = """\
# Made by `mixplan emit`: put it into nanotron's configuration. dataset_weights are samples (windows of
# sequence_length + 1 tokens) of the whole run; the files hold just these, in random order. So the run is
# tokens.train_steps × global batch size = {samples} samples; of more there are none.
"""


def nanotron(recipe: Recipe, folder: Path, options: Options) -> Written:
    """nanotron.yaml, and with data a .ds file, its index of documents and its metadata per source.

    Args:
        recipe: with absolute MDS folders.
        folder: where the files will be.
        options: what was asked.

    Raises:
        InputError: with every problem of every source.
    """
    chosen, notes = chosen_sources(recipe, options.with_data)
    dtype = "uint16" if recipe.vocab_size <= _UINT16_UP_TO else "uint32"
    places = [_place(recipe, folder, source, dtype) for source in chosen]
    if not options.with_data:
        notes.append(
            f"{NANOTRON} names .ds files that are not written: add --with-data. Files of your own must hold "
            "as many windows as dataset_weights says, in random order"
        )
    notes += [
        f"source {source.name!r}: its end-of-document token is not known; the index has only windows' ends"
        for source in chosen
        if options.with_data and source.shards is not None and source.shards.end_of_document_id is None
    ]

    data = writing(
        [
            (place, functools.partial(_fill, source.shards, source.choose, dtype, recipe))
            for source, place in zip(chosen, places, strict=True)
            if source.shards is not None
        ]
    )
    dataset: dict[str, Any] = {
        "dataset_folder": [str(place) for place in places],
        "dataset_weights": [float(source.choose) for source in chosen],
        "token_size_in_bytes": np.dtype(dtype).itemsize,
        "vocab_size": recipe.vocab_size,
    }
    stage = {
        "name": recipe.name,
        "start_training_step": 1,
        "data": {"dataset": dataset, "num_loading_workers": 1, "seed": recipe.shuffle_seed},
    }
    config = {"data_stages": [stage], "tokens": {"sequence_length": recipe.sequence_length}}
    text = _HEADER.format(samples=f"{recipe.samples:,}") + yaml.safe_dump(config, sort_keys=False)
    return Written({NANOTRON: text}, notes, None, data if options.with_data else None)


def _place(recipe: Recipe, folder: Path, source: Chosen, dtype: str) -> Path:
    if source.shards is None:
        return folder / DATA / source.name
    content: dict[str, str | int | None] = {
        "format": "nanotron",
        "index": source.shards.index_sha256,
        "dtype": dtype,
        "end_of_document": source.shards.end_of_document_id,
        "choose": source.choose,
        "seed": recipe.shuffle_seed,
        "tokenizer": recipe.tokenizer.path,
    }
    return data_folder(folder, source.name, content)


def _fill(shards: Shards, choose: int, dtype: str, recipe: Recipe, fresh: Path) -> None:
    """A source's .ds file, its .index and .metadata."""
    length = shards.counted.sequence_length
    flat = fresh / ".flat"  # all of the source, to pick from at random
    write_flat(shards.folder, flat, dtype, recipe.vocab_size)
    samples = np.memmap(flat, dtype, "r").reshape(-1, length)
    order = epochs_order(len(samples), choose, recipe.shuffle_seed)
    at_once = max(1, _CHUNK_TOKENS // length)
    with (fresh / TOKENS).open("wb") as file, (fresh / f"{TOKENS}.index").open("wb") as ends:
        for first in range(0, choose, at_once):
            picked = order[first : first + at_once]
            windows = np.empty((len(picked), length + 1), dtype)
            windows[:, :-1] = samples[picked]
            windows[:, -1] = samples[(picked + 1) % len(samples), 0]
            file.write(windows.tobytes())
            ends.write(document_ends(windows, shards.end_of_document_id, first).astype("<u8").tobytes())
    flat.unlink()
    if recipe.tokenizer.path is not None:
        tokens = choose * (length + 1)
        metadata = f"{recipe.tokenizer.path}|{np.dtype(dtype).itemsize}\n{tokens}\n{tokens:,} T"
        (fresh / f"{TOKENS}.metadata").write_text(metadata, encoding="utf-8")


def epochs_order(samples: int, choose: int, seed: int) -> np.ndarray:
    """Which of a source's S samples is read when, int64 [c]: epoch after epoch, each in a random order of its
    own with every sample once."""
    rng = np.random.default_rng(seed)
    epochs = -(-choose // samples)
    return np.concatenate([rng.permutation(samples) for _ in range(epochs)])[:choose]


def document_ends(windows: np.ndarray, end_of_document_id: int | None, first: int) -> np.ndarray:
    """Ends of the documents in windows [w, L + 1], in tokens from the start of the file, ascending.

    A document ends after its end-of-document token, and where its window does: what follows is another text.

    Args:
        windows: consecutive ones.
        end_of_document_id: empty: windows' ends only.
        first: number of the first of them in the file.
    """
    ends = np.zeros(windows.shape, bool)
    ends[:, -1] = True
    if end_of_document_id is not None:
        ends |= windows == end_of_document_id
    return np.flatnonzero(ends.reshape(-1)) + 1 + first * windows.shape[1]
