"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mixplan.errors import InputError
from mixplan.recipes.folders import is_url, written_whole


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_appears_when_whole(tmp_path: Path) -> None:
    with written_whole(tmp_path / "deep" / "target") as partial:
        partial.mkdir()
        (partial / "file").write_text("x")
        assert not (tmp_path / "deep" / "target").exists()
    assert names(tmp_path / "deep") == ["target"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "deep" / "target").stat().st_mode & 0o777 == 0o777 & ~umask


def test_an_empty_target_is_replaced_and_a_filled_one_never(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with written_whole(target) as partial:
        partial.mkdir()
        (partial / "file").write_text("x")
    with (
        pytest.raises(InputError, match="cannot be written: Directory not empty"),
        written_whole(target) as partial,
    ):
        partial.mkdir()
        (partial / "other").write_text("y")
    assert names(tmp_path) == ["target"]
    assert names(target) == ["file"]


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "target") as partial:
        partial.mkdir()
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_leftovers_of_the_dead_go_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = tmp_path / ".target.partial-dead"
    (dead / "folder").mkdir(parents=True)
    other = tmp_path / ".target2.partial-dead"
    other.mkdir()
    with written_whole(tmp_path / "target") as living:
        living.mkdir()
        assert not dead.exists()
        with written_whole(tmp_path / "target") as second:
            assert living.exists()
            second.mkdir()
            (second / "file").write_text("second")
        (tmp_path / "target" / "file").unlink()
        (living / "file").write_text("first")
    assert names(tmp_path) == [other.name, "target"]
    assert (tmp_path / "target" / "file").read_text() == "first"


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("s3://bucket/x", True),
        ("gs://b", True),
        ("dbfs:/Volumes/x", True),
        ("mds/web", False),
        ("/data/web", False),
        ("a:b", False),
    ],
)
def test_urls(place: str, url: bool) -> None:
    assert is_url(place) is url
