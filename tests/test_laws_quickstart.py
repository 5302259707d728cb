"""The laws on the ladder that the repository ships: real runs, not simulated ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixplan.documents import read_measurements
from mixplan.documents.calibration import Calibration
from mixplan.laws.calibration import fit_calibration
from mixplan.laws.retention import half_life

TABLES = Path(__file__).resolve().parent.parent / "examples" / "measurements" / "quickstart"


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    return fit_calibration(read_measurements(TABLES), learned_skill=0.8, draws=50, seed=0)


def test_the_left_out_rung_is_predicted_better_than_by_copying(fitted: Calibration) -> None:
    assert fitted.backtest is not None
    assert fitted.backtest.left_out_rung == "cpu_132k"
    law, copy = fitted.backtest.scores
    # 38 cells: of two equally valid runs of this ladder one gave 0.47 and 0.40 of copying, one 0.79 and 0.59.
    assert law.brier < copy.brier
    assert law.skill_brier < 0.8 * copy.skill_brier
    assert law.coverage_90 is not None and law.coverage_90 >= 0.8


def test_size_frequency_and_tokens_all_help(fitted: Calibration) -> None:
    law = fitted.learning
    for name in ("log_frequency", "log_block_params", "log_tokens"):
        at = law.parameters.index(name)
        assert sorted(draw[at] for draw in law.draws)[2] > 0


def test_larger_sizes_forget_later_as_the_raw_curves_show(fitted: Calibration) -> None:
    assert fitted.retention is not None
    assert half_life(fitted.retention, 131_648)[0] > 2 * half_life(fitted.retention, 8_336)[0]


def test_what_the_ladder_cannot_say_is_said(fitted: Calibration) -> None:
    status = {(task.family, task.complexity): task.status for task in fitted.tasks}
    assert status["modular_addition", 11] == "never learned"
    assert status["table_lookup", 9] == "bracketed"
    assert any("modular_addition of complexity 11: censored" in warning for warning in fitted.warnings)
