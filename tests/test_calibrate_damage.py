"""Damage in the middle of a ladder: nothing lost, nothing counted twice, a clear message."""

from __future__ import annotations

import json
import resource
import threading
from pathlib import Path
from typing import Any

import pytest
from ladders import TINY, mixplan, write_ladder
from typer.testing import CliRunner

from mixplan.calibrate.collect import collect
from mixplan.calibrate.distributed import GO_ON, SAVE, SAVE_AND_STOP, Stopped, World
from mixplan.calibrate.prepared import Prepared, prepare
from mixplan.calibrate.runs import DamagedMetrics, RunFolder
from mixplan.calibrate.training import train
from mixplan.cli import app
from mixplan.documents import CalibrationSpec, load

pytestmark = pytest.mark.slow
HORIZONS = {"tokens": [5120, 7680, 10240]}


class Interrupted(World):
    """Saves every fifth step, and is told to stop after so many."""

    def __init__(self, steps: int) -> None:
        super().__init__("cpu", threading.Event())
        self.left = steps

    def order(self, save: bool) -> int:
        self.left -= 1
        return SAVE_AND_STOP if self.left == 0 else SAVE if self.left % 5 == 0 else GO_ON


def ladder(folder: Path) -> tuple[Prepared, RunFolder]:
    """One run of 40 steps with two branches."""
    path = write_ladder(
        folder, ladder=[TINY], horizons=HORIZONS, training={"batch_sequences": 4, "decay_fraction": 0.2}
    )
    prepared, _ = prepare(load(path, CalibrationSpec), folder, folder / "out")
    (run,) = prepared.runs()
    return prepared, prepared.folder(run)


def go(prepared: Prepared, world: World | None = None) -> None:
    """Train, as a worker does."""
    train(prepared.out, prepared.runs()[0].run_id, 1, world or World("cpu", threading.Event()))


def rows(folder: RunFolder) -> list[str]:
    """The measurements, without order: a branch is measured when it is trained."""
    return sorted(json.dumps(row, sort_keys=True) for row in folder.rows())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The measurements of a run that nothing happened to."""
    prepared, folder = ladder(tmp_path_factory.mktemp("whole"))
    go(prepared)
    found = rows(folder)
    assert len(found) == len(set(found))
    return found


@pytest.mark.parametrize("steps", [7, 22, 31])
def test_stopped_anywhere_in_trunk_or_branch_nothing_changes(
    tmp_path: Path, whole: list[str], steps: int
) -> None:
    prepared, folder = ladder(tmp_path)
    with pytest.raises(Stopped):
        go(prepared, Interrupted(steps))
    go(prepared)
    assert rows(folder) == whole


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("steps", [22, 33])
@pytest.mark.parametrize("which", ["latest", "all", "trunk"])
def test_a_damaged_checkpoint_is_put_aside(
    tmp_path: Path, whole: list[str], damage: Any, steps: int, which: str
) -> None:
    prepared, folder = ladder(tmp_path)
    with pytest.raises(Stopped):
        go(prepared, Interrupted(steps))
    found = sorted(folder.checkpoints.glob("state-*.pt"))
    assert len(found) == 2
    broken = {"latest": found[-1:], "all": found, "trunk": sorted(folder.checkpoints.glob("trunk-*.pt"))}
    for path in broken[which]:
        damage(path)
    go(prepared)
    assert rows(folder) == whole
    shown = CliRunner().invoke(app, ["status", str(prepared.out)])
    assert shown.exit_code == 0
    for path in broken[which]:
        assert any(path.name in note and "damaged" in note for note in folder.notes())
        assert path.name in shown.output.replace("\n", "")


@pytest.mark.parametrize(("line", "how"), [(0, "no json"), (3, "another number"), (3, "lost")])
def test_damaged_measurements_of_an_unfinished_run_are_made_again(
    tmp_path: Path, whole: list[str], line: int, how: str
) -> None:
    prepared, folder = ladder(tmp_path)
    with pytest.raises(Stopped):
        go(prepared, Interrupted(30))
    lines = folder.metrics.read_text().splitlines(keepends=True)
    changed = {"no json": "\0" * 40 + "\n", "another number": lines[line].replace("1", "2", 1), "lost": ""}
    assert changed[how] != lines[line]
    lines[line] = changed[how]
    folder.metrics.write_text("".join(lines))
    go(prepared)
    assert rows(folder) == whole
    assert any("starts over" in note for note in folder.notes())
    assert list(folder.path.glob("metrics.damaged-*"))


def test_damaged_measurements_of_a_finished_run_are_left_out_until_it_is_trained_again(
    tmp_path: Path,
) -> None:
    path = write_ladder(tmp_path, ladder=[TINY], seeds=[0, 1])
    prepared, _ = prepare(load(path, CalibrationSpec), tmp_path, tmp_path / "out")
    for run in prepared.runs():
        train(prepared.out, run.run_id, 1, World("cpu", threading.Event()))
    before, _ = collect(prepared.out)
    victim = next(prepared.folder(run) for run in prepared.runs() if run.seed == 1)
    victim.metrics.write_text(victim.metrics.read_text().replace('"skill": ', '"skill": 0', 1))
    with pytest.raises(DamagedMetrics):
        list(victim.rows())
    measurements, notes = collect(prepared.out)
    assert set(measurements.learning["seed"]) == {0.0}
    assert measurements.provenance["runs"]["damaged"] == [victim.path.name]
    (said,) = [note for note in notes if "damaged" in note]
    assert str(victim.path / "done.json") in said and "mixplan calibrate" in said
    (victim.path / "done.json").unlink()
    train(prepared.out, victim.path.name, 1, World("cpu", threading.Event()))
    after, _ = collect(prepared.out)
    for name, column in before.learning.columns.items():
        assert list(after.learning[name]) == list(column), name


def test_a_full_disk_in_the_middle_loses_nothing(tmp_path: Path, whole: list[str]) -> None:
    prepared, folder = ladder(tmp_path)
    path = tmp_path / "calibration.yaml"
    with pytest.raises(Stopped):
        go(prepared, Interrupted(12))
    kept = sorted(file.name for file in folder.checkpoints.iterdir())
    size = max(file.stat().st_size for file in folder.checkpoints.iterdir())

    def no_more() -> None:
        # No file can grow beyond this: measurements fit, a checkpoint does not.
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    failed = mixplan("calibrate", path, "-o", prepared.out, preexec_fn=no_more)
    assert failed.returncode == 1
    assert "failed.txt" in failed.stderr
    said = (folder.path / "failed.txt").read_text().strip().splitlines()[-1]
    assert str(folder.checkpoints) in said and "free some space and run the same command" in said
    assert sorted(file.name for file in folder.checkpoints.iterdir()) == kept
    go(prepared)
    assert rows(folder) == whole
