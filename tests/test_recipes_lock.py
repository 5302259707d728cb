"""sources.lock: what every source was built from, each file once."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recipes_making import LENGTH, write_plan, write_text

from mixplan.documents import load
from mixplan.documents.calibration_spec import Tokenizer
from mixplan.documents.sources_lock import SourcesLock
from mixplan.errors import InputError
from mixplan.recipes.bookkeeping import other_tokenizers
from mixplan.recipes.building import build
from mixplan.recipes.tokenizing import open_encoder

BYTES = open_encoder(Tokenizer(), Path())


def lock(folder: Path) -> SourcesLock:
    return load(folder / "sources.lock", SourcesLock)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_documents_tokens_and_the_index(tmp_path: Path) -> None:
    write_text(tmp_path / "text" / "web", 20)
    (tmp_path / "text" / "web" / "z.txt").write_bytes(b"rest")
    (built,) = build(write_plan(tmp_path, {"web": {"text": ["text/web"], "mds": "mds/web"}}))
    written = lock(tmp_path)
    files = sorted((tmp_path / "text" / "web").iterdir())
    web = written.sources["web"]
    assert [one.sha256 for one in web.input] == [digest(path) for path in files]
    assert [one.tokens for one in web.input] == [path.stat().st_size + 1 for path in files]
    assert [one.documents for one in web.input] == [1] * 4
    assert sum(one.tokens or 0 for one in web.input) == web.tokens + web.dropped_tokens == 20 * LENGTH + 5
    assert {sha: (one.bytes, one.paths) for sha, one in written.files.items()} == {
        digest(path): (path.stat().st_size, [f"text/web/{path.name}"]) for path in files
    }
    assert web.index_sha256 == digest(built.folder / "index.json")
    assert (web.samples, web.mds, web.documents) == (20, "mds/web", 4)


def test_building_one_source_keeps_the_others_entries(tmp_path: Path) -> None:
    for name in ("web", "code"):
        write_text(tmp_path / name, 10, seed=len(name))
    sources = {name: {"text": [name], "mds": f"mds/{name}"} for name in ("web", "code")}
    build(write_plan(tmp_path, sources))
    before = lock(tmp_path)
    stamp = (tmp_path / "sources.lock").stat().st_mtime_ns
    assert all(one.skipped for one in build(tmp_path / "plan.yaml"))
    assert (tmp_path / "sources.lock").stat().st_mtime_ns == stamp, "the same is not written again"
    write_text(tmp_path / "web", 12, seed=9)
    for path in (tmp_path / "mds" / "web").iterdir():
        path.unlink()
    build(tmp_path / "plan.yaml", ["web"])
    after = lock(tmp_path)
    assert after.sources["code"] == before.sources["code"]
    assert after.sources["web"].samples == 12
    assert set(after.files) == {one.sha256 for source in after.sources.values() for one in source.input}


def test_without_its_entry_a_source_that_is_there_gets_one(tmp_path: Path) -> None:
    write_text(tmp_path / "web", 10)
    plan = write_plan(tmp_path, {"web": {"text": ["web"], "mds": "mds/web"}})
    build(plan)
    known = lock(tmp_path).sources["web"]
    (tmp_path / "sources.lock").unlink()
    assert build(plan)[0].skipped
    again = lock(tmp_path).sources["web"]
    assert [one.sha256 for one in again.input] == [one.sha256 for one in known.input]
    assert [one.tokens for one in again.input] == [None] * 3, "it was not read again"


def test_the_same_content_in_two_sources_is_told(tmp_path: Path) -> None:
    write_text(tmp_path / "web", 10)
    write_text(tmp_path / "rare", 20, seed=5)
    (tmp_path / "rare" / "copy.md").write_bytes((tmp_path / "web" / "1.txt").read_bytes())
    sources = {name: {"text": [name], "mds": f"mds/{name}"} for name in ("web", "rare")}
    web, rare = build(write_plan(tmp_path, sources))
    assert web.warnings == []
    (warning,) = rare.warnings
    assert "source 'rare' and source 'web' were built from 1 file(s) of the same content" in warning
    shared = lock(tmp_path).files[digest(tmp_path / "web" / "1.txt")]
    assert shared.paths == ["rare/copy.md", "web/1.txt"]
    assert len(lock(tmp_path).files) == 6


def test_one_mixture_has_one_tokenizer(tmp_path: Path) -> None:
    """What is built already must have the plan's, also when other sources are built alone."""
    sources = {}
    for name in ("web", "code"):
        np.save(tmp_path / f"{name}.npy", np.arange(2, 60) % 9)
        data = {"format": "npy", "paths": [f"{name}.npy"]}
        sources[name] = {"data": data, "mds": f"mds/{name}"}
    none = {"kind": "none", "vocab_size": 300, "end_of_document_id": 1}
    build(write_plan(tmp_path, sources, tokenizer=none), ["web"])
    other = {"tokenizer": {**none, "end_of_document_id": 0}}
    with pytest.raises(InputError, match=r"'web' was built with another.*end_of_document_id is 1, not 0"):
        build(write_plan(tmp_path, sources, **other), ["code"])
    with pytest.raises(InputError, match=r"'web' was built with another.*tokenizer is none, not bytes"):
        build(write_plan(tmp_path, sources, vocab_size=300), ["code"])
    assert not (tmp_path / "mds" / "code").exists()
    build(write_plan(tmp_path, sources, tokenizer=none), ["code"])
    shutil.rmtree(tmp_path / "mds")  # to be built anew, one after another
    build(write_plan(tmp_path, sources, **other), ["code"])
    entry = lock(tmp_path).sources["web"]
    (tmp_path / "mds" / "web").mkdir()
    (problem,) = other_tokenizers(
        tmp_path, {"web": ("mds/web", tmp_path / "mds" / "web")}, replace(BYTES, kind="huggingface")
    )
    assert f"tokenizer is {entry.tokenizer}, not huggingface" in problem, "as sources.lock has it"
