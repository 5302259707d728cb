"""The order of samples that a mixture will be trained in, computed without reading data.

Streaming draws the whole order at the start from the sizes of the shards alone. The same functions are called
here, on the same numbers, so that what comes out is what a StreamingDataset on any number of devices would
yield; nothing is read, downloaded or put into shared memory.

Shape legend: n = samples that are yielded, S = streams, K = shards of all streams; sample ids number the
samples of all shards one after another, stream after stream, as Streaming does.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mixplan.documents.mds_index import read_index
from mixplan.documents.mixture import Mixture
from mixplan.errors import InputError

_BATCH = 8  # any: it decides about the order only with other batching methods than `random`


@dataclass(frozen=True)
class Planned:
    """What a training run would get."""

    sample_ids: np.ndarray
    """int64 [n], in the order of training: batch after batch, within a global batch rank after rank."""
    offsets: np.ndarray
    """First sample id of each stream, int64 [S]."""
    available: np.ndarray
    """Samples of each stream's shards, int64 [S]."""
    shard_offsets: np.ndarray
    """First sample id of each shard, int64 [K]."""
    padding: int
    """How many samples of the whole run are repeats that Streaming adds so that all devices get the same
    number; 0 when the numbers of devices and of canonical nodes divide the samples of the run."""

    @cached_property
    def stream(self) -> np.ndarray:
        """Number of the stream that each sample comes from, int64 [n]."""
        return np.searchsorted(self.offsets, self.sample_ids, side="right") - 1

    @cached_property
    def shard(self) -> np.ndarray:
        """Number of the shard that each sample lies in, int64 [n]."""
        return np.searchsorted(self.shard_offsets, self.sample_ids, side="right") - 1


def shard_samples(folder: Path) -> list[int]:
    """Samples of each shard of a local MDS folder, from its index.

    Raises:
        InputError: as `read_index`.
    """
    return [int(shard["samples"]) for shard in read_index(folder)]


def import_streaming() -> None:
    """Load Streaming, which takes seconds the first time."""
    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    import streaming  # noqa: F401


def planned_order(
    mixture: Mixture,
    shard_samples: list[list[int]],
    ranks: int = 1,
    nodes: int = 1,
    workers: int = 0,
    batch_size: int = _BATCH,
    drawn_samples: int = 0,
) -> Planned:
    """The order in which a training run gets the mixture's samples.

    Args:
        mixture: settings and streams.
        shard_samples: of each stream, in the mixture's order, the samples of its shards.
        ranks: devices of the whole run.
        nodes: machines that they are on, evenly.
        workers: DataLoader workers a device; 0 and 1 are the same.
        batch_size: samples a batch on one device.
        drawn_samples: samples that all devices together have had before a stop; the order is that of the
            rest.

    Raises:
        InputError: devices do not suit nodes, or nodes the canonical nodes, or a stream has no samples.
    """
    _check(mixture, shard_samples, ranks, nodes)
    import_streaming()
    from streaming.base.batching import generate_work
    from streaming.base.world import World

    dataset = _dataset(mixture, shard_samples, batch_size)
    world = World(nodes, ranks // nodes, max(workers, 1), 0)
    # [nodes, ranks a node, workers, batches a worker, batch]; a device gets batches from its workers in turn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of, poor mixing and padding, is measured
        work = generate_work(mixture.dataset.batching_method, dataset, world, 0, drawn_samples)
    sample_ids = work.transpose(3, 2, 0, 1, 4).ravel()
    sample_ids = sample_ids[sample_ids >= 0]
    return Planned(
        sample_ids=sample_ids,
        offsets=dataset.sample_offset_per_stream,
        available=dataset.samples_per_stream,
        shard_offsets=dataset.sample_offset_per_shard,
        padding=max(len(sample_ids) + drawn_samples - mixture.samples, 0),
    )


def _check(mixture: Mixture, shard_samples: list[list[int]], ranks: int, nodes: int) -> None:
    problems = []
    if ranks % nodes:
        problems.append(f"{ranks} devices cannot be spread evenly over {nodes} nodes")
    canonical = mixture.dataset.num_canonical_nodes
    if max(canonical, nodes) % min(canonical, nodes):
        problems.append(
            f"{nodes} nodes do not suit {canonical} canonical nodes: one must divide the other; emit with "
            f"--canonical-nodes {nodes}"
        )
    if len(shard_samples) != len(mixture.streams):
        problems.append(f"shards of {len(shard_samples)} streams were given for {len(mixture.streams)}")
    problems += [
        f"stream {name!r} has no samples"
        for name, sizes in zip(mixture.streams, shard_samples, strict=False)
        if sum(sizes) < 1
    ]
    if problems:
        raise InputError(problems)


def _dataset(mixture: Mixture, shard_samples: list[list[int]], batch_size: int) -> Any:
    """What Streaming's functions read of a StreamingDataset, without one."""
    from streaming import StreamingDataset

    settings = mixture.dataset
    shards = np.array([len(sizes) for sizes in shard_samples], np.int64)
    available = np.array([sum(sizes) for sizes in shard_samples], np.int64)
    per_shard = np.array([size for sizes in shard_samples for size in sizes], np.int64)
    dataset = SimpleNamespace(
        **settings.model_dump(),
        batch_size=batch_size,
        partition_algo="relaxed",
        initial_physical_nodes=None,
        epoch_size=mixture.samples,
        epoch_seed_change=settings.shuffle and settings.sampling_method == "balanced",
        streams=[
            SimpleNamespace(choose=stream.choose, proportion=stream.choose / mixture.samples)
            for stream in mixture.streams.values()
        ],
        num_streams=len(mixture.streams),
        shards_per_stream=shards,
        shard_offset_per_stream=np.cumsum(shards) - shards,
        samples_per_stream=available,
        sample_offset_per_stream=np.cumsum(available) - available,
        samples_per_shard=per_shard,
        sample_offset_per_shard=np.cumsum(per_shard) - per_shard,
        stream_per_shard=np.repeat(np.arange(len(shards)), shards),
    )
    dataset.resample_streams = partial(StreamingDataset.resample_streams, dataset)
    return dataset
