"""build and scan: every form that data can have gives the same tokens, and both agree on how many."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from recipes_making import write_plan
from recipes_reading import rows

from mixplan.compat import ensure_torchvision_imports
from mixplan.errors import InputError
from mixplan.recipes import locating
from mixplan.recipes.building import BuiltSource, build
from mixplan.recipes.scanning import scan

TEXTS = ["first document", "größer als 80 Zeichen " * 12, "third\nwith lines", "x", "y" * 100]
TOKENS = [token for text in TEXTS for token in (*text.encode(), 256)]
LENGTH = 7
NONE = {"tokenizer": {"kind": "none", "vocab_size": 1000, "end_of_document_id": 9}}


def built(folder: Path, data: dict[str, Any], **more: Any) -> tuple[BuiltSource, list[int]]:
    """The build of a source, and its tokens; scan counts what build writes and drops."""
    settings = {"sequence_length": LENGTH, **more}
    plan = write_plan(folder, {"web": {"data": data, "mds": "mds/web"}}, **settings)
    found = scan(plan, workers=1)
    assert found.problems == []
    (one,) = build(plan, workers=1)
    assert found.sources[0].tokens == one.build.tokens + one.build.dropped_tokens
    assert found.sources[0].samples == one.build.samples
    if found.sources[0].documents is not None:
        assert found.sources[0].documents == one.build.documents
    assert build(plan, workers=1)[0].skipped
    return one, rows(one.folder).ravel().tolist()


def whole(tokens: list[int]) -> list[int]:
    return tokens[: len(tokens) // LENGTH * LENGTH]


def write_rows(folder: Path, form: str) -> dict[str, Any]:
    """The texts in one of the forms, with a row of nothing and one of null; `data` of the plan."""
    held = [*TEXTS[:2], "", None, *TEXTS[2:]]
    if form == "text":
        (folder / "text").mkdir()
        for number, text in enumerate(TEXTS):
            (folder / "text" / f"{number}.txt.gz").write_bytes(gzip.compress(text.encode()))
        return {"paths": ["text"]}
    if form.startswith("jsonl"):
        lines = "".join(json.dumps({"body": text}) + "\n" for text in held).encode()
        (folder / f"a.{form}").write_bytes(gzip.compress(lines) if form.endswith("gz") else lines)
        return {"format": "jsonl", "paths": [f"a.{form}"], "column": "body"}
    table = pa.table({"id": list(range(len(held))), "body": pa.array(held, pa.string())})
    if form == "parquet":
        parquet.write_table(table, folder / "a.parquet", row_group_size=2)
        return {"format": "parquet", "paths": ["."], "column": "body"}
    from datasets import Dataset, DatasetDict

    data = Dataset(table)
    if form == "dataset":
        data.save_to_disk(str(folder / "saved"), num_shards=2)
        return {"format": "dataset", "paths": ["saved"], "column": "body"}
    DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(str(folder / "saved"))
    return {"format": "dataset", "paths": ["saved"], "column": "body", "split": "train"}


@pytest.mark.parametrize("form", ["text", "jsonl", "jsonl.gz", "parquet", "dataset", "splits"])
def test_every_form_of_text_gives_the_same_tokens(tmp_path: Path, form: str) -> None:
    one, tokens = built(tmp_path, write_rows(tmp_path, form))
    assert tokens == whole(TOKENS)
    assert one.build.documents == len(TEXTS)
    assert one.build.text_bytes == sum(len(text.encode()) for text in TEXTS)


def test_a_dataset_that_a_name_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = {**write_rows(tmp_path, "jsonl"), "format": "dataset", "paths": ["named"]}
    (tmp_path / "named").mkdir()
    (tmp_path / "a.jsonl").rename(tmp_path / "named" / "train.jsonl")
    assert built(tmp_path, data)[1] == whole(TOKENS)


@pytest.fixture
def requests_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that were asked for in a network that does not answer; repeating a request is a failure."""
    import datasets
    import huggingface_hub
    from huggingface_hub.utils import _http

    asked: list[str] = []

    def unreachable(_: Any, name: str, **__: Any) -> None:
        asked.append(name)
        raise ConnectionError("no route")

    def repeated(*_: Any, **__: Any) -> None:
        pytest.fail("a request that is repeated for half a minute")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(huggingface_hub.HfApi, "hf_hub_download", repeated)
    monkeypatch.setattr(_http, "http_backoff", repeated)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return asked


def dataset_plan(folder: Path, entry: str, **more: Any) -> Path:
    data = {"format": "dataset", "paths": [entry]}
    return write_plan(folder, {"web": {"data": data, "mds": "mds/web"}, **more})


@pytest.mark.parametrize("command", [build, scan])
def test_a_dataset_that_nobody_has(tmp_path: Path, requests_made: list[str], command: Any) -> None:
    import datasets

    for entry in ("./saved", "data/of/mine", str(tmp_path / "saved"), "../saved", "team/"):
        with pytest.raises(InputError, match=r"cannot be opened: there is no such folder \(.*no dataset is"):
            command(dataset_plan(tmp_path, entry))
    assert requests_made == []
    with pytest.raises(InputError, match=r"'team/corpus' cannot be opened.*ConnectionError.*needs network"):
        command(dataset_plan(tmp_path, "team/corpus"))
    assert requests_made == ["team/corpus"] and not datasets.config.HF_HUB_OFFLINE


@pytest.mark.parametrize("command", [build, scan])
def test_what_is_wrong_here_is_told_before_datasets_are_fetched(
    tmp_path: Path, requests_made: list[str], command: Any
) -> None:
    plan = dataset_plan(tmp_path, "team/corpus", code={"text": ["gone"], "mds": "mds/code"})
    with pytest.raises(InputError, match=r"source 'code'.*no such file or folder") as caught:
        command(plan)
    assert len(caught.value.problems) == 1 and requests_made == []


def test_sources_keep_the_plans_order_whatever_is_looked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_rows(tmp_path, "dataset")
    rest = {"data": {**write_rows(tmp_path, "jsonl")}, "mds": "mds/rest"}
    plan = write_plan(
        tmp_path, {"web": {"data": data, "mds": "mds/web"}, "rest": rest}, sequence_length=LENGTH
    )
    monkeypatch.setattr(locating, "is_fetched", lambda entry, base: True)
    assert [one.name for one in scan(plan, workers=1).sources] == ["web", "rest"]
    assert [one.build.name for one in build(plan, workers=1)] == ["web", "rest"]


def test_a_dataset_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    data = write_rows(tmp_path, "dataset")
    assert built(tmp_path, {**data, "paths": ["saved", "./saved", str(tmp_path / "saved")]})[1] == whole(
        TOKENS
    )


def test_splits_are_chosen_by_name(tmp_path: Path) -> None:
    data = write_rows(tmp_path, "splits")
    for split, said in ((None, "has the splits train, test; say which"), ("tran", "did you mean 'train'")):
        plan = write_plan(tmp_path, {"web": {"data": {**data, "split": split}, "mds": "mds"}})
        with pytest.raises(InputError, match=said):
            build(plan)


LISTS = [[5, 6, 7, 8] * 3, [], None, [1, 2, 9], [3, 9, 4]]
CLOSED = [5, 6, 7, 8] * 3 + [9, 1, 2, 9, 3, 9, 4, 9]
"""With the end of document, 9, where a list lacks it."""


@pytest.mark.parametrize("form", ["parquet", "dataset"])
@pytest.mark.parametrize("kind", [pa.list_(pa.uint16()), pa.large_list(pa.int64())])
def test_lists_of_tokens_are_closed_once(tmp_path: Path, form: str, kind: pa.DataType) -> None:
    table = pa.table({"ids": pa.array(LISTS, kind)})
    data = {"format": form, "paths": ["a.parquet" if form == "parquet" else "saved"], "column": "ids"}
    if form == "parquet":
        parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    else:
        from datasets import Dataset

        Dataset(table).save_to_disk(str(tmp_path / "saved"))
    one, tokens = built(tmp_path, data, **NONE)
    assert tokens == whole(CLOSED)
    assert (one.build.documents, one.build.text_bytes, one.build.tokenizer) == (3, None, "none")
    assert one.build.end_of_document_id == 9


@pytest.mark.parametrize("cut", [1 << 24, 40])
def test_token_files_end_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    monkeypatch.setattr(locating, "_CUT_BYTES", cut)
    first, second = np.arange(10, 110), np.array([3, 4, 9] * 20)
    np.save(tmp_path / "a.npy", first.astype(np.uint32).reshape(10, 10))
    (tmp_path / "b.npy").write_bytes(second.astype(np.uint16).tobytes())
    one, tokens = built(tmp_path, {"format": "npy", "paths": ["."]}, **NONE)
    assert tokens == whole([*first.tolist(), 9, *second.tolist()])
    assert one.build.documents == 21


def test_ids_beyond_the_vocabulary_are_refused_wherever_they_are(tmp_path: Path) -> None:
    ids = np.ones(100_000, np.uint16)
    ids[-2] = 1000
    (tmp_path / "a.npy").write_bytes(ids.tobytes())
    table = pa.table({"ids": pa.array([[1, 2], [-1, 4]])})
    parquet.write_table(table, tmp_path / "b.parquet")
    for data, said in (
        (
            {"format": "npy", "paths": ["a.npy"]},
            "a.npy: holds the ids 1 … 1,000, but the vocabulary has 1,000",
        ),
        ({"format": "parquet", "paths": ["b.parquet"], "column": "ids"}, "b.parquet: holds the ids -1 … 9"),
    ):
        plan = write_plan(tmp_path, {"web": {"data": data, "mds": "mds"}}, sequence_length=2, **NONE)
        with pytest.raises(InputError, match=said):
            build(plan)
        assert not (tmp_path / "mds").exists()


def write_mds(folder: Path, samples: np.ndarray, **more: Any) -> None:
    ensure_torchvision_imports()
    from streaming import MDSWriter

    columns = {"a_note": "str", "input_ids": f"ndarray:uint16:{samples.shape[1]}", "z": "int"}
    if "plain" in more:
        columns = {"input_ids": columns["input_ids"]}
        more.pop("plain")
    with MDSWriter(columns=columns, out=str(folder), size_limit=900, **more) as writer:
        for number, row in enumerate(samples.astype(np.uint16)):
            values = {"a_note": "n" * (number % 7), "input_ids": row, "z": number}
            writer.write({name: values[name] for name in columns})


@pytest.mark.parametrize("more", [{}, {"plain": True}, {"compression": "zstd:3", "hashes": ["sha1"]}])
def test_shards_are_cut_anew(tmp_path: Path, more: dict[str, Any]) -> None:
    samples = np.random.default_rng(0).integers(10, 1000, (60, 11))
    write_mds(tmp_path / "other", samples, **more)
    data = {"format": "mds", "paths": ["other"]}
    one, tokens = built(tmp_path, data, **NONE)
    assert tokens == whole([*samples.ravel().tolist(), 9])
    assert one.build.documents == 1
    assert len(list((tmp_path / "other").glob("shard.*"))) > 1


def test_damaged_shards_are_not_read(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(10, 1000, (60, 11))
    write_mds(tmp_path / "other", samples, hashes=["sha1"])
    plan = write_plan(
        tmp_path, {"web": {"data": {"format": "mds", "paths": ["other"]}, "mds": "mds"}}, **NONE
    )
    shard = tmp_path / "other" / "shard.00001.mds"
    content = shard.read_bytes()
    for damage, said in (
        (content[:-1] + b"?", r"shard.00001.mds: its content is not what was written \(sha1"),
        (content[:-1], r"shard.00001.mds has .* bytes, its index says"),
    ):
        shard.write_bytes(damage)
        with pytest.raises(InputError, match=said):
            build(plan)
        assert not (tmp_path / "mds").exists()


def test_lines_are_divided_between_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_rows(tmp_path, "jsonl")
    for cut in (1, 20, 50, 333):
        monkeypatch.setattr(locating, "_CUT_BYTES", cut)
        place = tmp_path / str(cut)
        place.mkdir()
        assert built(place, {**data, "paths": ["../a.jsonl"]})[1] == whole(TOKENS), cut
    (tmp_path / "a.jsonl").write_text('{"body": "good"}\n\n' * 5 + '{"body": 1}\n' + '{"body": "good"}\n' * 5)
    for cut in (10, 1000):
        monkeypatch.setattr(locating, "_CUT_BYTES", cut)
        with pytest.raises(InputError, match=r"a\.jsonl:11: 'body' holds int"):
            build(write_plan(tmp_path, {"web": {"data": data, "mds": "mds"}}))


def test_rows_that_are_no_text_are_named(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<eos>": 0, "<unk>": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>").save_pretrained(
        tmp_path / "tokenizer"
    )
    parquet.write_table(pa.table({"text": pa.array([b"good", b"b\xffd"])}), tmp_path / "a.parquet")
    more = {"tokenizer": {"kind": "huggingface", "path": "tokenizer"}, "vocab_size": 2}
    plan = write_plan(
        tmp_path, {"web": {"data": {"format": "parquet", "paths": ["a.parquet"]}, "mds": "mds"}}, **more
    )
    with pytest.raises(InputError, match=r"a.parquet \(row group 0, row 1\): not UTF-8 text \(byte 1\)"):
        build(plan)


def test_split_goes_with_datasets_only(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"web": {"data": {"paths": ["a"], "split": "train"}, "mds": "mds"}})
    with pytest.raises(InputError, match="`subset` and `split` go with format dataset"):
        build(plan)
