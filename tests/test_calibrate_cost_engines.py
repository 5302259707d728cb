"""The price of a ladder on its engine: slots, processes, time limits, memory; and what cannot run there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from ladders import SMALL, TINY, write_ladder
from typer.testing import CliRunner

from mixplan.calibrate.cost import LadderCost, price
from mixplan.calibrate.cost_tables import cost_tables
from mixplan.calibrate.prepared import prepare
from mixplan.cli import app
from mixplan.documents import CalibrationSpec, load
from mixplan.errors import InputError

HARDWARE = {
    "name": "H100", "peak_flops_per_second": 1e12, "mfu": 0.5, "step_overhead_seconds": 0.01,
    "start_seconds": 7, "price_per_slot_hour": 3.0, "currency": "EUR",
}  # fmt: skip
RATE = 0.5e12


def spec(engine: dict[str, Any], **changes: Any) -> CalibrationSpec:
    """Four runs of 195 steps of 16 × 128 tokens."""
    given: dict[str, Any] = {
        "corpus": {"paths": ["does-not-exist"]},
        "ladder": ["cpu_33k"],
        "horizons": {"tokens": [400_000]},
        "seeds": [0, 1, 2, 3],
        "training": {"batch_sequences": 16},
        "tasks": [{"family": "comparison", "complexities": [4], "frequencies": [0.001]}],
        "hardware": HARDWARE,
        "engine": engine,
    }
    return CalibrationSpec.model_validate({**given, **changes})


def cost_of(path: Path, slots: int | None = None, /, **engine: Any) -> LadderCost:
    return price(spec(engine), path, slots)


def total(cost: LadderCost) -> list[str]:
    """The totals as they are shown."""
    title, _, rows = cost_tables(cost, spec({}).hardware)[1]
    return [title, *(f"{name}: {value}" for name, value in rows)]


def test_processes_of_a_run_share_its_training_and_hold_a_slot_each(tmp_path: Path) -> None:
    alone = cost_of(tmp_path, device="cuda", slots=8)
    four = cost_of(tmp_path, device="cuda", slots=8, processes_per_run=4)
    (run, *_), (single, *_) = four.runs, alone.runs
    assert run.flops == single.flops and run.probe_flops == single.probe_flops > 0
    # The first process alone measures, and nobody's steps cost less overhead.
    seconds = 7 + 195 * 0.01 + (run.flops / 4 + run.probe_flops) / RATE
    assert run.hours * 3600 == pytest.approx(seconds)
    assert (four.side_by_side, four.slots_per_run, four.slots) == (2, 4, 8)
    assert (alone.side_by_side, alone.slots_per_run) == (8, 1)
    assert four.slot_hours == pytest.approx(4 * 4 * run.hours)
    assert four.money == pytest.approx(3.0 * four.slot_hours)
    assert four.wall_hours == pytest.approx(2 * run.hours)
    # The disk holds what runs at the same time, not what slots there are.
    assert four.checkpoint_bytes == 2 * 12 * 3 * run.total_params
    assert alone.checkpoint_bytes == 4 * 12 * 3 * run.total_params
    assert "wall time on 8 slot(s), 4 for each run" in "\n".join(total(four))
    assert total(four)[0].startswith("In all (a slot is one GPU, H100: 1e+12 FLOP/s peak, 50% reached)")


def test_slots_that_do_not_make_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"processes_per_run is 4, but there are 3 slot\(s\)"):
        cost_of(tmp_path, device="cuda", slots=3, processes_per_run=4)
    with pytest.raises(InputError, match=r"processes_per_run is 4, but there are 2 slot\(s\)"):
        cost_of(tmp_path, 2, device="cuda", slots=8, processes_per_run=4)
    six = cost_of(tmp_path, 6, device="cuda", processes_per_run=4)
    assert (six.side_by_side, six.slots) == (1, 4)
    assert any("2 of 6 slots stay idle" in text for text in six.warnings)
    # Not told how many, there are at least those of one run.
    assumed = cost_of(tmp_path, device="cuda", processes_per_run=4)
    assert assumed.side_by_side == 1 and any("slots: 4 assumed" in text for text in assumed.warnings)


def test_on_slurm_max_parallel_runs_go_side_by_side(tmp_path: Path) -> None:
    two = cost_of(tmp_path, kind="slurm", device="cuda", slurm={"max_parallel": 2})
    assert (two.engine, two.side_by_side, two.slots_per_run, two.slots) == ("slurm", 2, 1, 2)
    assert two.wall_hours == pytest.approx(2 * two.runs[0].hours)
    assert not two.warnings or "max_parallel" not in "".join(two.warnings)
    assert any("2 run(s) of 1 slot(s) side by side, without waiting in the queue" in t for t in total(two))
    open_end = cost_of(tmp_path, kind="slurm", device="cuda")
    assert open_end.side_by_side == 4 and open_end.wall_hours == open_end.runs[0].hours
    assert any("all 4 runs are taken to run at the same time" in text for text in open_end.warnings)
    # Neither this machine's cores nor engine.slots have a say, and there are no more than there are runs.
    many = cost_of(tmp_path, kind="slurm", device="cuda", slots=1, slurm={"max_parallel": 100})
    assert many.side_by_side == 4
    with pytest.raises(InputError, match="--slots is for the local engine"):
        cost_of(tmp_path, 2, kind="slurm")


@pytest.mark.parametrize(
    ("engine", "held", "slot"),
    [
        ({"device": "cuda", "processes_per_run": 2}, 2, "one GPU, H100"),
        # A job that asks for more GPUs than it has processes holds and pays for them all.
        ({"processes_per_run": 2, "slurm": {"gpus_per_run": 4}}, 4, "one GPU, H100"),
        ({"processes_per_run": 2}, 2, "one CPU core, H100"),
        ({"processes_per_run": 2, "threads_per_slot": 4}, 2, "4 CPU cores, H100"),
        ({"threads_per_slot": 4, "slurm": {"cpus_per_run": 9}}, 3, "4 CPU cores, H100"),
    ],
)
def test_what_a_job_holds_is_paid_for(tmp_path: Path, engine: dict, held: int, slot: str) -> None:
    cost = price(spec({"kind": "slurm", **engine}), tmp_path)
    assert (cost.slots_per_run, cost.slot, cost.slots) == (held, slot, 4 * held)
    hours = math.fsum(run.hours for run in cost.runs)
    assert cost.money == pytest.approx(3.0 * held * hours)
    # Held is not used: the time is that of the processes.
    processes = engine.get("processes_per_run", 1)
    run = cost.runs[0]
    assert run.hours * 3600 == pytest.approx(
        7 + 195 * 0.01 + (run.flops / processes + run.probe_flops) / RATE
    )


def test_a_time_limit_shorter_than_a_run_makes_it_several_jobs(tmp_path: Path) -> None:
    slow = {**HARDWARE, "peak_flops_per_second": 1e9}
    long = spec({"kind": "slurm", "slurm": {"time_minutes": 10_000}}, hardware=slow)
    (whole, *_) = price(long, tmp_path).runs
    seconds = whole.hours * 3600 - 7
    assert whole.jobs == 1 and seconds > 120
    short = spec({"kind": "slurm", "slurm": {"time_minutes": 1, "signal_seconds": 10}}, hardware=slow)
    cost = price(short, tmp_path)
    # Of 60 s a job starts for 7, and saves in the last 10.
    jobs = math.ceil(seconds / 43)
    assert [run.jobs for run in cost.runs] == [jobs] * 4
    assert cost.runs[0].hours * 3600 == pytest.approx(seconds + jobs * 7)
    (warning,) = [text for text in cost.warnings if "time_minutes" in text]
    assert warning.startswith("4 of 4 runs take longer than slurm.time_minutes = 1, the longest ")
    assert f" in {jobs} jobs: they are saved, requeued and continued" in warning
    assert all("time_minutes" not in text for text in price(long, tmp_path).warnings)
    # The local engine has no limit.
    assert {run.jobs for run in price(spec({"slots": 1}, hardware=slow), tmp_path).runs} == {1}


def test_memory_of_a_process(tmp_path: Path) -> None:
    def memory(rows: int | None, **engine: Any) -> tuple[float, float, LadderCost]:
        probe = None if rows is None else {"batch_sequences": rows}
        given = spec({"device": "cuda", "slots": 4, **engine}, probes={"interference": probe})
        cost = price(given, tmp_path)
        return cost.runs[0].memory_bytes, cost.runs[0].measuring_bytes, cost

    d, layers, d_ffn = 32, 2, 128
    trained, measured, cost = memory(None)
    parameters = 16 * cost.runs[0].total_params
    vocab = cost.vocab_size
    per_token = 4 * layers * (16 * d + 4 * d_ffn) + 8 * vocab
    assert (trained, measured) == (parameters + 2048 * per_token, parameters)
    # DDP: everybody holds the model and a part of the batch; the first reads the probe's sequences alone.
    assert memory(16, processes_per_run=4)[:2] == (
        parameters + 512 * per_token,
        parameters + 2048 * per_token,
    )
    # FSDP2: a part of the model; the first one a whole copy beside it while it measures.
    trained, measured, cost = memory(8, processes_per_run=4, fsdp_from_params=1)
    assert trained == parameters / 4 + 512 * per_token
    assert measured == parameters / 4 + parameters + 1024 * per_token
    assert any("FSDP2: a process of cpu_33k needs" in text for text in cost.warnings)
    assert cost_tables(cost, spec({}).hardware)[0][2][0][-1] == f"~{measured / 2**20:.3g} MiB"
    # One process is never sharded.
    assert memory(8, fsdp_from_params=1)[0] == parameters + 2048 * per_token


def test_hardware_of_another_kind_than_the_slots_is_said(tmp_path: Path) -> None:
    def said(engine: dict[str, Any], **hardware: Any) -> bool:
        warnings = price(spec(engine, hardware=hardware), tmp_path).warnings
        return any("hardware describes one CPU core, but a slot is" in text for text in warnings)

    assert said({"device": "cuda"}) and said({"kind": "slurm", "slurm": {"gpus_per_run": 1}})
    assert said({"device": "cpu", "threads_per_slot": 2})
    assert not said({"device": "cpu"}) and not said({"kind": "slurm"})
    assert not said({"device": "cuda"}, peak_flops_per_second=1e15, mfu=0.4)
    starved = price(spec({"kind": "slurm", "processes_per_run": 2, "slurm": {"cpus_per_run": 1}}), tmp_path)
    assert any("slurm.cpus_per_run is 1, but 2 process(es)" in text for text in starved.warnings)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (
            {"processes_per_run": 3, "slots": 3},
            "rung small: 4 sequences a step cannot be split evenly over engine.processes_per_run = 3",
        ),
        ({"kind": "slurm", "slurm": {"time_minutes": 1}}, "no job would train"),
        ({"kind": "slurm", "slurm": {"extra": {"job_name": "mine"}}}, "job_name is how mixplan finds"),
        ({"kind": "slurm", "slurm": {"extra": {"array": "0-9"}}}, "array is how mixplan finds"),
        ({"kind": "slurm", "slurm": {"extra": {"time": 5}}}, "use slurm.time_minutes instead of time"),
        (
            {"kind": "slurm", "slurm": {"extra": {"gpus-per-node": 2}}},
            "use slurm.gpus_per_run instead of gpus-per-node",
        ),
    ],
)
def test_what_the_engine_cannot_run_is_said_by_plan_and_before_anything_is_written(
    tmp_path: Path, engine: dict[str, Any], message: str
) -> None:
    document = load(write_ladder(tmp_path, ladder=[TINY, SMALL], engine=engine), CalibrationSpec)
    for refused in (
        lambda: price(document, tmp_path),
        lambda: prepare(document, tmp_path, tmp_path / "out"),
    ):
        with pytest.raises(InputError) as error:
            refused()
        assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_command_takes_the_engine(tmp_path: Path) -> None:
    path = str(
        write_ladder(
            tmp_path, engine={"device": "cpu", "slots": 2, "slurm": {"max_parallel": 1, "gpus_per_run": 0}}
        )
    )
    run = CliRunner().invoke
    local, slurm = (
        json.loads(run(app, ["plan", path, "--json", *more]).stdout) for more in ([], ["--engine", "slurm"])
    )
    assert (local["engine"], local["side_by_side"]) == ("local", 2)
    assert (slurm["engine"], slurm["side_by_side"]) == ("slurm", 1)
    assert slurm["slot_hours"] == local["slot_hours"] and slurm["wall_hours"] > local["wall_hours"]
    shown = run(app, ["plan", path, "--engine", "slurm"]).stdout
    assert "wall time with 1 run(s) of 1 slot(s) side by side" in shown
    assert "--engine slum: " in str(run(app, ["plan", path, "--engine", "slum"]).exception)
    refused = run(app, ["plan", path, "--engine", "slurm", "--slots", "2"]).exception
    assert isinstance(refused, InputError) and "slurm.max_parallel" in str(refused)
