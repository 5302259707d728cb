"""Real StreamingDatasets for the tests of orders, and sources that consist of an index alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.mixture import Mixture
from mixplan.recipes.replay import import_streaming


def really(
    mix: Mixture, batch_size: int, workers: int = 0, ranks: int = 1, nodes: int = 1, drawn: int = 0
) -> list[int]:
    """The sample ids that real StreamingDatasets yield on every device, batch by batch, as one order."""
    import_streaming()
    from streaming import Stream, StreamingDataLoader, StreamingDataset
    from streaming.base.world import World

    class Numbered(StreamingDataset):
        def __getitem__(self, at: Any) -> int:
            super().__getitem__(at)  # it is really there
            return int(at)

    streams = [Stream(**s.model_dump(exclude_none=True)) for s in mix.streams.values()]
    dataset = Numbered(streams=streams, batch_size=batch_size, **mix.dataset.model_dump())
    devices = []
    for rank in range(ranks):
        dataset._parallel_rank_world = World(nodes, ranks // nodes, 1, rank)
        dataset.next_epoch = 0
        if drawn:
            state = {
                "epoch": 0,
                "sample_in_epoch": drawn,
                "num_canonical_nodes": mix.dataset.num_canonical_nodes,
                "shuffle_seed": mix.dataset.shuffle_seed,
            }
            dataset.load_state_dict(state)
        loader = StreamingDataLoader(dataset, batch_size=batch_size, num_workers=workers)
        devices.append([batch.tolist() for batch in loader])
    assert len({len(batches) for batches in devices}) == 1
    return [at for batches in zip(*devices, strict=True) for batch in batches for at in batch]


def write_shards(folder: Path, samples: int, shard_samples: int, length: int) -> None:
    """Real MDS shards of numbered samples."""
    import_streaming()
    from streaming import MDSWriter

    columns = {"tokens": f"ndarray:int32:{length}"}
    header = 1000  # of a shard, about
    limit = shard_samples * (4 * length + 8) + header
    with MDSWriter(out=str(folder), columns=columns, size_limit=limit) as out:
        for number in range(samples):
            out.write({"tokens": np.full(length, number, np.int32)})


def write_index(folder: Path, shards: list[int], length: int) -> None:
    """An index of shards that are not there."""
    entries = [
        {
            "column_encodings": [f"ndarray:int32:{length}"],
            "column_names": ["tokens"],
            "column_sizes": [4 * length],
            "compression": None,
            "format": "mds",
            "hashes": [],
            "raw_data": {"basename": f"shard.{number:05}.mds", "bytes": 4 * length * samples, "hashes": {}},
            "samples": samples,
            "size_limit": None,
            "version": 2,
            "zip_data": None,
        }
        for number, samples in enumerate(shards)
    ]
    folder.mkdir(parents=True)
    (folder / "index.json").write_text(json.dumps({"shards": entries, "version": 2}))
