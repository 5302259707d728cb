"""The hierarchy behind every form: derivatives, optimum, what is borrowed, what names and order may not do.

Shape legend: P = parameters θ of mixplan.laws.hierarchy, n = rows.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from simulate import LADDER, simulate_measurements

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.laws import learning
from mixplan.laws.beta_noise import to_unit
from mixplan.laws.evidence import Evidence, collect_evidence
from mixplan.laws.forms import COMBINED, FORMS, LOGISTIC
from mixplan.laws.hierarchy import (
    MAX_WORTH,
    Estimate,
    _priors,
    _start,
    derivatives,
    estimate,
    mean_skill,
)
from mixplan.laws.protocol import Cells
from mixplan.laws.surface import Surface

FREQUENCIES = (2.3e-4, 9.4e-4, 3.9e-3)
END = 3.2768e6


@pytest.fixture(scope="module")
def table() -> Table:
    return simulate_measurements(checkpoints=3, frequencies=FREQUENCIES, before_decay=0.3).learning


@pytest.fixture(scope="module")
def small() -> Evidence:
    rungs = dict(list(LADDER.items())[:3])
    kinds = {("comparison", 4.0): 2.0, ("comparison", 8.0): 0.5, ("modular_addition", 3.0): 0.0}
    return collect_evidence(
        simulate_measurements(rungs=rungs, checkpoints=2, frequencies=FREQUENCIES, intercepts=kinds).learning
    )


def fit(table: Table, draws: int = 60, seed: int = 0) -> FittedLaw:
    return learning.fit(COMBINED, collect_evidence(table), draws, np.random.default_rng(seed))


def changed(table: Table, **columns: np.ndarray) -> Table:
    return Table({**table.columns, **columns})


def renamed(column: np.ndarray, names: dict[str, str]) -> np.ndarray:
    return np.array([names[str(value)] for value in column], dtype=object)


def misfit(found: Estimate, theta: np.ndarray) -> float:
    mu = to_unit(mean_skill(found.form, found.layout, found.rows, theta))
    y = found.rows.skill
    return float(-(found.weights * (y * np.log(mu) + (1.0 - y) * np.log(1.0 - mu))).sum())


@pytest.mark.parametrize("name", FORMS)
def test_gradient_is_that_of_the_misfit_and_information_its_outer_products(
    name: str, small: Evidence
) -> None:
    found = estimate(FORMS[name], small)
    at = found.theta + np.random.default_rng(0).normal(0, 0.3, len(found.theta))
    gradient, information = derivatives(found.form, found.layout, found.rows, found.weights, at)
    expected = approx_fprime(at, lambda theta: misfit(found, theta), 1e-6)
    assert np.allclose(gradient, expected, atol=2e-3 * (1.0 + np.abs(expected).max()))
    mu = to_unit(mean_skill(found.form, found.layout, found.rows, at))
    slopes = np.array([
        (
            to_unit(mean_skill(found.form, found.layout, found.rows, at + 1e-6 * unit))
            - to_unit(mean_skill(found.form, found.layout, found.rows, at - 1e-6 * unit))
        )
        / 2e-6
        for unit in np.eye(len(at))
    ])  # fmt: skip
    outer = (slopes * (found.weights / (mu * (1.0 - mu)))) @ slopes.T
    assert np.allclose(information, outer, atol=1e-4 * np.abs(outer).max())


@pytest.mark.parametrize("name", FORMS)
def test_mode_is_an_optimum_of_misfit_and_priors(name: str, small: Evidence) -> None:
    found = estimate(FORMS[name], small)
    _, fisher = derivatives(found.form, found.layout, found.rows, found.weights, found.theta)
    priors = found.information - fisher
    mean, spread = _priors(found.form, found.layout, bool(found.rows.early.any()), None)
    centre = _start(mean, found.layout)

    def cost(theta: np.ndarray) -> float:
        away = theta - centre
        return misfit(found, theta) + 0.5 * float(away @ priors @ away)

    slope = approx_fprime(found.theta, cost, 1e-6)
    # Twice what another step could still gain, in log-density.
    assert slope @ np.linalg.solve(found.information, slope) < 1e-3
    generator = np.random.default_rng(0)
    for _ in range(20):
        away = generator.multivariate_normal(np.zeros(len(slope)), np.linalg.inv(found.information))
        assert cost(found.theta + away) > cost(found.theta)
    # Of a difficulty the prior is its own; families are tied to their average and to nothing else.
    layout = found.layout
    assert np.allclose(
        np.diag(priors)[layout.difficulty : layout.u], spread[layout.difficulty : layout.u] ** -2.0
    )
    shift = np.zeros(layout.size)
    shift[0] = shift[layout.family : layout.family + layout.families] = 1.0
    assert shift @ priors @ shift == pytest.approx(spread[0] ** -2.0)


def test_slopes_of_one_family_are_borrowed_by_another_that_was_measured_on_small_rungs(table: Table) -> None:
    own = table["family"] == "modular_addition"
    low = table["block_params"] < 2e4
    pooled = fit(table.where(~own | low), 200)
    alone = fit(table.where(own & low), 200)

    def spread(law: FittedLaw, name: str) -> float:
        column = np.array(law.draws)[:, law.parameters.index(name)]
        return float(np.log(column).std())

    for name in ("frequency_slope[modular_addition]", "tokens_slope[modular_addition]"):
        assert spread(pooled, name) < spread(alone, name), name
    # Far above its own rungs the family is forecast from its own difficulty and the others' slopes.
    full = fit(table, 200)
    cells = Cells.of(["modular_addition"] * 3, [3.0, 5.0, 9.0], LADDER["296k"], END, 1e-3)
    mean, truth = Surface(pooled).mean(cells), Surface(full).mean(cells).mean(axis=1)
    low_end, high_end = np.quantile(mean, [0.05, 0.95], axis=1)
    assert ((low_end - 0.02 <= truth) & (truth <= high_end + 0.02)).all()
    width = np.diff(np.quantile(Surface(alone).mean(cells), [0.05, 0.95], axis=1), axis=0)[0]
    assert (high_end - low_end).sum() < width.sum()


def test_kind_with_few_rows_borrows_all_but_its_difficulty(table: Table) -> None:
    rare = (table["family"] == "comparison") & (table["complexity"] == 16)
    kept = (table["rung"] == "74k") & (table["seed"] == 0) & (table["frequency"] < 1e-3)
    assert 0 < (rare & kept).sum() < 8
    few, full = fit(table.where(~rare | kept), 200), fit(table, 200)
    sizes = np.array(list(LADDER.values()))
    cells = Cells.of(["comparison"] * 6, 16.0, sizes, END, 3.9e-3)
    one, other = Surface(few).mean(cells), Surface(full).mean(cells)
    assert np.abs(one.mean(axis=1) - other.mean(axis=1)).max() < 0.2
    assert (np.diff(one.mean(axis=1)) > 0).all()
    assert (one.std(axis=1) >= other.std(axis=1)).all()


def test_order_of_rows_changes_nothing(table: Table) -> None:
    shuffled = table.where(np.random.default_rng(1).permutation(len(table)))
    assert fit(shuffled) == fit(table)


def test_numbers_of_seeds_and_names_of_runs_and_tasks_change_nothing_but_rounding(table: Table) -> None:
    runs = sorted(set(table["run_id"].astype(str)))
    tasks = sorted(set(table["task"].astype(str)))
    generator = np.random.default_rng(2)
    other = changed(
        table,
        seed=7.0 - table["seed"],
        run_id=renamed(
            table["run_id"], dict(zip(runs, (f"r{i}" for i in generator.permutation(len(runs))), strict=True))
        ),
        task=renamed(
            table["task"],
            dict(zip(tasks, (f"t{i}" for i in generator.permutation(len(tasks))), strict=True)),
        ),
    )
    one, two = fit(table), fit(other)
    assert one.parameters == two.parameters
    assert np.allclose(one.values, two.values, rtol=1e-4, atol=1e-4)
    assert np.allclose(one.draws, two.draws, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("intercept", "side"), [(-12.0, 1.0), (12.0, -1.0)])
def test_kind_that_was_never_or_always_learned_is_bounded_on_one_side(intercept: float, side: float) -> None:
    kinds = {("comparison", 4.0): 1.0, ("comparison", 8.0): 0.0, ("comparison", 16.0): intercept}
    table = simulate_measurements(
        seeds=2, checkpoints=2, frequencies=FREQUENCIES, intercepts=kinds, precision=15.0
    ).learning
    law = fit(table, 400)
    easy, bracketed, censored = (
        np.array(law.draws)[:, law.parameters.index(f"difficulty[comparison, {level}]")]
        for level in (4, 8, 16)
    )
    low, middle, high = np.quantile(side * censored, [0.05, 0.5, 0.95])
    assert high - middle > 1.2 * (middle - low)
    # Against a bracketed kind, because the law's slopes move all difficulties together.
    assert (censored - bracketed).std() > 3.0 * (easy - bracketed).std()
    # No draw says what the rows exclude: of the cells at the nearest end, all alike.
    at_end = {1.0: ("296k", FREQUENCIES[-1]), -1.0: ("8k", FREQUENCIES[0])}[side]
    cells = Cells.of(["comparison"], 16.0, LADDER[at_end[0]], END, at_end[1])
    mean = Surface(law).mean(cells)[0]
    assert ((mean < 0.5) if side > 0 else (mean > 0.5)).mean() > 0.95


def test_no_cell_counts_for_more_than_so_many_observations(small: Evidence) -> None:
    found = estimate(LOGISTIC, small)
    assert (found.weights <= 1.0 + MAX_WORTH).all() and (found.weights > 0).all()
    m = found.rows.checkpoints
    own = 1.0 + np.minimum(found.variances.precision, MAX_WORTH)[found.rows.family]
    assert np.allclose(found.weights, own / (1.0 + (m - 1) * found.variances.correlation))


def test_more_checkpoints_of_the_same_runs_are_not_more_evidence() -> None:
    few, many = (
        fit(simulate_measurements(checkpoints=count, frequencies=FREQUENCIES).learning, 200)
        for count in (3, 24)
    )
    widths = []
    for law in (few, many):
        column = np.array(law.draws)[:, law.parameters.index("frequency_slope[comparison]")]
        widths.append(np.log(column).std())
    assert widths[1] > 0.6 * widths[0]
