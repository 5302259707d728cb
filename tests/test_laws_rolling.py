"""Rolling origin: what was left out reaches nothing that is said of it, the retention prior included."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from simulate import LADDER, simulate_measurements

from mixplan.documents import Measurements, Table
from mixplan.laws.beta_noise import interval, probability_at_least
from mixplan.laws.candidates import candidates, parametric, time_exponent
from mixplan.laws.evidence import Evidence, collect_evidence
from mixplan.laws.protocol import Cells, FittedLearning, LearningLaw, Scattered
from mixplan.laws.rolling import Crossing, Fold, crossings, distribution, folds, predicted_crossing
from mixplan.laws.scores import threshold_frequency

FOUR = dict(list(LADDER.items())[1:5])
FREQUENCIES = (2.3e-4, 9.4e-4, 3.9e-3)


@pytest.fixture(scope="module")
def measured() -> Measurements:
    return simulate_measurements(rungs=FOUR, checkpoints=2, frequencies=FREQUENCIES)


@pytest.fixture(scope="module")
def evidence(measured: Measurements) -> Evidence:
    return collect_evidence(measured.learning)


def told(evidence: Evidence, retention: Table | None) -> list[Fold]:
    def laws(largest: float) -> list[LearningLaw]:
        return candidates(time_exponent(retention, largest))

    return list(folds(evidence, laws, 0.8, 30, 0))


@pytest.fixture(scope="module")
def rolled(evidence: Evidence, measured: Measurements) -> list[Fold]:
    return told(evidence, measured.retention)


def test_every_larger_rung_from_every_set_of_smaller_ones(rolled: list[Fold]) -> None:
    sizes = sorted(FOUR.values())
    left_out = [float(fold.left_out.table["block_params"][0]) for fold in rolled]
    assert [len(fold.fitted) for fold in rolled] == [2, 2, 3]
    assert left_out == [sizes[2], sizes[3], sizes[3]]
    assert [fold.rungs_ahead for fold in rolled] == [1, 2, 1]
    for fold, size in zip(rolled, left_out, strict=True):
        assert max(fold.fitted) < size and set(fold.left_out.table["block_params"]) == {size}
        assert fold.left_out.finished.all()


def test_left_out_rows_reach_no_prediction(
    rolled: list[Fold], evidence: Evidence, measured: Measurements
) -> None:
    """Not the skills of larger rungs, nor what they retain."""
    largest = max(FOUR.values())
    spoilt_at = evidence.table["block_params"] >= sorted(FOUR.values())[2]
    skill = np.where(spoilt_at, 1.0 - evidence.table["skill"], evidence.table["skill"])
    spoilt = collect_evidence(Table({**evidence.table.columns, "skill": skill}))
    retention = measured.retention
    assert retention is not None
    gain = np.where(retention["block_params"] > 4e4, retention["gain"][::-1], retention["gain"])
    other = told(spoilt, Table({**retention.columns, "gain": gain}))
    for one, two in zip(rolled[:2], other[:2], strict=True):
        for mine, theirs in zip(one.said, two.said, strict=True):
            assert mine.name == theirs.name
            assert np.array_equal(mine.skill, theirs.skill, equal_nan=True)
            assert np.array_equal(mine.bins, theirs.bins) and np.array_equal(mine.low, theirs.low)
    # The rung between counts as fitted for the third fold, whose forecasts it must move.
    assert rolled[2].fitted[-1] < largest
    assert not np.array_equal(rolled[2].said[0].skill, other[2].said[0].skill)


def test_retention_prior_looks_at_fitted_rungs_only(measured: Measurements) -> None:
    table = measured.retention
    assert table is not None
    sizes = sorted(FOUR.values())
    small = table.where(table["block_params"] <= sizes[2])
    found = time_exponent(table, sizes[2])
    assert found is not None and found == time_exponent(small)
    assert found != time_exponent(table)
    assert time_exponent(table, sizes[0]) is None and time_exponent(None) is None


def test_retention_prior_is_used_where_there_is_a_time_constant(evidence: Evidence) -> None:
    for free, told_so in zip(parametric(None), parametric((float(np.log(3.0)), 0.02)), strict=True):
        one, other = (law.document(evidence, 0, np.random.default_rng(0)) for law in (free, told_so))
        if "time_constant_exponent" in one.parameters:
            at = one.parameters.index("time_constant_exponent")
            assert other.values[at] == pytest.approx(3.0, rel=0.05) and one.values[at] < 2.5
        else:
            assert one == other


def test_what_is_said_is_that_of_the_distribution(rolled: list[Fold]) -> None:
    for said in rolled[0].said:
        mean, precision = said.found.mean[said.known], said.found.precision[said.known]
        assert np.array_equal(said.p_learned, probability_at_least(0.8, mean, precision))
        assert np.array_equal(said.low, interval(mean, precision)[0])
        assert np.allclose(said.bins.sum(axis=1), 1.0) and (said.bins >= 1e-3 - 1e-12).all()
        assert (said.low <= said.high).all() and ((said.skill >= 0) & (said.skill <= 1)).all()
        scores = said.log_scores(rolled[0].observed)
        bin_of = np.minimum((rolled[0].observed[said.known] + 1e-9) * 10, 9).astype(int)
        assert np.allclose(scores, np.log(said.bins[np.arange(len(scores)), bin_of]))


def test_cells_that_nothing_is_said_about_are_left_out_of_the_scores() -> None:
    mean = np.array([[0.2, 0.4], [np.nan, np.nan], [0.9, 0.7]])
    found = distribution(Scattered(mean, np.full_like(mean, 5.0)), 0.8)
    assert found["known"].tolist() == [True, False, True]
    assert found["skill"] == pytest.approx([0.3, 0.8]) and len(found["bins"]) == 2


def test_crossings_are_those_of_the_measured_cells(rolled: list[Fold]) -> None:
    fold = rolled[-1]
    t = fold.left_out.table
    assert fold.crossed
    for one in fold.crossed:
        rows = (t["family"] == one.family) & (t["complexity"] == one.complexity)
        expected = threshold_frequency(t["frequency"][rows], np.clip(t["skill"][rows], 0, 1), 0.8)
        assert one.threshold_frequency == pytest.approx(expected)
        assert min(one.frequencies) <= one.threshold_frequency <= max(one.frequencies)
    kinds = {(one.family, one.complexity) for one in fold.crossed}
    every = {(str(f), float(c)) for f, c in zip(t["family"], t["complexity"], strict=True)}
    for kind in every - kinds:
        rows = (t["family"] == kind[0]) & (t["complexity"] == kind[1])
        assert threshold_frequency(t["frequency"][rows], np.clip(t["skill"][rows], 0, 1), 0.8) is None
    again = [one.threshold_frequency for one in crossings(fold.left_out, 0.8)]
    assert again == [one.threshold_frequency for one in fold.crossed]


class _Known:
    """A fitted candidate whose draws have these threshold frequencies."""

    def __init__(self, *draws: float) -> None:
        self.draws = draws

    def log_threshold_frequency(self, cells: Cells, skill: float) -> np.ndarray:
        return np.log(np.tile(self.draws, (len(cells), 1)))


def known(*draws: float) -> FittedLearning:
    return cast(FittedLearning, _Known(*draws))


def test_predicted_crossing_is_the_middle_draw_up_to_ten_times_beyond_the_measured_frequencies() -> None:
    at = Crossing("a", 2.0, 1e5, 3e6, np.array([1e-4, 1e-3, 1e-2]), 1e-3)
    for where in (1e-3, 5e-2, 2e-5):
        assert predicted_crossing(known(where), at, 0.8) == pytest.approx(where)
    assert predicted_crossing(known(1e-4, 3e-3, np.inf), at, 0.8) == pytest.approx(3e-3)
    for beyond in (0.5, 1e-6, np.inf, np.nan):
        assert predicted_crossing(known(beyond), at, 0.8) is None


def test_predicted_crossings_are_those_of_the_mean_curve(rolled: list[Fold]) -> None:
    """Copies and trees have one draw, whose curve can be scanned; what is said is where it crosses."""
    fold = rolled[-1]
    copied = next(said for said in fold.said if said.name.startswith("copy"))
    t = fold.left_out.table
    for crossing, predicted in zip(fold.crossed, copied.thresholds, strict=True):
        rows = (t["family"] == crossing.family) & (t["complexity"] == crossing.complexity)
        expected = threshold_frequency(t["frequency"][rows], copied.skill[rows[copied.known]], 0.8)
        if expected is None:
            continue
        assert predicted is not None
        # The copy is a step at every measured frequency, the threshold lies between two of them.
        measured = np.sort(np.unique(t["frequency"][rows]))
        assert (
            measured[measured <= expected].max() * 0.75
            <= predicted
            <= measured[measured >= expected].min() * 1.25
        )


def test_kinds_that_only_larger_rungs_measured_are_not_asked_about(evidence: Evidence) -> None:
    t = evidence.table
    small = t["block_params"] < 5e4
    kept = evidence.where(~small | (t["family"] == "comparison"))
    first = told(kept, None)[0]
    assert set(first.left_out.table["family"]) == {"comparison"}
