"""The search: its derivatives, its optimum against a general optimiser, and rows no binomial would take."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from mixplan.laws.beta_noise import to_unit
from mixplan.laws.quasi_logit import Design, _derivatives, maximise, mean_skill

KINDS, SHARED = 2, 3
MEAN = np.array([0.0, 0.0, 4.0, 4.0, 1.0, 1.0, 0.0])
SPREAD = np.array([4.0, 4.0, 2.0, 2.0, 2.0, 2.0, 1.0])


def design(seed: int = 0, rows: int = 300) -> Design:
    generator = np.random.default_rng(seed)
    kind = generator.integers(0, KINDS, rows)
    columns = generator.normal(size=(rows, SHARED))
    bounded = np.array([False] * 4 + [True, True, False])
    bare = Design(kind, columns, np.zeros(rows), KINDS, bounded)
    truth = np.array([0.5, -1.0, 1.5, 4.0, 1.2, 0.6, -0.3])
    skill = mean_skill(bare, truth) + generator.normal(0, 0.1, rows)
    return Design(kind, columns, skill, KINDS, bounded)


def cost(rows: Design, weights: np.ndarray, theta: np.ndarray) -> float:
    observed, mean = to_unit(rows.skill), to_unit(mean_skill(rows, theta))
    misfit = -weights @ (observed * np.log(mean) + (1 - observed) * np.log(1 - mean))
    return float(misfit + 0.5 * (((theta - MEAN) / SPREAD) ** 2).sum())


def test_gradient_is_that_of_the_misfit() -> None:
    rows, generator = design(), np.random.default_rng(1)
    weights = generator.uniform(0.5, 2, len(rows.skill))
    at = generator.normal(size=7)
    gradient, _ = _derivatives(rows, weights, at)
    gradient = gradient + (at - MEAN) / SPREAD**2
    assert np.allclose(gradient, approx_fprime(at, lambda t: cost(rows, weights, t), 1e-7), atol=1e-3)


def test_information_is_the_sum_of_outer_products() -> None:
    rows, at = design(rows=40), np.array([0.2, -0.5, 1.0, 2.0, 0.8, 0.3, 0.1])
    weights = np.linspace(0.5, 2, 40)
    _, information = _derivatives(rows, weights, at)
    slopes = np.array(
        [approx_fprime(at, lambda t, i=i: to_unit(mean_skill(rows, t))[i], 1e-7) for i in range(40)]
    )
    mean = to_unit(mean_skill(rows, at))
    expected = (slopes * (weights / (mean * (1 - mean)))[:, None]).T @ slopes
    assert np.allclose(information, expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_optimum_is_the_one_a_general_optimiser_finds(seed: int) -> None:
    rows = design(seed)
    weights = np.random.default_rng(seed).uniform(0.5, 2, len(rows.skill))
    ours = maximise(rows, weights, MEAN, SPREAD, MEAN.copy())
    bounds = [(0, None) if b else (None, None) for b in rows.bounded]
    other = minimize(lambda t: cost(rows, weights, t), MEAN, bounds=bounds, method="L-BFGS-B", tol=1e-12)
    assert cost(rows, weights, ours) <= other.fun + 1e-6
    assert np.allclose(mean_skill(rows, ours), mean_skill(rows, other.x), atol=2e-3)


def test_start_does_not_matter_here() -> None:
    rows = design()
    weights = np.ones(len(rows.skill))
    starts = (MEAN, np.zeros(7), np.array([3.0, -3.0, 0.0, 0.0, 4.0, 0.0, 2.0]))
    found = [maximise(rows, weights, MEAN, SPREAD, start.copy()) for start in starts]
    assert np.allclose(found[0], found[1], atol=1e-4) and np.allclose(found[0], found[2], atol=1e-4)


def test_bounded_parameters_stop_at_zero() -> None:
    rows = design()
    turned = Design(rows.kind, rows.columns * [-1.0, 1.0, 1.0], rows.skill, KINDS, rows.bounded)
    found = maximise(turned, np.ones(300), MEAN, SPREAD, MEAN.copy())
    assert found[4] == 0.0 and found[5] > 0.3 and found[6] < 0.0


@pytest.mark.parametrize("level", [-0.3, -0.05, 0.0, 1.0])
def test_rows_at_or_beyond_the_ends_keep_the_search_finite(level: float) -> None:
    rows = design()
    flat = Design(rows.kind, rows.columns, np.full(300, level), KINDS, rows.bounded)
    found = maximise(flat, np.full(300, 50.0), MEAN, SPREAD, MEAN.copy())
    assert np.isfinite(found).all() and np.abs(found).max() < 40
    assert np.allclose(mean_skill(flat, found), np.clip(level, 0, 1), atol=0.03)
