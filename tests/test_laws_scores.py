"""Scores against hand counts, brute force and the distributions that they are scores of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mixplan.laws.beta_noise import BELOW, UNIT_WIDTH, probability_at_least, to_unit
from mixplan.laws.scores import (
    FLOOR,
    auroc,
    brier,
    coverage,
    log_loss,
    ratio_error,
    skill_bins,
    skill_log_score,
    threshold_frequency,
)

PRECISION = np.array([4.0, 9.0])


def test_brier_of_probabilities_and_of_means() -> None:
    assert brier(np.array([1.0, 0.5, 0.0]), np.array([True, False, True])) == pytest.approx(1.25 / 3)
    assert brier(np.array([0.3, 0.6]), np.array([0.1, 0.6])) == pytest.approx(0.02)


def test_log_loss_is_cut_where_a_forecast_was_sure() -> None:
    probability = np.array([0.25, 0.25, 0.0, 1.0])
    learned = np.array([True, False, True, True])
    parts = [np.log(4), -np.log(0.75), np.log(1000), -np.log(0.999)]
    assert log_loss(probability, learned) == pytest.approx(np.mean(parts))
    assert log_loss(probability, learned, clip=0.1) == pytest.approx(
        np.mean([np.log(4), -np.log(0.75), np.log(10), -np.log(0.9)])
    )


def test_auroc_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    learned, score = rng.random(30) < 0.4, np.round(rng.random(30), 1)
    pairs = [float(a > b) + 0.5 * float(a == b) for a in score[learned] for b in score[~learned]]
    assert auroc(learned, score) == pytest.approx(np.mean(pairs))
    assert auroc(np.zeros(3, dtype=bool), np.arange(3.0)) is None


def test_coverage_counts_the_ends_as_inside() -> None:
    low, high = np.array([0.0, 0.2, 0.5, 0.5]), np.array([0.1, 0.4, 0.9, 0.9])
    assert coverage(low, high, np.array([0.1, 0.2, 0.95, 0.49])) == 0.5


def test_bins_are_the_shares_of_drawn_skills() -> None:
    mean = np.array([[0.05, 0.10], [0.55, 0.75], [0.97, 0.90]])
    bins = skill_bins(mean, PRECISION)
    assert bins.shape == (3, 10) and bins.sum(axis=1) == pytest.approx(1.0)
    rng, drawn = np.random.default_rng(1), 200_000
    which = rng.integers(2, size=drawn)
    for row, centre in zip(bins, to_unit(mean), strict=True):
        unit = rng.beta((centre * PRECISION)[which], ((1 - centre) * PRECISION)[which])
        skill = np.clip(unit * UNIT_WIDTH - BELOW, 0.0, 1.0)
        shares = np.histogram(skill, bins=np.linspace(0, 1, 11))[0] / drawn
        assert row == pytest.approx((1 - 10 * FLOOR) * shares + FLOOR, abs=0.005)


def test_bins_above_the_threshold_are_the_probability_of_learning() -> None:
    mean = np.random.default_rng(2).random((20, 2))
    above = (skill_bins(mean, PRECISION)[:, 8:].sum(axis=1) - 2 * FLOOR) / (1 - 10 * FLOOR)
    assert above == pytest.approx(probability_at_least(0.8, mean, PRECISION))


def test_no_bin_is_below_the_floor() -> None:
    sure = skill_bins(np.array([[0.999]]), np.array([1e4]))
    assert sure[0, :9] == pytest.approx(FLOOR) and sure[0, 9] == pytest.approx(1 - 9 * FLOOR)
    assert skill_log_score(sure, np.array([0.3]))[0] == pytest.approx(np.log(FLOOR))


def test_skill_falls_into_the_bin_that_its_lower_edge_opens() -> None:
    bins = np.tile(np.arange(1.0, 11.0) / 55.0, (9, 1))
    # (0.9 − 0.5) ÷ 0.5 is 0.8 in decimals, and 0.3 is three steps of 0.1 less rounding.
    skill = np.array([-0.2, 0.0, 0.0999, 0.1, 0.3, (0.9 - 0.5) / 0.5, 0.7999, 0.9, 1.0])
    expected = np.array([1, 1, 1, 2, 4, 9, 8, 10, 10]) / 55.0
    assert skill_log_score(bins, skill) == pytest.approx(np.log(expected))


def test_log_score_is_best_for_the_truth() -> None:
    rng = np.random.default_rng(3)
    skill = np.clip(rng.beta(to_unit(0.6) * 6, (1 - to_unit(0.6)) * 6, 20_000) * UNIT_WIDTH - BELOW, 0, 1)
    mean = np.array([[0.6], [0.5], [0.7], [0.6], [0.6]])
    totals = []
    for one, precision in zip(mean, (6.0, 6.0, 6.0, 2.0, 20.0), strict=True):
        bins = skill_bins(one[None], np.array([precision]))
        totals.append(skill_log_score(np.repeat(bins, len(skill), axis=0), skill).mean())
    assert np.argmax(totals) == 0


def test_threshold_is_interpolated_in_log_frequency() -> None:
    frequency = np.array([4e-3, 1e-3, 2e-3])
    assert threshold_frequency(frequency, np.array([0.9, 0.2, 0.6]), 0.8) == pytest.approx(
        2e-3 * 2 ** (2 / 3)
    )
    assert threshold_frequency(frequency, np.array([0.9, 0.2, 0.8]), 0.8) == pytest.approx(2e-3)


def test_seeds_are_averaged_though_their_frequencies_differ_a_little() -> None:
    frequency = np.array([1e-3, 1.02e-3, 2e-3, 2.04e-3])
    skill = np.array([0.5, 0.3, 0.7, 1.0])
    low, high = np.sqrt(1e-3 * 1.02e-3), np.sqrt(2e-3 * 2.04e-3)
    part = (0.8 - 0.4) / (0.85 - 0.4)
    assert threshold_frequency(frequency, skill, 0.8) == pytest.approx(low * (high / low) ** part)
    assert threshold_frequency(frequency, skill, 0.8, same=1.0) == pytest.approx(
        2e-3 * 1.02 ** ((0.8 - 0.7) / 0.3)
    )


def test_a_dip_is_pooled_by_the_number_of_rows() -> None:
    frequency = np.array([1.0, 2.0, 2.0, 2.0, 4.0]) * 1e-3
    skill = np.array([0.7, 0.3, 0.3, 0.3, 0.9])
    assert threshold_frequency(frequency, skill, 0.8) == pytest.approx(2e-3 * 2 ** (0.4 / 0.5))


@pytest.mark.parametrize("skill", [[0.1, 0.2, 0.7], [0.8, 0.9, 1.0], [0.9, 0.9, 0.1]])
def test_no_threshold_where_it_is_not_bracketed(skill: list[float]) -> None:
    assert threshold_frequency(np.array([1e-3, 2e-3, 4e-3]), np.array(skill), 0.8) is None


def test_no_threshold_from_one_frequency_or_none() -> None:
    assert threshold_frequency(np.array([1e-3, 1.1e-3]), np.array([0.2, 0.9]), 0.8) is None
    assert threshold_frequency(np.empty(0), np.empty(0), 0.8) is None


@given(arrays(float, (12,), elements=st.floats(-0.2, 1.0)), st.integers(0, 99))
def test_threshold_lies_inside_and_forgets_the_order(skill: np.ndarray, seed: int) -> None:
    frequency = np.repeat([1e-4, 4e-4, 1.6e-3, 6.4e-3], 3) * np.tile([1.0, 1.01, 1.02], 4)
    found = threshold_frequency(frequency, skill, 0.5)
    order = np.random.default_rng(seed).permutation(12)
    assert threshold_frequency(frequency[order], skill[order], 0.5) == found
    assert found is None or 1e-4 < found < 6.6e-3
    scaled = threshold_frequency(frequency * 10, skill, 0.5)
    assert (scaled is None) == (found is None)
    assert found is None or scaled == pytest.approx(10 * found)


def test_ratio_error_is_the_same_both_ways() -> None:
    assert ratio_error(np.array([2e-3, 5e-4, 1e-3]), np.full(3, 1e-3)) == pytest.approx([2.0, 2.0, 1.0])
