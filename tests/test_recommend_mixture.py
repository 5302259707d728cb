"""Repetition, filling within bounds, and whole samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning import discounted
from scipy.optimize import brentq

from mixplan.recommend.mixture import effective_tokens, fill, largest_remainder, tokens_for_effective


def test_up_to_one_epoch_every_token_counts_in_full() -> None:
    drawn = np.array([[0.0, 5.0, 10.0]])
    assert effective_tokens(drawn, np.array([10.0] * 3), np.array([15.39] * 3)).tolist() == drawn.tolist()


def test_four_epochs_are_worth_what_eq_5_says() -> None:
    found = effective_tokens(np.array([[400.0]]), np.array([100.0]), np.array([15.39]))[0, 0]
    assert found == pytest.approx(100 + 100 * 15.39 * (1 - np.exp(-3 / 15.39)))
    assert found == pytest.approx(372.6, abs=0.1)  # "nearly as good as fresh": 93 % of 400


def test_endless_repetition_is_worth_at_most_one_plus_half_life_epochs() -> None:
    found = effective_tokens(np.array([[1e9]]), np.array([100.0]), np.array([15.39]))[0, 0]
    assert found == pytest.approx(100 * (1 + 15.39))
    assert np.isinf(tokens_for_effective(np.array([1640.0]), np.array([100.0]), np.array([15.39]))[0])


@given(st.floats(1e-3, 50), st.floats(0.5, 30))
def test_inverse_of_the_discount(epochs: float, half_life: float) -> None:
    unique = 7.0
    worth = effective_tokens(np.array([[epochs * unique]]), np.array([unique]), np.array([half_life]))
    assert worth[0, 0] == pytest.approx(discounted(epochs * unique, unique, half_life), rel=1e-12)
    back = tokens_for_effective(worth[0], np.array([unique]), np.array([half_life]))[0]
    if (
        epochs / half_life < 10
    ):  # beyond, repeats are worth nothing any more and many counts have the same worth
        assert back == pytest.approx(epochs * unique, rel=1e-9)


bounded = st.tuples(st.floats(0.01, 10), st.floats(0, 1), st.floats(0, 1))


@given(st.lists(bounded, min_size=1, max_size=6), st.floats(0, 1))
def test_fill_is_proportional_within_bounds_and_exact(
    parts: list[tuple[float, float, float]], at: float
) -> None:
    weights = np.array([w for w, _, _ in parts])
    low = np.array([[min(a, b) for _, a, b in parts]])
    high = np.array([[max(a, b) for _, a, b in parts]])
    total = low.sum() + at * (high.sum() - low.sum())
    found = fill(weights, low, high, np.array([total]))
    assert found.sum() == pytest.approx(total, abs=1e-9)
    assert (found >= low - 1e-12).all() and (found <= high + 1e-12).all()
    free = (found > low + 1e-9) & (found < high - 1e-9)
    levels = (found / weights)[free]
    if len(levels) > 1:  # all that are at no bound stand at the same multiple of their weight
        assert levels == pytest.approx(levels[0], rel=1e-6)
    if 1e-6 < at < 1 - 1e-6 and high.sum() - low.sum() > 1e-6:
        level = brentq(lambda x: np.clip(x * weights, low, high).sum() - total, 0, 1000)
        assert found == pytest.approx(np.clip(level * weights, low, high), abs=1e-6)


def test_what_one_source_cannot_take_the_others_share() -> None:
    found = fill(np.array([0.5, 0.3, 0.2]), np.zeros((1, 3)), np.array([[0.2, 1.0, 1.0]]), np.array([1.0]))
    assert found[0] == pytest.approx([0.2, 0.48, 0.32])


def test_out_of_reach_everyone_stands_at_the_bound() -> None:
    low, high = np.array([[0.1, 0.1]]), np.array([[0.2, 0.3]])
    assert fill(np.ones(2), low, high, np.array([0.9]))[0] == pytest.approx([0.2, 0.3])
    assert fill(np.ones(2), low, high, np.array([0.1]))[0] == pytest.approx([0.1, 0.1])


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=7), st.integers(1, 10_000))
def test_largest_remainder_sums_and_stays_next_to_the_exact(weights: list[float], total: int) -> None:
    exact = np.array(weights) / sum(weights) * total
    bounds = np.zeros(len(weights), dtype=int), np.full(len(weights), total)
    found = largest_remainder(exact, *bounds, total)
    assert found is not None and found.sum() == total
    assert (np.abs(found - exact) <= 1 + 1e-9).all()


def test_largest_remainder_never_passes_a_bound() -> None:
    found = largest_remainder(np.array([2.7, 3.3]), np.array([0, 0]), np.array([2, 9]), 6)
    assert found is not None and found.tolist() == [2, 4]
    assert largest_remainder(np.array([2.7, 3.3]), np.array([0, 0]), np.array([2, 3]), 6) is None
