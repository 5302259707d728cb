"""The order that emit chooses is even, and its stated cost is what a node would see."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from recipes_making import LENGTH, recipe_data
from recipes_orders import write_index
from typer.testing import CliRunner

from mixplan.cli import app, main
from mixplan.documents.loading import load
from mixplan.documents.mixture import Mixture
from mixplan.errors import InputError, NoAnswer
from mixplan.recipes.emitting import Emitted, emit
from mixplan.recipes.evenness import evenness
from mixplan.recipes.footprint import footprint
from mixplan.recipes.replay import Planned, planned_order, shard_samples
from mixplan.recipes.written import Options, read_bytes_given

CHOOSE = {"web": 12_000, "code": 7_600, "rare": 400}


def sources(folder: Path, rare_shard: int, choose: dict[str, int] = CHOOSE) -> Path:
    """A recipe over indexes: large shards of the common sources, `rare_shard` samples in the rare one's."""
    shards = {"web": [500] * 40, "code": [500] * 12, "rare": [rare_shard] * (100 // rare_shard)}
    for name, sizes in shards.items():
        if not (folder / "mds" / name).exists():
            write_index(folder / "mds" / name, sizes, LENGTH)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_data(folder, choose, ("rare",))))
    return path


def mixture_and_order(emitted: Emitted, out: Path, nodes: int) -> tuple[Mixture, Planned]:
    mixture = load(out / "streams.yaml", Mixture)
    sizes = [shard_samples(Path(stream.local)) for stream in mixture.streams.values()]
    return mixture, planned_order(mixture, sizes, ranks=nodes, nodes=nodes, batch_size=1)


@pytest.mark.parametrize(
    ("rare_shard", "options"),
    [
        (100, Options()),
        (100, Options(nodes=4)),
        (100, Options(cache_limit=10_000_000)),
        (2, Options(cache_limit=1_200_000)),
        (5, Options(nodes=4, cache_limit=600_000)),
    ],
)
def test_every_rare_source_is_even(tmp_path: Path, rare_shard: int, options: Options) -> None:
    emitted = emit(sources(tmp_path, rare_shard), tmp_path / "out", options=options)
    nodes = options.nodes or 1
    mixture, planned = mixture_and_order(emitted, tmp_path / "out", nodes)
    spread = evenness(planned.stream, 2)
    assert spread.cv_ratio <= 1.3
    assert emitted.measured["rare"]["rare"]["cv_ratio"] == spread.cv_ratio
    assert np.bincount(planned.stream).tolist() == list(CHOOSE.values()) and planned.padding == 0
    cost = footprint(planned, np.array([500] * 52 + [rare_shard] * (100 // rare_shard)) * 4 * LENGTH, nodes)
    assert emitted.measured["footprint"]["peak_bytes"] == cost.peak_bytes
    if options.cache_limit is None:
        assert mixture.dataset.shuffle_algo == "naive"
    else:
        assert cost.peak_bytes <= options.cache_limit
        assert (mixture.dataset.shuffle_algo == "naive") == (options.cache_limit > 26_000 * 64)


def test_what_does_not_fit_is_refused_with_what_would(tmp_path: Path) -> None:
    recipe = sources(tmp_path, 50)
    with pytest.raises(NoAnswer, match="--cache-limit 600000") as caught:
        emit(recipe, tmp_path / "out", options=Options(cache_limit=600_000))
    assert not (tmp_path / "out").exists()
    message = caught.value.problems[0]
    assert "more shards, so that a block holds many of each (now web 40, code 12, rare 2)" in message
    needed = int(message.split("give --cache-limit ")[1].split(",")[0])
    emit(recipe, tmp_path / "out", options=Options(cache_limit=needed))
    with pytest.raises(NoAnswer):
        emit(recipe, tmp_path / "less", options=Options(cache_limit=needed - 1))


def test_bursts_that_were_asked_for_are_said(tmp_path: Path) -> None:
    emitted = emit(sources(tmp_path, 100), tmp_path / "out", options=Options(block_samples=1000))
    mixture, planned = mixture_and_order(emitted, tmp_path / "out", 1)
    assert (mixture.dataset.shuffle_algo, mixture.dataset.shuffle_block_size) == ("py1e", 1000)
    ratio = evenness(planned.stream, 2).cv_ratio
    assert ratio > 1.3 and not emitted.measured["even"]
    assert any(note.startswith("NOT EVEN") and f"rare {ratio:.2f}" in note for note in emitted.notes)


def test_another_seed_where_a_source_is_uneven_by_chance(tmp_path: Path) -> None:
    """Both samples of a source may share a window: ratio √2. The next seed is taken, and said."""
    choose = {"web": 4_960, **{f"rare{number}": 2 for number in range(20)}}
    for name, count in choose.items():
        write_index(tmp_path / "mds" / name, [count], LENGTH)
    moved = 0
    for seed in range(16):
        data = recipe_data(tmp_path, choose, tuple(choose)[1:], shuffle_seed=seed)
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(data))
        emitted = emit(tmp_path / "recipe.yaml", tmp_path / f"out{seed}")
        mixture, planned = mixture_and_order(emitted, tmp_path / f"out{seed}", 1)
        assert max(evenness(planned.stream, number).cv_ratio for number in range(1, 21)) <= 1.3
        other = mixture.dataset.shuffle_seed != seed
        assert other == any("happens to be less even" in note for note in emitted.notes)
        moved += other
    assert 0 < moved < 10  # 1 − 0.99²⁰ = 18 % of 16


def test_what_is_asked_must_fit_together(tmp_path: Path) -> None:
    recipe = sources(tmp_path, 50)
    wrong = Options(block_samples=1, cache_limit=0, nodes=0)
    with pytest.raises(InputError) as caught:
        emit(recipe, tmp_path / "out", options=wrong)
    assert len(caught.value.problems) == 4
    with pytest.raises(InputError, match="one must divide the other"):
        emit(recipe, tmp_path / "out", options=Options(nodes=4, canonical_nodes=6))
    with pytest.raises(InputError, match="32,768 nodes or canonical nodes: the run has 20,000 samples only"):
        emit(recipe, tmp_path / "out", options=Options(nodes=2**15))
    emit(recipe, tmp_path / "out", options=Options(nodes=4, canonical_nodes=8))
    assert load(tmp_path / "out" / "streams.yaml", Mixture).dataset.num_canonical_nodes == 8


def test_nodes_that_do_not_divide_the_samples_are_said(tmp_path: Path) -> None:
    recipe = sources(tmp_path, 50)
    emitted = emit(recipe, tmp_path / "out", options=Options(nodes=3))  # 20,000 = 3 · 6667 − 1
    assert emitted.measured["padding"] == 1
    assert any(note.startswith("1 samples more than the recipe's are drawn") for note in emitted.notes)


@pytest.mark.parametrize(
    ("text", "size"), [(None, None), ("7", 7), ("3 kb", 3072), ("1.5GB", 3 * 2**29), ("2TB", 2**41)]
)
def test_sizes(text: str | None, size: int | None) -> None:
    assert read_bytes_given(text) == size


def test_no_sizes() -> None:
    for text in ("", "many", "-1gb", "1 gib", "gb"):
        with pytest.raises(InputError, match="is no size"):
            read_bytes_given(text)


def test_the_command_answers_programs(tmp_path: Path) -> None:
    recipe = sources(tmp_path, 50)
    asked = [
        "emit",
        str(recipe),
        "-o",
        str(tmp_path / "out"),
        "--nodes",
        "4",
        "--cache-limit",
        "1.2mb",
        "--json",
    ]
    done = CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False)
    answer = json.loads(done.stdout)
    assert done.exit_code == 0 and str(tmp_path / "out" / "streams.yaml") in answer["files"]
    mixture = load(tmp_path / "out" / "streams.yaml", Mixture)
    assert answer["fingerprint"] == mixture.fingerprint
    assert answer["order"]["settings"] == mixture.dataset.model_dump(mode="json")
    assert answer["order"]["even"] and answer["order"]["rare"]["rare"]["cv_ratio"] <= 1.3


def test_no_even_order_is_an_answer_not_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = sources(tmp_path, 50)
    asked = ["mixplan", "emit", str(recipe), "-o", str(tmp_path / "out"), "--cache-limit", "300kb"]
    monkeypatch.setattr("sys.argv", asked)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1 and not (tmp_path / "out").exists()
    assert capsys.readouterr().err.startswith("no: --cache-limit 307200 (300 KiB): orders that keep")


def planned(shard: list[int], shards: int) -> Planned:
    """Shards of one sample each, so that the shard is the sample."""
    return Planned(
        np.array(shard), np.zeros(1, np.int64), np.array([shards]), np.arange(shards, dtype=np.int64), 0
    )


def test_footprint_of_a_known_order() -> None:
    bytes_of = np.array([1, 10, 100, 1000])
    # shard 0 from first to last, 1 and 2 one after the other, 3 never
    one = footprint(planned([0, 1, 1, 2, 2, 0], 4), bytes_of)
    assert (one.peak_bytes, one.read_bytes) == (101, 111)
    assert one.early_fraction == 1 / 111  # the first sample of six
    # two nodes: 0 1 2 and 1 2 0
    two = footprint(planned([0, 1, 1, 2, 2, 0], 4), bytes_of, nodes=2)
    assert (two.peak_bytes, two.read_bytes) == (100, 111)
    both = footprint(planned([2, 1, 1, 2, 2, 1], 4), bytes_of, nodes=2)  # 2 1 2 and 1 2 1
    assert both.peak_bytes == 110
