"""Format `llm-foundry`: the train_loader of LLM Foundry's configuration, beside the files of `streaming`.

LLM Foundry reads MDS through StreamingDataset; what it passes on to it are the arguments below `dataset` that
StreamingDataset knows (others it drops without a word), and per stream those of Stream. So the samples and
their order are those of streams.yaml at the same number of nodes, devices and workers.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from mixplan.documents.mixture import Mixture
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.streams import STREAMS, streaming
from mixplan.recipes.written import Options, Written

LLM_FOUNDRY = "llm_foundry.yaml"
_COLUMN = "tokens"
_HEADER = """\
# Made by `mixplan emit`: put both keys into LLM Foundry's configuration. One epoch is the whole run:
# {samples} samples. `choose` is exact; do not add epoch_size, proportion or repeat. In batches the run is
# {samples} ÷ global_train_batch_size: let the batch size divide it, drop_last leaves out an incomplete one.
"""


def llm_foundry(recipe: Recipe, folder: Path, options: Options) -> Written:
    """llm_foundry.yaml, and what `streaming` writes, which `mixplan verify` reads.

    Args:
        recipe: with absolute MDS folders.
        folder: where the files will be.
        options: what was asked.

    Raises:
        InputError: as `streaming`; or the tokens are in a column of another name than LLM Foundry reads.
    """
    written = streaming(recipe, folder, options)
    mixture = Mixture.model_validate(yaml.safe_load(written.texts[STREAMS]))
    if mixture.column != _COLUMN:
        raise InputError(
            f"the shards keep their tokens in the column {mixture.column!r}; LLM Foundry reads the column "
            f"{_COLUMN!r}: build the sources anew, or write them with that name"
        )
    streams = {
        name: stream.model_dump(mode="json", exclude_none=True) for name, stream in mixture.streams.items()
    }
    loader: dict[str, Any] = {
        "name": "text",
        "dataset": {
            "streams": streams,
            "max_seq_len": mixture.sequence_length,
            **mixture.dataset.model_dump(mode="json"),
        },
        "drop_last": True,
        "num_workers": 8,
    }
    config = {"train_loader": loader, "max_duration": "1ep"}
    text = _HEADER.format(samples=mixture.samples) + yaml.safe_dump(config, sort_keys=False)
    return dataclasses.replace(written, texts={**written.texts, LLM_FOUNDRY: text})
