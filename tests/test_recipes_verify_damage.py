"""verify where shards change under the reader, or storage does not answer: no hang, and all is named."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes_verifying import rewrite

from mixplan.recipes import checking
from mixplan.recipes import reading as reading_module
from mixplan.recipes.reading import _awaited
from mixplan.recipes.recording import FAILED_SHARD, FETCHED_SHARD, READ_SAMPLE, WAITING, waiting_file
from mixplan.recipes.shards import check_shards
from mixplan.recipes.verifying import How, verify
from mixplan.recipes.watching import Stalled, watch_call

pytest_plugins = ["recipes_verifying"]


@pytest.fixture
def shard(small: Path) -> Path:
    return small / "mds" / "s40" / "shard.00003.mds"


def before_reading(monkeypatch: pytest.MonkeyPatch, damage: Callable[[], Any]) -> None:
    """Damage something after the shards were checked, when the readers start."""
    watch = reading_module.watch_processes

    def damaged(*given: Any) -> int | None:
        damage()
        return watch(*given)

    monkeypatch.setattr(reading_module, "watch_processes", damaged)


def test_a_shard_deleted_while_reading(
    small: Path, shard: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_reading(monkeypatch, shard.unlink)
    found = verify(small / "out")
    assert f"source 's40': {shard} went missing while it was being read" in found.problems
    early = [problem for problem in found.problems if problem.startswith("reading ended after")]
    assert len(early) == 1 and f"what it waited for: source 's40': {shard}" in early[0]
    assert any("falls short" in problem for problem in found.problems)


def test_a_shard_changed_while_reading(
    small: Path, shard: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same size, other tokens: Streaming reads on."""

    def flip() -> None:
        data = bytearray(shard.read_bytes())
        data[-8] ^= 1  # the last token but one is another byte
        shard.write_bytes(bytes(data))

    before_reading(monkeypatch, flip)
    found = verify(small / "out")
    assert found.samples == 180
    assert found.problems == [f"source 's40': {shard} changed while it was being read"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:], "its content is not what was written"),
        (lambda data: data[:-9], "bytes, its index says"),
    ],
)
def test_damaged_remote_shards_have_their_remote_name(
    small: Path, shard: Path, here: None, damage: Callable[[bytes], bytes], message: str
) -> None:
    """They can be looked at only when Streaming has copied them."""

    def move(data: dict[str, Any]) -> None:
        stream = data["streams"]["s40"]
        stream["remote"], stream["local"] = stream["local"], str(small / "cache")

    rewrite(small / "out", move)
    assert verify(small / "out").problems == []
    shard.write_bytes(damage(shard.read_bytes()))
    problems = verify(small / "out").problems
    assert problems[0].startswith(f"source 's40': {shard}") and message in problems[0], problems


def test_a_missing_remote_shard_has_its_name(small: Path, shard: Path, here: None) -> None:
    def move(data: dict[str, Any]) -> None:
        stream = data["streams"]["s40"]
        stream["remote"], stream["local"] = stream["local"], str(small / "cache")

    rewrite(small / "out", move)
    shard.unlink()
    problems = verify(small / "out").problems
    early = [problem for problem in problems if problem.startswith("reading ended after")]
    assert len(early) == 1 and f"what it waited for: source 's40': {shard}" in early[0]


def test_storage_that_does_not_answer_is_named(
    small: Path, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def hangs(folder: Path, hashes: bool, beat: Callable[[Path], None]) -> Any:
        def until(path: Path) -> None:
            beat(path)
            if path == shard:
                answered.wait(60)

        return check_shards(folder, hashes, beat=until)

    monkeypatch.setattr(checking, "check_shards", hangs)
    try:
        found = verify(small / "out", How(stall_seconds=1.0))
    finally:
        answered.set()
    assert found.problems == [
        f"source 's40': nothing was read from {shard} for 1 s (--stall-seconds); look at its storage"
    ]


def test_work_that_goes_on_is_waited_for() -> None:
    pause = threading.Event()

    def slow(beat: Callable[[Any], None]) -> str:
        for number in range(6):
            beat(number)
            pause.wait(0.1)
        return "done"

    assert watch_call(slow, 0.4) == "done"
    with pytest.raises(Stalled, match="first"):
        watch_call(lambda beat: (beat("first"), pause.wait(2))[0], 0.2)
    with pytest.raises(ZeroDivisionError):
        watch_call(lambda beat: 1 / 0, 1.0)


def test_what_was_awaited_has_a_name(tmp_path: Path) -> None:
    """Two ranks with two workers: one fetches shard 2, another reads a sample of shard 0."""
    layout = {
        "offsets": [0, 10],
        "shard_offsets": [0, 4, 10],
        "shard_files": ["a.mds", "b.mds", "a.mds"],
    }
    waiting = np.full((2, 2, WAITING), -1, np.int64)  # [ranks, workers, columns]
    waiting[0, 1, FETCHED_SHARD + 1] = 2
    waiting[1, 0, READ_SAMPLE] = 3
    for rank in range(2):
        waiting_file(tmp_path, rank).write_bytes(waiting[rank].tobytes())
    assert _awaited(tmp_path, 2, layout) == [(0, "a.mds"), (1, "a.mds")]
    waiting[1, 1, FAILED_SHARD] = 1
    waiting_file(tmp_path, 1).write_bytes(waiting[1].tobytes())
    assert _awaited(tmp_path, 2, layout) == [(0, "b.mds")]
    assert _awaited(tmp_path, 2, {}) == []
