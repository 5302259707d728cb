"""What emit refuses, and what a failed or killed one leaves."""

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
from mixplan.errors import InputError
from mixplan.recipes.building import build
from mixplan.recipes.emitting import FORMATS, emit
from mixplan.recipes.folders import written_whole
from mixplan.recipes.tokenizing import files_sha256
from mixplan.recipes.verifying import verify
from mixplan.recipes.written import Options, read_bytes_given

SIZES = {"web": 30, "rare": 7}
CHOOSE = {"web": 12, "rare": 25}
WITH_DATA = Options(with_data=True)
OWN_DATA = ("olmo-core", "megatron", "nanotron", "huggingface")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for number, (name, samples) in enumerate(SIZES.items()):
        write_text(folder / "text" / name, samples, documents=samples, seed=number)
    build(write_plan(folder, {name: {"text": [f"text/{name}"], "mds": f"mds/{name}"} for name in SIZES}))
    return folder


@pytest.fixture
def work(built: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    shutil.copytree(built / "mds", tmp_path / "mds")
    return tmp_path


def set_built(work: Path, name: str, **fields: Any) -> None:
    """Change a source.json, as if the source had been built so."""
    path = work / "mds" / name / "source.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("format", FORMATS)
def test_sources_of_different_tokenizers_are_no_mixture(work: Path, format: str) -> None:
    set_built(work, "web", tokenizer="huggingface", tokenizer_sha256="a" * 64)
    set_built(work, "rare", tokenizer="huggingface", tokenizer_sha256="b" * 64)
    recipe = write_recipe(work, CHOOSE, tokenizer={"kind": "huggingface", "path": "elsewhere"})
    different = r"different tokenizers: huggingface a{12}… in web; huggingface b{12}… in rare"
    for options in (Options(), WITH_DATA) if format in OWN_DATA else (Options(),):
        with pytest.raises(InputError, match=different):
            emit(recipe, work / "out", format, options)
    set_built(work, "rare", tokenizer_sha256="a" * 64, end_of_document_id=0)
    with pytest.raises(InputError, match="end documents with different tokens: 256 in web; 0 in rare"):
        emit(recipe, work / "out", format)
    set_built(work, "rare", end_of_document_id=256)
    emit(recipe, work / "out", format)


def test_phases_of_different_tokenizers_are_no_mixture(work: Path) -> None:
    set_built(work, "rare", end_of_document_id=0)
    phases = [
        {"name": "stable", "samples": 12, "choose": {"web": 12}},
        {"name": "anneal", "samples": 25, "choose": {"rare": 25}},
    ]
    for format in ("weights", "streaming", "megatron"):
        with pytest.raises(InputError, match="end documents with different tokens: 256 in web; 0 in rare"):
            emit(write_recipe(work, CHOOSE, phases=phases), work / "out", format)
    assert not (work / "out").exists()


@pytest.mark.parametrize("format", ["streaming", "megatron"])
def test_sources_are_built_with_the_recipes_tokenizer(work: Path, format: str) -> None:
    (work / "t").mkdir()
    (work / "t" / "tokenizer.json").write_text("{}")
    ours = files_sha256(work / "t")
    for name in SIZES:
        set_built(work, name, tokenizer="huggingface", tokenizer_sha256=ours)
    recipe = write_recipe(work, CHOOSE, tokenizer={"kind": "huggingface", "path": "t"})
    emit(recipe, work / "out", format)
    (work / "t" / "tokenizer.json").write_text("{ }")
    with pytest.raises(InputError) as caught:
        emit(recipe, work / "other", format)
    assert [
        f"mds/{name} was built with another tokenizer than {work / 't'}" in said
        for name, said in zip(SIZES, caught.value.problems, strict=True)
    ] == [True, True]
    given = {"kind": "none", "vocab_size": 257, "end_of_document_id": 0}
    with pytest.raises(InputError, match="ends documents with the token 256, the recipe's tokenizer with 0"):
        emit(write_recipe(work, CHOOSE, tokenizer=given), work / "other", format)


def test_sources_that_are_the_same_shards_are_no_mixture(work: Path) -> None:
    data = recipe_data(work, CHOOSE)
    data["sources"][1].update(mds="mds/web", tokens_available=30.0 * LENGTH)
    (work / "recipe.yaml").write_text(yaml.safe_dump(data))
    for format in FORMATS:
        with pytest.raises(InputError, match="sources web, rare read the same shards"):
            emit(work / "recipe.yaml", work / "out", format)


@pytest.mark.parametrize("format", OWN_DATA)
def test_a_mixture_whose_data_fail_does_not_look_whole(work: Path, format: str) -> None:
    shard = next((work / "mds" / "rare").glob("*.mds"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    recipe, out = write_recipe(work, CHOOSE), work / "out"
    with pytest.raises(InputError, match="content is not what was written"):
        emit(recipe, out, format, WITH_DATA)
    assert {name.split("-")[0] for name in files(out)} == {"emitted.json", "data/web"}
    with pytest.raises(InputError):
        verify(out)
    written = files(out)
    shard.write_bytes(content)
    emit(recipe, out, format, WITH_DATA)
    whole = files(out)
    assert {name: whole[name] for name in written if name != "emitted.json"} == {
        name: text for name, text in written.items() if name != "emitted.json"
    }
    shard.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    other = write_recipe(work, {**CHOOSE, "rare": 24}, shuffle_seed=5)
    index = work / "mds" / "rare" / "index.json"
    index.write_text(index.read_text() + " ")
    with pytest.raises(InputError, match="content is not what was written"):
        emit(other, out, format, WITH_DATA, force=True)
    after = files(out)
    assert {name: after[name] for name in whole} == whole  # the mixture before is still there, and whole


def test_phases_whose_data_fail_do_not_look_whole(work: Path) -> None:
    shard = next((work / "mds" / "rare").glob("*.mds"))
    shard.write_bytes(shard.read_bytes()[:-5] + b"\0\0\0\0\0")
    phases = [
        {"name": "stable", "samples": 12, "choose": {"web": 12}},
        {"name": "anneal", "samples": 25, "choose": {"rare": 25}},
    ]
    with pytest.raises(InputError, match="content is not what was written"):
        emit(write_recipe(work, CHOOSE, phases=phases), work / "out", "megatron", WITH_DATA)
    assert {name.split("-")[0] for name in files(work / "out")} == {"emitted.json", "01"}
    assert all("/data/web-" in name for name in files(work / "out") if name != "emitted.json")


def test_another_mixture_is_seen_before_data_are_written(work: Path) -> None:
    emit(write_recipe(work, CHOOSE), work / "out", "megatron")
    before = files(work / "out")
    with pytest.raises(InputError, match="holds another mixture"):
        emit(write_recipe(work, {**CHOOSE, "web": 13}), work / "out", "megatron", WITH_DATA)
    assert files(work / "out") == before


def test_what_killed_processes_left_goes_whichever_mixture_it_was_of(work: Path) -> None:
    recipe, out = write_recipe(work, CHOOSE), work / "out"
    emit(recipe, out, "megatron", WITH_DATA)
    left = out / "data" / ".gone-0123456789ab.partial-killed"
    phases_left = out / "02-anneal" / "data" / ".gone-0123456789ab.partial-killed"
    for folder in (left, phases_left):
        (folder / "folder").mkdir(parents=True)
    with written_whole(out / "data" / "theirs") as theirs:
        emit(recipe, out, "megatron", WITH_DATA)
        theirs.mkdir()
    assert not left.exists() and not phases_left.exists() and (out / "data" / "theirs").is_dir()


@pytest.mark.parametrize("format", FORMATS)
def test_options_that_do_not_apply_are_refused(work: Path, format: str) -> None:
    recipe = write_recipe(work, CHOOSE)
    shutil.rmtree(work / "mds")  # refused before anything is looked at
    order = Options(block_samples=16, nodes=-8, cache_limit=1, canonical_nodes=2)
    named = "--block-samples, --cache-limit, --nodes, --canonical-nodes: "
    if format not in ("streaming", "llm-foundry", "olmo-core"):
        with pytest.raises(InputError, match=f"{named}format {format} leaves the order to its trainer"):
            emit(recipe, work / "out", format, order)
    if format == "olmo-core":
        with pytest.raises(InputError, match="--nodes: with --with-data olmo-core draws an order of its own"):
            emit(recipe, work / "out", format, Options(nodes=2, with_data=True))
    if format not in OWN_DATA:
        with pytest.raises(InputError, match=f"--with-data: format {format} has no data of its own; it goes"):
            emit(recipe, work / "out", format, WITH_DATA)
    assert not (work / "out").exists()


def test_blocks_larger_than_the_run(work: Path) -> None:
    recipe = write_recipe(work, CHOOSE)
    wanted = load(emit(recipe, work / "a", options=Options(block_samples=4 * 37)).files[2], Mixture)
    assert wanted.dataset.shuffle_block_size == 4 * 37
    for number, samples in enumerate((4 * 37 + 1, 99_999_999_999_999_999_999)):
        emitted = emit(recipe, work / str(number), options=Options(block_samples=samples))
        assert f"--block-samples {samples:,}: 148 is written; the run has 37 samples" in emitted.notes[0]
        assert emitted.fingerprint == wanted.fingerprint


def test_sizes_beyond_any_disk() -> None:
    assert read_bytes_given("1.5gb") == 3 * 2**29
    for text in ("9" * 400, "9" * 400 + "tb", "0." + "1" * 400):
        with pytest.raises(InputError, match="is no size"):
            read_bytes_given(text)
