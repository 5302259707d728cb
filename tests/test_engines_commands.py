"""`mixplan calibrate` and its engines, as far as no Slurm and no GPU is needed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from ladders import SMALL, TINY, mixplan, write_ladder
from slurming import until
from typer.testing import CliRunner

from mixplan.calibrate import lease
from mixplan.calibrate.engines import Launched, outcome, runner, with_engine
from mixplan.calibrate.engines.resources import slurm_resources
from mixplan.calibrate.prepared import prepare
from mixplan.calibrate.runs import RunState
from mixplan.cli import app, main
from mixplan.documents import CalibrationSpec, load
from mixplan.documents.calibration_spec import Engine
from mixplan.errors import InputError


def test_what_cannot_run_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*options: str, **engine: object) -> str:
        spec = write_ladder(tmp_path, engine={"device": "cpu", **engine})
        monkeypatch.setattr(
            sys, "argv", ["mixplan", "calibrate", str(spec), "-o", str(tmp_path / "out"), *options]
        )
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        return capsys.readouterr().err

    assert "processes_per_run is 3, but there are 2 slot(s)" in refused(processes_per_run=3, slots=2)
    assert "--engine slum: " in refused("--engine", "slum")
    assert "--follow is for the Slurm engine" in refused("--follow")
    message = refused(processes_per_run=3, slots=3)
    assert (
        "rung small: 4 sequences a step cannot be split evenly over engine.processes_per_run = 3" in message
    )
    assert not (tmp_path / "out").exists()


def test_without_slurm_its_engine_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError) as refused:
        runner(Engine(kind="slurm"))
    first, second = refused.value.problems
    assert "pip install 'mixplan[slurm]'" in first
    assert "sbatch, squeue, scontrol, srun" in second and "--engine local" in second


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (0, 1)),
        ({"device": "cuda"}, (1, 1)),
        ({"device": "cuda", "processes_per_run": 4, "threads_per_slot": 2}, (4, 8)),
        ({"processes_per_run": 2, "slurm": {"gpus_per_run": 2, "cpus_per_run": 9}}, (2, 9)),
    ],
)
def test_what_a_run_asks_of_slurm(settings: dict, expected: tuple[int, int]) -> None:
    assert slurm_resources(Engine.model_validate({"kind": "slurm", **settings})) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"processes_per_run": 4, "slurm": {"gpus_per_run": 2}}, "needs a GPU of its own"),
        ({"device": "cuda", "slurm": {"gpus_per_run": 0}}, "device cuda needs GPUs"),
        ({"device": "cpu", "slurm": {"gpus_per_run": 1}}, "device is cpu"),
    ],
)
def test_engine_settings_that_contradict_each_other(tmp_path: Path, settings: dict, message: str) -> None:
    local = load(write_ladder(tmp_path, engine=settings), CalibrationSpec)
    with pytest.raises(InputError, match=message):
        with_engine(local, "slurm")


def test_the_end_is_put_into_words(tmp_path: Path) -> None:
    document = load(write_ladder(tmp_path, ladder=[TINY, SMALL]), CalibrationSpec)
    prepared, _ = prepare(document, tmp_path, tmp_path / "out")

    def told(*statuses: str, queued: tuple[str, ...] = ()) -> tuple[list[str], list[str], list[str]]:
        states = [RunState(f"r{i}", status, 1, 2, None, None, None) for i, status in enumerate(statuses)]  # type: ignore[arg-type]
        found = outcome(prepared, Launched(states, frozenset(queued)))
        return found.notes, found.problems, found.results

    notes, problems, results = told("finished", "diverged")
    assert "r1" in notes[0] and not problems and "1 of 2 runs finished" in results[0]
    assert "mixplan collect" in results[1]
    _, problems, _ = told("finished", "failed", "stopped", "waiting", "running")
    assert [problem.split(":")[0] for problem in problems[:2]] == ["r1", "r4"]
    assert "another process trains it" in problems[1] and "r3, r2" in problems[2]
    _, problems, results = told("running", "waiting", queued=("r0", "r1"))
    assert not problems and "mixplan status" in results[1]


def test_one_holder_at_a_time_and_a_silent_machine_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(lease, "SILENT_SECONDS", 1.5)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    run = tmp_path / "run"
    run.mkdir()
    assert not lease.held(run)
    with lease.hold(run):
        assert lease.held(run)
        with (
            pytest.raises(lease.Taken, match=rf"run run is being trained by process {os.getpid()} on "),
            lease.hold(run),
        ):
            raise AssertionError("never here")
    assert not lease.held(run) and not (run / "owner.json").exists()
    # Another machine, whose lock does not reach us: alive while its heartbeat changes.
    owner = {"host": "elsewhere", "process": 7, "beat": 0}
    (run / "owner.json").write_text(json.dumps(owner))
    over = threading.Event()
    beating = threading.Thread(target=lease._beat, args=(run, owner, over))
    beating.start()
    try:
        assert lease.held(run)
        with pytest.raises(lease.Taken, match="process 7 on elsewhere"), lease.hold(run):
            raise AssertionError("never here")
    finally:
        over.set()
        beating.join()
    with lease.hold(run):
        assert json.loads((run / "owner.json").read_text())["process"] == os.getpid()


@pytest.mark.slow
def test_a_run_is_never_trained_twice_and_saves_when_told_to_stop(tmp_path: Path) -> None:
    spec = write_ladder(
        tmp_path,
        ladder=[TINY],
        horizons={"tokens": [10_240_000]},
        training={"batch_sequences": 4, "checkpoint_every_seconds": 3600},
    )
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mixplan", "calibrate", str(spec), "-o", str(out)]
    # A test suite that was started in the background ignores Ctrl-C, and so would its children.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **heeding) as first:
        try:
            until(lambda: list((out / "runs").rglob("progress.json")), "the run is under way")
            (run,) = (out / "runs").iterdir()
            second = subprocess.run(command, capture_output=True, text=True, check=False)
            assert second.returncode == 1 and f"{run.name}: another process trains it" in second.stderr
            assert first.poll() is None and not (run / "failed.txt").exists()
            # Ctrl-C: the state is saved although no checkpoint was due for an hour.
            first.send_signal(signal.SIGINT)
            first.communicate()
        finally:
            first.kill()
    assert first.returncode == 130
    assert len(list((run / "checkpoint").glob("state-*.pt"))) == 1
    assert "told to stop; the state is saved" in (run / "log.txt").read_text()


def test_a_skypilot_task_runs_a_command_that_exists(tmp_path: Path) -> None:
    spec = write_ladder(tmp_path / "my ladder", engine={"device": "cuda", "slots": 4, "threads_per_slot": 2})
    target = tmp_path / "sky.yaml"
    done = mixplan("calibrate", spec, "--emit-skypilot", target)
    assert done.returncode == 0 and f"wrote {target}" in done.stdout
    task = yaml.safe_load(target.read_text())
    assert task["workdir"] == str(spec.parent)
    assert task["resources"] == {"cpus": "8+", "accelerators": {"H100": 4, "A100": 4, "L40S": 4}}
    program, *arguments = shlex.split(task["run"])
    assert program == "mixplan"
    # The command as it stands, in the folder that SkyPilot copies, but asking for help instead of training.
    assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
    assert (Path(task["workdir"]) / arguments[1]).samefile(spec)
    (mounted,) = task["file_mounts"]
    assert arguments[arguments.index("-o") + 1].startswith(mounted + "/")
    again = mixplan("calibrate", spec, "--emit-skypilot", target)
    assert again.returncode == 2 and "does not overwrite" in again.stderr


def test_a_skypilot_task_cannot_read_what_is_not_copied(tmp_path: Path) -> None:
    spec = write_ladder(tmp_path, corpus={"paths": ["/data/text.txt", "../more/*.txt"]})
    done = mixplan("calibrate", spec, "--emit-skypilot", tmp_path / "sky.yaml")
    assert done.returncode == 2 and not (tmp_path / "sky.yaml").exists()
    assert "/data/text.txt: lies outside" in done.stderr and "../more/*.txt: lies outside" in done.stderr
