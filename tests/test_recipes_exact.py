"""emit --format streaming realises random recipes exactly: through the replay, and through real readers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes_making import LENGTH, recipe_data
from recipes_orders import really, write_index, write_shards

from mixplan.documents.loading import load
from mixplan.documents.mixture import DatasetSettings, Mixture, StreamSettings
from mixplan.recipes.emitting import emit
from mixplan.recipes.replay import Planned, planned_order, shard_samples

# Devices, nodes, workers, samples a batch.
DEVICES = st.tuples(
    st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 1), (4, 2), (5, 1), (6, 3), (8, 1), (8, 4), (8, 8)]),
    st.integers(0, 4),
    st.integers(1, 4),
)


@st.composite
def recipes(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    """Shards of each source, and samples to choose: 2–50 sources, 0.01–20 epochs, any size of shard."""
    shards, choose = [], []
    for _ in range(draw(st.integers(2, 50))):
        sizes = draw(st.lists(st.integers(1, 60), min_size=1, max_size=6))
        epochs = draw(st.floats(0.01, 20.0))
        shards.append(sizes)
        choose.append(max(1, round(epochs * sum(sizes))))
    return shards, choose


def emitted(folder: Path, shards: list[list[int]], choose: list[int], **more: Any) -> Mixture:
    """What emit makes of sources that consist of an index."""
    for number, sizes in enumerate(shards):
        write_index(folder / "mds" / f"s{number}", sizes, LENGTH)
    data = recipe_data(folder, {f"s{number}": count for number, count in enumerate(choose)}, ("s0",), **more)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(data))
    found = emit(folder / "recipe.yaml", folder / "out")
    mixture = load(folder / "out" / "streams.yaml", Mixture)
    assert found.measured["even"] or any("NOT EVEN" in note for note in found.notes)
    return mixture


def planned_mixture(choose: list[int], canonical_nodes: int = 1) -> Mixture:
    """As emit makes it; the test after the next goes through emit itself."""
    return Mixture(
        name="m",
        fingerprint="",
        samples=sum(choose),
        sequence_length=LENGTH,
        tokens=LENGTH * sum(choose),
        dataset=DatasetSettings(
            shuffle_seed=17, shuffle_block_size=sum(choose), num_canonical_nodes=canonical_nodes
        ),
        streams={f"s{at}": StreamSettings(local=f"/s{at}", choose=count) for at, count in enumerate(choose)},
    )


def check_exact(planned: Planned, shards: list[list[int]], choose: list[int]) -> None:
    assert planned.padding == 0 and len(planned.sample_ids) == sum(choose)
    assert np.bincount(planned.stream, minlength=len(choose)).tolist() == choose
    for stream, (sizes, wanted) in enumerate(zip(shards, choose, strict=True)):
        mine = planned.sample_ids[planned.stream == stream] - planned.offsets[stream]
        times = np.bincount(mine, minlength=sum(sizes))
        # repetition is as even as it can be
        assert times.min() >= wanted // sum(sizes) and times.max() <= -(-wanted // sum(sizes))


@settings(deadline=None, max_examples=150)
@given(recipes(), DEVICES)
def test_samples_of_every_source_are_the_recipes(
    drawn: tuple[list[list[int]], list[int]], devices: tuple[tuple[int, int], int, int]
) -> None:
    shards, choose = drawn
    (ranks, nodes), workers, batch = devices
    choose[-1] += -sum(choose) % (ranks * batch)  # the global batch divides the samples
    for canonical in {1, nodes}:
        planned = planned_order(planned_mixture(choose, canonical), shards, ranks, nodes, workers, batch)
        check_exact(planned, shards, choose)


@settings(deadline=None, max_examples=60)
@given(recipes(), DEVICES)
def test_otherwise_a_few_samples_are_repeated_and_counted(
    drawn: tuple[list[list[int]], list[int]], devices: tuple[tuple[int, int], int, int]
) -> None:
    shards, choose = drawn
    (ranks, nodes), workers, batch = devices
    planned = planned_order(planned_mixture(choose), shards, ranks, nodes, workers, batch)
    counts = np.bincount(planned.stream, minlength=len(choose))
    assert planned.padding == -sum(choose) % ranks == len(planned.sample_ids) - sum(choose)
    assert (counts >= choose).all() and (counts - choose).sum() == planned.padding


@settings(deadline=None, max_examples=10)
@given(recipes(), DEVICES)
def test_emit_writes_that_mixture(
    drawn: tuple[list[list[int]], list[int]], devices: tuple[tuple[int, int], int, int]
) -> None:
    shards, choose = drawn
    (ranks, nodes), workers, batch = devices
    choose[-1] += -sum(choose) % (ranks * batch)
    with tempfile.TemporaryDirectory() as scratch:
        mixture = emitted(Path(scratch), shards, choose)
    check_exact(planned_order(mixture, shards, ranks, nodes, workers, batch), shards, choose)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    for name, samples in {"web": 130, "code": 70, "tiny": 3, "rare": 25}.items():
        write_shards(folder / "mds" / name, samples, 20, LENGTH)
    return folder


@pytest.mark.parametrize(
    ("choose", "ranks", "nodes", "workers", "batch"),
    [
        ({"web": 117, "code": 7, "tiny": 20, "rare": 240}, 8, 2, 0, 4),
        ({"web": 260, "code": 1, "tiny": 60, "rare": 31}, 4, 1, 1, 4),
        ({"web": 2, "code": 333, "tiny": 1, "rare": 500}, 1, 1, 4, 11),
    ],
)
def test_real_readers_yield_it(
    real: Path, tmp_path: Path, choose: dict[str, int], ranks: int, nodes: int, workers: int, batch: int
) -> None:
    data = recipe_data(real, choose, ("rare",))
    for source in data["sources"]:
        source["mds"] = str(real / source["mds"])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(data))
    emit(tmp_path / "recipe.yaml", tmp_path / "out")
    mixture = load(tmp_path / "out" / "streams.yaml", Mixture)
    assert sum(choose.values()) % (ranks * batch) == 0
    got = really(mixture, batch, workers, ranks, nodes)
    planned = planned_order(
        mixture,
        [shard_samples(Path(s.local)) for s in mixture.streams.values()],
        ranks,
        nodes,
        workers,
        batch,
    )
    assert got == planned.sample_ids.tolist()
    stream = np.searchsorted(planned.offsets, got, side="right") - 1
    assert dict(zip(choose, np.bincount(stream).tolist(), strict=True)) == choose


def test_stop_and_resume_with_other_workers_and_devices(real: Path, tmp_path: Path) -> None:
    choose = {"web": 100, "code": 50, "tiny": 12, "rare": 30}
    data = recipe_data(real, choose, ("rare",))
    for source in data["sources"]:
        source["mds"] = str(real / source["mds"])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(data))
    emit(tmp_path / "recipe.yaml", tmp_path / "out")
    mixture = load(tmp_path / "out" / "streams.yaml", Mixture)
    whole = really(mixture, 6, workers=2, ranks=2)
    assert len(whole) == 192
    for drawn, workers, ranks, batch in ((96, 0, 2, 6), (84, 3, 1, 12), (12, 0, 4, 3)):
        rest = really(mixture, batch, workers, ranks, drawn=drawn)
        got = [*whole[:drawn], *rest]
        rows = [sorted(got[at : at + 12]) for at in range(0, 192, 12)]
        assert rows == [sorted(whole[at : at + 12]) for at in range(0, 192, 12)]
        assert got == whole or ranks != 2
