"""emit for other trainers, read back with their own code: every source has exactly the recipe's samples."""

from __future__ import annotations

import csv
import importlib.util
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import formats_reading as reading
import numpy as np
import pytest
import yaml
from recipes_making import LENGTH, recipe_data, write_plan, write_text

from mixplan.recipes.building import build
from mixplan.recipes.emitting import Emitted, emit
from mixplan.recipes.shard_tokens import samples_of
from mixplan.recipes.written import Options

pytestmark = pytest.mark.filterwarnings("ignore:Transformer Engine and Apex")
SIZES = {"web": 97, "code": 41, "rare": 13, "tiny": 2}
WITH_DATA = Options(with_data=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for number, (name, samples) in enumerate(SIZES.items()):
        write_text(folder / "text" / name, samples, documents=max(1, samples // 6), seed=number)
    build(write_plan(folder, {name: {"text": [f"text/{name}"], "mds": f"mds/{name}"} for name in SIZES}))
    return folder


def random_choose(seed: int) -> dict[str, int]:
    """Samples per source: from a fiftieth of an epoch to eight; one source may have none."""
    rng = random.Random(seed)
    choose = {name: max(1, round(samples * 50 ** rng.uniform(-1, 0.53))) for name, samples in SIZES.items()}
    if seed % 3 == 2:
        choose[rng.choice(list(SIZES))] = 0
    return choose


RECIPES = [*(random_choose(seed) for seed in range(3)), {**dict.fromkeys(SIZES, 0), "code": 50}]


def emitted(
    built: Path, folder: Path, choose: dict[str, int], format: str, options: Options, **more: Any
) -> Emitted:
    (built / "recipes").mkdir(exist_ok=True)
    data = recipe_data(built, choose, shuffle_seed=5, **more)
    for source in data["sources"]:
        source["mds"] = str(built / "mds" / source["name"])
    path = built / "recipes" / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(data))
    return emit(path, folder, format, options)


def rows(built: Path, name: str) -> np.ndarray:
    """A source's samples [S, L], read with Streaming's own reader."""
    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    from streaming import LocalDataset

    dataset = LocalDataset(str(built / "mds" / name))
    return np.stack([dataset[at]["tokens"] for at in range(len(dataset))])


def whole_epochs(counts: Counter[Any], available: int, choose: int) -> bool:
    """Every sample as often as every other, or once more."""
    each, rest = divmod(choose, available)
    times = Counter(counts[key] for key in counts)
    return times == Counter(
        {key: count for key, count in ((each, available - rest), (each + 1, rest)) if key and count}
    )


@pytest.mark.slow
def test_shards_are_read_as_streaming_reads_them(built: Path) -> None:
    for name in SIZES:
        assert np.array_equal(np.concatenate(list(samples_of(built / "mds" / name, 257))), rows(built, name))


@pytest.mark.slow
def test_megatron_realises_the_recipe(built: Path, tmp_path: Path) -> None:
    for number, choose in enumerate(RECIPES):
        folder = tmp_path / str(number)
        emitted(built, folder, choose, "megatron", WITH_DATA)
        wanted = {name: count for name, count in choose.items() if count}
        blend = reading.megatron_blend(folder, LENGTH)
        run = blend.dataset_index[: sum(choose.values())]
        assert np.bincount(run).tolist() == list(wanted.values())
        texts = [rows(built, name).tobytes() + rows(built, name).tobytes() for name in wanted]
        for at in range(0, len(run), 7):
            item = blend[at]
            assert item["tokens"].shape == item["labels"].shape == (LENGTH,)
            # within a document, so that the text stands like this in the source
            tokens = item["tokens"].numpy().astype(np.int32)
            ends = np.flatnonzero(tokens == reading.EOD)
            piece = tokens[: ends[0] + 1] if len(ends) else tokens
            assert piece.tobytes() in texts[item["dataset_id"]]


@pytest.mark.slow
@pytest.mark.parametrize("vocab_size", [257, 100_278])
def test_megatron_files_are_those_of_its_own_writer(built: Path, tmp_path: Path, vocab_size: int) -> None:
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

    emitted(built, tmp_path / "out", RECIPES[0], "megatron", WITH_DATA, vocab_size=vocab_size)
    for weight, prefix in (
        line.split() for line in (tmp_path / "out" / "blend.txt").read_text().splitlines()
    ):
        name = Path(prefix).parent.name.rsplit("-", 1)[0]
        assert int(weight) == RECIPES[0][name]
        theirs = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), DType.optimal_dtype(vocab_size))
        tokens = rows(built, name).reshape(-1)
        for document in np.split(tokens, np.flatnonzero(tokens == reading.EOD) + 1):
            if len(document):
                theirs.add_document(torch.tensor(document), [len(document)])
        theirs.finalize(str(tmp_path / "theirs.idx"))
        for kind in (".bin", ".idx"):
            assert Path(prefix + kind).read_bytes() == (tmp_path / f"theirs{kind}").read_bytes()
        assert np.array_equal(np.concatenate(list(IndexedDataset(prefix))), tokens)


@pytest.mark.slow
def test_nanotron_realises_the_recipe(built: Path, tmp_path: Path) -> None:
    for number, choose in enumerate(RECIPES):
        folder = tmp_path / str(number)
        emitted(built, folder, choose, "nanotron", WITH_DATA)
        wanted = {name: count for name, count in choose.items() if count}
        windows = reading.nanotron_windows(folder, sum(choose.values()))
        assert [len(source) for source in windows] == list(wanted.values())
        for name, source in zip(wanted, windows, strict=True):
            samples = rows(built, name)
            after = np.roll(samples[:, 0], -1)
            known = {row.tobytes(): at for at, row in enumerate(samples.astype(np.int64))}
            read = [known[tokens[:-1].tobytes()] for tokens, _ in source]
            assert [tokens[-1] for tokens, _ in source] == [after[at] for at in read]
            assert whole_epochs(Counter(read), len(samples), wanted[name])
            first = read[: len(samples)]
            assert len(set(first)) == len(first), "an epoch is over before the next begins"
            for tokens, positions in source:
                ends = [-1, *np.flatnonzero(tokens[:-1] == reading.EOD)]
                assert positions.tolist() == [
                    at - 1 - max(end for end in ends if end < at) for at in range(LENGTH + 1)
                ]


@pytest.mark.slow
def test_nanotron_files_are_those_of_datatrove(built: Path, tmp_path: Path) -> None:
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    data = recipe_data(built, RECIPES[0], tokenizer={"kind": "huggingface", "path": "some/tokenizer"})
    for source in data["sources"]:
        source["mds"] = str(tmp_path / "mds" / source["name"])
    shutil.copytree(built / "mds", tmp_path / "mds")
    for place in (tmp_path / "mds").iterdir():
        (place / "source.json").unlink()  # it says bytes
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(data))
    notes = emit(tmp_path / "recipe.yaml", tmp_path / "out", "nanotron", WITH_DATA).notes
    assert sum("end-of-document token is not known" in note for note in notes) == len(SIZES)
    config = yaml.safe_load((tmp_path / "out" / "nanotron.yaml").read_text())
    for place in config["data_stages"][0]["data"]["dataset"]["dataset_folder"]:
        windows = np.fromfile(Path(place) / "00000.ds", np.uint16).reshape(-1, LENGTH + 1)
        theirs = TokenizedFile(
            str(tmp_path / "theirs"),
            "00000.ds",
            tokenizer_name_or_path=str(tmp_path / "some" / "tokenizer"),
            save_final_metadata=True,
        )
        for window in windows:
            theirs.write(window.tolist(), None)
        theirs.close()
        for kind in ("", ".index"):
            mine = Path(place) / f"00000.ds{kind}"
            assert mine.read_bytes() == (tmp_path / "theirs" / mine.name).read_bytes()
        first, second, _ = (Path(place) / "00000.ds.metadata").read_text().splitlines()
        assert [first, second] == (tmp_path / "theirs" / "00000.ds.metadata").read_text().splitlines()[:2]


@pytest.mark.slow
@pytest.mark.parametrize("options", [Options(), WITH_DATA], ids=["shards", "parquet"])
def test_huggingface_realises_the_recipe(built: Path, tmp_path: Path, options: Options) -> None:
    import torch

    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    orders = []
    for number, choose in enumerate(RECIPES):
        folder = tmp_path / str(number)
        emitted(built, folder, choose, "huggingface", options)
        wanted = {name: count for name, count in choose.items() if count}
        program = loaded(folder / "hf_mixture.py")
        run = program.mixture(folder, cache=str(tmp_path / "cache"))
        assert np.bincount(run["source"]).tolist() == list(wanted.values())
        batch = run.with_format("torch")[:4]
        assert batch["input_ids"].dtype == torch.int64 and batch["input_ids"].shape == (
            min(4, len(run)),
            LENGTH,
        )
        read: list[Counter[bytes]] = [Counter() for _ in wanted]
        for row in run.with_format("numpy"):
            read[row["source"]][row["input_ids"].astype(np.int32).tobytes()] += 1
        for name, counts in zip(wanted, read, strict=True):
            samples = {row.tobytes() for row in rows(built, name)}
            assert set(counts) <= samples and len(samples) == SIZES[name]
            assert whole_epochs(counts, SIZES[name], wanted[name])
        orders.append(run["source"][:])
        again = program.mixture(folder, cache=str(tmp_path / "cache"))
        assert again["source"][:] == orders[-1]


@pytest.mark.slow
def test_huggingface_interleaves_as_many_samples_as_the_recipe_has(built: Path, tmp_path: Path) -> None:
    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    choose = {"web": 3 * SIZES["web"], "code": 2 * SIZES["code"], "rare": 0, "tiny": 9}
    samples = sum(choose.values())
    folder = tmp_path / "out"
    emitted(built, folder, choose, "huggingface", WITH_DATA)
    program = loaded(folder / "hf_mixture.py")
    settings = program.read_settings(folder)
    total: Counter[int] = Counter()
    for seed in range(12):
        (folder / "hf_mixture.json").write_text(json.dumps({**settings, "seed": seed}))
        drawn = Counter(row["source"] for row in program.interleaved(folder, str(tmp_path / "cache")))
        assert drawn.total() == samples
        total += drawn
    for number, count in enumerate(count for count in choose.values() if count):
        share = count / samples
        assert abs(total[number] / 12 - count) <= 5 * (samples * share * (1 - share) / 12) ** 0.5


@pytest.mark.slow
def test_llm_foundry_realises_the_recipe(built: Path, tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(len(RECIPES))]
    for folder, choose in zip(folders, RECIPES, strict=True):
        made = emitted(built, folder, choose, "llm-foundry", Options())
        assert made.fingerprint is not None
    wanted = [{name: count for name, count in choose.items() if count} for choose in RECIPES]
    assert reading.llm_foundry_counts(folders) == wanted


def loaded(path: Path) -> Any:
    """An emitted program, as a module."""
    spec = importlib.util.spec_from_file_location(f"emitted_{path.parent.name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_weights_as_a_table(built: Path, tmp_path: Path) -> None:
    emitted(built, tmp_path / "out", RECIPES[0], "weights", Options())
    known = json.loads((tmp_path / "out" / "weights.json").read_text())["sources"]
    with (tmp_path / "out" / "weights.csv").open() as file:
        for row in csv.DictReader(file):
            wanted = known.pop(row.pop("source"))
            wanted["samples"] = wanted.pop("choose")
            available = wanted.pop("tokens_available")
            assert wanted.pop("max_epochs") == 100 and wanted["tokens"] / available == wanted["epochs"]
            assert {key: float(value) for key, value in row.items()} == wanted
    assert not known
