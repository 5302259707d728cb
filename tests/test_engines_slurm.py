"""A ladder on a real Slurm: the numbers are those without it, whatever happens to jobs and nodes.

One ladder of three runs goes through everything, since most of the time is spent starting processes: one run
is preempted and later cancelled, one runs out of time, one loses its node.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import slurming
from ladders import TINY, mixplan, write_ladder
from slurming import Cluster, until

from mixplan.calibrate.runs import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(slurming.missing() is not None, reason=str(slurming.missing())),
]
RUNS = ("tiny-51200t-s0", "tiny-51200t-s1", "tiny-51200t-s2")


def write(folder: Path) -> Path:
    """Three runs of 200 steps, saved very often."""
    engine = {
        "device": "cpu",
        "slurm": {"time_minutes": 5, "max_parallel": 3, "setup": ["export FROM_SETUP=1"]},
    }
    return write_ladder(folder, ladder=[TINY], seeds=[0, 1, 2], horizons={"tokens": [51200]}, engine=engine)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process measures without any engine."""
    from mixplan.calibrate.distributed import World
    from mixplan.calibrate.prepared import prepare
    from mixplan.calibrate.training import train
    from mixplan.documents import CalibrationSpec, load

    folder = tmp_path_factory.mktemp("undisturbed")
    prepare(load(write(folder), CalibrationSpec), folder, folder / "out")
    for run in RUNS:
        train(folder / "out", run, 1, World("cpu", threading.Event()))
    return measured(folder / "out")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm of three nodes with two cores each."""
    with slurming.cluster(tmp_path_factory.mktemp("slurm"), nodes=3) as running:
        yield running


@dataclass
class History:
    """What was done to a ladder, and what was seen."""

    out: Path
    first: CompletedProcess[str]
    again: CompletedProcess[str]
    """The same command while its jobs are queued or running."""
    jobs: list[str]
    status: str
    """Of a run under way."""
    preempted: str
    timed_out: str
    on_lost_node: str
    last: CompletedProcess[str]

    @property
    def submissions(self) -> list[dict[str, Any]]:
        return submissions(self.out)


@pytest.fixture(scope="module")
def history(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> History:
    """Submit, submit again, disturb every run once it is under way, cancel one, and go on to the end."""
    folder = tmp_path_factory.mktemp("ladder")
    out = folder / "out"
    command = ("calibrate", write(folder), "-o", out, "--engine", "slurm")
    first = mixplan(*command)
    assert first.returncode == 0, first.stderr
    again = mixplan(*command)
    job = submissions(out)[0]["job"]
    until(lambda: all(node for *_, node in slurm.jobs()), "all jobs have a node")
    listed = slurm.jobs()
    # Two runs are on one node, and one is alone.
    nodes = {RUNS[int(number.split("_")[1])]: node for _, number, _, node in listed}
    (lonely,) = (run for run in RUNS if list(nodes.values()).count(nodes[run]) == 1)
    preempted, timed_out = (run for run in RUNS if run != lonely)
    statuses: list[str] = []

    def preempt() -> None:
        statuses.append(RunFolder(out / "runs" / preempted).state().status)
        slurm("scontrol", "requeue", f"{job}_{RUNS.index(preempted)}")

    disturb: dict[str, Callable[[], Any]] = {
        preempted: preempt,
        # What Slurm sends `signal_seconds` before the time limit.
        timed_out: lambda: slurm("scancel", "--signal=USR2", f"{job}_{RUNS.index(timed_out)}"),
        lonely: lambda: slurm.lose(nodes[lonely]),
    }

    def disturbed() -> bool:
        for run in [run for run in disturb if saved(out, run)]:
            disturb.pop(run)()
        return not disturb

    until(disturbed, "every run was under way")
    until(lambda: len(starts(out, preempted)) == 2, "the preempted run goes on")
    slurm("scancel", f"{job}_{RUNS.index(preempted)}")
    until(lambda: f"{job}_{RUNS.index(preempted)}" not in [one[1] for one in slurm.jobs()], "it is gone")
    last = mixplan(*command, "--follow")
    until(lambda: not slurm.jobs(), "jobs are gone")
    numbers = sorted(number for _, number, *_ in listed)
    return History(out, first, again, numbers, *statuses, preempted, timed_out, lonely, last)


def submissions(out: Path) -> list[dict[str, Any]]:
    """What was noted as handed to Slurm."""
    return json.loads((out / "slurm" / "submissions.json").read_text())


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
    log = out / "runs" / run / "log.txt"
    return [int(step) for step in re.findall(r"from step (\d+)", log.read_text() if log.exists() else "")]


def test_the_same_command_submits_what_is_left_and_nothing_twice(history: History) -> None:
    assert "3 run(s) submitted to Slurm as job" in history.first.stderr
    assert "mixplan status" in history.first.stdout
    assert history.again.returncode == 0 and "3 run(s) are with Slurm already" in history.again.stderr
    note, rest = history.submissions
    assert note["runs"] == list(RUNS) and rest["runs"] == [history.preempted]
    assert history.jobs == [f"{note['job']}_{place}" for place in range(3)]
    script = (history.out / "slurm" / f"{note['job']}_submission.sh").read_text()
    assert "SBATCH --array=0-2%3" in script and "export FROM_SETUP=1" in script
    assert history.status == "running"
    assert f"1 run(s) submitted to Slurm as job {rest['job']}" in history.last.stderr


def test_followed_to_the_end_all_runs_measured_what_undisturbed_ones_do(
    history: History, undisturbed: dict[str, bytes]
) -> None:
    assert history.last.returncode == 0, history.last.stderr
    assert "3 of 3 runs finished" in history.last.stdout
    assert measured(history.out) == undisturbed


def test_preempted_and_then_cancelled_a_run_goes_on_from_where_it_was(history: History) -> None:
    # Told to stop by Slurm both times, it saved.
    first, second, third = starts(history.out, history.preempted)
    assert first == 0 < second < third


def test_out_of_time_a_run_goes_back_to_the_queue_and_continues(history: History) -> None:
    first, second = starts(history.out, history.timed_out)
    assert first == 0 < second
    messages = (history.out / "runs" / history.timed_out / "slurm.txt").resolve().with_suffix(".out")
    assert "Requeued job" in messages.read_text()


def test_a_lost_node_costs_what_was_done_since_the_last_checkpoint(history: History) -> None:
    first, second = starts(history.out, history.on_lost_node)
    assert first == 0 < second
    # It was killed, not told to stop.
    assert "told to stop" not in (history.out / "runs" / history.on_lost_node / "log.txt").read_text()


def test_what_slurm_refuses_is_said_and_nothing_is_noted_as_submitted(slurm: Cluster, tmp_path: Path) -> None:
    engine = {"kind": "slurm", "slurm": {"partition": "nowhere", "max_parallel": 1}}
    done = mixplan("calibrate", write_ladder(tmp_path, engine=engine), "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "sbatch refused" in done.stderr and "invalid partition" in done.stderr
    assert "Traceback" not in done.stderr
    assert submissions(tmp_path / "out") == []
    (script,) = (tmp_path / "out" / "slurm").glob("*.sh")
    assert "SBATCH --array=0-1%1" in script.read_text()
