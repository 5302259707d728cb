"""The backtest: scores against hand counts, the copy takes the right cells, the law beats it."""

from __future__ import annotations

import numpy as np
import pytest
from simulate import LADDER, simulate_measurements

from mixplan.documents import Table
from mixplan.errors import InputError
from mixplan.laws.backtest import COPY, LAW, auroc, backtest, copy_forecast, seed_noise
from mixplan.laws.evidence import Evidence, collect_evidence

FOUR = dict(list(LADDER.items())[2:])


@pytest.fixture(scope="module")
def ladder() -> Evidence:
    return collect_evidence(simulate_measurements(rungs=FOUR, checkpoints=5).learning)


def split(evidence: Evidence) -> tuple[Evidence, Evidence]:
    largest = evidence.table["block_params"] == evidence.table["block_params"].max()
    return evidence.where(~largest), evidence.where(largest & evidence.finished)


def test_scores_are_those_of_the_stored_cells(ladder: Evidence) -> None:
    found = backtest(ladder, 0.8, 40, 0)
    assert (found.left_out_rung, found.fitted_rungs) == ("296k", ["33k", "74k", "132k"])
    law, copy = found.scores
    assert (law.forecast, copy.forecast) == (LAW, COPY) and law.cells == copy.cells == len(found.cells) == 72
    learned = np.array([c.observed >= 0.8 for c in found.cells])
    p, skill, observed = (
        np.array([getattr(c, n) for c in found.cells]) for n in ("p_learned", "predicted", "observed")
    )
    copied = np.array([c.copied for c in found.cells], dtype=float)
    assert law.brier == pytest.approx(np.mean((p - learned) ** 2))
    assert law.skill_brier == pytest.approx(np.mean((skill - observed) ** 2))
    assert copy.brier == pytest.approx(np.mean((copied >= 0.8) != learned))
    assert copy.skill_brier == pytest.approx(np.mean((copied - observed) ** 2))
    inside = [c.low <= c.observed <= c.high for c in found.cells]
    assert law.coverage_90 == pytest.approx(np.mean(inside)) and copy.coverage_90 is None


def test_law_beats_copying_where_size_matters(ladder: Evidence) -> None:
    found = backtest(ladder, 0.8, 60, 0)
    assert found.verdict.startswith("the law beats copying")
    assert found.scores[0].brier < found.scores[1].brier


def test_left_out_rung_does_not_reach_the_forecast(ladder: Evidence) -> None:
    spoilt = np.where(ladder.table["rung"] == "296k", ladder.table["chance"], ladder.table["accuracy"])
    skill = np.where(ladder.table["rung"] == "296k", 0.0, ladder.table["skill"])
    other = collect_evidence(Table({**ladder.table.columns, "accuracy": spoilt, "skill": skill}))
    first, second = backtest(ladder, 0.8, 20, 0), backtest(other, 0.8, 20, 0)
    assert [c.predicted for c in first.cells] == [c.predicted for c in second.cells]
    assert (
        second.verdict.startswith("the law does NOT beat") or second.scores[0].brier > first.scores[0].brier
    )
    assert second.scores[0].auroc is None


def test_copy_takes_the_same_cell_averaged_over_seeds(ladder: Evidence) -> None:
    fitted, left_out = split(ladder)
    copied = copy_forecast(fitted, left_out)
    t, done = fitted.table, fitted.finished
    for row in (0, 17, 55):
        same = done & (t["rung"] == "132k") & (t["task"] == left_out.table["task"][row])
        assert same.sum() == 2
        assert copied[row] == pytest.approx(np.clip(t["skill"][same], 0, 1).mean())


def test_copy_takes_the_nearest_length_and_no_other_frequency() -> None:
    ladder = simulate_measurements(rungs=FOUR, seeds=1, checkpoints=2, horizons=(1e6, 3e6)).learning
    fitted, left_out = split(collect_evidence(ladder))
    copied = copy_forecast(fitted, left_out)
    t = fitted.table
    long = fitted.finished & (t["rung"] == "132k") & (t["tokens"] > 2e6)
    row = int(np.argmax(left_out.table["tokens"] > 2e6))
    same = long & (t["task"] == left_out.table["task"][row])
    assert same.sum() == 1 and copied[row] == pytest.approx(np.clip(t["skill"][same][0], 0, 1))
    rarer = fitted.where(fitted.table["frequency"] > 3e-4)
    assert np.isnan(copy_forecast(rarer, left_out)[left_out.table["frequency"] < 3e-4]).all()


def test_realised_frequencies_that_differ_a_little_are_the_same_cell(ladder: Evidence) -> None:
    fitted, left_out = split(ladder)
    moved = Table({**left_out.table.columns, "frequency": left_out.table["frequency"] * 1.04})
    assert np.array_equal(copy_forecast(fitted, collect_evidence(moved)), copy_forecast(fitted, left_out))


def test_seed_noise_is_half_the_squared_difference(ladder: Evidence) -> None:
    _, left_out = split(ladder)
    t, skill = left_out.table, np.clip(left_out.skill, 0, 1)
    halves = [
        0.5
        * (
            skill[(t["task"] == task) & (t["seed"] == 0)][0]
            - skill[(t["task"] == task) & (t["seed"] == 1)][0]
        )
        ** 2
        for task in set(t["task"])
    ]
    assert seed_noise(left_out) == pytest.approx(np.mean(halves))
    assert seed_noise(left_out.where(t["seed"] == 0)) is None


def test_seed_noise_holds_no_frequencies_and_no_runs_of_one_seed_against_each_other(ladder: Evidence) -> None:
    _, left_out = split(ladder)
    t = left_out.table
    expected = seed_noise(left_out)
    # A task of the user's own has one name at all its frequencies.
    one_name = np.array([str(family) for family in t["family"]], dtype=object)
    assert len(set(zip(one_name, t["complexity"], strict=True))) < len(set(t["task"]))
    assert seed_noise(collect_evidence(Table({**t.columns, "task": one_name}))) == pytest.approx(expected)
    # A second run of each seed, alike but for the weights that it started from.
    twice = {name: np.concatenate([column, column]) for name, column in t.columns.items()}
    twice["run_id"] = np.array([f"{run}{'-v1' * (n >= len(t))}" for n, run in enumerate(twice["run_id"])])
    again = collect_evidence(Table({**twice, "run_id": twice["run_id"].astype(object)}))
    assert seed_noise(again) == pytest.approx(expected)
    assert seed_noise(again.where(again.table["seed"] == 0)) is None


def test_auroc_counts_pairs() -> None:
    generator = np.random.default_rng(0)
    learned, score = generator.random(40) < 0.4, generator.integers(0, 6, 40).astype(float)
    pairs = [(a > b) + 0.5 * (a == b) for a in score[learned] for b in score[~learned]]
    assert auroc(learned, score) == pytest.approx(np.mean(pairs))
    assert auroc(np.ones(3, dtype=bool), np.arange(3.0)) is None


def test_two_rungs_are_too_few() -> None:
    two = simulate_measurements(rungs={"8k": 8_336, "33k": 33_056}, checkpoints=2).learning
    with pytest.raises(
        InputError, match=r"needs at least 3 rungs.*have 2 \(block_params 8336, 33056\): add a rung"
    ):
        backtest(collect_evidence(two), 0.8, 20, 0)


def test_tasks_that_only_the_largest_rung_has_are_left_out(ladder: Evidence) -> None:
    t = ladder.table
    keep = (t["rung"] == "296k") | (t["family"] == "comparison")
    found = backtest(ladder.where(keep), 0.8, 20, 0)
    assert {cell.family for cell in found.cells} == {"comparison"} and len(found.cells) == 36
    with pytest.raises(InputError, match="nothing to predict"):
        backtest(
            ladder.where(
                np.where(t["rung"] == "296k", t["family"] != "comparison", t["family"] == "comparison")
            ),
            0.8,
            20,
            0,
        )


def test_nothing_to_copy_is_said(ladder: Evidence) -> None:
    t = ladder.table
    common = t["frequency"] > 1e-3
    found = backtest(ladder.where(np.where(t["rung"] == "296k", ~common, common)), 0.8, 20, 0)
    assert [s.forecast for s in found.scores] == [LAW] and "nothing to copy" in found.verdict
    assert all(cell.copied is None for cell in found.cells)
