"""Evenness against its own theory: random orders, bursts, perfect spacing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixplan.recipes.evenness import evenness, expected_longest_gap


def order(samples: int, share: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.permutation((np.arange(samples) < round(share * samples)).astype(np.int64))


@pytest.mark.parametrize(
    ("samples", "share"), [(20_000, 0.01), (20_000, 0.3), (1_234, 0.05), (5_000, 0.9), (2_000, 0.001)]
)
def test_random_orders_have_the_expected_cv_and_gap(samples: int, share: float) -> None:
    found = [evenness(order(samples, share, seed), 1) for seed in range(200)]
    # rms over 200 orders of 100 windows: relative standard error about 1/sqrt(2·200·99) = 0.5 %
    assert np.sqrt(np.mean([e.cv**2 for e in found])) == pytest.approx(found[0].cv_iid, rel=0.03)
    gaps = np.array([e.longest_gap_samples for e in found])
    error = gaps.std() / np.sqrt(len(gaps))
    assert abs(gaps.mean() - found[0].longest_gap_iid_samples) < 4 * error + 0.02 * gaps.mean()


def test_a_burst_is_seen() -> None:
    burst = np.zeros(10_000, np.int64)
    burst[:100] = 1
    found = evenness(burst, 1)
    assert found.empty_windows == 99
    assert found.cv == pytest.approx(np.sqrt(99))  # one window of share 1, 99 of none
    assert found.longest_gap_samples == 9_901
    assert found.cv_ratio > 9


def test_perfect_spacing_has_no_variance() -> None:
    regular = np.zeros(10_000, np.int64)
    regular[5::10] = 1
    found = evenness(regular, 1)
    assert found.cv == pytest.approx(0.0, abs=1e-12)
    assert (found.empty_windows, found.longest_gap_samples) == (0, 10)
    assert found.mean_share == pytest.approx(0.1)


def test_the_only_source_is_even() -> None:
    found = evenness(np.zeros(50, np.int64), 0)
    assert (found.windows, found.mean_share, found.cv, found.cv_iid, found.cv_ratio) == (
        50,
        1.0,
        0.0,
        0.0,
        1.0,
    )
    assert found.longest_gap_samples == 1


def test_the_longest_gap_of_one_sample_is_three_quarters_of_the_run() -> None:
    # E[max(U, 1 − U)] = 3/4
    assert expected_longest_gap(10_000, 1) == pytest.approx(7_500, rel=0.001)
    assert expected_longest_gap(10_000, 10_000) == 1.0


def test_absent_source() -> None:
    with pytest.raises(ValueError, match="does not occur"):
        evenness(np.zeros(5, np.int64), 1)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=400))
def test_counts_add_up_whatever_the_length(drawn: list[int]) -> None:
    sources = np.array(drawn)
    present = sorted(set(drawn))
    found = [evenness(sources, source) for source in present]
    windows = min(100, len(drawn))
    assert {e.windows for e in found} == {windows}
    assert sum(e.mean_share for e in found) == pytest.approx(1.0)
    for source, e in zip(present, found, strict=True):
        count = drawn.count(source)
        assert e.empty_windows >= windows - count
        gaps = np.diff([-1, *np.flatnonzero(sources == source), len(drawn)])
        assert e.longest_gap_samples == gaps.max() and gaps.sum() == len(drawn) + 1
