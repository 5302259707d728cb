"""emit: what it writes, what it refuses, and what its fingerprint stands for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipes_making import LENGTH, recipe_data, write_plan, write_recipe, write_text

from mixplan.documents.loading import load
from mixplan.documents.mixture import Mixture
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.building import build
from mixplan.recipes.emitting import emit
from mixplan.recipes.written import Options

SIZES = {"web": 60, "code": 40, "rare": 20}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for number, (name, samples) in enumerate(SIZES.items()):
        write_text(folder / "text" / name, samples, seed=number)
    build(write_plan(folder, {name: {"text": [f"text/{name}"], "mds": f"mds/{name}"} for name in SIZES}))
    return folder


@pytest.fixture
def work(built: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    shutil.copytree(built / "mds", tmp_path / "mds")
    return tmp_path


CHOOSE = {"web": 50, "code": 30, "rare": 45}


def test_streaming_files(work: Path) -> None:
    emitted = emit(write_recipe(work, CHOOSE, ("rare",), shuffle_seed=23), work / "out")
    assert sorted(path.name for path in emitted.files) == [
        "loader.py",
        "recipe.yaml",
        "streams.yaml",
        "weights.csv",
        "weights.json",
    ]
    assert all(path.is_absolute() and path.is_file() for path in emitted.files)
    mixture = load(work / "out" / "streams.yaml", Mixture)
    assert {name: stream.choose for name, stream in mixture.streams.items()} == CHOOSE
    assert (mixture.samples, mixture.tokens) == (125, 125 * LENGTH)
    assert mixture.fingerprint == mixture.digest() == emitted.fingerprint
    dataset = mixture.dataset.model_dump()
    assert dataset["shuffle"] and dataset["shuffle_algo"] == "naive"
    assert (dataset["shuffle_seed"], dataset["num_canonical_nodes"], dataset["batching_method"]) == (
        23,
        1,
        "random",
    )
    weights = json.loads((work / "out" / "weights.json").read_text())
    rare = weights["sources"]["rare"]
    assert rare == {
        "share": 45 / 125,
        "natural_share": 45 / 125,
        "rate": 1.0,
        "epochs": 45 / 20,
        "max_epochs": 100.0,
        "tokens": 45 * LENGTH,
        "tokens_available": 20 * LENGTH,
        "choose": 45,
    }
    assert (weights["samples"], weights["tokens"]) == (125, 125 * LENGTH)


def test_paths_work_from_anywhere(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recipe(work, CHOOSE)
    monkeypatch.chdir(work)
    emit(Path("recipe.yaml"), Path("out"))
    mixture = load(work / "out" / "streams.yaml", Mixture)
    recipe = load(work / "out" / "recipe.yaml", Recipe)
    for source in recipe.sources:
        place = Path(str(source.mds))
        assert place.is_absolute() and place.samefile(work / "mds" / source.name)
        assert mixture.streams[source.name].local == str(place)


def test_sources_without_samples_are_left_out_and_said(work: Path) -> None:
    emitted = emit(write_recipe(work, {**CHOOSE, "rare": 0}), work / "out")
    assert list(load(work / "out" / "streams.yaml", Mixture).streams) == ["web", "code"]
    assert emitted.notes[0] == "source 'rare' has no samples in this recipe and is left out"


def test_weights_alone_need_no_data(work: Path) -> None:
    path = write_recipe(work, CHOOSE)
    shutil.rmtree(work / "mds")
    emitted = emit(path, work / "out", "weights")
    found = sorted(entry.name for entry in (work / "out").iterdir())
    assert found == ["emitted.json", "weights.csv", "weights.json"]
    assert emitted.fingerprint is None


def test_remote_sources(work: Path) -> None:
    data = recipe_data(work, CHOOSE)
    data["sources"][0]["mds"] = "s3://bucket/web"
    (work / "recipe.yaml").write_text(yaml.safe_dump(data))
    emitted = emit(work / "recipe.yaml", work / "out")
    stream = load(work / "out" / "streams.yaml", Mixture).streams["web"]
    assert (stream.remote, stream.local) == ("s3://bucket/web", str(work / "out" / "cache" / "web"))
    assert "'web' is remote and s3://bucket/web/index.json could not be read" in emitted.notes[0]
    assert "its length, size and evenness were not checked" in emitted.notes[0]
    assert any("not proven here: the index of web could not be read" in note for note in emitted.notes)
    assert emitted.measured == {}


def test_block_samples(work: Path) -> None:
    emit(write_recipe(work, CHOOSE), work / "out", options=Options(block_samples=64))
    dataset = load(work / "out" / "streams.yaml", Mixture).dataset
    assert (dataset.shuffle_algo, dataset.shuffle_block_size) == ("py1e", 64)
    with pytest.raises(InputError, match="--block-samples 0: at least 2 are needed"):
        emit(work / "recipe.yaml", work / "other", options=Options(block_samples=0))


def changed(work: Path, change: Any, name: str = "recipe.yaml") -> Path:
    """The standard recipe with one thing changed."""
    data = recipe_data(work, CHOOSE, ("rare",))
    change({source["name"]: source for source in data["sources"]}, data)
    (work / name).write_text(yaml.safe_dump(data))
    return work / name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, d: s["rare"].update(max_epochs=2.0), r"choose=45 is 2\.25 epochs of the 20 samples"),
        (lambda s, d: s["web"].update(mds=None), "'web' has no `mds`"),
        (lambda s, d: s["web"].update(mds="nowhere"), "no such folder"),
        (lambda s, d: s["web"].update(mds="."), r"holds no index\.json"),
        (
            lambda s, d: s["web"].update(mds="mds/code", tokens_available=640),
            "web, code read the same shards",
        ),
        (
            lambda s, d: s["web"].update(tokens_available=5000),
            r"recipe was computed for 5,000 \(tokens_available\)",
        ),
        (lambda s, d: d.update(vocab_size=256), "vocabulary of 257, the recipe's is 256"),
        (
            lambda s, d: d.update(tokenizer={"kind": "huggingface", "path": "t"}),
            "built with the tokenizer bytes, the recipe is for huggingface",
        ),
    ],
)
def test_unfit_data_is_refused(work: Path, change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        emit(changed(work, change), work / "out")
    assert not (work / "out").exists()


def test_epoch_cap_allows_rounding_of_one_sample(work: Path) -> None:
    emit(changed(work, lambda s, d: s["rare"].update(max_epochs=44.4 / 20)), work / "out")
    with pytest.raises(InputError, match="choose at most 44"):
        emit(changed(work, lambda s, d: s["rare"].update(max_epochs=43.9 / 20)), work / "other")


def test_other_sample_length_is_refused(work: Path) -> None:
    data = recipe_data(work, CHOOSE)
    data["sequence_length"] = 2 * LENGTH
    data["tokens"] *= 2
    for source in data["sources"]:
        source["tokens"] *= 2
    (work / "recipe.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(InputError) as caught:
        emit(work / "recipe.yaml", work / "out")
    assert len(caught.value.problems) == 3  # every source, at once
    assert all(
        "holds samples of 16 tokens, the recipe's have 32" in problem for problem in caught.value.problems
    )


def test_other_data_than_planned_is_said(work: Path) -> None:
    emitted = emit(
        changed(work, lambda s, d: s["web"].update(tokens_available=60 * LENGTH + LENGTH)), work / "out"
    )
    assert "the realised epochs are 0.8333" in emitted.notes[0]


def test_unknown_format(work: Path) -> None:
    with pytest.raises(InputError, match=r"use one of streaming, .*weights"):
        emit(write_recipe(work, CHOOSE), work / "out", "olmo")


def test_foreign_folder_is_refused(work: Path) -> None:
    out = work / "out"
    out.mkdir()
    (out / "results.csv").write_text("precious")
    for format in ("streaming", "weights"):
        with pytest.raises(InputError, match=r"already holds something else \(results\.csv\)"):
            emit(write_recipe(work, CHOOSE), out, format)
    assert [entry.name for entry in out.iterdir()] == ["results.csv"]


def test_same_mixture_again_other_mixture_only_with_force(work: Path) -> None:
    out = work / "out"
    path = write_recipe(work, CHOOSE)
    emit(path, out)
    emit(path, out)
    emit(path, out, "weights")  # the same weights: nothing changes
    before = {entry.name: entry.read_bytes() for entry in out.iterdir()}
    assert "streams.yaml" in before
    other = changed(work, lambda s, d: d.update(shuffle_seed=99), "other.yaml")
    for format in ("streaming", "weights"):
        with pytest.raises(InputError, match="holds another mixture"):
            emit(other, out, format)
    assert {entry.name: entry.read_bytes() for entry in out.iterdir()} == before
    emit(other, out, force=True)
    assert load(out / "streams.yaml", Mixture).dataset.shuffle_seed == 99
    emit(path, out, "weights", force=True)
    # no streams of another mixture beside them
    assert sorted(entry.name for entry in out.iterdir()) == ["emitted.json", "weights.csv", "weights.json"]


def test_the_list_of_emitted_files_is_not_trusted_blindly(work: Path) -> None:
    out = work / "out"
    path = write_recipe(work, CHOOSE)
    emit(path, out)
    (work / "precious").write_text("")
    listed = json.loads((out / "emitted.json").read_text())
    listed["files"]["streaming"] += ["../precious", str(work / "precious")]
    (out / "emitted.json").write_text(json.dumps(listed))
    emit(changed(work, lambda s, d: d.update(shuffle_seed=99), "other.yaml"), out, force=True)
    assert (work / "precious").exists()
    (out / "emitted.json").write_text("[]")
    with pytest.raises(InputError, match=r"emitted\.json is broken"):
        emit(path, out, force=True)


def test_fingerprint_is_of_content_not_of_place(work: Path, tmp_path: Path) -> None:
    first = emit(write_recipe(work, CHOOSE), work / "out").fingerprint
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copytree(work / "mds", moved / "mds")
    assert emit(write_recipe(moved, CHOOSE), moved / "out").fingerprint == first
    seen = {first}
    for number, variant in enumerate(
        (
            lambda: emit(changed(work, lambda s, d: d.update(shuffle_seed=1)), work / "a"),
            lambda: emit(write_recipe(work, {**CHOOSE, "rare": 44}), work / "b"),
            lambda: emit(write_recipe(work, dict(reversed(CHOOSE.items()))), work / "c"),
            lambda: emit(write_recipe(work, CHOOSE), work / "d", options=Options(block_samples=10)),
        )
    ):
        seen.add(variant().fingerprint)
        assert len(seen) == number + 2
    index = work / "mds" / "rare" / "index.json"
    index.write_text(index.read_text().replace('"version": 2, "zip_data"', '"version": 2,  "zip_data"', 1))
    assert emit(write_recipe(work, CHOOSE), work / "e").fingerprint not in seen
