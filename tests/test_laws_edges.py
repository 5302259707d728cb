"""Legal tables at the edge: a family without an end, a complexity with many digits, close frequencies …"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mixplan.documents import Measurements
from mixplan.documents.measurements import TEXT_COLUMNS
from mixplan.documents.table import from_rows
from mixplan.laws.backtest import DEFAULT, backtest, seed_noise
from mixplan.laws.beta_noise import interval
from mixplan.laws.calibration import fit_calibration
from mixplan.laws.choice import choose
from mixplan.laws.evidence import Evidence, collect_evidence
from mixplan.laws.predict import LawForecast
from mixplan.laws.tables import backtest_tables

SIZES = (1e5, 3e5, 1e6, 3e6)
KINDS = (("a", 2.0), ("b", 4.0))


def rows(
    change: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda row: row,
    kinds: tuple[tuple[str, float], ...] = KINDS,
    sizes: tuple[float, ...] = SIZES,
) -> list[dict[str, Any]]:
    """Two seeds, three frequencies, two checkpoints a run; `change` alters or drops a row."""
    generator = np.random.default_rng(0)
    found = []
    for size in sizes:
        for seed in range(2):
            for frequency in (1e-4, 1e-3, 1e-2):
                for harder, (family, complexity) in enumerate(kinds):
                    for step in (1, 2):
                        odds = 1.1 * math.log(frequency * step * 2e3) + 0.5 * math.log(size / 3e5) - harder
                        right = generator.binomial(100, 0.5 + 0.5 / (1 + math.exp(-odds))) / 100
                        row = change({
                            "run_id": f"{size:g}-{seed}", "rung": f"r{size:g}", "block_params": size,
                            "seed": seed, "step": 100 * step, "tokens": step * 5e6,
                            "task": f"{family}-{complexity}-{frequency}", "family": family,
                            "complexity": complexity, "frequency": frequency, "accuracy": right,
                            "chance": 0.5, "skill": 2 * right - 1,
                        })  # fmt: skip
                        if row is not None:
                            found.append(row)
    return found


def evidence(made: list[dict[str, Any]]) -> Evidence:
    return collect_evidence(from_rows(made, TEXT_COLUMNS))


def measured(made: list[dict[str, Any]]) -> Measurements:
    return Measurements(from_rows(made, TEXT_COLUMNS))


def test_family_that_was_never_measured_at_an_end() -> None:
    made = rows(lambda row: None if row["family"] == "b" and row["step"] == 200 else row)
    found = fit_calibration(measured(made), draws=20)
    assert found.backtest is not None
    assert {cell.family for cell in found.backtest.cells} == {"a"}
    told = LawForecast(found).skill(["b"], np.array([4.0]), 1e6, 1e7, 1e-2)
    assert 0 <= told.skill_low[0] <= told.skill[0] <= told.skill_high[0] <= 1
    assert told.extrapolated == [["b of complexity 4 was measured before the ends of runs only"]]


def test_ends_on_the_largest_rung_only_leave_nothing_to_test() -> None:
    made = rows(lambda row: {**row, "decayed": float(row["block_params"] == 3e6 and row["step"] == 200)})
    found = fit_calibration(measured(made), draws=20)
    assert found.backtest is None and any("no backtest" in text for text in found.warnings)


@pytest.mark.parametrize("complexity", [math.log2(10), 2 / 3, 1e-7 / 3, 123456789.123])
def test_complexity_is_found_again_to_its_last_digit(complexity: float) -> None:
    found = fit_calibration(measured(rows(kinds=(("a", complexity), ("b", 4.0)))), draws=20)
    assert found.backtest is not None
    forecast = LawForecast(found)
    assert forecast.families()["a"] == [complexity]
    assert forecast.skill(["a"], np.array([complexity]), 1e6, 1e7, 1e-2).extrapolated == [[]]


def test_noise_floor_does_not_pair_neighbouring_frequencies() -> None:
    made = []
    for seed in range(2):
        for step, frequency in enumerate(1e-4 * 1.2 ** np.arange(12)):
            made.append({
                "run_id": f"r{seed}", "rung": "r", "block_params": 1e5, "seed": seed, "step": 1,
                "tokens": 1e7, "task": "one name", "family": "a", "complexity": 1.0, "frequency": frequency,
                "accuracy": 0.5 + step / 24, "chance": 0.5, "skill": step / 12,
            })  # fmt: skip
    found = evidence(made)
    assert seed_noise(found, found.skill) == 0.0


def test_default_forecast_of_a_rung_was_chosen_without_it() -> None:
    found = evidence(rows())
    tested = backtest(found, 0.8, 20, 0)
    every = [fold for fold, _ in tested.told]
    for fold, default in tested.told:
        size = float(fold.left_out.table["block_params"][0])
        unaware = [one for one in every if size not in (*one.fitted, one.left_out.table["block_params"][0])]
        (law, weight), *others = choose(unaware).weights.items()
        assert default.name == DEFAULT and not others and weight == 1
        same = next(said for said in fold.said if said.name == law)
        assert default.skill.tolist() == same.skill.tolist()


@pytest.mark.parametrize(
    ("chance", "right", "of"), [(0.25, 17, 20), (0.25, 85, 100), (0.2, 21, 25), (0.1, 41, 50)]
)
def test_skill_of_exactly_the_threshold_is_learned(chance: float, right: int, of: int) -> None:
    skill = (right / of - chance) / (1 - chance)
    assert skill < 0.8  # the arithmetic's fault
    exact = {"accuracy": right / of, "chance": chance, "skill": skill}
    found = fit_calibration(measured(rows(lambda row: {**row, **exact})), draws=20)
    assert [task.status for task in found.tasks] == ["always learned", "always learned"]


def test_interval_holds_the_mean_of_lopsided_draws() -> None:
    mean = np.full((1, 20), 0.999)
    mean[0, 0] = 0.0
    low, high = interval(mean, np.full(20, 1e4))
    assert low[0] <= mean.mean() <= high[0]


def test_rolling_table_shows_a_baseline_that_the_first_fold_lacks() -> None:
    made = rows(lambda row: row if (row["family"] == "b") == (row["block_params"] == 3e5) else None)
    found = backtest(evidence(made), 0.8, 20, 0).backtest
    first, last = found.rolling[0], found.rolling[-1]
    names = [{score.forecast for score in one.scores} for one in (first, last)]
    assert names[0] < names[1]
    assert names[1] <= set(backtest_tables(found)[1].columns)
