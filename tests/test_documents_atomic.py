"""Writes happen whole or not at all, and never over something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixplan.documents import atomic
from mixplan.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic.write_text(tmp_path / "a.txt", "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic.write_text(tmp_path / "a.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        atomic.write_text(tmp_path / "file" / "below.txt", "x")


def test_not_a_number_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_foreign_folders_and_existing_files_are_refused(tmp_path: Path) -> None:
    atomic.refuse_foreign(tmp_path / "new", ["mine"], "it")
    atomic.refuse_foreign(tmp_path, ["mine"], "it")
    (tmp_path / "theirs").write_text("x")
    with pytest.raises(InputError, match=r"already holds something else \(theirs\)"):
        atomic.refuse_foreign(tmp_path, ["mine"], "it")
    with pytest.raises(InputError, match="is a file"):
        atomic.refuse_foreign(tmp_path / "theirs", ["mine"], "it")
    (tmp_path / "mine").write_text("x")
    atomic.refuse_foreign(tmp_path, ["mine"], "it")
    with pytest.raises(InputError, match="--force"):
        atomic.refuse_overwrite(tmp_path / "mine", "it", force=False)
    atomic.refuse_overwrite(tmp_path / "mine", "it", force=True)
    with pytest.raises(InputError, match="is a folder"):
        atomic.refuse_overwrite(tmp_path, "it", force=True)
