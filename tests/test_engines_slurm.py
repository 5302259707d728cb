"""Ladders on a real Slurm: the numbers are the local engine's, whatever happens to jobs and nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurming
from ladders import SMALL, TINY, mixplan, write_ladder
from slurming import Cluster, until

from mixplan.calibrate.runs import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(slurming.missing() is not None, reason=str(slurming.missing())),
]
RUNS = ("small-51200t-s0", "tiny-51200t-s0")


def write(folder: Path) -> Path:
    """Two runs of 200 steps, saved very often, two at a time."""
    engine = {
        "device": "cpu",
        "slurm": {"time_minutes": 5, "max_parallel": 2, "setup": ["export FROM_SETUP=1"]},
    }
    return write_ladder(folder, ladder=[TINY, SMALL], horizons={"tokens": [51200]}, engine=engine)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the local engine measures."""
    folder = tmp_path_factory.mktemp("local")
    done = mixplan("calibrate", write(folder), "-o", folder / "out")
    assert done.returncode == 0, done.stderr
    return measured(folder / "out")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm of two nodes with two cores each."""
    with slurming.cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def measured(out: Path) -> dict[str, bytes]:
    """The measurements of every run, and that all are finished."""
    assert all(
        json.loads((out / "runs" / run / "done.json").read_text())["status"] == "finished" for run in RUNS
    )
    return {run: (out / "runs" / run / "metrics.jsonl").read_bytes() for run in RUNS}


def saved(out: Path, run: str) -> bool:
    """Whether the run is under way, so that what happens now hits training and not only imports."""
    return len(list((out / "runs" / run).rglob("state-*.pt"))) == 2


def starts(out: Path, run: str) -> list[int]:
    """The steps from which the run was started, one for each process that trained it."""
    return [
        int(step) for step in re.findall(r"from step (\d+)", (out / "runs" / run / "log.txt").read_text())
    ]


def test_an_array_job_cancelled_midway_is_finished_by_the_same_command(
    local: dict[str, bytes], slurm: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("calibrate", write(tmp_path), "-o", out, "--engine", "slurm")
    done = mixplan(*command)
    assert done.returncode == 0, done.stderr
    assert "2 run(s) submitted to Slurm as job" in done.stderr and "mixplan status" in done.stdout
    # The same command again, while jobs are queued or running, submits nothing.
    done = mixplan(*command)
    assert done.returncode == 0 and "2 run(s) are with Slurm already" in done.stderr
    (note,) = json.loads((out / "slurm" / "submissions.json").read_text())
    assert note["runs"] == list(RUNS)
    assert sorted(job[1] for job in slurm.jobs()) == [f"{note['job']}_0", f"{note['job']}_1"]
    assert "SBATCH --array=0-1%2" in (out / "slurm" / f"{note['job']}_submission.sh").read_text()
    until(lambda: any(saved(out, run) for run in RUNS), "a run is under way")
    under_way = [RunFolder(out / "runs" / run) for run in RUNS if saved(out, run)]
    assert [folder.state().status for folder in under_way] == ["running"] * len(under_way)
    slurm("scancel", note["job"])
    until(lambda: not slurm.jobs(), "jobs are gone")
    left = [run for run in RUNS if not (out / "runs" / run / "done.json").exists()]
    assert left
    done = mixplan(*command, "--follow")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 runs finished" in done.stdout
    assert measured(out) == local
    # Told to stop by scancel, they saved; those that had not begun begin.
    assert all(starts(out, run)[-1] > 0 for run in left if len(starts(out, run)) == 2)
    assert any(len(starts(out, run)) == 2 for run in left)
    until(lambda: not slurm.jobs(), "jobs are gone")


def test_preempted_or_out_of_time_a_run_goes_back_to_the_queue_and_continues(
    local: dict[str, bytes], slurm: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert mixplan("calibrate", write(tmp_path), "-o", out, "--engine", "slurm").returncode == 0
    (note,) = json.loads((out / "slurm" / "submissions.json").read_text())
    preempted, timed_out = RUNS
    until(lambda: saved(out, preempted), "the first run is under way")
    slurm("scontrol", "requeue", f"{note['job']}_0")
    until(lambda: saved(out, timed_out), "the second run is under way")
    # What Slurm sends `signal_seconds` before the time limit.
    slurm("scancel", "--signal=USR2", f"{note['job']}_1")
    until(lambda: all((out / "runs" / run / "done.json").exists() for run in RUNS), "both are finished")
    assert measured(out) == local
    for run in RUNS:
        assert len(starts(out, run)) == 2 and starts(out, run)[0] == 0 < starts(out, run)[1]
    assert (
        "Requeued job" in (out / "runs" / timed_out / "slurm.txt").resolve().with_suffix(".out").read_text()
    )
    assert len(json.loads((out / "slurm" / "submissions.json").read_text())) == 1


def test_a_lost_node_costs_what_was_done_since_the_last_checkpoint(
    local: dict[str, bytes], slurm: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert mixplan("calibrate", write(tmp_path), "-o", out, "--engine", "slurm").returncode == 0
    until(lambda: saved(out, RUNS[0]), "the first run is under way")
    nodes = {int(number.split("_")[1]): node for _, number, _, node in slurm.jobs()}
    lost = nodes[0]
    slurm.lose(lost)
    until(lambda: all((out / "runs" / run / "done.json").exists() for run in RUNS), "both are finished")
    assert measured(out) == local
    for place, run in enumerate(RUNS):
        begun = starts(out, run)
        if place == 0:
            assert len(begun) == 2 and begun[0] == 0 < begun[1]
        elif nodes[place] != lost:
            assert begun == [0]


def test_what_slurm_refuses_is_said_and_nothing_is_noted_as_submitted(slurm: Cluster, tmp_path: Path) -> None:
    spec = write_ladder(tmp_path, engine={"kind": "slurm", "slurm": {"partition": "nowhere"}})
    done = mixplan("calibrate", spec, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "sbatch refused" in done.stderr and "invalid partition" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "out" / "slurm" / "submissions.json").read_text()) == []
