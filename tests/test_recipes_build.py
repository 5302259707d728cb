"""build: text becomes shards, the same shards every time, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes_making import LENGTH, write_plan, write_text

from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.loading import load
from mixplan.documents.mds_index import count_tokens, read_index
from mixplan.documents.source_build import SourceBuild
from mixplan.errors import InputError
from mixplan.recipes.building import build
from mixplan.recipes.hashing import file_sha256, input_sha256
from mixplan.recipes.texts import collect


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows(folder: Path) -> np.ndarray:
    """All samples, read by Streaming."""
    ensure_torchvision_imports()
    from streaming import LocalDataset

    data = LocalDataset(local=str(folder))
    return np.stack([data[index]["tokens"] for index in range(len(data))])


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    write_text(tmp_path / "text" / "web", 200)
    return write_plan(tmp_path, {"web": {"text": ["text/web"], "mds": "mds/web"}})


def test_documents_are_joined_cut_and_read_back(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    documents = {
        "b.txt": b"second \xff\x00 document",
        "a.txt": b"first",
        "c.txt": b"z" * 50,
        "empty.txt": b"",
    }
    for name, content in documents.items():
        (text / name).write_bytes(content)
    path = write_plan(tmp_path, {"web": {"text": ["text"], "mds": "mds/web"}}, sequence_length=8)
    (built,) = build(path)
    joined: list[int] = []
    for name in ("a.txt", "b.txt", "c.txt"):
        joined += [*documents[name], 256]
    read = rows(tmp_path / "mds" / "web")
    assert read.dtype == np.int32
    assert read.ravel().tolist() == joined[: len(joined) // 8 * 8]
    assert built.build.dropped_tokens == len(joined) % 8 > 0
    assert (built.build.documents, built.build.input_bytes) == (3, sum(map(len, documents.values())))
    counted = count_tokens(tmp_path / "mds" / "web")
    assert (counted.samples, counted.sequence_length) == (built.build.samples, 8) == (len(joined) // 8, 8)


def test_scarce_source_gets_many_hashed_shards(plan: Path) -> None:
    (built,) = build(plan)
    shards = read_index(built.folder)
    assert 32 <= len(shards) <= 64
    assert sum(shard["samples"] for shard in shards) == 200
    assert all(set(shard["raw_data"]["hashes"]) == {"xxh3_64"} for shard in shards)


def test_same_input_same_bytes(plan: Path, tmp_path: Path) -> None:
    (first,) = build(plan)
    before = contents(first.folder)
    other = tmp_path / "elsewhere"
    write_text(other / "text" / "web", 200)
    (second,) = build(write_plan(other, {"web": {"text": ["text/*/*.txt"], "mds": "shards"}}))
    assert contents(second.folder) == before


def test_second_build_is_skipped_and_changes_nothing(plan: Path) -> None:
    (first,) = build(plan)
    stamps = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    lines: list[str] = []
    (second,) = build(plan, check_hashes=True, progress=lines.append)
    assert second.skipped and not first.skipped
    assert second.build == first.build
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()} == stamps
    assert any("holds a build" in line for line in lines)


def test_other_input_or_settings_are_refused(plan: Path, tmp_path: Path) -> None:
    (first,) = build(plan)
    before = contents(first.folder)
    (tmp_path / "text" / "web" / "0.txt").write_bytes(b"changed " * 100)
    with pytest.raises(InputError, match=r"other input or settings.*input_sha256.*remove the folder"):
        build(plan)
    write_text(tmp_path / "text" / "web", 200)
    write_plan(tmp_path, {"web": {"text": ["text/web"], "mds": "mds/web"}}, sequence_length=32)
    with pytest.raises(InputError, match="sequence_length is 16, not 32"):
        build(plan)
    assert contents(first.folder) == before


def test_damage_to_what_is_there_is_seen(plan: Path) -> None:
    (built,) = build(plan)
    shard = built.folder / "shard.00001.mds"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert build(plan)[0].skipped  # sizes agree
    with pytest.raises(InputError, match=r"shard\.00001\.mds: its content is not what was written"):
        build(plan, check_hashes=True)
    shard.write_bytes(whole[:-5])
    with pytest.raises(InputError, match=r"shard\.00001\.mds has .* bytes, its index says"):
        build(plan)
    shard.unlink()
    with pytest.raises(InputError, match=r"shard\.00001\.mds is missing"):
        build(plan)


def test_foreign_folder_is_refused(plan: Path, tmp_path: Path) -> None:
    (tmp_path / "mds" / "web").mkdir(parents=True)
    (tmp_path / "mds" / "web" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"already holds something else \(thesis\.tex\)"):
        build(plan)
    assert contents(tmp_path / "mds" / "web") == {"thesis.tex": b"years of work"}


def test_every_problem_at_once_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    write_text(tmp_path / "text" / "good", 10)
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "a.txt").write_bytes(b"abc")
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank" / "a.txt").write_bytes(b"")
    path = write_plan(
        tmp_path,
        {
            "good": {"text": ["text/good"], "mds": "mds/good"},
            "nowhere": {"text": ["missing", "no/*.txt"], "mds": "mds/nowhere"},
            "unmatched": {"text": ["text"], "pattern": "*.xml", "mds": "mds/unmatched"},
            "blank": {"text": ["blank"], "mds": "mds/blank"},
            "short": {"text": ["short"], "mds": "mds/short"},
            "homeless": {"text": ["text/good"]},
            "far": {"text": ["text/good"], "mds": "s3://bucket/far"},
            "twin_a": {"text": ["text/good"], "mds": "mds/twin"},
            "twin_b": {"mds": "mds/../mds/twin"},
        },
    )
    with pytest.raises(InputError) as caught:
        build(path)
    problems = "\n".join(caught.value.problems)
    for expected in (
        "'nowhere': text 'missing': no such file or folder",
        "'nowhere': text 'no/*.txt': no file matches",
        "'unmatched': text 'text': no file in the folder",
        "'blank': all 1 file(s) are empty",
        "'short' has 4 tokens, less than one sample of 16",
        "'homeless' has `text` but no `mds`",
        "'far': s3://bucket/far cannot be written to (NoCredentialsError",
        "'twin_a' and 'twin_b' have the same mds folder",
    ):
        assert expected in problems
    assert len(caught.value.problems) == 8
    assert not (tmp_path / "mds").exists()


def test_selected_sources(tmp_path: Path) -> None:
    for name in ("web", "code"):
        write_text(tmp_path / name, 10)
    path = write_plan(
        tmp_path, {name: {"text": [name], "mds": f"mds/{name}"} for name in ("web", "code")} | {"ready": {}}
    )
    assert [one.build.name for one in build(path, ["code"])] == ["code"]
    assert sorted(entry.name for entry in (tmp_path / "mds").iterdir()) == ["code"]
    with pytest.raises(InputError) as caught:
        build(path, ["coed", "ready"])
    assert "no source is called 'coed'; did you mean 'code'?" in caught.value.problems
    assert any("'ready' has no `text` and no `data`" in problem for problem in caught.value.problems)
    with pytest.raises(InputError, match="no source of the plan has `text` or `data`"):
        build(write_plan(tmp_path, {"ready": {}}))


def test_files_are_sorted_once_each_and_never_shards(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/1.txt", "mds/web/shard.txt", "top.txt", "skip.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = collect([".", "b/2.txt", "*.txt"], "*.txt", tmp_path, [tmp_path / "mds" / "web"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/1.txt", "b/2.txt", "top.txt"]


def test_input_hash_knows_where_files_end(tmp_path: Path) -> None:
    hashes = set()
    for parts in (["ab", "c"], ["a", "bc"], ["abc"]):
        files = []
        for number, part in enumerate(parts):
            path = tmp_path / f"{len(parts)}-{number}-{part}"
            path.write_text(part)
            files.append((file_sha256(path), len(part)))
        hashes.add(input_sha256(files))
    assert len(hashes) == 3


def test_failed_build_leaves_nothing(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("the cat sat " * 50)
    (tmp_path / "text" / "b.txt").write_bytes(b"the \xff cat")
    with pytest.raises(InputError, match=r"b\.txt: not UTF-8 text \(byte 4\)"):
        build(huggingface_plan(tmp_path, tokenizer))
    assert list((tmp_path / "mds").iterdir()) == []


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ensure_torchvision_imports()
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<eos>": 0, "<unk>": 1, "the": 2, "cat": 3, "sat": 4}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>").save_pretrained(
        folder
    )
    return folder


def huggingface_plan(folder: Path, tokenizer: Path, **more: Any) -> Path:
    settings = {"tokenizer": {"kind": "huggingface", "path": str(tokenizer)}, "vocab_size": 5, **more}
    return write_plan(folder, {"web": {"text": ["text"], "mds": "mds/web"}}, **settings)


def test_huggingface_tokenizer(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("the cat sat the dog sat")
    (tmp_path / "text" / "b.txt").write_text("cat cat")
    (built,) = build(huggingface_plan(tmp_path, tokenizer, sequence_length=3))
    assert rows(built.folder).tolist() == [[2, 3, 4], [2, 1, 4], [0, 3, 3]]
    assert (built.build.dropped_tokens, built.build.end_of_document_id, built.build.vocab_size) == (1, 0, 5)
    assert build(huggingface_plan(tmp_path, tokenizer, sequence_length=3))[0].skipped


def test_tokenizer_problems(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("cat")
    with pytest.raises(InputError, match="has 2 tokens, less than one sample of 16"):
        build(huggingface_plan(tmp_path, tokenizer))
    with pytest.raises(
        InputError, match=r"ids go up to 4, beyond vocab_size=4; set vocab_size to at least 5"
    ):
        build(huggingface_plan(tmp_path, tokenizer, vocab_size=4))
    with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
        build(huggingface_plan(tmp_path, tmp_path))
    none = {"kind": "none", "vocab_size": 9, "end_of_document_id": 0}
    with pytest.raises(InputError, match="kind is none, which says that all data are tokens already"):
        build(write_plan(tmp_path, {"web": {"text": ["text"], "mds": "mds"}}, tokenizer=none))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
    settings.pop("eos_token")
    (bare / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="has no eos_token"):
        build(huggingface_plan(tmp_path, bare))


def test_source_json_is_a_document(plan: Path) -> None:
    (built,) = build(plan)
    assert load(built.folder / "source.json", SourceBuild) == built.build
    assert built.build.tokens == built.build.samples * LENGTH == 200 * LENGTH
