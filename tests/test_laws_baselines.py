"""Forecasts to be beaten: the copy takes the right cells, trees know no names, both say how far off."""

from __future__ import annotations

import numpy as np
import pytest
from simulate import LADDER, simulate_measurements

from mixplan.documents import Table
from mixplan.laws.baselines import _UNTESTED_PRECISION, BoostedTrees, Copied, Copy, precision_of
from mixplan.laws.beta_noise import PRECISION_RANGE, UNIT_WIDTH, to_unit
from mixplan.laws.evidence import Evidence, collect_evidence
from mixplan.laws.protocol import Cells

FOUR = dict(list(LADDER.items())[2:])
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def ladder() -> Evidence:
    return collect_evidence(simulate_measurements(rungs=FOUR, checkpoints=4).learning)


def split(evidence: Evidence) -> tuple[Evidence, Evidence]:
    largest = evidence.table["block_params"] == evidence.table["block_params"].max()
    return evidence.where(~largest), evidence.where(largest & evidence.finished)


def copied(fitted: Evidence, left_out: Evidence) -> np.ndarray:
    return Copy().fit(fitted, 10, RANDOM).mean(Cells.measured(left_out))[:, 0]


def test_copy_takes_the_same_cell_averaged_over_seeds(ladder: Evidence) -> None:
    fitted, left_out = split(ladder)
    found = copied(fitted, left_out)
    t, done = fitted.table, fitted.finished
    for row in (0, 17, 55):
        same = done & (t["rung"] == "132k") & (t["task"] == left_out.table["task"][row])
        assert same.sum() == 2
        assert found[row] == pytest.approx(np.clip(t["skill"][same], 0, 1).mean())


def test_copy_takes_the_nearest_length_and_no_other_frequency() -> None:
    ladder = simulate_measurements(rungs=FOUR, seeds=1, checkpoints=2, horizons=(1e6, 3e6)).learning
    fitted, left_out = split(collect_evidence(ladder))
    found = copied(fitted, left_out)
    t = fitted.table
    long = fitted.finished & (t["rung"] == "132k") & (t["tokens"] > 2e6)
    row = int(np.argmax(left_out.table["tokens"] > 2e6))
    same = long & (t["task"] == left_out.table["task"][row])
    assert same.sum() == 1 and found[row] == pytest.approx(np.clip(t["skill"][same][0], 0, 1))
    rarer = fitted.where(fitted.table["frequency"] > 3e-4)
    assert np.isnan(copied(rarer, left_out)[left_out.table["frequency"] < 3e-4]).all()


def test_realised_frequencies_that_differ_a_little_are_the_same_cell(ladder: Evidence) -> None:
    fitted, left_out = split(ladder)
    moved = Table({**left_out.table.columns, "frequency": left_out.table["frequency"] * 1.04})
    assert np.array_equal(copied(fitted, collect_evidence(moved)), copied(fitted, left_out))


def test_copy_scatters_as_the_rung_before_did(ladder: Evidence) -> None:
    fitted, left_out = split(ladder)
    before = fitted.where(fitted.table["rung"] != "132k")
    last = fitted.where((fitted.table["rung"] == "132k") & fitted.finished)
    expected = precision_of(np.clip(last.skill, 0, 1), copied(before, last))
    found = Copy().fit(fitted, 10, RANDOM)
    assert isinstance(found, Copied) and found.precision == pytest.approx(expected)
    run = found.new_run(Cells.measured(left_out))
    assert np.array_equal(run.mean, found.mean(Cells.measured(left_out)))
    assert (run.precision == found.precision).all()
    alone = Copy().fit(fitted.where(fitted.table["rung"] == "132k"), 10, RANDOM)
    # Of one rung nothing says how far off a copy is.
    assert alone.precision == _UNTESTED_PRECISION


def test_precision_is_that_of_the_variance() -> None:
    generator = np.random.default_rng(0)
    mean = generator.uniform(0, 1, 4000)
    centre = to_unit(mean)
    skill = generator.beta(centre * 6.0, (1 - centre) * 6.0) * UNIT_WIDTH - 0.05
    assert precision_of(skill, mean) == pytest.approx(6.0, rel=0.1)
    some = np.where(np.arange(4000) % 2 == 0, np.nan, mean)
    assert precision_of(skill, some) == pytest.approx(precision_of(skill[1::2], mean[1::2]))
    assert precision_of(mean, mean) == PRECISION_RANGE[1]


def test_trees_see_what_they_were_grown_on_and_no_family_else(ladder: Evidence) -> None:
    found = BoostedTrees().fit(ladder, 10, RANDOM)
    done = ladder.where(ladder.finished)
    mean = found.mean(Cells.measured(done))[:, 0]
    assert ((mean >= 0) & (mean <= 1)).all()
    assert np.mean((mean - np.clip(done.skill, 0, 1)) ** 2) < 0.5 * np.var(np.clip(done.skill, 0, 1))
    unknown = Cells.of(["poems"], 4.0, 1e5, 3e6, 1e-3)
    assert np.isnan(found.mean(unknown)).all() and np.isnan(found.new_run(unknown).mean).all()
    # Left-out runs are further off than the runs that the trees have seen.
    assert found.precision < precision_of(done.skill, mean)


def test_trees_do_not_depend_on_order_or_names(ladder: Evidence) -> None:
    table = ladder.table
    names = sorted(set(table["run_id"].astype(str)))
    other = dict(zip(names, reversed(names), strict=True))
    renamed = np.array([other[str(name)] for name in table["run_id"]], dtype=object)
    moved = Table({**table.columns, "run_id": renamed, "seed": 5.0 - table["seed"]})
    shuffled = collect_evidence(moved.where(np.random.default_rng(1).permutation(len(moved))))
    cells = Cells.of(["comparison"] * 4, 8.0, [3e4, 1e5, 3e5, 3e6], 3e6, 1e-3)
    one, two = (BoostedTrees().fit(evidence, 10, RANDOM) for evidence in (ladder, shuffled))
    assert np.allclose(one.mean(cells), two.mean(cells), atol=1e-9)
    assert one.precision == pytest.approx(two.precision, rel=1e-9)


def test_baselines_say_that_they_are(ladder: Evidence) -> None:
    assert Copy().baseline and BoostedTrees().baseline
