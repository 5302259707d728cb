"""What the source law rests on: nested scatter, chains, upright coordinates, and the forms' own limits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from recovery_of_sources import TRUTHS, Noise, simulate

from mixplan.laws import importance, posterior
from mixplan.laws.nested_noise import Levels
from mixplan.laws.source_forms import (
    FORMS,
    JOINT_OWN,
    TRANSFER,
    Centre,
    Form,
    Inputs,
    log_bits,
    named,
    prior,
    worth,
)
from mixplan.laws.source_posterior import SourcePosterior
from mixplan.laws.source_rows import choose

CENTRE = Centre(block_params=3e4, tokens=1e6, share=0.06, least_bits=2.0)
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)


def test_nested_scatter_is_the_normal_density_of_its_covariance() -> None:
    generator = np.random.default_rng(0)
    run, configuration = np.array([0, 0, 1, 1, 1, 2, 3, 3]), np.array([0, 0, 1, 1])
    residual = generator.normal(size=(3, 8))
    misfit, between, row = np.array([0.3, 0.5, 1e-4]), np.array([0.4, 0.2, 2.0]), np.array([0.1, 0.7, 0.3])
    found = Levels(run, configuration).log_density(residual, misfit, between, row)
    of_row = configuration[run]
    for c in range(3):
        covariance = row[c] ** 2 * np.eye(8) + between[c] ** 2 * np.equal.outer(run, run)
        covariance = covariance + misfit[c] ** 2 * np.equal.outer(of_row, of_row)
        assert found[c] == pytest.approx(multivariate_normal(np.zeros(8), covariance).logpdf(residual[c]))


def test_chains_have_the_mean_and_covariance_of_their_density() -> None:
    mean = np.array([1.0, -2.0, 0.5])
    root = np.array([[1.0, 0.0, 0.0], [0.9, 0.3, 0.0], [-0.5, 0.1, 0.2]])
    covariance = root @ root.T
    normal = multivariate_normal(mean, covariance)
    at = posterior.mode(lambda z: np.atleast_1d(normal.logpdf(z)), [np.zeros(3)])
    np.testing.assert_allclose(at, mean, atol=1e-3)
    found = posterior.sample(lambda z: np.atleast_1d(normal.logpdf(z)), at, 2000, np.random.default_rng(0))
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=0.1)
    np.testing.assert_allclose(np.cov(found.T), covariance, atol=0.12)


def test_a_density_that_ends_beside_its_mode_still_has_a_curvature() -> None:
    def cut(z: np.ndarray) -> np.ndarray:
        inside = z[:, 0] < 1e-3
        return np.where(inside, -0.5 * (z[:, 0] ** 2 + 25.0 * z[:, 1] ** 2), -np.inf)

    covariance = posterior.curvature(cut, np.zeros(2))
    assert covariance[1, 1] == pytest.approx(1 / 25, rel=1e-4)
    assert covariance[0, 0] == pytest.approx(1.0) and covariance[0, 1] == pytest.approx(0.0, abs=1e-9)
    found = importance.sample(cut, np.zeros(2), 400, np.random.default_rng(0))
    assert found[:, 0].max() < 1e-3
    # Half a normal: its mean is −√(2/π).
    assert found[:, 0].mean() == pytest.approx(-np.sqrt(2 / np.pi), abs=0.1)
    with pytest.raises(ValueError, match="no density"):
        posterior.curvature(cut, np.ones(2))


@each_form
def test_upright_coordinates_lead_back_and_know_their_stretch(form: Form) -> None:
    rows, _ = choose(simulate(form, Noise(0.01, 0.01, 0.005), np.random.default_rng(0), seeds=1), "manuals")
    assert rows is not None
    one = SourcePosterior(form, rows, CENTRE)
    z = prior(form, CENTRE)[0][None] + np.random.default_rng(1).normal(
        0, 0.3, size=(4, len(prior(form, CENTRE)[0]))
    )
    y = one._to_upright(z)
    back, log_jacobian = one._from_upright(y)
    np.testing.assert_allclose(back, z, atol=1e-9)
    size, step = z.shape[1], 1e-6
    for index in range(len(z)):
        up, _ = one._from_upright(y[index] + step * np.eye(size))
        down, _ = one._from_upright(y[index] - step * np.eye(size))
        numeric = np.linalg.slogdet((up - down) / (2 * step))[1]
        assert log_jacobian[index] == pytest.approx(numeric, abs=1e-4)


def test_a_form_whose_floor_leaves_the_possible_has_no_density() -> None:
    rows, _ = choose(
        simulate(JOINT_OWN, Noise(0.01, 0.01, 0.005), np.random.default_rng(0), seeds=1), "manuals"
    )
    assert rows is not None
    one = SourcePosterior(JOINT_OWN, rows, CENTRE)
    y = one._to_upright(prior(JOINT_OWN, CENTRE)[0][None])
    y[:, 0] += np.array([np.log(0.05)])
    assert one._from_upright(y)[1][0] == -np.inf


@each_form
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_bits_never_rise_with_share_size_or_tokens(form: Form, data: st.DataObject) -> None:
    """At given epochs for all forms, whatever the parameters; at a given text for the joint ones too."""
    mean, spread = prior(form, CENTRE)
    away = np.array([data.draw(st.floats(-2.5, 2.5)) for _ in mean])
    parameters = named(form, (mean + spread * away)[None], CENTRE)
    size = 10 ** data.draw(st.floats(3, 10))
    tokens = 10 ** data.draw(st.floats(5, 12))
    share, epochs = data.draw(st.floats(0, 0.9)), data.draw(st.floats(0, 60))
    text = tokens * 10 ** data.draw(st.floats(-3, 0))
    more = data.draw(st.floats(1, 4))

    def bits(size: float, tokens: float, share: float, epochs: float) -> float:
        at = Inputs(*(np.array([value]) for value in (size, tokens, share, epochs)))
        return float(log_bits(form, parameters, at)[0, 0])

    here, within = bits(size, tokens, share, epochs), 1e-9
    assert np.isfinite(here)
    assert bits(size * more, tokens, share, epochs) <= here + within
    assert bits(size, tokens * more, share, epochs) <= here + within
    assert bits(size, tokens, min(1.0, share * more + 0.01), epochs) <= here + within
    if form.name in (JOINT_OWN.name, *TRANSFER):
        same = bits(size, tokens, share, share * tokens / text)
        longer, larger = tokens * more, min(1.0, share * more)
        assert bits(size, longer, share, share * longer / text) <= same + within
        assert bits(size, tokens, larger, larger * tokens / text) <= same + within


@each_form
def test_the_limit_of_unlimited_size_and_tokens_is_the_floor(form: Form) -> None:
    """What is left at share 1 of ever larger models that read ever more fresh text."""
    parameters = {name: np.array([value]) for name, value in TRUTHS[form.name].items()}
    at = Inputs(np.array([1e60]), np.array([1e60]), np.array([1.0]), np.array([1.0]))
    left = np.exp(log_bits(form, parameters, at)[0, 0]) - parameters["E"][0]
    additive = {"additive, power of share": 2.0 / (1 + (1 / 0.03) ** 0.8)}
    assert left == pytest.approx(additive.get(form.name, 0.0), abs=1e-3)


def test_a_pass_is_worth_less_each_time_and_a_first_one_all() -> None:
    epochs = np.linspace(0, 200, 500)
    found = worth(epochs, np.array([8.0]))
    assert (found[epochs <= 1] == 1).all() and (np.diff(found) <= 1e-12).all()
    assert (np.diff(found * np.maximum(epochs, 1)) >= -1e-9).all(), "another pass never takes anything away"
    # arXiv 2305.16264: unlimited repetition of U tokens is worth U + U·R* fresh ones.
    assert worth(np.array([1e6]), np.array([15.39]))[0] * 1e6 == pytest.approx(16.39, rel=1e-4)
