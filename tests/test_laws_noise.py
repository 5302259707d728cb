"""Scatter of new runs: precision by moments, probability and interval against sampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixplan.laws.beta_noise import (
    ABOVE,
    BELOW,
    PRECISION_RANGE,
    fit_precision,
    interval,
    probability_at_least,
)


def sampled(generator: np.random.Generator, mean: np.ndarray, precision: np.ndarray | float) -> np.ndarray:
    """Skills from the stated distribution, not yet cut to [0, 1]."""
    width = 1 + BELOW + ABOVE
    centre = (mean + BELOW) / width
    return generator.beta(centre * precision, (1 - centre) * precision) * width - BELOW


@pytest.mark.parametrize("precision", [0.3, 1.0, 4.0, 20.0])
def test_precision_is_recovered(precision: float) -> None:
    generator = np.random.default_rng(0)
    mean = generator.uniform(0, 1, 4000)
    skill = sampled(generator, mean, precision)
    assert fit_precision(skill, mean, np.ones(4000), 0) == pytest.approx(precision, rel=0.08)


def test_precision_survives_extremes_and_stays_in_range() -> None:
    mean = np.full(50, 0.5)
    ends = np.r_[np.full(25, -0.05), np.full(25, 1.01)]
    assert fit_precision(ends, mean, np.ones(50), 0) == PRECISION_RANGE[0]
    assert fit_precision(mean, mean, np.ones(50), 0) == PRECISION_RANGE[1]


def test_fitted_parameters_cost_precision() -> None:
    skill, mean = np.array([0.2, 0.8, 0.4, 0.6]), np.full(4, 0.5)
    largest = 4 * (0.5 + BELOW) * (0.5 + ABOVE)  # Σ(mean + δ₀)(1 + δ₁ − mean), against Σ(y − mean)² = 0.2
    assert fit_precision(skill, mean, np.ones(4), 0) == pytest.approx(largest / 0.2 - 1)
    assert fit_precision(skill, mean, np.ones(4), 2) == pytest.approx(largest / 0.4 - 1)


def test_probability_and_interval_agree_with_sampling() -> None:
    generator = np.random.default_rng(1)
    mean = generator.beta(4, 2, size=(5, 60))  # 60 draws of each of 5 cells' means
    precision = generator.uniform(0.5, 8, 60)
    pick = generator.integers(0, 60, 200_000)
    low, high = interval(mean, precision)
    for cell in range(5):
        sample = np.clip(sampled(generator, mean[cell][pick], precision[pick]), 0, 1)
        probability = probability_at_least(0.8, mean, precision)[cell]
        assert probability == pytest.approx((sample >= 0.8).mean(), abs=0.006)
        below, above = np.quantile(sample, [0.05, 0.95])
        # Outwards by the search's two steps of 2^-8 at most, and by RESOLUTION.
        assert below - 0.02 <= low[cell] <= below + 0.003
        assert above - 0.003 <= high[cell] <= above + 0.02


@pytest.mark.parametrize("draws", [80, 200, 333])
def test_many_draws_are_stood_for_by_few_points_to_a_few_thousandths(draws: int) -> None:
    generator = np.random.default_rng(2)
    mean = generator.beta(*generator.uniform(0.3, 4, size=(2, 200, 1)), size=(200, draws))
    # Draws of one family's precision, which some hundred cells pin down to about a tenth.
    precision = 5.0 * np.exp(generator.normal(0, 0.15, size=(200, draws)))
    # The same draws in small parts are taken as they are, and their average is that of all.
    parts = np.array_split(np.arange(draws), int(np.ceil(draws / 40)))
    exact = sum(probability_at_least(0.8, mean[:, p], precision[:, p]) * len(p) for p in parts) / draws
    assert np.abs(probability_at_least(0.8, mean, precision) - exact).max() < 0.01


def test_exact_ends_have_a_probability_of_their_own() -> None:
    low, high = interval(np.array([[0.97], [0.02], [1.0], [0.0]]), np.array([5.0]))
    assert high[0] == 1.0 and low[1] == 0.0 and high[2] == 1.0 and low[3] == 0.0
    assert low[2] > 0.85 and 0.05 < high[3] < 0.4


def test_no_cells_no_intervals() -> None:
    low, high = interval(np.empty((0, 3)), np.ones(3))
    assert low.shape == high.shape == (0,)


@given(
    means=st.lists(st.floats(0, 1), min_size=2, max_size=2),
    precision=st.floats(0.02, 1e4),
    threshold=st.floats(0.05, 0.95),
)
@settings(max_examples=60, deadline=None)
def test_higher_mean_is_never_worse(means: list[float], precision: float, threshold: float) -> None:
    mean = np.sort(np.array(means))[:, None]
    p = probability_at_least(threshold, mean, np.array([precision]))
    low, high = interval(mean, np.array([precision]))
    assert ((p >= 0) & (p <= 1)).all() and p[1] >= p[0] - 1e-9
    assert low[1] >= low[0] and high[1] >= high[0] and (high >= low).all()
