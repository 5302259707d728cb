"""What benchmarks/testbed_forecast.py asks of a law: widths, exponents, and which students it may see."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from testbed_forecast import Forecast, Task, narrow, sweep_of, trained, widths_said

from mixplan.documents import Measurements, Table
from mixplan.documents.calibration import FittedLaw, Range
from mixplan.errors import InputError
from mixplan.laws.surface import Surface

FREQUENCY, SIZE, TOKENS, DIFFICULTY = 2.0, 1.6, 0.5, -3.0
LAST = 5e5
CENTRES = {"frequency": np.log(0.03), "block_params": np.log(10.0), "tokens": np.log(LAST)}


def logistic() -> Surface:
    """A law whose widths are known: no ceiling, no draws."""
    slopes = {"frequency_slope": FREQUENCY, "size_slope": SIZE, "tokens_slope": TOKENS}
    values = {
        **slopes,
        **{f"{name}[linear_regression]": value for name, value in slopes.items()},
        "difficulty[linear_regression, 1]": DIFFICULTY,
        "ceiling[linear_regression, 1]": 1.0,
        "finished": 0.0,
        "task_spread": 0.1,
        "run_spread": 0.1,
        "precision[linear_regression]": 20.0,
    }
    spans = {"frequency": (0.01, 0.3), "block_params": (2.0, 8.0), "tokens": (1e4, LAST)}
    return Surface(
        FittedLaw(
            law="logistic",
            formula="",
            parameters=list(values),
            values=list(values.values()),
            ranges={axis: Range(low=low, high=high) for axis, (low, high) in spans.items()},
            settings={f"centre_log_{axis}": float(centre) for axis, centre in CENTRES.items()},
            rows=1,
            runs=1,
        )
    )


def students() -> Measurements:
    """Two seeds of three widths; a task is learned from width 4 on, on average."""
    widths = np.repeat([2.0, 4.0, 8.0], 2)
    table = Table({"block_params": widths, "skill": np.array([0.2, 0.6, 0.3, 0.9, 0.9, 0.9])})
    part = {"tasks": 2, "block": 1, "dim": 8, "frequency_exponent": 1.0, "spectrum_exponents": [1.0]}
    return Measurements(
        learning=table,
        retention=table.where(widths == 8.0),
        provenance={"testbed": {"parts": [{"name": "sweep", "mixture": part}]}},
    )


def test_width_and_exponent_are_those_of_the_law() -> None:
    forecast = Forecast([(logistic(), 1.0)], LAST)
    grid = np.geomspace(0.5, 500.0, 2000)
    for frequency in (0.03, 0.02):
        # Log-odds 0: frequency_slope·ln f + size_slope·ln N = difficulty, about the centres.
        truth = 10.0 * np.exp((DIFFICULTY - FREQUENCY * np.log(frequency / 0.03)) / SIZE)
        found = forecast.widths(1.0, frequency, 0.5, grid)
        assert found == pytest.approx([truth], rel=0.004) and found[0] >= truth
    assert np.isinf(forecast.widths(1.0, 1e-6, 0.5, grid)).all()
    assert forecast.exponents(1.0, (2.0, 24.0), 0.03, 0.5) == pytest.approx([SIZE / FREQUENCY])


def test_nothing_of_wider_students_is_left() -> None:
    kept = narrow(students(), 4)
    assert set(kept.learning["block_params"]) == {2.0, 4.0}
    assert kept.retention is None
    for widest in (2, 8, 100):
        with pytest.raises(InputError, match="at least two must be kept and one left out"):
            narrow(students(), widest)


def test_training_is_read_as_the_mean_of_seeds() -> None:
    assert trained(students().learning, 0.5) == 4.0
    assert trained(students().learning, 0.95) is None


def test_theory_is_that_of_the_sweep() -> None:
    mixture = sweep_of(students())
    assert mixture.tasks == 2 and mixture.spectrum_exponents == (1.0,)
    with pytest.raises(InputError, match="no 'sweep' of"):
        sweep_of(Measurements(learning=students().learning))


def test_only_tasks_beyond_the_fitted_widths_are_judged() -> None:
    near = Task(1, 1.0, 0.3, 2, 2.0, 9.0, 8.0, 10.0)
    far = [Task(2, 1.0, 0.1, 10, 12.0, 20.0, 12.0, np.inf), Task(3, 1.0, 0.05, 20, None, 16.0, 10.0, 40.0)]
    lines = list(widths_said([near, *far], 4))
    assert "Of the 2 tasks" in lines[-1]
    assert "factor of 1.62 (median) and at most 2.00; the interval of 1 holds" in lines[-1]
    assert "none | 16 | 10 to 40 | 0.80 |" in lines[4] and "12 to ∞" in lines[3]
