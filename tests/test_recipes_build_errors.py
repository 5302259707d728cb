"""build: what is wrong is said clearly, before work where that can be, and nothing half-written stays."""

from __future__ import annotations

import os
import resource
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes_making import write_plan, write_text
from recipes_reading import contents, rows

from mixplan.errors import InputError
from mixplan.recipes.building import build
from mixplan.recipes.jobs import Settings


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    write_text(tmp_path / "text", 200)
    return write_plan(tmp_path, {"web": {"text": ["text"], "mds": "mds/web"}})


def visible(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.exists() else []


@pytest.mark.parametrize("dtype", ["uint16", "int32", "int64"])
def test_the_integer_type_is_as_asked(plan: Path, dtype: str) -> None:
    (built,) = build(plan, settings=Settings(dtype))
    read = rows(built.folder)
    assert read.dtype == dtype and read.max() == 256 and built.build.dtype == dtype


def test_settings_that_cannot_be_are_refused_at_once(tmp_path: Path) -> None:
    write_text(tmp_path / "text", 20)
    sources = {"web": {"text": ["text"], "mds": "mds/web"}}
    large = write_plan(tmp_path, sources, vocab_size=65_537)
    with pytest.raises(InputError) as caught:
        build(large, settings=Settings("uint16", "zst:3", ("xxh",)))
    said = "\n".join(caught.value.problems)
    assert "dtype uint16 holds 65,536 tokens, but the vocabulary has 65,537; use int32" in said
    assert "compression 'zst:3' is not known; did you mean 'zstd'?" in said
    assert "hash 'xxh' is not known" in said
    with pytest.raises(InputError, match="dtype 'int33' is not one of int32, uint16, int64; did you mean"):
        build(large, settings=Settings("int33"))
    with pytest.raises(InputError, match=r"one sample is more than a shard holds \(4 GiB\)"):
        build(write_plan(tmp_path, sources, sequence_length=1 << 30))
    assert not (tmp_path / "mds").exists()
    build(write_plan(tmp_path, sources, vocab_size=65_536), settings=Settings("uint16"))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Settings("int64"), "dtype is int32, not int64"),
        (Settings(compression="zstd:3"), "compression is None, not zstd:3"),
        (Settings(hashes=("sha1",)), r"hashes is \['xxh3_64'\], not \['sha1'\]"),
    ],
)
def test_other_settings_are_another_build(plan: Path, other: Settings, said: str) -> None:
    (built,) = build(plan)
    before = contents(built.folder)
    with pytest.raises(InputError, match=said):
        build(plan, settings=other)
    assert contents(built.folder) == before


def test_compressed_shards_with_several_hashes(plan: Path) -> None:
    settings = Settings(compression="zstd:3", hashes=("xxh3_64", "sha256"))
    (built,) = build(plan, settings=settings)
    assert list(built.folder.glob("shard.*.mds.zstd")) and not list(built.folder.glob("shard.*.mds"))
    assert build(plan, check_hashes=True, settings=settings)[0].skipped
    shard = built.folder / "shard.00003.mds.zstd"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"shard\.00003\.mds\.zstd: its content is not what was written"):
        build(plan, check_hashes=True, settings=settings)


def test_a_disk_without_room_is_told_before(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 12_000))
    with pytest.raises(InputError, match=r"at least 18\.7 KiB are needed on this disk, 11\.7 KiB are"):
        build(plan)
    assert not (tmp_path / "mds").exists()


def test_a_disk_that_fills_leaves_nothing_in_place(plan: Path, tmp_path: Path) -> None:
    """Files of more than 4,000 bytes cannot be written: the spill, or with more room the index."""
    for limit in (4_000, 9_000):
        child = os.fork()
        if child == 0:  # pragma: no cover
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                build(plan, workers=1)
            except InputError as error:
                os._exit(7 if "cannot be written: File too large" in str(error) else 8)
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert not [name for name in visible(tmp_path / "mds") if not name.startswith(".")]
    (built,) = build(plan)
    assert visible(tmp_path / "mds") == ["web"] and built.build.samples == 200


def test_a_place_that_cannot_be_written_to(plan: Path, tmp_path: Path) -> None:
    (tmp_path / "mds").write_text("a file")
    with pytest.raises(InputError, match=r"mds/web cannot be written: Not a directory"):
        build(plan)


def test_a_file_that_changes_while_it_is_read(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixplan.recipes import spilling

    read = spilling.read_piece

    def growing(piece: Any, *given: Any) -> Any:
        yield from read(piece, *given)
        with piece.path.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(spilling, "read_piece", growing)
    with pytest.raises(InputError) as caught:
        build(plan)
    assert len(caught.value.problems) == 3
    assert "source 'web':" in str(caught.value) and "changed while it was read; build again" in str(
        caught.value
    )
    assert not (tmp_path / "mds" / "web").exists()


def test_a_file_that_goes_while_it_is_read(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixplan.recipes import spilling

    read = spilling.read_piece

    def going(piece: Any, *given: Any) -> Any:
        piece.path.unlink()
        return read(piece, *given)

    monkeypatch.setattr(spilling, "read_piece", going)
    with pytest.raises(InputError, match=r"0\.txt cannot be read any more"):
        build(plan)
    assert visible(tmp_path / "mds") == []


def test_a_name_with_a_path_in_it(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, {"../web": {"text": ["text"], "mds": "mds/web"}})
    with pytest.raises(InputError, match=r"name.*'\.\./web'|\.\./web.*name"):
        build(plan)


def test_token_files_that_are_gone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(0, np.uint16))
    none = {"tokenizer": {"kind": "none", "vocab_size": 9, "end_of_document_id": 1}}
    for path, said in (("b.npy", "no such file or folder"), ("a.npy", "has 0 tokens, less than one sample")):
        data = {"format": "npy", "paths": [path]}
        with pytest.raises(InputError, match=said):
            build(write_plan(tmp_path, {"web": {"data": data, "mds": "mds"}}, **none))
    with pytest.raises(InputError, match="has `data` but no `mds`"):
        build(write_plan(tmp_path, {"web": {"data": {"format": "npy", "paths": ["a.npy"]}}}, **none))
