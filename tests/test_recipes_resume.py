"""build: cut short at any moment, the same call continues it and ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recipes_making import write_plan, write_text

from mixplan.errors import InputError
from mixplan.recipes import packing, processes, spilling
from mixplan.recipes.building import build

ROOT = Path(__file__).resolve().parent.parent


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spilling, "BATCH_BYTES", 600)
    monkeypatch.setattr(packing, "_TASK_BYTES", 3000)


def prepared(folder: Path) -> Path:
    write_text(folder / "text" / "web", 200, documents=5)
    return write_plan(folder, {"web": {"text": ["text/web"], "mds": "mds/web"}})


def killed_at(step: int, plan: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Build in a process that is killed before its `step`-th renaming; whether it came so far."""
    child = os.fork()
    if child == 0:  # pragma: no cover
        seen = 0

        def dying(act: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*given: Any, **more: Any) -> Any:
                nonlocal seen
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return act(*given, **more)

            return wrapped

        os.replace, os.rename, os.rmdir = dying(os.replace), dying(os.rename), dying(os.rmdir)
        try:
            build(plan, workers=1)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_every_step_it_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = build(prepared(tmp_path / "whole"))
    wanted = contents(whole.folder)
    step, points, continued = 1, 0, 0
    while killed_at(step, plan := prepared(tmp_path / str(step)), monkeypatch):
        place = tmp_path / str(step) / "mds"
        in_place = place / "web"
        assert not in_place.exists() or contents(in_place) == wanted, "whole or not at all"
        lines: list[str] = []
        (built,) = build(plan, progress=lines.append)
        continued += any("are there from a build that was cut short" in line for line in lines)
        assert contents(built.folder) == wanted
        assert [entry.name for entry in place.iterdir()] == ["web"]
        step, points = step + (1 if step < 14 else 4), points + 1
    assert points > 20 and continued > 15


def test_killed_again_and_again_it_still_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = build(prepared(tmp_path / "whole"))
    plan = prepared(tmp_path / "other")
    times = 0
    while killed_at(12, plan, monkeypatch):
        times += 1
        assert times < 20, "it does not come further"
    assert times > 3
    (built,) = build(plan)
    assert built.skipped and contents(built.folder) == contents(whole.folder)


def test_only_what_changed_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepared(tmp_path)
    assert killed_at(8, plan, monkeypatch)
    changed = tmp_path / "text" / "web" / "0.txt"
    changed.write_bytes(b"other " * 100)
    lines: list[str] = []
    (built,) = build(plan, progress=lines.append)
    assert any("input or settings changed since" in line for line in lines)
    assert any(": 2 of 5 parts are there" in line for line in lines), lines
    fresh = tmp_path / "fresh"
    (fresh / "text").mkdir(parents=True)
    (fresh / "text" / "web").symlink_to(tmp_path / "text" / "web")
    (same,) = build(write_plan(fresh, {"web": {"text": ["text/web/*"], "mds": "mds/web"}}))
    assert contents(same.folder) == contents(built.folder)


def test_another_file_of_the_same_size_and_time_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As copies and archives put it in place."""
    plan = prepared(tmp_path)
    assert killed_at(8, plan, monkeypatch)
    file = tmp_path / "text" / "web" / "0.txt"
    before = file.stat()
    replacement = tmp_path / "replacement"
    replacement.write_bytes(file.read_bytes()[::-1])
    os.utime(replacement, ns=(before.st_atime_ns, before.st_mtime_ns))
    replacement.rename(file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    (built,) = build(plan)
    fresh = tmp_path / "fresh"
    (fresh / "text").mkdir(parents=True)
    (fresh / "text" / "web").symlink_to(tmp_path / "text" / "web")
    (same,) = build(write_plan(fresh, {"web": {"text": ["text/web/*"], "mds": "mds/web"}}))
    assert contents(same.folder) == contents(built.folder)


def test_what_build_writes_is_never_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path, 200, documents=5)
    plan = write_plan(tmp_path, {"web": {"text": ["."], "mds": "mds/web"}})
    assert killed_at(8, plan, monkeypatch)
    (built,) = build(plan)
    assert built.build.documents == 6, "the five, and the plan"
    assert (tmp_path / "sources.lock").exists() and build(plan)[0].skipped


def test_a_damaged_spill_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = build(prepared(tmp_path / "whole"))
    plan = prepared(tmp_path / "other")
    assert killed_at(8, plan, monkeypatch)
    spill = next((tmp_path / "other" / "mds" / ".web.build" / "spill").glob("*.tokens"))
    spill.write_bytes(spill.read_bytes()[:-1] + b"?")
    (built,) = build(plan)
    assert contents(built.folder) == contents(whole.folder)


def test_a_bad_file_leaves_the_good_ones_tokenised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepared(tmp_path)
    read = spilling.read_piece

    def touched(piece: Any, *given: Any) -> Any:
        if piece.path.name == "4.txt":
            os.utime(piece.path, ns=(1, 1))
        return read(piece, *given)

    monkeypatch.setattr(spilling, "read_piece", touched)
    with pytest.raises(InputError, match=r"4\.txt changed while it was read; build again"):
        build(plan)
    assert not (tmp_path / "mds" / "web").exists()
    monkeypatch.setattr(spilling, "read_piece", read)
    lines: list[str] = []
    build(plan, progress=lines.append)
    assert any(": 4 of 5 parts are there" in line for line in lines), lines


def test_two_builds_side_by_side_do_not_meet(tmp_path: Path) -> None:
    from mixplan.recipes.folders import resumable

    plan = prepared(tmp_path)
    with (
        resumable(tmp_path / "mds" / "web"),
        pytest.raises(InputError, match="is being built by another process"),
    ):
        build(plan)
    assert not build(plan)[0].skipped


PARALLEL = """
import sys
from pathlib import Path
from mixplan.recipes import packing, processes, spilling
processes.WORTH_PROCESSES_BYTES = 0
spilling.BATCH_BYTES = 20_000
packing._TASK_BYTES = 30_000
from mixplan.recipes.building import build
if __name__ == "__main__":
    build(Path(sys.argv[1]), workers=2)
"""


@pytest.mark.slow
def test_processes_give_the_same_bytes_also_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    plans = {}
    for name in ("alone", "together", "killed"):
        write_text(tmp_path / name / "text", 20_000, documents=40)
        plans[name] = write_plan(tmp_path / name, {"web": {"text": ["text"], "mds": "mds/web"}})
    (alone,) = build(plans["alone"], workers=1)
    wanted = contents(alone.folder)
    subprocess.run([sys.executable, str(script), str(plans["together"])], env=env, check=True, timeout=120)
    assert contents(tmp_path / "together" / "mds" / "web") == wanted
    running = subprocess.Popen([sys.executable, str(script), str(plans["killed"])], env=env)
    work = tmp_path / "killed" / "mds" / ".web.build" / "spill"
    while running.poll() is None and len(list(work.glob("*.json"))) < 4:
        time.sleep(0.002)
    running.kill()
    running.wait()
    monkeypatch.setattr(processes, "WORTH_PROCESSES_BYTES", 0)
    (built,) = build(plans["killed"], workers=2)
    assert contents(built.folder) == wanted
