"""verify: what the real StreamingDataset delivers, against the recipe; damage is found and named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes_making import write_recipe
from recipes_verifying import SIZES, record_here, rewrite, shared_memory

from mixplan.errors import InputError
from mixplan.recipes import checking
from mixplan.recipes.emitting import emit
from mixplan.recipes.recording import RECORD, Job
from mixplan.recipes.shards import ShardCheck
from mixplan.recipes.verifying import How, verify
from mixplan.recipes.watching import last_words, watch_processes
from mixplan.recipes.written import Options

pytest_plugins = ["recipes_verifying"]
ROOT = Path(__file__).resolve().parent.parent
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


# --- what is read ---


@settings(max_examples=8, deadline=None)
@given(
    epochs=st.lists(
        st.tuples(st.sampled_from(["s17", "s40", "s97", "s160", "rare", "code"]), st.floats(0.05, 8.0)),
        min_size=2,
        max_size=6,
        unique_by=lambda pair: pair[0],
    ),
    seed=st.integers(0, 2**31),
)
def test_realised_samples_are_chosen_samples(
    sources: Path, epochs: list[tuple[str, float]], seed: int
) -> None:
    choose = {
        name: max(1, round(min(value, 0.2 if name == "code" else 8) * SIZES[name])) for name, value in epochs
    }
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", scratch)
        folder = Path(scratch)
        (folder / "mds").symlink_to(sources / "mds")
        emit(write_recipe(folder, choose, shuffle_seed=seed), folder / "out")
        shutil.copy(folder / "out" / "streams.yaml", folder)
        Job().save(folder)
        record_here(folder)
        records = np.frombuffer((folder / "order-0.bin").read_bytes(), RECORD)
        layout = json.loads((folder / "layout.json").read_text())
        stream = np.searchsorted(layout["offsets"], records["sample_id"], side="right") - 1
        assert dict(zip(choose, np.bincount(stream, minlength=len(choose)).tolist(), strict=True)) == choose
        for index, (name, count) in enumerate(choose.items()):
            times = np.bincount(records["sample_id"][stream == index] - layout["offsets"][index])
            assert times.max() == -(-count // SIZES[name])
            assert (times > 0).sum() == min(count, SIZES[name])
        assert (records["tokens"] == 16).all()


@pytest.mark.slow
def test_command_reads_with_ranks_stops_resumes_and_measures_evenness(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "mds").symlink_to(sources / "mds")
    choose = {"web": 5_998, "code": 3_000, "rare": 1_000, "s17": 0}
    emit(write_recipe(tmp_path, choose, ("rare",)), tmp_path / "out")
    command = [sys.executable, "-m", "mixplan", "verify", str(tmp_path / "out"), "--json"]
    command += ["--ranks", "2", "--workers", "1", "--resume-check", "-o", str(tmp_path / "verify.json")]
    done = subprocess.run(command, env=ENV, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert json.loads((tmp_path / "verify.json").read_text()) == found
    assert found["passed"] and found["problems"] == [] and found["warnings"] == []
    assert found["samples"] == found["samples_expected"] == 9_998
    assert found["shards_hashed"] == found["shards_checked"] > 96
    read = {source["name"]: source for source in found["sources"]}
    assert {name: source["samples"] for name, source in read.items()} == {
        name: count for name, count in choose.items() if count
    }
    assert all(source["tokens"] == 16 * source["samples"] for source in read.values())
    assert (read["rare"]["epochs"], read["rare"]["distinct_samples"], read["rare"]["most_repeats"]) == (
        2.5,
        400,
        3,
    )
    assert (read["code"]["distinct_samples"], read["code"]["most_repeats"]) == (3_000, 1)
    spread = read["rare"]["spread"]
    # a cv over 100 windows has a standard error of 7 %
    assert spread["cv_ratio"] < 1.3 and spread["empty_windows"] == 0
    assert spread["longest_gap_samples"] < 2 * spread["longest_gap_iid_samples"]
    assert found["order_as_planned"] and found["padding_samples"] == 0
    resumed = found["resumption"]
    assert resumed["same_order"] and resumed["other_state_refused"]
    assert resumed["samples"] == resumed["samples_left"] == 9_998 - resumed["stopped_at_samples"]
    assert shared_memory(tmp_path) == []


def test_bursts_are_reported(sources: Path, tmp_path: Path, here: None) -> None:
    (tmp_path / "mds").symlink_to(sources / "mds")
    emit(
        write_recipe(tmp_path, {"code": 5_000, "rare": 400}, ("rare",)),
        tmp_path / "out",
        options=Options(block_samples=200),
    )
    found = verify(tmp_path / "out")
    rare = found.sources[1].spread
    assert rare is not None and rare.cv_ratio > 2.0
    (problem,) = found.problems
    assert "'rare' comes in bursts" in problem and found.warnings == []
    allowed = verify(tmp_path / "out", How(allow_uneven=True))
    assert allowed.passed and allowed.warnings == [problem]


def test_what_streaming_cuts_short_is_found(small: Path, here: None) -> None:
    """Stratified batches of 64 cannot hold 30 of 180 exactly: Streaming drops the rest without a word."""

    def stratify(data: dict[str, Any]) -> None:
        data["dataset"]["batching_method"] = "stratified"

    rewrite(small / "out", stratify)
    found = verify(small / "out")
    assert not found.passed
    assert found.samples < 180
    assert any("'s97' falls short" in problem for problem in found.problems), found.problems


def test_copied_sources_leave_the_originals_alone(small: Path, here: None) -> None:
    """Remote shards, and compressed ones that Streaming would unpack in place, go through own caches."""
    from streaming import LocalDataset, MDSWriter

    packed = small / "mds" / "packed"
    rows = LocalDataset(local=str(small / "mds" / "s40"))
    with MDSWriter(
        columns={"tokens": "ndarray:int32:16"},
        out=str(packed),
        compression="zstd:3",
        hashes=["sha1"],
        size_limit=900,
    ) as writer:
        for index in range(len(rows)):
            writer.write({"tokens": rows[index]["tokens"]})
    recipe = yaml.safe_load(write_recipe(small, {"s97": 150, "packed": 30}).read_text())
    (small / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    emit(small / "recipe.yaml", small / "copied")

    def move(data: dict[str, Any]) -> None:
        stream = data["streams"]["s97"]
        stream["remote"], stream["local"] = stream["local"], str(small / "cache")
        del data["index_sha256"]["s97"]

    rewrite(small / "copied", move)
    before = sorted(path.name for path in packed.iterdir())
    found = verify(small / "copied")
    assert found.problems == []
    assert [source.samples for source in found.sources] == [150, 30]
    assert sorted(path.name for path in packed.iterdir()) == before
    assert not (small / "cache").exists()


def test_remote_data_of_another_amount_is_found(small: Path, here: None) -> None:
    """emit cannot look into remote folders; verify sees what is there."""

    def move(data: dict[str, Any]) -> None:
        data["streams"]["s97"].update(remote=str(small / "mds" / "s40"), local=str(small / "cache"))
        data["streams"]["s40"].update(remote=str(small / "mds" / "s97"), local=str(small / "cache2"))
        data["index_sha256"] = {}

    rewrite(small / "out", move)
    found = verify(small / "out")
    assert [source.samples for source in found.sources] == [150, 30]
    assert any(
        "holds 640 tokens, but the recipe was computed for 1,552" in problem for problem in found.problems
    )
    assert len(found.problems) == 2


# --- damage ---


def shard(folder: Path, name: str = "s40") -> Path:
    return folder / "mds" / name / "shard.00003.mds"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x10
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "bytes, its index says"),
        (Path.unlink, "is missing, though its index lists it"),
        (flip, "its content is not what was written (xxh3_64 is"),
    ],
)
def test_damaged_shard_is_named(small: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(shard(small))
    found = verify(small / "out")
    assert not found.passed
    (problem,) = found.problems
    assert found.warnings == []
    assert problem.startswith(f"source 's40': {shard(small)}")
    assert message in problem


def test_damage_ends_the_command_with_one(small: Path) -> None:
    truncate(shard(small))
    flip(shard(small, "s97"))
    command = [sys.executable, "-m", "mixplan", "verify", str(small / "out"), "--json"]
    done = subprocess.run(command, env=ENV, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "no: source 's40'" in done.stderr and "no: source 's97'" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["passed"] is False


def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the damage came after the shards were checked."""
    monkeypatch.setattr(checking, "check_shards", lambda *a, **k: ShardCheck([], 1, 1, 0, False))


@pytest.mark.slow
def test_early_end_without_an_exception_is_found(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    shard(small).unlink()
    found = verify(small / "out")
    assert any("'s40' falls short" in problem for problem in found.problems), found.problems
    assert any("reading ended after" in problem for problem in found.problems)
    assert shared_memory(small) == []


HANGING = """
import os, sys
from multiprocessing import resource_tracker, shared_memory
held = shared_memory.SharedMemory(create=True, size=64)
folder = sys.argv[1]
with open(folder + "/order.bin", "ab") as order:
    order.write(bytes(32))
os.mkfifo(folder + "/never")
worker = os.fork()
if worker:
    with open(folder + "/ids", "w") as ids:
        ids.write(f"{os.getpid()} {worker} {held.name}")
open(folder + "/never", "rb")  # waits for a writer that never comes
"""


def test_a_hanging_reader_is_ended_with_its_workers(tmp_path: Path) -> None:
    """A process and its worker that wait for a file for ever, and hold shared memory."""
    (tmp_path / "order.bin").touch()
    seen: list[int] = []
    command = [sys.executable, "-c", HANGING, str(tmp_path)]
    order = tmp_path / "order.bin"
    code = watch_processes(
        [command], tmp_path / "said", lambda: order.stat().st_size, 3.0, seen.append, tmp_path
    )
    assert code is None and seen == [32]
    *processes, memory = (tmp_path / "ids").read_text().split()
    assert len(set(processes)) == 2
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)
    assert not Path("/dev/shm", memory).exists()


def test_index_that_changed_since_emit(small: Path, sources: Path) -> None:
    shutil.rmtree(small / "mds" / "s40")
    shutil.copytree(sources / "mds" / "s160", small / "mds" / "s40")
    found = verify(small / "out")
    assert any("is not the one that the mixture was emitted for" in problem for problem in found.problems)


def test_shards_without_hashes_are_said(small: Path, here: None) -> None:
    path = small / "mds" / "s40" / "index.json"
    index = json.loads(path.read_text())
    index["shards"][2]["raw_data"]["hashes"] = {}
    path.write_text(json.dumps(index))
    emit(small / "recipe.yaml", small / "out", force=True)
    found = verify(small / "out")
    assert found.passed
    (warning,) = found.warnings
    assert f"source 's40': its index has no hash for 1 of {len(index['shards'])} shards" in warning


def test_incomplete_index_is_an_answer(small: Path) -> None:
    path = small / "mds" / "s40" / "index.json"
    index = json.loads(path.read_text())
    del index["shards"][2]["raw_data"]["bytes"]
    path.write_text(json.dumps(index))
    assert "shard 2 has no file name and size" in verify(small / "out").problems[0]


def test_missing_folder_is_an_answer(small: Path) -> None:
    shutil.rmtree(small / "mds" / "s40")
    assert "source 's40'" in verify(small / "out").problems[0]


# --- documents ---


def test_edited_streams_are_found(small: Path) -> None:
    path = small / "out" / "streams.yaml"
    path.write_text(path.read_text().replace("shuffle: true", "shuffle: false"))
    assert "was changed after it was emitted" in verify(small / "out").problems[0]

    def swap(data: dict[str, Any]) -> None:
        data["streams"]["s97"]["choose"], data["streams"]["s40"]["choose"] = 147, 33

    rewrite(small / "out", swap)
    assert verify(small / "out").problems == [
        "source 's97': streams.yaml takes 147 samples, the recipe says 150",
        "source 's40': streams.yaml takes 33 samples, the recipe says 30",
    ]


def test_folders_that_are_no_mixture(small: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        verify(small / "nowhere")
    with pytest.raises(InputError, match=r"holds no streams\.yaml, olmo_core\.yaml, phases"):
        verify(small / "mds")
    (small / "out" / "streams.yaml").write_text("streams: {web: {lokal: x}}")
    with pytest.raises(InputError, match="did you mean 'local'"):
        verify(small / "out")


def test_last_words_are_the_exception(tmp_path: Path) -> None:
    path = tmp_path / "messages.txt"
    path.write_text(
        "Traceback (most recent call last):\n  File x\nValueError: broken\nsome warning afterwards\n"
    )
    assert last_words(path) == "ValueError: broken"
    path.write_text("")
    assert last_words(path) == ""
