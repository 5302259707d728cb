"""The backtest: scores against hand counts, the default chosen without the rung it is scored on."""

from __future__ import annotations

import numpy as np
import pytest
from simulate import LADDER, simulate_measurements

from mixplan.documents import Table
from mixplan.documents.calibration import Backtest, BacktestScore
from mixplan.errors import InputError
from mixplan.laws.backtest import DEFAULT, backtest, forecast, seed_noise
from mixplan.laws.backtest import Tested as Proven  # pytest would collect a class of its real name
from mixplan.laws.baselines import BoostedTrees, Copy
from mixplan.laws.choice import choose
from mixplan.laws.evidence import Evidence, collect_evidence
from mixplan.laws.forms import COMBINED, FORMS, LOGISTIC
from mixplan.laws.scores import auroc

FOUR = dict(list(LADDER.items())[2:])


@pytest.fixture(scope="module")
def ladder() -> Evidence:
    return collect_evidence(simulate_measurements(rungs=FOUR, checkpoints=4).learning)


@pytest.fixture(scope="module")
def tested(ladder: Evidence) -> Proven:
    return backtest(ladder, 0.8, 60, 0)


@pytest.fixture(scope="module")
def found(tested: Proven) -> Backtest:
    return tested.backtest


def split(evidence: Evidence) -> tuple[Evidence, Evidence]:
    largest = evidence.table["block_params"] == evidence.table["block_params"].max()
    return evidence.where(~largest), evidence.where(largest & evidence.finished)


def score_of(scores: list[BacktestScore], name: str) -> BacktestScore:
    return next(score for score in scores if score.forecast == name)


def test_every_candidate_is_scored_and_baselines_are_marked(found: Backtest) -> None:
    assert [s.forecast for s in found.scores] == [DEFAULT, *FORMS, Copy.name, BoostedTrees.name]
    assert [s.forecast for s in found.scores if s.baseline] == [Copy.name, BoostedTrees.name]


def test_scores_are_those_of_the_stored_cells(found: Backtest) -> None:
    assert (found.left_out_rung, found.fitted_rungs) == ("296k", ["33k", "74k", "132k"])
    law, copy = score_of(found.scores, DEFAULT), score_of(found.scores, Copy.name)
    assert law.cells == copy.cells == len(found.cells) == 72
    learned = np.array([c.observed >= 0.8 for c in found.cells])
    p, skill, observed = (
        np.array([getattr(c, n) for c in found.cells]) for n in ("p_learned", "predicted", "observed")
    )
    copied = np.array([c.copied for c in found.cells], dtype=float)
    assert law.brier == pytest.approx(np.mean((p - learned) ** 2))
    assert law.skill_brier == pytest.approx(np.mean((skill - observed) ** 2))
    assert law.auroc == pytest.approx(auroc(learned, p))
    assert copy.skill_brier == pytest.approx(np.mean((copied - observed) ** 2))
    low, high = (np.array([getattr(c, n) for c in found.cells]) for n in ("low", "high"))
    assert law.coverage_90 == pytest.approx(np.mean((low <= observed) & (observed <= high)))
    assert law.width_90 == pytest.approx(np.mean(high - low))


def test_rolling_scores_count_thresholds_and_noise(tested: Proven) -> None:
    assert [(len(one.fitted_rungs), one.left_out_rung) for one in tested.backtest.rolling] == [
        (2, "132k"), (2, "296k"), (3, "296k"),
    ]  # fmt: skip
    for one, (fold, default) in zip(tested.backtest.rolling, tested.told, strict=True):
        assert one.size_ratio == pytest.approx(one.left_out_block_params / fold.fitted[-1])
        assert one.seed_noise_skill == seed_noise(fold.left_out, fold.observed)
        first = one.scores[0]
        ratios = [
            np.inf if said is None else np.exp(abs(np.log(said / crossed.threshold_frequency)))
            for said, crossed in zip(default.thresholds, fold.crossed, strict=True)
        ]
        assert first.thresholds == len(ratios) > 0
        assert first.thresholds_near == sum(ratio <= 1.5 for ratio in ratios)
        if np.isfinite(np.median(ratios)):
            assert first.threshold_ratio == pytest.approx(np.median(ratios))
        assert first.log_score == pytest.approx(default.log_scores(fold.observed).mean())


def test_default_is_chosen_without_the_rung_that_it_is_scored_on(tested: Proven) -> None:
    folds = [fold for fold, _ in tested.told]
    assert tested.choice == choose(folds)
    for fold, default in tested.told:
        size = fold.left_out.table["block_params"][0]
        others = [other for other in folds if other.left_out.table["block_params"][0] != size]
        expected = forecast(fold, choose(others).weights, 0.8)
        assert np.array_equal(default.p_learned, expected.p_learned)


def test_mixture_lies_between_its_laws(tested: Proven) -> None:
    fold, _ = tested.told[-1]
    said = {one.name: one for one in fold.said}
    mixture = forecast(fold, {LOGISTIC.name: 0.5, COMBINED.name: 0.5}, 0.8)
    one, other = said[LOGISTIC.name], said[COMBINED.name]
    assert np.allclose(mixture.skill, (one.skill + other.skill) / 2, atol=0.03)
    assert (mixture.p_learned >= np.minimum(one.p_learned, other.p_learned) - 0.03).all()
    assert (mixture.p_learned <= np.maximum(one.p_learned, other.p_learned) + 0.03).all()
    for middle, a, b in zip(mixture.thresholds, one.thresholds, other.thresholds, strict=True):
        if a is not None and b is not None:
            assert middle == pytest.approx(np.sqrt(a * b))


def test_law_beats_copying_where_size_matters(found: Backtest) -> None:
    assert found.verdict.startswith("the law beats copying")
    law, copy = score_of(found.scores, DEFAULT), score_of(found.scores, Copy.name)
    assert law.brier < copy.brier and law.skill_brier < copy.skill_brier
    assert law.log_score is not None and copy.log_score is not None and law.log_score > copy.log_score


def test_left_out_rung_does_not_reach_the_forecast(ladder: Evidence, found: Backtest) -> None:
    spoilt = np.where(ladder.table["rung"] == "296k", ladder.table["chance"], ladder.table["accuracy"])
    skill = np.where(ladder.table["rung"] == "296k", 0.0, ladder.table["skill"])
    other = collect_evidence(Table({**ladder.table.columns, "accuracy": spoilt, "skill": skill}))
    second = backtest(other, 0.8, 60, 0).backtest
    assert [c.predicted for c in found.cells] == [c.predicted for c in second.cells]
    assert [c.low for c in found.cells] == [c.low for c in second.cells]
    assert score_of(second.scores, DEFAULT).brier > score_of(found.scores, DEFAULT).brier
    assert second.scores[0].auroc is None


def noise(rung: Evidence) -> float | None:
    return seed_noise(rung, np.clip(rung.skill, 0, 1))


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
    assert noise(left_out) == pytest.approx(np.mean(halves))
    assert noise(left_out.where(t["seed"] == 0)) is None


def test_seed_noise_holds_no_frequencies_and_no_runs_of_one_seed_against_each_other(ladder: Evidence) -> None:
    _, left_out = split(ladder)
    t = left_out.table
    expected = noise(left_out)
    # A task of the user's own has one name at all its frequencies.
    one_name = np.array([str(family) for family in t["family"]], dtype=object)
    assert len(set(zip(one_name, t["complexity"], strict=True))) < len(set(t["task"]))
    assert noise(collect_evidence(Table({**t.columns, "task": one_name}))) == pytest.approx(expected)
    # A second run of each seed, alike but for the weights that it started from.
    twice = {name: np.concatenate([column, column]) for name, column in t.columns.items()}
    twice["run_id"] = np.array([f"{run}{'-v1' * (n >= len(t))}" for n, run in enumerate(twice["run_id"])])
    again = collect_evidence(Table({**twice, "run_id": twice["run_id"].astype(object)}))
    assert noise(again) == pytest.approx(expected)
    assert noise(again.where(again.table["seed"] == 0)) is None


def test_two_rungs_are_too_few() -> None:
    two = simulate_measurements(rungs={"8k": 8_336, "33k": 33_056}, checkpoints=2).learning
    with pytest.raises(
        InputError, match=r"needs at least 3 rungs.*have 2 \(block_params 8336, 33056\): add a rung"
    ):
        backtest(collect_evidence(two), 0.8, 20, 0)


def test_tasks_that_only_the_largest_rung_has_are_left_out(ladder: Evidence) -> None:
    t = ladder.table
    keep = (t["rung"] == "296k") | (t["family"] == "comparison")
    found = backtest(ladder.where(keep), 0.8, 20, 0).backtest
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
    found = backtest(ladder.where(np.where(t["rung"] == "296k", ~common, common)), 0.8, 20, 0).backtest
    assert Copy.name not in [s.forecast for s in found.scores] and "nothing to copy" in found.verdict
    assert all(cell.copied is None for cell in found.cells)
