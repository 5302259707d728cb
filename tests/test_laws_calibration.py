"""Measurements to calibration.json: deterministic, honest about what is missing, bad tables refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulate import LADDER, simulate_measurements

from mixplan.documents import Calibration, Measurements, Table, load, save
from mixplan.errors import InputError
from mixplan.laws.calibration import fit_calibration, table_hash
from mixplan.laws.tables import calibration_summary, calibration_tables

THREE = dict(list(LADDER.items())[:3])


@pytest.fixture(scope="module")
def measured() -> Measurements:
    return simulate_measurements(rungs=THREE, checkpoints=4)


@pytest.fixture(scope="module")
def calibration(measured: Measurements) -> Calibration:
    return fit_calibration(measured, draws=30)


def with_learning(measured: Measurements, **columns: Any) -> Measurements:
    return replace(measured, learning=Table({**measured.learning.columns, **columns}))


def test_file_round_trip_keeps_every_number(calibration: Calibration, tmp_path: Path) -> None:
    save(calibration, tmp_path / "calibration.json")
    assert load(tmp_path / "calibration.json", Calibration) == calibration


def test_same_tables_and_seed_give_the_same_document(
    measured: Measurements, calibration: Calibration
) -> None:
    assert fit_calibration(measured, draws=30).model_dump_json() == calibration.model_dump_json()
    assert fit_calibration(measured, draws=30, seed=1).learning.draws != calibration.learning.draws
    assert fit_calibration(measured, draws=30, seed=1).learning.values == calibration.learning.values


def test_order_of_rows_and_columns_changes_nothing(measured: Measurements, calibration: Calibration) -> None:
    def shuffled(table: Table | None) -> Table:
        assert table is not None
        moved = table.where(np.random.default_rng(2).permutation(len(table)))
        return Table(dict(reversed(moved.columns.items())))

    mixed = replace(
        measured,
        learning=shuffled(measured.learning),
        retention=shuffled(measured.retention),
        interference=shuffled(measured.interference),
    )
    assert fit_calibration(mixed, draws=30).model_dump_json() == calibration.model_dump_json()


def test_laws_do_not_share_random_numbers(measured: Measurements, calibration: Calibration) -> None:
    alone = fit_calibration(replace(measured, retention=None), draws=30)
    assert alone.interference == calibration.interference and alone.lm_loss == calibration.lm_loss


def test_hash_follows_content(measured: Measurements) -> None:
    table = measured.learning
    assert table_hash(table) == table_hash(table.where(np.arange(len(table))[::-1]))
    changed = table["skill"].copy()
    changed[0] += 1e-12
    assert table_hash(Table({**table.columns, "skill": changed})) != table_hash(table)


def test_provenance_says_where_the_numbers_came_from(
    measured: Measurements, calibration: Calibration
) -> None:
    found = calibration.provenance
    assert found["measurements"] == {"simulated": True, "seed": 0}
    assert found["tables"]["learning"] == {
        "rows": len(measured.learning),
        "sha256": table_hash(measured.learning),
    }
    assert set(found["tables"]) == {"learning", "retention", "interference"}
    assert (found["numpy"], found["seed"], found["draws"]) == (np.__version__, 0, 30)


def test_backtest_is_stored(calibration: Calibration) -> None:
    assert calibration.backtest is not None and calibration.backtest.left_out_rung == "33k"
    assert not any("no backtest" in w for w in calibration.warnings)


def test_two_rungs_fit_without_a_backtest_and_say_so(measured: Measurements) -> None:
    two = measured.learning.where(measured.learning["rung"] != "33k")
    found = fit_calibration(Measurements(two), draws=20)
    assert found.backtest is None
    assert any(w.startswith("no backtest: a backtest needs at least 3 rungs") for w in found.warnings)


def test_missing_tables_and_losses_are_said(measured: Measurements) -> None:
    bare = Table({name: column for name, column in measured.learning.columns.items() if name != "lm_loss"})
    found = fit_calibration(Measurements(bare), draws=20)
    assert (found.retention, found.interference, found.lm_loss) == (None, None, None)
    for what in ("no retention table", "no interference table", "no lm_loss"):
        assert any(what in w for w in found.warnings), what


def test_optional_columns_may_be_missing(measured: Measurements, calibration: Calibration) -> None:
    gone = {"total_params", "exposures", "choice_nll"}
    bare = Table({name: column for name, column in measured.learning.columns.items() if name not in gone})
    assert fit_calibration(replace(measured, learning=bare), draws=30).learning == calibration.learning


@pytest.mark.parametrize(
    ("intercept", "says"), [(-30.0, "no final cell of any task was learned"), (30.0, "every final cell")]
)
def test_all_or_none_learned(intercept: float, says: str) -> None:
    ladder = simulate_measurements(rungs=THREE, checkpoints=3, intercepts={("comparison", 8): intercept})
    found = fit_calibration(ladder, draws=20)
    assert any(says in w for w in found.warnings)
    assert found.backtest is not None and found.backtest.scores[0].auroc is None


def test_censored_tasks_are_named() -> None:
    intercepts = {("comparison", 4): 30.0, ("comparison", 8): 0.0, ("comparison", 16): -30.0}
    found = fit_calibration(
        simulate_measurements(rungs=THREE, checkpoints=2, intercepts=intercepts), draws=20
    )
    assert any("comparison of complexity 4: censored, learned in all 36" in w for w in found.warnings)
    assert any("comparison of complexity 16: censored, learned in none of 36" in w for w in found.warnings)
    assert not any("complexity 8:" in w for w in found.warnings)


def test_task_that_levels_off_below_the_threshold_is_named(measured: Measurements) -> None:
    t = measured.learning
    skill = np.where((t["family"] == "comparison") & (t["complexity"] == 4), 0.6, 1.0) * t["skill"]
    capped = with_learning(measured, skill=skill, accuracy=t["chance"] + skill * (1 - t["chance"]))
    # One lucky cell above the threshold, or the task would be censored and nothing said about its ceiling.
    found = fit_calibration(capped, learned_skill=0.58, draws=30)
    assert not any("levels off" in w for w in found.warnings if "comparison of complexity 8" in w)
    higher = fit_calibration(capped, learned_skill=0.61, draws=30)
    task = higher.tasks[0]
    named = [w for w in higher.warnings if w.startswith("comparison of complexity 4")]
    assert len(named) == 1
    assert ("censored" if task.status == "never learned" else "levels off at skill 0.") in named[0]


def test_a_kind_without_a_final_cell_is_fitted_and_named(measured: Measurements) -> None:
    t = measured.learning
    last = {run: t["step"][t["run_id"] == run].max() for run in np.unique(t["run_id"].astype(str))}
    final = t["step"] == np.array([last[str(run)] for run in t["run_id"]])
    kind = (t["family"] == "comparison") & (t["complexity"] == 4)
    found = fit_calibration(replace(measured, learning=t.where(~(kind & final))), draws=20)
    assert [task.status for task in found.tasks].count("never finished") == 1
    assert (found.tasks[0].status, found.tasks[0].cells) == ("never finished", 0)
    said = [w for w in found.warnings if w.startswith("comparison of complexity 4")]
    assert len(said) == 1 and "measured before the ends of runs only" in said[0]


def test_one_rung_is_refused(measured: Measurements) -> None:
    one = measured.learning.where(measured.learning["rung"] == "8k")
    with pytest.raises(
        InputError, match=r"all rows have block_params=8336; at least two rungs are needed.*add runs"
    ):
        fit_calibration(Measurements(one))


def test_every_problem_is_reported_at_once(measured: Measurements) -> None:
    skill = measured.learning["skill"].copy()
    skill[0] = -0.9
    retention = measured.retention
    assert retention is not None
    moved = Table({**retention.columns, "block_params": np.arange(len(retention)) + 1.0})
    bad = replace(with_learning(measured, skill=skill), retention=moved)
    with pytest.raises(InputError) as error:
        fit_calibration(bad, learned_skill=1.5, draws=3)
    text = "\n".join(error.value.problems)
    for part in (
        "learned skill must lie",
        "3 draws cannot",
        "skill must be (accuracy",
        "retention: each run_id",
    ):
        assert part in text


def test_two_losses_at_a_step_are_refused_before_anything_is_fitted(measured: Measurements) -> None:
    losses = measured.learning["lm_loss"].copy()
    losses[5] *= 2
    with pytest.raises(InputError, match="lm_loss must be one number per run and step"):
        fit_calibration(with_learning(measured, lm_loss=losses))


def test_tables_show_what_the_document_says(calibration: Calibration) -> None:
    shown = {table.title.split(" (")[0].split(":")[0]: table for table in calibration_tables(calibration)}
    assert list(shown) == [
        "Learning law", "Task coverage", "Retention by size", "Interference by size", "LM loss on common "
        "data",
        "Backtest",
    ]  # fmt: skip
    slopes = {row[0]: row[1:] for row in shown["Learning law"].rows}
    law = calibration.learning
    assert slopes["tokens_slope"][0] == law.values[law.parameters.index("tokens_slope")]
    assert slopes["tokens_slope"][1] <= slopes["tokens_slope"][0] <= slopes["tokens_slope"][2]
    for table in shown.values():
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_tables_of_a_calibration_without_intervals(calibration: Calibration) -> None:
    laws = {
        name: getattr(calibration, name).model_copy(update={"draws": []})
        for name in ("learning", "retention", "interference", "lm_loss")
    }
    for table in calibration_tables(calibration.model_copy(update=laws))[:-1]:
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert any(None in row for row in table.rows)


def test_summary_leaves_out_only_draws_and_cells(calibration: Calibration) -> None:
    found = calibration_summary(calibration)
    assert "draws" not in found["learning"] and "cells" not in found["backtest"]
    assert found["learning"]["values"] == calibration.learning.values
    assert calibration.backtest is not None
    assert found["backtest"]["scores"][0]["brier"] == calibration.backtest.scores[0].brier
    bare = calibration.model_copy(update={"retention": None, "lm_loss": None, "backtest": None})
    assert calibration_summary(bare)["retention"] is None
