"""A size becomes batch, learning rate and steps: the rules and their constants."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mixplan.calibrate import ladder
from mixplan.calibrate.runs import plan_runs
from mixplan.documents.calibration_spec import CalibrationSpec, Training
from mixplan.documents.shapes import PRESETS

TASKS = [{"family": "comparison", "complexities": [8], "frequencies": [1e-3]}]


def spec(**changes: object) -> CalibrationSpec:
    whole = {"corpus": {"paths": ["x"]}, "ladder": ["cpu_8k", "cpu_132k"], "horizons": {"tokens": [10**6]}}
    return CalibrationSpec.model_validate({**whole, "tasks": TASKS, **changes})


def test_scaled_rule_is_that_of_porian_times_the_multipliers() -> None:
    # DataDecide's 150M has 113M block parameters; its table says 4.2e-3 and 192 sequences of 2048 for a size
    # counted with other parameters, the formula at 113M gives 4.6e-3 and 165.
    shape = PRESETS["datadecide_150M"]
    full = Training(learning_rate_multiplier=1, batch_multiplier=1)
    ratio = shape.block_params / 108e6
    assert ladder.learning_rate(shape, full) == pytest.approx(0.0047 * ratio ** (-1 / 3))
    assert ladder.batch_sequences(shape, full, 2048) == round(160 * ratio ** (2 / 3))
    # The defaults are those of OLMo-ladder: half the batch, a quarter of the learning rate.
    assert ladder.learning_rate(shape, Training()) == pytest.approx(0.0047 / 4 * ratio ** (-1 / 3))
    assert ladder.batch_sequences(shape, Training(), 2048) == round(80 * ratio ** (2 / 3))


def test_tiny_sizes_keep_a_batch_worth_the_name() -> None:
    assert ladder.batch_sequences(PRESETS["cpu_8k"], Training(min_batch_tokens=4096), 128) == 32


def test_fixed_rule_is_the_same_for_all_sizes() -> None:
    fixed = Training(rule="fixed", learning_rate=3e-4, batch_sequences=1024)
    for shape in PRESETS.values():
        assert ladder.learning_rate(shape, fixed) == 3e-4
        assert ladder.batch_sequences(shape, fixed, 4096) == 1024
    with pytest.raises(ValidationError, match="learning_rate"):
        Training(rule="fixed")


def test_horizons_absolute_or_per_parameter() -> None:
    shape = PRESETS["cpu_8k"]
    assert ladder.horizon_tokens(shape, spec(horizons={"tokens": [2000, 1000]})) == [1000, 2000]
    per_param = spec(horizons={"tokens_per_20_params": [1, 0.5]})
    assert ladder.horizon_tokens(shape, per_param) == [10 * 8336, 20 * 8336]


def test_one_run_per_rung_horizon_seed_and_user_frequency_longest_first() -> None:
    own = {"name": "sums", "path": "sums.jsonl", "frequencies": [1e-3, 1e-4, 1e-5]}
    s = spec(horizons={"tokens": [10**5, 10**6], "branches": False}, seeds=[0, 1], user_tasks=[own])
    runs = plan_runs(s, 300)
    assert len(runs) == len({run.run_id for run in runs}) == 2 * 2 * 2 * 3
    assert [run.flops for run in runs] == sorted((run.flops for run in runs), reverse=True)
    for run in runs:
        assert run.tokens == run.steps * run.batch_sequences * run.sequence_length
        assert (
            abs(run.tokens - 10**5) <= run.tokens_per_step or abs(run.tokens - 10**6) <= run.tokens_per_step
        )


def test_shorter_horizons_branch_off_the_longest() -> None:
    s = spec(horizons={"tokens": [10**5, 10**6]}, seeds=[0, 1], training={"batch_sequences": 16})
    runs = plan_runs(s, 300)
    assert len(runs) == 2 * 2
    for run in runs:
        assert abs(run.tokens - 10**6) <= run.tokens_per_step
        (branch,) = run.branches
        assert abs(branch.end_step * run.tokens_per_step - 10**5) <= run.tokens_per_step
        assert branch.end_step - branch.fork_step == round(0.1 * branch.end_step)
        assert run.work_steps == run.steps + branch.end_step - branch.fork_step
        # The same warm-up, constant, then a decay to zero at the end of each horizon.
        assert run.learning_rate_factor(branch.fork_step, None) == 1.0
        assert run.learning_rate_factor(branch.fork_step - 1, None) == 1.0
        assert 0 < run.learning_rate_factor(branch.end_step - 1, 0) < 0.2
        assert 0 < run.learning_rate_factor(run.steps - 1, None) < 0.2
