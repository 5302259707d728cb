"""Feeds the mixture beside this file to OLMo-core's trainer: its shards if there is a streams.yaml, else its
token files (olmo_core.yaml). Needs torch and ai2-olmo-core; for shards also mosaicml-streaming and the
loader.py beside it.

    from olmo_core_loader import make_data_loader
    data_loader = make_data_loader(batch_tokens, work_dir, dp_process_group=train_module.dp_process_group)
    trainer = TrainerConfig(..., max_duration=Duration.epochs(1)).build(train_module, data_loader)

One epoch is the whole run. A global batch, in tokens as everywhere in OLMo-core, is whole sequences for every
device; sequences that do not fill the last one are not trained on, and a warning says how many. Batches have
"input_ids", int64 [batch, sequence_length], and "source", int64 [batch]: the number of each sequence's source
in `source_names()`. The loader's state goes into OLMo-core's checkpoints; that of another mixture is refused.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from olmo_core.data import DataCollator, NumpyFSLDatasetConfig, TextDataLoaderBase, TokenizerConfig
from olmo_core.data.data_loader import NumpyDataLoaderConfig
from olmo_core.data.source_mixture import SourceMixtureDatasetConfig, SourceMixtureList
from olmo_core.distributed.utils import get_rank, get_world_size

HERE = Path(__file__).resolve().parent
STREAMS, FILES, SOURCES, RECIPE = "streams.yaml", "olmo_core.yaml", "source_mixture.yaml", "recipe.yaml"
log = logging.getLogger(__name__)


def make_data_loader(
    global_batch_size: int,
    work_dir: Path,
    folder: Path = HERE,
    dp_process_group: Any = None,
    num_workers: int = 0,
    **options: Any,
) -> TextDataLoaderBase:
    """The data loader for OLMo-core's trainer.

    Args:
        global_batch_size: tokens a step, over all devices.
        work_dir: where OLMo-core may keep indices; a folder of its own below it for every mixture, because
            it finds them again by the seed and the number of sequences alone.
        folder: what `mixplan emit --format olmo-core` wrote.
        dp_process_group: of the devices that get different data; the train module's.
        num_workers: processes that read, for each device.
        options: of torch's DataLoader (shards) or of NumpyDataLoaderConfig (token files).

    Raises:
        ValueError: the batch is not whole sequences for each device.
        RuntimeError: OLMo-core makes other amounts of the mixture than it should.
    """
    folder = Path(folder)
    described = read_yaml(folder / (STREAMS if (folder / STREAMS).is_file() else FILES))
    world, length = get_world_size(dp_process_group), described["sequence_length"]
    if global_batch_size % (length * world):
        raise ValueError(
            f"global_batch_size {global_batch_size:,}: give a multiple of {length * world:,} tokens, whole "
            f"sequences of {length:,} for each of {world} devices"
        )
    left = described["samples"] % (global_batch_size // length)
    if left:
        log.warning(
            f"{left:,} of {described['samples']:,} sequences do not fill a last batch: not trained on"
        )
    work_dir = Path(work_dir) / described["fingerprint"][:16]
    if (folder / STREAMS).is_file():
        return ShardLoader(
            folder,
            global_batch_size=global_batch_size,
            work_dir=work_dir,
            dp_world_size=world,
            dp_rank=get_rank(dp_process_group),
            num_workers=num_workers,
            options=options,
        )
    dataset = token_files(folder).build()
    check_amounts(dataset, described)
    config = NumpyDataLoaderConfig(
        global_batch_size=global_batch_size,
        seed=described["seed"],
        work_dir=str(work_dir),
        num_workers=num_workers,
        **options,
    )
    return config.build(dataset, collator=collator(dataset, described), dp_process_group=dp_process_group)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a dict."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def source_names(folder: Path = HERE) -> list[str]:
    """Names of the sources, in the order of the numbers in "source"."""
    folder = Path(folder)
    if (folder / STREAMS).is_file():
        return list(read_yaml(folder / STREAMS)["streams"])
    return list(dict.fromkeys(file["source"] for file in read_yaml(folder / FILES)["files"]))


def vocab_size(folder: Path = HERE) -> int:
    """Tokens of the mixture's vocabulary."""
    return int(read_yaml(Path(folder) / RECIPE)["vocab_size"])


def token_files(folder: Path = HERE) -> NumpyFSLDatasetConfig:
    """OLMo-core's dataset over the mixture's token files."""
    folder = Path(folder)
    described = read_yaml(folder / FILES)
    length, end = described["sequence_length"], described["end_of_document_id"]
    mixture = SourceMixtureDatasetConfig(
        source_list=SourceMixtureList.from_yaml(str(folder / SOURCES)),
        requested_tokens=described["tokens"],
        global_batch_size=length,  # of the mixture, which would be rounded to whole batches
        seed=described["seed"],
        render_tables=False,
        quiet=True,
    )
    return NumpyFSLDatasetConfig.from_src_mix(
        mixture,
        tokenizer=TokenizerConfig(vocab_size=described["vocab_size"], eos_token_id=end, pad_token_id=end),
        sequence_length=length,
        dtype=described["dtype"],
    )


def check_amounts(dataset: Any, described: dict[str, Any]) -> None:
    """Has OLMo-core taken the sequences of each file that it should?

    Raises:
        RuntimeError: it has not.
    """
    wanted = {file["path"]: file["choose"] for file in described["files"]}
    taken = dict.fromkeys(wanted, 0)
    for path, (start, end) in zip(dataset.paths, dataset.offsets, strict=True):
        taken[str(path)] = taken.get(str(path), 0) + end - start
    wrong = [
        f"{path}: {count:,}, not {wanted.get(path, 0):,}"
        for path, count in taken.items()
        if count != wanted.get(path, 0)
    ]
    if wrong:
        raise RuntimeError(f"OLMo-core takes other numbers of sequences than planned of {'; '.join(wrong)}")


class SourceCollator(DataCollator):
    """OLMo-core's, and it says which source each sequence is from."""

    ends: np.ndarray
    """Number of the dataset's sequence after each file's last."""
    numbers: np.ndarray
    """Number of each file's source."""

    def __call__(self, items: Any) -> dict[str, Any]:
        batch = super().__call__(items)
        file = np.searchsorted(self.ends, batch["index"].numpy(), side="right")
        batch["source"] = torch.from_numpy(self.numbers[file])
        return batch


def collator(dataset: Any, described: dict[str, Any]) -> SourceCollator:
    """The collator of a dataset over token files."""
    names = list(dict.fromkeys(file["source"] for file in described["files"]))
    source = {file["path"]: names.index(file["source"]) for file in described["files"]}
    made = SourceCollator(pad_token_id=described["end_of_document_id"], vocab_size=described["vocab_size"])
    made.ends = np.array([end for _, end in dataset.offsets], np.int64)
    made.numbers = np.array([source[str(path)] for path in dataset.paths], np.int64)
    return made


class ShardLoader(TextDataLoaderBase):
    """Reads the MDS shards in the order that streams.yaml fixes; resumes at the batch it was stopped at."""

    def __init__(self, folder: Path, num_workers: int, options: dict[str, Any], **common: Any) -> None:
        self.folder = Path(folder)
        self.mixture = read_yaml(self.folder / STREAMS)
        self.vocab_size = vocab_size(self.folder)
        super().__init__(collator=DataCollator(pad_token_id=0), **common)
        self.num_workers = num_workers
        self.options = options
        self.replication = get_world_size() // self.dp_world_size
        if get_rank() // self.replication != self.dp_rank:
            raise ValueError(
                "devices that share data are not neighbours (pipeline stages?), which Streaming cannot do: "
                "use token files (emit with --with-data)"
            )
        self.physical_nodes: int | None = None

    @property
    def batch_sequences(self) -> int:
        """Sequences of a global batch."""
        return int(self.global_batch_size // self.mixture["sequence_length"])

    @property
    def total_batches(self) -> int:
        return int(self.mixture["samples"] // self.batch_sequences)

    def state_dict(self) -> dict[str, Any]:
        return {
            "mixture": self.mixture["fingerprint"],
            "batches_processed": self.batches_processed,
            "tokens_processed": self.tokens_processed,
            "epoch": self._epoch,
            "initial_physical_nodes": self.physical_nodes,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("mixture") != self.mixture["fingerprint"]:
            raise RuntimeError(
                f"this checkpoint is of mixture {state_dict.get('mixture')}, not of "
                f"{self.mixture['fingerprint']}; resuming would mix both"
            )
        self.tokens_processed = state_dict["tokens_processed"]
        self.batches_processed = self.tokens_processed // self.global_batch_size
        self._epoch = state_dict["epoch"]
        self.physical_nodes = state_dict["initial_physical_nodes"]

    def reshuffle(self, epoch: int | None = None, **_: Any) -> None:
        if (epoch or 1) != 1:
            raise RuntimeError(
                f"epoch {epoch}: one epoch is the whole run (max_duration=Duration.epochs(1)); for more "
                "tokens, recommend and emit again"
            )
        self._epoch = 1

    def get_mock_batch(self) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(self.dp_rank)
        shape = (self.rank_batch_size // self.mixture["sequence_length"], self.mixture["sequence_length"])
        return {"input_ids": torch.randint(0, self.vocab_size, shape, generator=generator, device="cpu")}

    def _iter_batches(self) -> Iterator[dict[str, Any]]:
        while self.batches_processed < self.total_batches:
            size = self.global_batch_size
            for batch in self._reader():
                yield {"input_ids": batch["tokens"], "source": batch["source"]}
                # Counted by the base class meanwhile; a scheduler may have changed the batch size too.
                if self.global_batch_size != size or self.batches_processed == self.total_batches:
                    break

    def _reader(self) -> Any:
        """Batches of this device from where the run is. A new one each time: datasets count their epochs."""
        if str(self.folder) not in sys.path:
            sys.path.insert(0, str(self.folder))  # also for workers, which are new processes in OLMo-core
        rows = self.batch_sequences // self.dp_world_size
        reader = importlib.import_module("loader").make_loader(
            rows, self.num_workers, self.folder, {"replication": self.replication}, **self.options
        )
        if self.physical_nodes is None:
            self.physical_nodes = reader.dataset._parallel_rank_world.num_nodes
        state = {
            "mixture": self.mixture["fingerprint"],
            "epoch": 0,
            "sample_in_epoch": self.batches_processed * self.batch_sequences,
            "num_canonical_nodes": self.mixture["dataset"]["num_canonical_nodes"],
            "shuffle_seed": self.mixture["dataset"]["shuffle_seed"],
            "initial_physical_nodes": self.physical_nodes,
        }
        reader.load_state_dict(state)
        return reader
