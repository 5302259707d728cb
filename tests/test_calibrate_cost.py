"""The price of a ladder: against sums done by hand, its limits, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ladders import TINY, write_ladder

from mixplan.calibrate.cost import price, wall_hours
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.documents.loading import load
from mixplan.documents.starters import write_starters
from mixplan.errors import InputError
from mixplan.units import byte_size, duration, number

HARDWARE = {
    "peak_flops_per_second": 1e12, "mfu": 0.5, "step_overhead_seconds": 0.01, "start_seconds": 7,
    "price_per_slot_hour": 3.0, "currency": "EUR",
}  # fmt: skip
NO_PROBES = {
    "evaluations": 1,
    "lm_loss_tokens": 1,
    "max_instances": 1,
    "retention": None,
    "interference": None,
    "features": None,
}


def spec(**changes: Any) -> CalibrationSpec:
    given: dict[str, Any] = {
        "corpus": {"paths": ["does-not-exist"]},
        "ladder": ["cpu_33k"],
        "horizons": {"tokens": [400_000]},
        "training": {"batch_sequences": 16},
        "sequence_length": 128,
        "tasks": [{"family": "comparison", "complexities": [4], "frequencies": [0.001]}],
        "hardware": HARDWARE,
        "engine": {"slots": 2},
        "probes": NO_PROBES,
    }
    return CalibrationSpec.model_validate({**given, **changes})


def test_one_run_by_hand(tmp_path: Path) -> None:
    cost = price(spec(), tmp_path)
    (run,) = cost.runs
    d, layers, d_ffn, vocab = 32, 2, 128, 257 + 6  # comparison of 4 items has 6 symbols
    steps = round(400_000 / (16 * 128))
    matmul = layers * (4 * d * d + 3 * d * d_ffn)
    per_token = 6 * (matmul + vocab * d) + 12 * layers * d * 128
    # One forward pass over a sequence of text, a context of 8 tokens and a prompt of 2.
    probes = per_token * (128 + 8 + 2) / 3
    assert cost.vocab_size == vocab
    assert (run.steps, run.tokens, run.batch_sequences) == (steps, steps * 2048, 16)
    assert run.block_params == matmul + 4 * layers * d + d
    assert run.total_params == run.block_params + 2 * vocab * d
    assert run.flops == per_token * run.tokens
    assert run.probe_flops == pytest.approx(probes)
    seconds = 7 + steps * 0.01 + (run.flops + probes) / 5e11
    assert run.hours * 3600 == pytest.approx(seconds)
    assert cost.money == pytest.approx(3.0 * seconds / 3600)
    assert run.injected_share == pytest.approx(0.001 * 4)
    activations = 4 * layers * (16 * d + 4 * d_ffn) + 8 * vocab
    assert run.memory_bytes == 16 * run.total_params + 2048 * activations
    # Weight and two moments in fp32; two saved states and the one that is being written.
    assert cost.checkpoint_bytes == 12 * 3 * run.total_params


def test_totals_are_sums_and_runs_are_every_combination(tmp_path: Path) -> None:
    grid = [{"family": "comparison", "complexities": [4, 8], "frequencies": [0.001, 0.01]}]
    cost = price(
        spec(
            ladder=["cpu_8k", "cpu_33k", "cpu_74k"],
            seeds=[0, 1],
            horizons={"tokens": [10**5, 10**6], "branches": False},
            tasks=grid,
        ),
        tmp_path,
    )
    assert len(cost.runs) == 3 * 2 * 2
    assert cost.vocab_size == 257 + 2 * (6 + 10)
    assert cost.tokens == sum(run.tokens for run in cost.runs)
    assert cost.flops == pytest.approx(sum(run.flops + run.probe_flops for run in cost.runs))
    assert cost.slot_hours == pytest.approx(sum(run.hours for run in cost.runs))
    assert cost.runs == sorted(cost.runs, key=lambda run: -run.hours)
    assert cost.runs[0].injected_share == pytest.approx(2 * 0.011 * 4)


def test_branches_cost_their_decays_and_hold_more_checkpoints(tmp_path: Path) -> None:
    horizons = {"tokens": [100_000, 200_000, 400_000]}
    training = {"batch_sequences": 16, "decay_fraction": 0.25}
    (run,) = price(spec(horizons=horizons, training=training), tmp_path).runs
    (longest,) = price(spec(training=training), tmp_path).runs
    steps, short, middle = 195, 49, 98
    assert (run.tokens, run.horizons) == (longest.tokens, 3) == (steps * 2048, 3)
    assert run.steps == steps + round(0.25 * short) + round(0.25 * middle)
    assert run.trained_tokens == run.steps * 2048
    assert run.flops == pytest.approx(longest.flops * run.steps / steps)
    # Each branch is evaluated at its end.
    assert run.probe_flops == pytest.approx(3 * longest.probe_flops)
    branched = price(spec(horizons=horizons, training=training), tmp_path, 1)
    assert branched.checkpoint_bytes == 12 * 5 * run.total_params
    apart = price(spec(horizons={**horizons, "branches": False}, training=training), tmp_path, 1)
    assert branched.tokens < apart.tokens


def test_sources_and_the_dependence_check_are_runs_of_their_own(tmp_path: Path) -> None:
    rungs = ["cpu_8k", "cpu_19k", "cpu_33k"]
    own = [{"name": name, "data": {"paths": ["x"]}, "shares": [0.1, 0.2]} for name in ("a", "b")]
    grid = [{"family": "comparison", "complexities": [4], "frequencies": [0.001, 0.002, 0.004]}]
    cost = price(spec(ladder=rungs, user_sources=own, dependence={"cells": 2}, tasks=grid), tmp_path)
    kinds = sorted(run.kind for run in cost.runs if run.rung == "cpu_8k")
    alone = ["comparison-4@0.001 alone", "comparison-4@0.004 alone"]
    assert kinds == sorted(["", "variant 1", "share zero", "only a", "only b", *alone])
    assert len(cost.runs) == 3 * 5 + 2 * 2
    by_kind = {run.kind: run for run in cost.runs if run.rung == "cpu_8k"}
    assert [by_kind[kind].source_share for kind in ("", "variant 1", "share zero", "only a")] == (
        pytest.approx([0.2, 0.4, 0.0, 0.5])
    )
    assert by_kind[alone[1]].injected_share == pytest.approx(0.004 * 4)
    assert by_kind[""].injected_share == pytest.approx(0.007 * 4)
    # Both sources' held-out text is scored in every run but those of the dependence check.
    assert by_kind["share zero"].probe_flops > 2.5 * by_kind[alone[0]].probe_flops
    with pytest.raises(InputError, match="'cpu_9k' is not a rung of this ladder; did you mean"):
        price(spec(dependence={"rungs": ["cpu_9k"]}), tmp_path)


@pytest.mark.slow
def test_probe_costs_are_what_the_probes_read(tmp_path: Path) -> None:
    """Tokens that go through the model while it is measured, counted at its embedding."""
    import threading

    from mixplan.calibrate.distributed import World
    from mixplan.calibrate.prepared import prepare
    from mixplan.calibrate.training import Run

    own = [{"name": "own", "data": {"paths": ["text1*.txt"], "held_out_fraction": 0.3}, "shares": [0.2]}]
    path = write_ladder(
        tmp_path,
        ladder=[TINY],
        corpus={"paths": ["text?.txt"]},
        horizons={"tokens": [7680, 10240]},
        user_sources=own,
        probes={
            "evaluations": 4,
            "lm_loss_tokens": 512,
            "retention": {"instances": 4, "burst_steps": 1, "replicas": 2, "delays_steps": [0, 1, 4, 30]},
            "interference": None,
            "features": {"points": 2, "contexts": 4},
        },
    )
    prepared, _ = prepare(load(path, CalibrationSpec), tmp_path, tmp_path / "out")
    planned = next(run for run in prepared.runs() if run.anchor is None)
    run = Run(prepared, prepared.folder(planned), World("cpu", threading.Event()))
    read, measuring = [0], [False]

    def count(_: Any, inputs: Any) -> None:
        read[0] += inputs[0].numel() * measuring[0]

    run.model.model.embed_tokens.register_forward_pre_hook(count)
    for name in ("before_step", "after_step", "evaluate"):
        whole = getattr(run.measuring, name)

        def counted(*arguments: Any, whole: Any = whole, **named: Any) -> Any:
            before, measuring[0] = measuring[0], True
            result = whole(*arguments, **named)
            measuring[0] = before
            return result

        setattr(run.measuring, name, counted)
    run.train()
    cost = next(run for run in price(load(path, CalibrationSpec), tmp_path).runs if run.kind == "")
    per_token = planned.shape.flops_per_token(planned.vocab_size, planned.sequence_length)
    assert cost.probe_flops == pytest.approx(read[0] * per_token / 3)


def test_more_of_anything_costs_more(tmp_path: Path) -> None:
    base = price(spec(), tmp_path).slot_hours
    for change in (
        {"ladder": ["cpu_74k"]},
        {"horizons": {"tokens": [800_000]}},
        {"seeds": [0, 1]},
        {"probes": {**NO_PROBES, "evaluations": 50, "lm_loss_tokens": 10**5}},
        {"probes": {**NO_PROBES, "retention": {}}},
        {"probes": {**NO_PROBES, "retention": {"at_fractions": [0.2]}}},
        {"probes": {**NO_PROBES, "features": {}}},
        {"horizons": {"tokens": [200_000, 400_000]}},
        {"user_sources": [{"name": "own", "data": {"paths": ["own"]}, "shares": [0.1]}]},
        {"dependence": {"cells": 1}},
        {"probes": {**NO_PROBES, "interference": {}}},
        {"hardware": {**HARDWARE, "mfu": 0.25}},
    ):
        assert price(spec(**change), tmp_path).slot_hours > base, change


@pytest.mark.parametrize(
    ("hours", "slots", "expected"),
    [([5, 4, 3, 3, 3], 2, 10), ([1, 2, 3], 1, 6), ([1, 2, 3], 5, 3), ([2, 2, 2, 2], 3, 4)],
)
def test_wall_time_is_that_of_the_longest_first_schedule(
    hours: list[float], slots: int, expected: float
) -> None:
    assert wall_hours(hours, slots) == expected


def test_slots_shorten_the_wall_time_only(tmp_path: Path) -> None:
    given = spec(seeds=[0, 1, 2, 3])
    one, four = price(given, tmp_path, 1), price(given, tmp_path, 4)
    assert one.slot_hours == four.slot_hours == pytest.approx(one.wall_hours)
    assert four.wall_hours == pytest.approx(one.wall_hours / 4)
    assert four.checkpoint_bytes == 4 * one.checkpoint_bytes


def test_warnings(tmp_path: Path) -> None:
    many = [{"family": "comparison", "complexities": [4], "frequencies": [0.1, 0.05]}]
    assert any(
        text.startswith("60% of the training tokens are")
        for text in price(spec(tasks=many), tmp_path).warnings
    )
    rungs = ["cpu_8k", "cpu_33k", "cpu_74k"]
    assert price(spec(ladder=rungs), tmp_path).warnings == []
    assert any("2 rung(s)" in text for text in price(spec(ladder=rungs[:2]), tmp_path).warnings)
    open_slots = price(spec(ladder=rungs, engine={"device": "cpu"}), tmp_path)
    assert any(f"slots: {open_slots.slots} assumed" in text for text in open_slots.warnings)


def test_a_user_s_task_is_a_run_per_frequency_and_its_length_counts(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{i}: ", "answer": "yes", "choices": ["yes", "no"], "split": "test" if i % 2 else "train"}
        for i in range(10, 30)
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = [{"name": "own", "path": "own.jsonl", "frequencies": [0.01, 0.001]}]
    cost = price(spec(tasks=[], user_tasks=own), tmp_path)
    # 4 bytes of prompt, 3 of answer, end of document
    assert sorted(run.injected_share for run in cost.runs) == pytest.approx([0.008, 0.08])
    with pytest.raises(InputError, match="no such file"):
        price(spec(user_tasks=[{"name": "x", "path": "gone.jsonl", "frequencies": [0.1]}]), tmp_path)


def test_what_does_not_fit_is_said_before_anything_starts(tmp_path: Path) -> None:
    many = [{"family": "comparison", "complexities": [4], "frequencies": [0.2, 0.1]}]
    with pytest.raises(InputError, match="the injections take 120% of"):
        price(spec(tasks=many), tmp_path)
    rare = [{"family": "comparison", "complexities": [4], "frequencies": [1e-9]}]
    with pytest.raises(InputError, match="gives no instance in the"):
        price(spec(tasks=rare), tmp_path)


def test_a_peak_needs_its_mfu() -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match="give `mfu` together"):
        spec(hardware={"peak_flops_per_second": 989e12})


def test_the_command(tmp_path: Path) -> None:
    write_starters(tmp_path)
    path = tmp_path / "calibration.yaml"
    command = [sys.executable, "-m", "mixplan", "plan", str(path)]
    shown = subprocess.run([*command, "--slots", "2"], capture_output=True, text=True, check=True)
    assert "wall time on 2 slot(s)" in shown.stdout and "cpu_132k" in shown.stdout
    found = json.loads(
        subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    )
    direct = price(load(path, CalibrationSpec), tmp_path)
    assert found["flops"] == direct.flops
    assert [run["run_id"] for run in found["runs"]] == [run.run_id for run in direct.runs]
    (tmp_path / "my_task.jsonl").unlink()
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 2
    assert "my_task.jsonl: no such file" in failed.stderr and "Traceback" not in failed.stderr


def test_planning_imports_no_training_library(tmp_path: Path) -> None:
    write_starters(tmp_path)
    code = (
        "import sys; from pathlib import Path; from mixplan.calibrate.cost import price; "
        "from mixplan.documents import CalibrationSpec, load; "
        f"base = Path({str(tmp_path)!r}); price(load(base / 'calibration.yaml', CalibrationSpec), base); "
        "heavy = ('torch', 'transformers', 'tokenizers', 'streaming', 'datasets'); "
        "print([module for module in heavy if module in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_units() -> None:
    assert [number(v) for v in (None, 0, 12, 999.6, 1234, 999_999, 5.6e9, 7.8e12, 3e15, -1500)] == [
        "–", "0", "12", "1K", "1.23K", "1M", "5.6B", "7.8T", "3e+15", "-1.5K",
    ]  # fmt: skip
    assert [duration(s) for s in (0.5, 90, 7200, 2 * 86400)] == ["0.5 s", "1.5 min", "2 h", "2 d"]
    assert [byte_size(b) for b in (512, 3 * 2**20, 5 * 2**30, 2**41)] == [
        "0.5 KiB",
        "3 MiB",
        "5 GiB",
        "2 TiB",
    ]
