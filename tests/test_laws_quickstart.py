"""The laws on the ladder that the repository ships: real runs, not simulated ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixplan.documents import read_measurements
from mixplan.documents.calibration import Calibration
from mixplan.laws.backtest import DEFAULT
from mixplan.laws.baselines import Copy
from mixplan.laws.calibration import fit_calibration
from mixplan.laws.predict import LawForecast
from mixplan.laws.retention import half_life

TABLES = Path(__file__).resolve().parent.parent / "examples" / "measurements" / "quickstart"


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    return fit_calibration(read_measurements(TABLES), learned_skill=0.8, draws=50, seed=0)


def test_the_left_out_rung_is_predicted_better_than_by_copying(fitted: Calibration) -> None:
    assert fitted.backtest is not None
    assert fitted.backtest.left_out_rung == "cpu_132k"
    scores = {score.forecast: score for score in fitted.backtest.scores}
    law, copy = scores[DEFAULT], scores[Copy.name]
    # 38 cells: of two equally valid runs of this ladder one gave 0.47 and 0.40 of copying, one 0.79 and 0.59.
    cells = fitted.backtest.cells
    # Learned where the copied cell was: the copy that is scored knows how far off copying was before.
    sure = np.mean([(c.copied is not None and c.copied >= 0.8) != (c.observed >= 0.8) for c in cells])
    assert law.brier < 0.8 * sure
    assert law.log_score is not None and copy.log_score is not None and law.log_score > copy.log_score
    assert law.skill_brier < 0.8 * copy.skill_brier
    assert law.coverage_90 is not None and law.coverage_90 >= 0.8


def test_size_frequency_and_tokens_all_help(fitted: Calibration) -> None:
    """Each by itself raises the mean, from the middle of the ladder to its upper end."""
    forecast = LawForecast(fitted)
    ranges = fitted.learning.ranges
    for axis in ("frequency", "block_params", "tokens"):
        middle = {name: float(np.sqrt(r.low * r.high)) for name, r in ranges.items()}
        raised = {**middle, axis: ranges[axis].high}
        low, high = (
            forecast.skill(
                ["table_lookup"] * 2,
                np.array([4.0, 6.0]),
                np.array([at["block_params"]]),
                np.array([at["tokens"]]),
                np.array([at["frequency"]]),
            )
            for at in (middle, raised)
        )
        assert (high.skill > low.skill + 0.02).all(), axis


def test_larger_sizes_forget_later_as_the_raw_curves_show(fitted: Calibration) -> None:
    assert fitted.retention is not None
    assert half_life(fitted.retention, 131_648)[0] > 2 * half_life(fitted.retention, 8_336)[0]


def test_what_the_ladder_cannot_say_is_said(fitted: Calibration) -> None:
    status = {(task.family, task.complexity): task.status for task in fitted.tasks}
    assert status["modular_addition", 11] == "never learned"
    assert status["table_lookup", 9] == "bracketed"
    assert any("modular_addition of complexity 11: censored" in warning for warning in fitted.warnings)
