"""replay: the planned order is the one that a real StreamingDataset yields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes_orders import really, write_shards

from mixplan.documents.mixture import DatasetSettings, Mixture, StreamSettings
from mixplan.errors import InputError
from mixplan.recipes.replay import Planned, planned_order, shard_samples

SHARDS = {"web": [50, 50, 23], "code": [40, 37], "rare": [7]}
CHOOSE = {"web": 101, "code": 150, "rare": 37}  # 0.8, 1.9 and 5.3 epochs


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay")
    for name, sizes in SHARDS.items():
        write_shards(folder / name, sum(sizes), 40, 4)
    return folder


def mixture(folder: Path = Path("/nowhere"), choose: dict[str, int] = CHOOSE, **settings: Any) -> Mixture:
    samples = sum(choose.values())
    settings = {"shuffle_seed": 17, "shuffle_block_size": samples, **settings}
    return Mixture(
        name="m",
        fingerprint="",
        samples=samples,
        sequence_length=4,
        tokens=4 * samples,
        dataset=DatasetSettings(**settings),
        streams={
            name: StreamSettings(local=str(folder / name), choose=count) for name, count in choose.items()
        },
    )


def replayed(mix: Mixture, sizes: list[list[int]], *args: Any, **kwargs: Any) -> list[int]:
    return planned_order(mix, sizes, *args, **kwargs).sample_ids.tolist()


@pytest.mark.parametrize(
    ("settings", "ranks", "nodes", "workers", "batch", "drawn"),
    [
        ({}, 1, 1, 0, 8, 0),
        ({}, 2, 1, 0, 6, 0),
        ({"shuffle_algo": "py1e", "shuffle_block_size": 40, "num_canonical_nodes": 2}, 2, 2, 0, 4, 0),
        ({"shuffle_algo": "py1br", "shuffle_block_size": 60, "num_canonical_nodes": 8}, 8, 4, 0, 5, 0),
        ({"shuffle_algo": "py1s", "num_canonical_nodes": 4, "sampling_granularity": 16}, 4, 2, 0, 5, 48),
        ({"shuffle_algo": "py2s", "batching_method": "stratified"}, 1, 1, 0, 8, 0),
        ({"shuffle": False, "sampling_method": "fixed"}, 1, 1, 0, 8, 0),
        ({}, 1, 1, 2, 7, 0),
        ({"num_canonical_nodes": 2}, 2, 2, 2, 7, 84),
    ],
)
def test_it_is_what_streaming_yields(
    folders: Path, settings: dict[str, Any], ranks: int, nodes: int, workers: int, batch: int, drawn: int
) -> None:
    mix = mixture(folders, **settings)
    sizes = [shard_samples(folders / name) for name in mix.streams]
    assert [sum(s) for s in sizes] == [sum(s) for s in SHARDS.values()] and len(sizes[0]) > 1
    assert replayed(mix, sizes, ranks, nodes, workers, batch, drawn) == really(
        mix, batch, workers, ranks, nodes, drawn
    )


SIZES = list(SHARDS.values())


def counts(planned: Planned) -> list[int]:
    return np.bincount(planned.stream, minlength=len(SHARDS)).tolist()


def test_streams_shards_and_repeats() -> None:
    planned = planned_order(mixture(), SIZES)
    assert counts(planned) == list(CHOOSE.values())
    assert planned.offsets.tolist() == [0, 123, 200] and planned.available.tolist() == [123, 77, 7]
    assert planned.shard_offsets.tolist() == [0, 50, 100, 123, 163, 200]
    for stream, shard, at in zip(planned.stream, planned.shard, planned.sample_ids, strict=True):
        assert planned.offsets[stream] <= at < planned.offsets[stream] + planned.available[stream]
        assert 0 <= at - planned.shard_offsets[shard] < [size for sizes in SIZES for size in sizes][shard]
    for stream, choose in enumerate(CHOOSE.values()):
        mine = planned.sample_ids[planned.stream == stream] - planned.offsets[stream]
        times = np.bincount(mine, minlength=planned.available[stream])
        assert set(times) <= {choose // len(times), choose // len(times) + 1}


def test_padding_is_counted() -> None:
    assert planned_order(mixture(), SIZES, ranks=8, batch_size=4).padding == 0  # 288 = 8 · 36
    choose = {**CHOOSE, "rare": 38}
    planned = planned_order(mixture(choose=choose), SIZES, ranks=8, batch_size=4)
    assert (planned.padding, len(planned.sample_ids)) == (7, 296)


@pytest.mark.parametrize("algo", ["naive", "py1e", "py1br"])
def test_stop_and_resume_anywhere_and_on_other_devices(algo: str) -> None:
    """The same global batch and canonical nodes: the rest is the same, whatever reads it."""
    mix = mixture(shuffle_algo=algo, shuffle_block_size=64, num_canonical_nodes=4)
    whole = replayed(mix, SIZES, ranks=4, nodes=1, workers=0, batch_size=4)
    assert len(whole) == mix.samples
    for drawn in (0, 16, 128, 272, 288):
        for ranks, nodes, workers, batch in ((4, 1, 3, 4), (1, 1, 0, 16), (2, 1, 2, 8), (4, 4, 1, 4)):
            rest = planned_order(mix, SIZES, ranks, nodes, workers, batch, drawn)
            assert rest.padding == 0
            got = [*whole[:drawn], *rest.sample_ids.tolist()]
            # within a global batch the devices may share the samples out in another way
            rows = [sorted(got[i : i + 16]) for i in range(0, 288, 16)]
            assert rows == [sorted(whole[i : i + 16]) for i in range(0, 288, 16)]
            if (ranks, nodes) == (4, 1):
                assert got == whole


def test_the_order_is_of_the_seed() -> None:
    assert replayed(mixture(), SIZES) == replayed(mixture(), SIZES)
    assert replayed(mixture(), SIZES) != replayed(mixture(shuffle_seed=18), SIZES)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(InputError) as caught:
        planned_order(mixture(num_canonical_nodes=4), [[5], [0], [3]], ranks=7, nodes=3)
    assert len(caught.value.problems) == 3
    with pytest.raises(InputError, match="shards of 2 streams were given for 3"):
        planned_order(mixture(), [[5], [3]])
