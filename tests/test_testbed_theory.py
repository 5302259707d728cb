"""The testbed's closed forms: against the published thresholds, against random encoders, against descent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixplan.errors import InputError
from mixplan.testbed import theory
from mixplan.testbed.mixture import Mixture


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    tasks, block = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    exponents = st.floats(0, 3)
    many = draw(st.booleans())
    spectra = draw(st.lists(exponents, min_size=tasks, max_size=tasks)) if many else [draw(exponents)]
    return Mixture(tasks, block, tasks * block + draw(st.integers(1, 5)), draw(exponents), tuple(spectra))


def mixed(mixture: Mixture, tasks: int | None = None) -> np.ndarray:
    """M of the first tasks on the coordinate axes, shape (D, D)."""
    diagonal = np.zeros(mixture.dim)
    part = mixture.utilities()[:tasks].ravel()
    diagonal[: len(part)] = part
    return np.diag(diagonal)


def orthonormal(dim: int, width: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, width)))[0]


@pytest.mark.parametrize(
    ("exponent", "first", "rarest", "frequent", "widths"),
    [
        (0.5, 0.101, 0.018, 22, [34, 72, 113]),
        (1.0, 0.246, 0.0077, 14, [46, 101, 155]),
        (1.5, 0.442, 0.00244, 6, [70, 151, 225]),
        (2.0, 0.620, 0.00060, 3, [119, 216, 299]),
    ],
)
def test_the_published_thresholds(
    exponent: float, first: float, rarest: float, frequent: int, widths: list[int]
) -> None:
    mixture = Mixture(32, 32, 1024, exponent, (2.0,))
    assert theory.critical_widths(mixture)[-1, :3].tolist() == widths
    assert mixture.frequent() == frequent
    assert mixture.priors()[[0, -1]] == pytest.approx([first, rarest], rel=0.02)
    assert mixture.complexities()[0] == 5


@pytest.mark.parametrize("exponent", [0.3, 1.0, 2.0, 4.0])
def test_rank_one_the_critical_width_of_task_k_is_k(exponent: float) -> None:
    widths = theory.critical_widths(Mixture(32, 1, 1024, exponent, (2.0,)))
    assert widths[:, 0].tolist() == list(range(1, 33))


def test_equal_utilities_are_counted_in_full_and_share_the_width_that_is_left() -> None:
    flat = Mixture(4, 2, 8, 0.0, (0.0,))
    assert (theory.critical_widths(flat) == 8).all()
    assert theory.captured(flat, 2) == pytest.approx(0.25)
    # 1/9 = 1/3 · 1/3 reached in two ways, equal but for rounding: k^-1·j^-1 with k·j the same.
    crossed = Mixture(3, 3, 9, 1.0, (1.0,))
    widths = theory.critical_widths(crossed)
    assert widths.tolist() == [[1, 3, 5], [3, 6, 8], [5, 8, 9]]
    # Almost, but for more than rounding: in order, and the shares still fill the width.
    almost = Mixture(4, 2, 9, 1e-9, (0.0,))
    assert theory.critical_widths(almost)[:, 0].tolist() == [2, 4, 6, 8]
    assert theory.captured(almost, 3).sum() == pytest.approx(3)


@given(mixtures(), st.integers(0, 2**31), st.data())
@settings(max_examples=60, deadline=None)
def test_no_encoder_leaves_less_than_the_theory(mixture: Mixture, seed: int, data: st.DataObject) -> None:
    width = data.draw(st.integers(1, mixture.dim - 1))
    least = mixture.priors() @ theory.residuals(mixture, width)
    encoder = orthonormal(mixture.dim, width, seed)
    left = np.trace(mixed(mixture)) - np.trace(encoder.T @ mixed(mixture) @ encoder)
    assert left >= least - 1e-10
    _, vectors = np.linalg.eigh(mixed(mixture))
    best = vectors[:, -width:]
    assert np.trace(mixed(mixture)) - np.trace(best.T @ mixed(mixture) @ best) == pytest.approx(
        least, abs=1e-10
    )


@given(mixtures(), st.integers(0, 2**31), st.data())
@settings(max_examples=60, deadline=None)
def test_the_residual_bounds_the_common_gradient(mixture: Mixture, seed: int, data: st.DataObject) -> None:
    width = data.draw(st.integers(1, mixture.dim - 1))
    common = mixed(mixture, mixture.frequent())
    encoder = orthonormal(mixture.dim, width, seed)
    gradient = theory.common_gradient(encoder, common)
    assert np.linalg.norm(gradient) <= theory.gradient_bound(encoder, common) * (1 + 1e-9) + 1e-12


def test_the_common_gradient_is_that_of_the_loss() -> None:
    mixture = Mixture(3, 2, 8, 1.0, (1.0,))
    common, encoder = mixed(mixture, 2), orthonormal(8, 3, 0)

    def loss(u: np.ndarray) -> float:
        projector = u @ np.linalg.inv(u.T @ u) @ u.T
        return float(np.trace(common) - np.trace(projector @ common))

    numeric = np.zeros_like(encoder)
    for at in np.ndindex(encoder.shape):
        step = np.zeros_like(encoder)
        step[at] = 1e-6
        numeric[at] = (loss(encoder + step) - loss(encoder - step)) / 2e-6
    assert theory.common_gradient(encoder, common) == pytest.approx(numeric, abs=1e-8)


@given(mixtures(), st.integers(0, 4))
@settings(deadline=None)
def test_captured_features_fill_the_width_in_order_of_utility(mixture: Mixture, extra: int) -> None:
    width = min(1 + extra, mixture.tasks * mixture.block)
    share, widths = theory.captured(mixture, width), theory.critical_widths(mixture)
    assert share.sum() == pytest.approx(width)
    assert (share[widths <= width] == 1).all()
    rank = np.argsort(-mixture.utilities(), axis=None, kind="stable")
    assert (np.diff(share.ravel()[rank]) <= 1e-9).all()


@given(st.floats(0.1, 3), st.integers(2, 8))
@settings(deadline=None)
def test_a_rare_rank_one_task_is_evicted_below_its_critical_width(exponent: float, tasks: int) -> None:
    mixture = Mixture(tasks, 1, tasks, exponent, (1.0,))
    common = theory.common_spectrum(mixture, tasks - 1)
    width = theory.rank_one_critical_width(common, float(mixture.utilities()[-1, 0]))
    assert width == tasks == theory.critical_widths(mixture)[-1, 0]
    assert theory.captured(mixture, width - 1)[-1, 0] == 0


def test_one_neuron_forgets_a_rare_direction_as_predicted() -> None:
    # Common task along axis 0, rare along axis 1, decoder 1: loss |e_0 − u|², common steps only.
    neuron, rate, steps = np.array([0.6, 0.8]), 0.001, 700
    for _ in range(steps):
        neuron = neuron - rate * 2 * (neuron - np.array([1.0, 0.0]))
    assert neuron[1] / 0.8 == pytest.approx(theory.neuron_decay(rate, steps), rel=2e-3)


def test_the_implied_exponent_of_rank_one_tasks_is_that_of_their_frequencies() -> None:
    assert theory.implied_exponent(Mixture(16, 1, 64, 1.7, (1.0,)), 0.5) == pytest.approx(1.7)
    assert np.isnan(theory.implied_exponent(Mixture(1, 2, 4, 1.7, (1.0,)), 0.5))


def test_a_task_is_learned_where_enough_of_its_energy_is_captured() -> None:
    # Shares 2/3 and 1/3 of each task; frequencies 2/3 and 1/3: utilities 4/9, 2/9, 2/9, 1/9.
    mixture = Mixture(2, 2, 4, 1.0, (1.0,))
    assert theory.learned_widths(mixture, 0.5).tolist() == [1, 4]
    assert theory.learned_widths(replace(mixture, dim=400), 0.5).tolist() == [1, 3]
    assert theory.learned_widths(replace(mixture, dim=400), 0.9).tolist() == [3, 4]


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ((32, 33, 1024, 2.0, (2.0,)), "do not fit into dim 1024"),
        ((0, 32, 1024, 2.0, (2.0,)), "tasks: 0"),
        ((4, 4, 64, -1.0, (2.0,)), "frequency exponent -1"),
        ((4, 4, 64, 1.0, (float("nan"),)), "spectrum exponent nan"),
        ((4, 4, 64, 1.0, (1.0, 2.0)), "2 spectrum exponents for 4 tasks"),
        ((4, 32, 128, 1.0, (400.0,)), "without energy, first feature"),
        ((32, 1, 64, 300.0, (1.0,)), "without energy, first feature 1 of task"),
    ],
)
def test_bad_mixtures_are_refused(given_: tuple[int, int, int, float, tuple[float, ...]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Mixture(*given_)


def test_all_problems_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Mixture(10, 10, 50, -1.0, (1.0, 2.0))
    assert len(caught.value.problems) == 3
