"""scan: how many tokens each source of a plan has, in whatever form it comes; equal to what build writes."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from commanding import mixplan
from pyarrow import parquet
from recipes_making import LENGTH, write_plan, write_text

from mixplan.documents import Plan, load
from mixplan.errors import InputError
from mixplan.recipes import counting, processes
from mixplan.recipes.building import build
from mixplan.recipes.scanned import write_scanned
from mixplan.recipes.scanning import Scan, SourceScan, scan

TEXTS = ["first document", "größer als 80 Zeichen " * 12, "third\nwith lines", "x"]
BYTES = sum(len(text.encode()) for text in TEXTS)
TOKENS = BYTES + len(TEXTS)
"""With an end-of-document token each."""


def scanned(folder: Path, sources: dict[str, dict[str, Any]], **more: Any) -> Scan:
    return scan(write_plan(folder, sources, **more), workers=1)


def only(found: Scan) -> SourceScan:
    assert found.problems == []
    (one,) = found.sources
    return one


def refused(folder: Path, sources: dict[str, dict[str, Any]], **more: Any) -> str:
    """All that is wrong, whether seen before or while counting."""
    try:
        return "\n".join(scanned(folder, sources, **more).problems)
    except InputError as error:
        return "\n".join(error.problems)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """Words, with an end-of-document token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "<eos>": 1, "some": 2, "words": 3}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path / "tokenizer"
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>").save_pretrained(
        folder
    )
    return folder


def test_bytes_are_counted_as_build_writes_them(tmp_path: Path) -> None:
    write_text(tmp_path / "text", 7)
    (tmp_path / "text" / "rest.txt").write_bytes(b"\xff\x00 not a whole sample")
    (tmp_path / "text" / "empty.txt").touch()
    sources = {"web": {"text": ["text"], "mds": "mds/web"}}
    before = only(scanned(tmp_path, sources))
    (built,) = build(tmp_path / "plan.yaml")
    assert before.counted_from == "text"
    assert before.tokens == built.build.tokens + built.build.dropped_tokens
    assert built.build.dropped_tokens > 0
    assert (before.documents, before.text_bytes) == (built.build.documents, built.build.input_bytes)
    assert (before.samples, before.usable_tokens) == (built.build.samples, built.build.tokens)
    after = only(scanned(tmp_path, sources))
    assert (after.counted_from, after.tokens, after.documents) == ("mds", built.build.tokens, 4)
    assert after.usable_tokens == before.usable_tokens


def test_a_tokenizer_counts_as_build_writes(tmp_path: Path, tokenizer: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.txt").write_text("some words, other words\n" * (3 + number))
    settings: dict[str, Any] = {
        "tokenizer": {"kind": "huggingface", "path": "tokenizer"},
        "vocab_size": 8,
    }
    sources = {"web": {"text": ["text"], "mds": "mds"}}
    before = only(scanned(tmp_path, sources, **settings))
    (built,) = build(tmp_path / "plan.yaml")
    assert before.tokens == built.build.tokens + built.build.dropped_tokens == 5 * 25 + 5
    assert before.documents == 5


def compressed(text: bytes, ending: str) -> bytes:
    if ending == ".zst":
        return pa.compress(text, codec="zstd", asbytes=True)
    return {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[ending](text)


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_compression_changes_no_count(tmp_path: Path, ending: str) -> None:
    (tmp_path / "text").mkdir()
    for number, text in enumerate(TEXTS):
        (tmp_path / "text" / f"{number}.txt{ending}").write_bytes(compressed(text.encode(), ending))
    lines = "".join(json.dumps({"id": 1, "body": text}) + "\n" for text in TEXTS)
    (tmp_path / f"rows.jsonl{ending}").write_bytes(compressed(lines.encode(), ending))
    found = scanned(
        tmp_path,
        {
            "files": {"data": {"paths": ["text"]}},
            "rows": {"data": {"format": "jsonl", "paths": [f"*.jsonl{ending}"], "column": "body"}},
        },
    )
    for one in found.sources:
        assert (one.tokens, one.documents, one.text_bytes) == (TOKENS, len(TEXTS), BYTES)
        assert (one.samples, one.usable_tokens) == (TOKENS // LENGTH, TOKENS // LENGTH * LENGTH)


def test_several_compressed_parts_in_one_file(tmp_path: Path) -> None:
    parts = b"".join(compressed(text.encode(), ".zst") for text in TEXTS)
    (tmp_path / "a.zst").write_bytes(parts)
    assert only(scanned(tmp_path, {"web": {"data": {"paths": ["a.zst"]}}})).tokens == BYTES + 1


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_text_over_row_groups(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array([*TEXTS, None, ""]).cast(kind)
    parquet.write_table(
        pa.table({"content": column, "id": list(range(6))}), tmp_path / "a.parquet", row_group_size=2
    )
    (tmp_path / "README.md").write_text("left out: only *.parquet is taken from a folder")
    source = {"data": {"format": "parquet", "paths": ["."], "column": "content"}}
    found = scanned(tmp_path, {"web": source})
    assert (only(found).tokens, only(found).documents) == (TOKENS, len(TEXTS))
    assert found.notes == ["source 'web': 2 documents hold nothing, and were left out"]


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.large_list(pa.uint16())])
def test_parquet_token_lists_are_counted_with_their_ends(tmp_path: Path, kind: pa.DataType) -> None:
    lists = [[1] * 40, [], None, [2] * 7]
    table = pa.table({"ids": pa.array(lists, kind)})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    none = {"tokenizer": {"kind": "none", "vocab_size": 9, "end_of_document_id": 1}}
    source = {"data": {"format": "parquet", "paths": ["a.parquet"], "column": "ids"}}
    one = only(scanned(tmp_path, {"web": source}, **none))
    assert (one.tokens, one.documents, one.text_bytes) == (48, 2, None), "one list has its end already"


def npy(folder: Path, dtype: str = "uint16", **more: Any) -> dict[str, dict[str, Any]]:
    return {"web": {"data": {"format": "npy", "paths": [folder.name], "dtype": dtype, **more}}}


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    folder = tmp_path / "arrays"
    folder.mkdir()
    return folder


VOCABULARY = {"vocab_size": 100_278}


def test_token_files_with_and_without_a_header(tmp_path: Path, arrays: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 50_000, 1000)
    np.save(arrays / "a.npy", ids.astype(np.uint32).reshape(10, 100))
    (arrays / "b.npy").write_bytes(ids.astype(np.uint16).tobytes())
    (arrays / "b.csv.gz").write_bytes(b"left out: only *.npy is taken from a folder")
    one = only(scanned(tmp_path, npy(arrays), **VOCABULARY))
    assert (one.tokens, one.files, one.documents) == (2002, 2, None), "each file ends a document"


@pytest.mark.parametrize(
    ("written", "said", "what"),
    [
        ("uint32", "uint16", "every second uint16 is at most 1"),
        ("int64", "uint16", "every second uint16 is at most 1"),
        ("int64", "uint32", "every second uint32 is at most 0"),
        ("uint16", "uint32", "the vocabulary has 100,278 tokens"),
        ("uint16", "int64", "the vocabulary has 100,278 tokens"),
    ],
)
def test_a_wrong_integer_type_is_seen(
    tmp_path: Path, arrays: Path, written: str, said: str, what: str
) -> None:
    top = 65_536 if written == "uint16" else 100_278
    ids = np.random.default_rng(0).integers(0, top, 1000).astype(written)
    (arrays / "a.npy").write_bytes(ids.tobytes())
    assert only(scanned(tmp_path, npy(arrays, written), **VOCABULARY)).tokens == 1001
    text = refused(tmp_path, npy(arrays, said), **VOCABULARY)
    assert what in text and "set data.dtype" in text


def test_damaged_token_files(tmp_path: Path, arrays: Path) -> None:
    np.save(arrays / "cut.npy", np.arange(1000, dtype=np.int32))
    (arrays / "cut.npy").write_bytes((arrays / "cut.npy").read_bytes()[:-8])
    np.save(arrays / "floats.npy", np.ones(100))
    (arrays / "odd.npy").write_bytes(b"abc")
    text = refused(tmp_path, npy(arrays), **VOCABULARY)
    assert "cut.npy: cannot be read as an array" in text
    assert "floats.npy: holds float64 values" in text
    assert "odd.npy: 3 bytes are not a whole number of uint16 tokens" in text


def write_shards(folder: Path, samples: int) -> None:
    """An MDS folder that `build` writes."""
    write_text(folder.parent / f"{folder.name}-text", samples)
    plan = write_plan(folder.parent, {"x": {"text": [f"{folder.name}-text"], "mds": folder.name}})
    build(plan)


def test_several_mds_folders(tmp_path: Path) -> None:
    for name, samples in (("a", 33), ("b", 40)):
        write_shards(tmp_path / "all" / name, samples)
    as_data = only(scanned(tmp_path, {"web": {"data": {"format": "mds", "paths": ["all"]}}}))
    assert (as_data.tokens, as_data.files, as_data.documents) == (73 * LENGTH, 2, 6)
    own = scanned(tmp_path, {"web": {"mds": "all"}})
    assert only(own).tokens == 73 * LENGTH
    assert "holds 2 MDS folders and no index of its own" in own.notes[0]
    globbed = {"web": {"data": {"format": "mds", "paths": ["all/[ab]", "all/a"]}}}
    assert only(scanned(tmp_path, globbed)).tokens == 73 * LENGTH


def test_samples_of_another_length(tmp_path: Path) -> None:
    write_shards(tmp_path / "mds", 33)
    what = "holds samples of 16 tokens, the plan's sequence_length is 8"
    assert what in refused(tmp_path, {"web": {"mds": "mds"}}, sequence_length=8)
    other = scanned(tmp_path, {"web": {"data": {"format": "mds", "paths": ["mds"]}}}, sequence_length=8)
    assert only(other).tokens == 33 * LENGTH and only(other).samples == 66
    assert what in other.notes[0]


def test_shards_that_are_gone_are_told(tmp_path: Path) -> None:
    write_shards(tmp_path / "mds", 40)
    (tmp_path / "mds" / "shard.00003.mds").unlink()
    found = scanned(tmp_path, {"web": {"mds": "mds"}})
    assert "shard.00003.mds is missing, though its index lists it" in found.notes[0]


def test_shards_come_before_data_before_text(tmp_path: Path) -> None:
    write_text(tmp_path / "text", 10)
    write_text(tmp_path / "other", 20)
    source = {"text": ["text"], "data": {"paths": ["other"]}, "mds": "mds"}
    one = only(scanned(tmp_path, {"web": source}))
    assert (one.counted_from, one.samples) == ("data", 20)
    build(tmp_path / "plan.yaml")
    one = only(scanned(tmp_path, {"web": source}))
    assert (one.counted_from, one.samples) == ("mds", 20), "build reads what scan counts"


def test_everything_that_can_be_seen_first_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"txt": "a"}\n')
    parquet.write_table(pa.table({"content": ["a"], "n": [1.5]}), tmp_path / "a.parquet")
    (tmp_path / "no.parquet").write_text("no")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "shard.00000.mds").write_text("x")
    text = refused(
        tmp_path,
        {
            "missing": {"text": ["nowhere"]},
            "blank": {"data": {"paths": ["empty.txt"]}},
            "rows": {"data": {"format": "jsonl", "paths": ["rows.jsonl"]}},
            "table": {"data": {"format": "parquet", "paths": ["a.parquet"], "column": "contents"}},
            "numbers": {"data": {"format": "parquet", "paths": ["a.parquet"], "column": "n"}},
            "no": {"data": {"format": "parquet", "paths": ["no.parquet"]}},
            "far": {"mds": "s3://bucket/far"},
            "later": {"mds": "mds/later"},
            "half": {"mds": "half"},
            "nothing": {},
            "afar": {"data": {"paths": ["gs://bucket/x.txt"]}},
            "folder": {"data": {"format": "mds", "paths": ["shards"]}},
        },
    )
    for said in (
        "source 'missing': text 'nowhere': no such file or folder",
        "source 'blank': all 1 file(s) are empty",
        "rows.jsonl:1: no column 'text'; did you mean 'txt'?",
        "no column 'contents'; did you mean 'content'?",
        "column 'n' holds double; text or lists of integer tokens are needed",
        "no.parquet: cannot be read as Parquet",
        "source 'far': what is behind s3://bucket/far is not fetched: give tokens_available",
        "mds/later is not there yet, and neither text nor data says what goes in",
        "half holds no index.json",
        "source 'nothing': nothing to count: give mds, data or text, or tokens_available itself",
        "source 'afar': what is behind gs://bucket/x.txt is not fetched",
        "source 'folder': data.paths 'shards': no such folder",
    ):
        assert said in text, said


def test_what_is_wrong_inside_files(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("größer".encode("latin-1") * 9)
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"text " * 1000)[:-9])
    good = '{"text": "some words"}\n'
    (tmp_path / "broken.jsonl").write_text(good + '{"text": \n')
    (tmp_path / "list.jsonl").write_text(good + '{"text": ["a"]}\n')
    (tmp_path / "half.jsonl").write_text(good + '{"text": "\\ud800"}\n')
    (tmp_path / "latin.jsonl").write_bytes(good.encode() + b'{"text": "\xff"}\n')
    (tmp_path / "short.txt").write_text("some")
    rows = ("broken", "list", "half", "latin")
    found = scanned(
        tmp_path,
        {
            "good": {"data": {"paths": ["tokenizer/tokenizer.json"]}},
            "latin_text": {"text": ["latin.txt"]},
            "cut": {"data": {"paths": ["cut.txt.gz"]}},
            "short": {"text": ["short.txt"]},
            **{name: {"data": {"format": "jsonl", "paths": [f"{name}.jsonl"]}} for name in rows},
        },
        tokenizer={"kind": "huggingface", "path": "tokenizer"},
        vocab_size=8,
    )
    text = "\n".join(found.problems)
    for said in (
        "latin.txt: not UTF-8 text (byte 2)",
        "cut.txt.gz: is cut short or not compressed as .gz says",
        "source 'short' has 2 tokens, less than one sample of 16",
        "broken.jsonl:2: not JSON",
        "list.jsonl:2: 'text' holds list, not text",
        "half.jsonl:2: 'text' holds half of a surrogate pair",
        "latin.jsonl:2: not UTF-8 text",
    ):
        assert said in text, said
    by_name = {one.name: one.tokens for one in found.sources}
    assert by_name["good"] and by_name["cut"] is None and by_name["broken"] is None
    assert found.natural_shares() == [None] * 8, "no share without all the counts"


def test_text_where_the_plan_says_tokens(tmp_path: Path) -> None:
    write_text(tmp_path / "text", 4)
    none = {"tokenizer": {"kind": "none", "vocab_size": 9, "end_of_document_id": 1}}
    text = refused(tmp_path, {"a": {"text": ["text"]}, "b": {"data": {"paths": ["text"]}}}, **none)
    assert text.count("tokenizer.kind is none") == 2


def test_compressed_text_for_build_and_files_of_two_sources_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(bytes(range(256))))
    found = scanned(tmp_path, {"raw": {"text": ["*.gz"]}, "data": {"data": {"paths": ["a.txt.gz"]}}})
    raw, data = found.sources
    assert raw.tokens == (tmp_path / "a.txt.gz").stat().st_size + 1 and data.tokens == 257
    assert "1 of 1 files are compressed, and `text` is read as it stands" in found.notes[1]
    assert "1 file(s) are counted in 'raw' and in 'data'" in found.notes[0]


def test_processes_count_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        write_text(tmp_path / "text" / str(number), 40, seed=number)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\nno\n')
    sources: dict[str, dict[str, Any]] = {
        "web": {"text": ["text"]},
        "rows": {"data": {"format": "jsonl", "paths": ["a.jsonl"]}},
        "bad": {"data": {"format": "jsonl", "paths": ["bad.jsonl"]}},
    }
    plan = write_plan(tmp_path, sources)
    alone = scan(plan, workers=1)
    monkeypatch.setattr(processes, "WORTH_PROCESSES_BYTES", 0)
    monkeypatch.setattr(counting, "_AT_ONCE_BYTES", 500)
    told: list[tuple[int, int]] = []
    together = scan(plan, workers=2, progress=lambda done, total: told.append((done, total)))
    assert together == alone
    assert [one.tokens for one in together.sources] == [160 * LENGTH, TOKENS, None]
    assert told[0][0] == 0 and told[-1][0] == told[-1][1] and told == sorted(told)


# --- the command ---


def test_the_command_shows_and_fills_in(tmp_path: Path) -> None:
    write_text(tmp_path / "text" / "web", 30)
    write_text(tmp_path / "text" / "rare", 10)
    given = {"text": ["text/rare"], "role": "rare", "tokens_available": 320}
    sources = {"web": {"text": ["text/web"], "mds": "mds/web"}, "rare": given}
    plan = write_plan(tmp_path, {**sources, "far": {"mds": "s3://bucket/far", "tokens_available": 320}})
    out = tmp_path / "elsewhere" / "counted.yaml"
    done = mixplan("scan", plan, "-o", out)
    assert done.returncode == 0, done.stderr
    web, rare, far = (line.split() for line in done.stdout.splitlines()[2:5])
    assert web[-7:] == ["3", "477", "480", "30", "42.857%", "–", "–"]
    assert rare[-5:] == ["160", "10", "28.571%", "320", "+160"]
    assert far[1:] == ["–", "–", "–", "–", "–", "28.571%", "320", "–"]
    assert "tokens_available=320 stands, but 160 were counted: `mixplan emit`" in done.stderr
    assert "source 'far': not counted: nothing of it is here; tokens_available=320 stands" in done.stderr
    written = load(out, Plan)
    assert [one.tokens_available for one in written.sources] == [480, 320, 320]
    assert written.sources[0].text == ["../text/web"] and written.sources[0].mds == "../mds/web"
    assert written.sources[2].mds == "s3://bucket/far"
    again = scan(out)
    assert [one.tokens for one in again.sources] == [480, 160, None], "the paths lead where they did"
    before = out.read_bytes()
    assert "exists; scan does not overwrite it" in mixplan("scan", plan, "-o", out).stderr
    assert out.read_bytes() == before
    assert mixplan("scan", plan, "-o", out, "--force").returncode == 0


def test_paths_behind_a_yaml_alias_are_moved_once(tmp_path: Path) -> None:
    write_text(tmp_path / "text", 30)
    plan = write_plan(tmp_path, {"a": {"data": {"paths": ["text"]}}, "b": {"data": {"paths": ["text"]}}})
    data = yaml.safe_load(plan.read_text())
    data["sources"][1]["data"] = data["sources"][0]["data"]
    plan.write_text(yaml.dump(data))
    assert "&id001" in plan.read_text()
    out = tmp_path / "new" / "plan.json"
    assert mixplan("scan", plan, "-o", out).returncode == 0
    assert [one.tokens for one in scan(out).sources] == [480, 480]


def test_the_name_of_a_dataset_is_no_path(tmp_path: Path) -> None:
    write_text(tmp_path / "text", 30)
    named = {"format": "dataset", "paths": ["team/corpus", "saved"]}
    data = {"data": named, "tokens_available": 320, "text": ["text"]}
    (tmp_path / "saved").mkdir()
    found = scan(
        write_plan(tmp_path, {"web": {"text": ["text"]}, "far": {"tokens_available": 320}}), workers=1
    )
    plan = write_plan(tmp_path, {"web": {"text": ["text"]}, "far": data})
    write_scanned(plan, found, tmp_path / "new" / "plan.yaml")
    (_, far) = yaml.safe_load((tmp_path / "new" / "plan.yaml").read_text())["sources"]
    assert far["data"]["paths"] == ["team/corpus", "../saved"] and far["text"] == ["../text"]


def test_the_command_for_programs(tmp_path: Path) -> None:
    write_text(tmp_path / "text", 30)
    done = mixplan("scan", write_plan(tmp_path, {"web": {"text": ["text"]}}), "--json")
    told = json.loads(done.stdout)
    (web,) = told["sources"]
    assert (web["tokens"], web["samples"], web["natural_share"]) == (480, 30, 1.0)
    assert told["sequence_length"] == LENGTH and told["problems"] == []


def test_a_failed_count_shows_the_others_and_writes_nothing(tmp_path: Path) -> None:
    write_text(tmp_path / "text", 30)
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\nno\n')
    sources = {"web": {"text": ["text"]}, "bad": {"data": {"format": "jsonl", "paths": ["bad.jsonl"]}}}
    out = tmp_path / "counted.yaml"
    done = mixplan("scan", write_plan(tmp_path, sources), "-o", out)
    assert done.returncode == 2 and not out.exists()
    assert "480" in done.stdout and "bad.jsonl:2: not JSON" in done.stderr
    assert "ends in .yaml" in mixplan("scan", tmp_path / "plan.yaml", "-o", tmp_path / "counted.csv").stderr
