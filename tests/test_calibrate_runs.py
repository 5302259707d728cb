"""Real runs of tiny models: what they measure, and what survives being killed."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ladders import SMALL, TINY, mixplan, write_ladder

from mixplan.calibrate.collect import collect
from mixplan.calibrate.engines.local import Slot, run_all
from mixplan.calibrate.metrics import Diverged, MetricsLog
from mixplan.calibrate.prepared import Prepared, prepare
from mixplan.documents import CalibrationSpec, load, read_measurements
from mixplan.documents.atomic import write_json
from mixplan.errors import InputError

pytestmark = pytest.mark.slow
CPU = [Slot("cpu", None, 1)]
TABLES = ("learning.csv", "retention.csv", "interference.csv")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder that was trained without interruption and collected."""
    folder = tmp_path_factory.mktemp("ladder")
    spec = write_ladder(folder)
    done = mixplan("calibrate", spec, "-o", folder / "out")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 runs finished" in done.stdout
    done = mixplan("collect", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_tables_hold_what_was_asked_for(finished: Path) -> None:
    m = read_measurements(finished / "out" / "measurements")
    runs, evaluations, cells = 2, 4, 2
    assert len(m.learning) == runs * evaluations * cells
    injections, replicas, delays = 3, 2, 4
    assert m.retention is not None and len(m.retention) == runs * injections * replicas * delays
    assert m.interference is not None and len(m.interference) == runs * 2 * cells
    last = m.learning.where(m.learning["step"] == 40)
    assert set(last["tokens"]) == {10240.0}
    # 0.01 · 10240 = 102.4 instances are asked for; 102 are injected, and that is what the table says.
    assert sorted(set(last["exposures"])) == [51.0, 102.0]
    assert sorted(set(last["frequency"])) == [51 / 10240, 102 / 10240]
    skill = (m.learning["accuracy"] - m.learning["chance"]) / (1 - m.learning["chance"])
    assert m.learning["skill"] == pytest.approx(skill)
    assert m.provenance["corpus_sha256"] and m.provenance["runs"]["finished"]
    # Training does something: the held-out loss falls.
    for rung in ("tiny", "small"):
        own = m.learning.where(m.learning["rung"] == rung)
        loss = [own["lm_loss"][own["step"] == step][0] for step in (10, 40)]
        assert loss[1] < loss[0] < np.log(300)


def test_a_finished_ladder_is_not_trained_again(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (finished / "out" / "runs").rglob("metrics.jsonl")}
    done = mixplan("calibrate", finished / "calibration.yaml", "-o", finished / "out")
    assert done.returncode == 0, done.stderr
    assert before == {p: p.stat().st_mtime_ns for p in (finished / "out" / "runs").rglob("metrics.jsonl")}
    status = json.loads(mixplan("status", finished / "out", "--json").stdout)
    assert [state["status"] for state in status] == ["finished", "finished"]


def test_killed_at_any_moment_the_same_command_ends_with_the_same_tables(
    finished: Path, tmp_path: Path
) -> None:
    spec = write_ladder(tmp_path)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mixplan", "calibrate", str(spec), "-o", str(out)]
    moment = np.random.default_rng(time.time_ns())
    kills = steps_kept = 0
    # The first kill comes at once, or a fast machine may be done with both runs before it.
    for longest_wait in (0.0, 0.3, 1.0):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        # Wait until a run is under way, so that the kill hits training and not only imports.
        waited = time.monotonic()
        while time.monotonic() - waited < 60 and process.poll() is None:
            if any((out / "runs").rglob("checkpoint/state-*.pt")):
                break
            time.sleep(0.005)
        time.sleep(moment.uniform(0, longest_wait))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        steps_kept += len(list((out / "runs").rglob("checkpoint/state-*.pt")))
    assert kills >= 1 and steps_kept >= 1
    assert mixplan("calibrate", spec, "-o", out).returncode == 0
    assert mixplan("collect", out).returncode == 0
    for name in TABLES:
        whole = (finished / "out" / "measurements" / name).read_bytes()
        assert (out / "measurements" / name).read_bytes() == whole


def test_a_diverged_and_a_crashed_run_do_not_stop_the_others(tmp_path: Path) -> None:
    shapes = [TINY, SMALL, {**SMALL, "name": "other", "d_ffn": 48}]
    spec = write_ladder(tmp_path, ladder=shapes)
    out = tmp_path / "out"
    prepared, _ = prepare(load(spec, CalibrationSpec), tmp_path, out)
    tiny, small, other = sorted(prepared.runs(), key=lambda run: run.shape.block_params)
    wild = {**json.loads((prepared.folder(tiny).path / "run.json").read_text()), "learning_rate": 1e30}
    write_json(prepared.folder(tiny).path / "run.json", wild)
    broken = {**json.loads((prepared.folder(small).path / "run.json").read_text()), "vocab_size": 5}
    write_json(prepared.folder(small).path / "run.json", broken)
    states = {state.run_id: state for state in run_all(prepared, CPU, lambda states: None)}
    assert states[tiny.run_id].status == "diverged"
    assert states[small.run_id].status == "failed"
    assert "Error" in (prepared.folder(small).path / "failed.txt").read_text()
    assert states[other.run_id].status == "finished"
    measurements, notes = collect(out)
    assert set(measurements.learning["rung"]) == {"other"}
    assert measurements.provenance["runs"]["diverged"] == [tiny.run_id]
    assert any("diverged" in note for note in notes) and any("not finished" in note for note in notes)


def test_a_measurement_that_is_no_number_is_a_divergence_not_a_row(tmp_path: Path) -> None:
    spec = write_ladder(tmp_path)
    prepared, _ = prepare(load(spec, CalibrationSpec), tmp_path, tmp_path / "out")
    run = prepared.runs()[0]
    log = MetricsLog(prepared.folder(run), run)
    row = {"delay_tokens": 0, "gain": 0.5}
    log.retention(1, [row])
    with pytest.raises(Diverged):
        log.retention(2, [{**row, "gain": float("nan")}])
    log.flush()
    assert [found["row"]["gain"] for found in prepared.folder(run).rows()] == [0.5]


def test_status_tells_a_run_that_is_trained_from_one_that_was_killed(tmp_path: Path) -> None:
    spec = write_ladder(tmp_path)
    prepared, _ = prepare(load(spec, CalibrationSpec), tmp_path, tmp_path / "out")
    folder = prepared.folder(prepared.runs()[0])
    assert folder.state().status == "waiting"
    progress = {"step": 10, "tokens_per_second": 256.0, "loss": 4.0, "time": time.time() - 3600}
    write_json(folder.path / "progress.json", progress)
    assert folder.state().status == "stopped"
    with folder.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert folder.state().status == "running"
    state = folder.state()
    assert state.status == "stopped" and state.seconds_left == 30.0


def test_other_settings_are_refused_and_more_rungs_are_added(finished: Path) -> None:
    changed = write_ladder(finished / "changed", sequence_length=32)
    done = mixplan("calibrate", changed, "-o", finished / "out")
    assert done.returncode == 2
    assert "other settings (sequence_length)" in done.stderr
    more = write_ladder(finished, ladder=[TINY, SMALL, {**TINY, "name": "extra", "layers": 2}])
    document = load(more, CalibrationSpec)
    prepared, notes = prepare(document, finished, finished / "out")
    todo = [run.run_id for run in prepared.runs() if prepared.folder(run).done() is None]
    assert todo == ["extra-10240t-s0"]
    assert any("continuing" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tasks": [{"family": "comparison", "complexities": [6], "frequencies": [0.3]}]},
            "at most 80%",
        ),
        (
            {"tasks": [{"family": "comparison", "complexities": [6], "frequencies": [1e-6]}]},
            "gives no instance",
        ),
        ({"tasks": [{"family": "comparison", "complexities": [6], "frequencies": [-0.1]}]}, "must be > 0"),
        ({"corpus": {"paths": ["missing*.txt"]}}, "missing"),
        ({"ladder": ["cpu_9k"]}, "did you mean 'cpu_"),
        ({"sequence_lenght": 64}, "did you mean 'sequence_length'"),
        ({"sequence_length": "long"}, "sequence_length"),
        ({"probes": {"retention": {"instances": 2, "burst_steps": 4}}}, "cannot be spread over 4 steps"),
    ],
)
def test_bad_input_is_refused_before_anything_is_spent(tmp_path: Path, changes: dict, message: str) -> None:
    spec = write_ladder(tmp_path, **changes)
    done = mixplan("calibrate", spec, "-o", tmp_path / "out")
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    spec = write_ladder(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    done = mixplan("calibrate", spec, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "already holds something else (thesis.txt)" in done.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_corpus_that_must_be_repeated_is_stated(tmp_path: Path) -> None:
    spec = write_ladder(tmp_path, horizons={"tokens": [200_000]})
    _, notes = prepare(load(spec, CalibrationSpec), tmp_path, tmp_path / "out")
    assert any("it is repeated" in note for note in notes)


def test_collect_and_status_without_a_ladder(tmp_path: Path) -> None:
    for command in ("collect", "status"):
        done = mixplan(command, tmp_path)
        assert done.returncode == 2
        assert "no ladder here" in done.stderr
    spec = write_ladder(tmp_path / "new")
    prepare(load(spec, CalibrationSpec), tmp_path / "new", tmp_path / "new" / "out")
    with pytest.raises(InputError, match="no finished run yet"):
        collect(tmp_path / "new" / "out")
    assert Prepared.read(tmp_path / "new" / "out").facts["corpus_train_tokens"] > 0


def test_runs_that_are_not_asked_for_any_more_are_said(tmp_path: Path) -> None:
    path = write_ladder(tmp_path)
    out = tmp_path / "runs"
    prepare(load(path, CalibrationSpec), tmp_path, out)
    longer = load(write_ladder(tmp_path, horizons={"tokens": [20480]}), CalibrationSpec)
    _, notes = prepare(longer, tmp_path, out)
    assert [note for note in notes if "small-10240t-s0, tiny-10240t-s0" in note and "stay out" in note]
