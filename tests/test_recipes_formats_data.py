"""The token files of other trainers' formats: what is in them, what is refused, what is left alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import formats_reading as reading
import numpy as np
import pytest
import yaml
from recipes_making import LENGTH, recipe_data, write_plan, write_text

from mixplan.documents.mds_index import count_tokens
from mixplan.errors import InputError
from mixplan.recipes.building import build
from mixplan.recipes.data_folders import HELD, write_data_folder
from mixplan.recipes.emitting import emit
from mixplan.recipes.megatron import document_lengths
from mixplan.recipes.nanotron import document_ends, epochs_order
from mixplan.recipes.shard_tokens import samples_of, write_flat
from mixplan.recipes.written import Options

pytestmark = pytest.mark.filterwarnings("ignore:Transformer Engine and Apex")
SIZES = {"web": 30, "rare": 7}
CHOOSE = {"web": 12, "rare": 25}
WITH_DATA = Options(with_data=True)
FORMATS = ("megatron", "nanotron", "huggingface")


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


def write(work: Path, change: Any = lambda sources, data: None, **more: Any) -> Path:
    data = recipe_data(work, CHOOSE, **more)
    change({source["name"]: source for source in data["sources"]}, data)
    (work / "recipe.yaml").write_text(yaml.safe_dump(data))
    return work / "recipe.yaml"


def data_files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file below data/."""
    files = [path for path in sorted((folder / "data").rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("format", FORMATS)
def test_data_are_written_once_and_a_killed_writing_is_finished(work: Path, format: str) -> None:
    recipe, out = write(work), work / "out"
    files = emit(recipe, out, format, WITH_DATA).files
    first = data_files(out)
    assert {str(path.relative_to(out)) for path in files} >= {name for name in first if HELD not in name}
    assert emit(recipe, out, format, WITH_DATA).files == files
    assert data_files(out) == first
    lost = next(path for path in (out / "data").iterdir() if path.name.startswith("rare-"))
    shutil.rmtree(lost)
    (out / "data" / f".{lost.name}.partial-killed" / "folder").mkdir(parents=True)
    emit(recipe, out, format, WITH_DATA)
    again = data_files(out)
    assert {name: content for name, (content, _) in again.items()} == {
        name: content for name, (content, _) in first.items()
    }
    assert all(again[name] == first[name] for name in first if not name.startswith(f"data/{lost.name}"))
    for path in (path for path in lost.iterdir() if path.name != HELD):
        content = path.read_bytes()
        for damaged, said in (
            (content[:-1], f"has {len(content) - 1:,} bytes, not {len(content):,}; move .* away"),
            (content[:-1] + bytes([content[-1] ^ 1]), "its content is not what was written; move .* away"),
        ):
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=said):
                emit(recipe, out, format, WITH_DATA)
        path.write_bytes(content)
    (lost / HELD).write_text("{}}")
    with pytest.raises(InputError, match="which lists what was written, is missing or broken; move"):
        emit(recipe, out, format, WITH_DATA)


@pytest.mark.parametrize("format", FORMATS)
def test_cut_shards_are_seen_before_anything_is_written(work: Path, format: str) -> None:
    shard = next((work / "mds" / "rare").glob("*.mds"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"'rare': .* bytes, its index says"):
        emit(write(work), work / "out", format, WITH_DATA)
    assert not (work / "out").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_shards_become_no_data(work: Path, format: str) -> None:
    shard = next((work / "mds" / "rare").glob("*.mds"))
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(InputError, match="content is not what was written"):
        emit(write(work), work / "out", format, WITH_DATA)
    assert [path.name.split("-")[0] for path in (work / "out" / "data").iterdir()] == ["web"]


@pytest.mark.parametrize("format", FORMATS)
def test_other_data_in_the_same_place_are_other_files(work: Path, format: str) -> None:
    recipe, out = write(work), work / "out"
    emit(recipe, out, format, WITH_DATA)
    index = work / "mds" / "rare" / "index.json"
    index.write_text(index.read_text() + " ")
    with pytest.raises(InputError, match="holds another mixture"):
        emit(recipe, out, format, WITH_DATA)
    emit(recipe, out, format, WITH_DATA, force=True)
    assert len([path for path in (out / "data").iterdir() if path.name.startswith("rare-")]) == 2


def test_ids_outside_the_vocabulary_are_refused(work: Path) -> None:
    (work / "mds" / "rare" / "source.json").unlink()
    with pytest.raises(InputError, match=r"holds the ids .* but the recipe's vocabulary has 200 tokens"):
        list(samples_of(work / "mds" / "rare", 200))
    with pytest.raises(InputError, match="does not fit into uint16"):
        write_flat(work / "mds" / "rare", work / "flat", "uint16", 70_000)
    assert not (work / "flat").exists()


def test_a_folder_that_megatron_cannot_name(work: Path) -> None:
    with pytest.raises(InputError, match="at white space; give a folder without any"):
        emit(write(work), work / "my out", "megatron")


@pytest.mark.parametrize("format", FORMATS)
def test_data_that_are_elsewhere(work: Path, format: str) -> None:
    recipe = write(work, lambda sources, data: sources["web"].update(mds="s3://bucket/web"))
    with pytest.raises(InputError, match="'web' is remote; its shards must be in a folder on this machine"):
        emit(recipe, work / "out", format, WITH_DATA)
    recipe = write(work, lambda sources, data: sources["web"].update(mds=None))
    with pytest.raises(InputError, match="'web' has no `mds`"):
        emit(recipe, work / "out", format, WITH_DATA)
    if format != "huggingface":
        notes = emit(recipe, work / "out", format).notes
        assert any("that are not written: add --with-data" in note for note in notes)


@pytest.mark.parametrize(("vocab_size", "width"), [(257, 2), (65_499, 2), (65_500, 4), (100_278, 4)])
def test_widths_of_megatron(work: Path, vocab_size: int, width: int) -> None:
    emit(write(work, vocab_size=vocab_size), work / "out", "megatron", WITH_DATA)
    sizes = {path.stat().st_size for path in (work / "out").rglob("*.bin")}
    assert sizes == {samples * LENGTH * width for samples in SIZES.values()}


@pytest.mark.parametrize(("vocab_size", "width"), [(65_536, 2), (65_537, 4)])
def test_widths_of_nanotron(work: Path, vocab_size: int, width: int) -> None:
    emit(write(work, vocab_size=vocab_size), work / "out", "nanotron", WITH_DATA)
    sizes = {path.stat().st_size for path in (work / "out").rglob("*.ds")}
    assert sizes == {samples * (LENGTH + 1) * width for samples in CHOOSE.values()}
    config = yaml.safe_load((work / "out" / "nanotron.yaml").read_text())
    assert config["data_stages"][0]["data"]["dataset"]["token_size_in_bytes"] == width


@pytest.mark.slow
def test_llm_foundry_needs_its_column(work: Path) -> None:
    for name in SIZES:
        index = work / "mds" / name / "index.json"
        index.write_text(index.read_text().replace('"tokens"', '"input_ids"'))
    with pytest.raises(InputError, match="column 'input_ids'; LLM Foundry reads the column 'tokens'"):
        emit(write(work), work / "out", "llm-foundry")


def test_document_lengths() -> None:
    for tokens, wanted in (
        ([5, 9, 5, 5, 9], [2, 3]),
        ([5, 9, 9, 5], [2, 1, 1]),
        ([9], [1]),
        ([5, 5], [2]),
    ):
        assert document_lengths(np.array(tokens), 9).tolist() == wanted


def test_document_ends() -> None:
    windows = np.array([[5, 9, 5], [9, 5, 9]])
    assert document_ends(windows, 9, 0).tolist() == [2, 3, 4, 6]
    assert document_ends(windows, None, 10).tolist() == [33, 36]


def test_an_order_is_epoch_after_epoch() -> None:
    for samples, choose in ((7, 25), (7, 7), (30, 12), (1, 4)):
        order = epochs_order(samples, choose, 3)
        assert len(order) == choose
        for first in range(0, choose, samples):
            epoch = order[first : first + samples].tolist()
            assert len(set(epoch)) == len(epoch)
        assert order.tolist() == epochs_order(samples, choose, 3).tolist()
    assert epochs_order(30, 30, 3).tolist() != epochs_order(30, 30, 4).tolist()


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    def fails(fresh: Path) -> None:
        (fresh / "half").write_text("x")
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        write_data_folder(tmp_path / "data" / "web-0", fails)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_shards_of_several_columns_and_compressed(tmp_path: Path, compression: str | None) -> None:
    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    from streaming import MDSWriter

    columns = {"about": "str", "number": "int", "tokens": f"ndarray:int32:{LENGTH}", "url": "str"}
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 257, (50, LENGTH), np.int32)
    with MDSWriter(
        out=str(tmp_path / "mds"), columns=columns, compression=compression, hashes=["sha1"], size_limit=1500
    ) as out:
        for number, tokens in enumerate(rows):
            out.write(
                {"about": "é" * (number % 5), "number": number, "tokens": tokens, "url": "u" * (number % 3)}
            )
    assert count_tokens(tmp_path / "mds").samples == 50
    assert len(list((tmp_path / "mds").glob("shard.*"))) > 3
    assert np.array_equal(np.concatenate(list(samples_of(tmp_path / "mds", 257))), rows)
    data = recipe_data(tmp_path, {}, samples=40, tokens=40 * LENGTH)
    data["sources"] = [
        {
            **{
                "name": "web",
                "role": "common",
                "share": 1.0,
                "natural_share": 1.0,
                "rate": 1.0,
                "epochs": 0.8,
            },
            **{
                "max_epochs": 1.0,
                "tokens": 40 * LENGTH,
                "tokens_available": 50 * LENGTH,
                "choose": 40,
                "mds": "mds",
            },
        }
    ]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(data))
    if compression is None:
        emit(tmp_path / "recipe.yaml", tmp_path / "out", "huggingface")
    else:
        with pytest.raises(InputError, match="shards of web are compressed"):
            emit(tmp_path / "recipe.yaml", tmp_path / "out", "huggingface")
    for format in FORMATS:
        emit(tmp_path / "recipe.yaml", tmp_path / format, format, WITH_DATA)
    flat = next((tmp_path / "megatron").rglob("*.bin"))
    assert np.array_equal(np.fromfile(flat, np.uint16).reshape(-1, LENGTH), rows)


@pytest.mark.slow
def test_blending_by_lag_is_exact() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        sources = int(rng.integers(2, 51))
        shares = rng.dirichlet(np.full(sources, 10 ** rng.uniform(-1, 1)))
        choose = np.maximum(1, np.floor(shares * 10 ** rng.uniform(2, 4.5))).astype(int)
        blended, number = reading.greedy_blend(choose.astype(float).tolist(), int(choose.sum()))
        assert np.bincount(blended, minlength=sources).tolist() == choose.tolist()
        assert all(
            number[blended == source].tolist() == list(range(choose[source])) for source in range(sources)
        )
