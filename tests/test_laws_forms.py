"""The forms of the learning law: never falling, right in both limits, differentiable by complex steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixplan.laws.forms import (
    ACCUMULATOR,
    COMBINED,
    FORMS,
    LOG_LOG,
    LOGISTIC,
    LOGIT,
    THRESHOLD,
    Form,
    Link,
    log_sum,
)

FAR = 60.0
"""e^60 times the middle of the ladder: as good as without end."""
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
axis = st.floats(-30.0, 30.0)
step = st.floats(0.0, 30.0)
deviations = st.lists(st.floats(-3.0, 3.0), min_size=6, max_size=6)


def unbounded(form: Form, away: list[float]) -> np.ndarray:
    """Parameters so many standard deviations of the prior away from its mean."""
    return np.array([p.mean + p.spread * a for p, a in zip(form.parameters, away, strict=False)])


def eta(form: Form, theta: np.ndarray, f: float, n: float, t: float) -> float:
    psi = np.array([p.shown(value) for p, value in zip(form.parameters, theta, strict=True)])
    return float(form.eta(psi, np.asarray(f), np.asarray(n), np.asarray(t)))


def by_name(form: Form, theta: np.ndarray) -> dict[str, float]:
    return {p.name: float(p.shown(value)) for p, value in zip(form.parameters, theta, strict=True)}


@forms
@given(away=deviations, f=axis, n=axis, t=axis, more=st.tuples(step, step, step))
@settings(max_examples=80, deadline=None)
def test_never_falls_with_frequency_size_or_tokens(
    form: Form, away: list[float], f: float, n: float, t: float, more: tuple[float, float, float]
) -> None:
    theta = unbounded(form, away)
    start = eta(form, theta, f, n, t)
    assert np.isfinite(start)
    for moved in (
        (f + more[0], n, t),
        (f, n + more[1], t),
        (f, n, t + more[2]),
        (f + more[0], n + more[1], t + more[2]),
    ):
        end = eta(form, theta, *moved)
        assert np.isfinite(end) and end >= start - 1e-9 * (1.0 + abs(start))


@forms
@given(away=deviations, f=axis, n=axis, t=axis)
@settings(max_examples=40, deadline=None)
def test_frequency_enters_in_one_place_so_that_a_threshold_is_one_number(
    form: Form, away: list[float], f: float, n: float, t: float
) -> None:
    theta = unbounded(form, away)
    slope = by_name(form, theta)["frequency_slope"]
    assert eta(form, theta, f, n, t) - eta(form, theta, 0.0, n, t) == pytest.approx(
        slope * f, rel=1e-6, abs=1e-6 * (1.0 + abs(eta(form, theta, 0.0, n, t)))
    )


@given(away=deviations, f=axis, n=st.floats(-8.0, 8.0), t=st.floats(-8.0, 8.0))
@settings(max_examples=40, deadline=None)
def test_combined_without_end_of_tokens_has_a_threshold_that_size_moves_and_tokens_do_not(
    away: list[float], f: float, n: float, t: float
) -> None:
    theta = unbounded(COMBINED, [a / 3.0 for a in away])
    at_end = eta(COMBINED, theta, f, n, FAR)
    assert eta(COMBINED, theta, f, n, 2 * FAR) == pytest.approx(at_end, abs=1e-6)
    named = by_name(COMBINED, theta)
    # What a larger size brings there: a longer time constant, and what is left until size is enough.
    rest = log_sum(np.array(-n), np.array(-named["log_enough_size"]))
    less = log_sum(np.array(-n - 1.0), np.array(-named["log_enough_size"]))
    gain = named["tokens_slope"] * named["time_constant_exponent"] + named["size_slope"] * (rest - less)
    assert gain > 0
    assert eta(COMBINED, theta, f, n + 1.0, FAR) - at_end == pytest.approx(gain, rel=1e-6, abs=1e-6)


@given(away=deviations, f=axis, t=st.floats(-8.0, 8.0))
@settings(max_examples=40, deadline=None)
def test_combined_without_end_of_size_has_an_exposure_limit_that_only_tokens_move(
    away: list[float], f: float, t: float
) -> None:
    theta = unbounded(COMBINED, [a / 3.0 for a in away])
    n = 40.0 * FAR
    at_end = eta(COMBINED, theta, f, n, t)
    assert eta(COMBINED, theta, f, 2 * n, t) == pytest.approx(at_end, abs=1e-6)
    gained = eta(COMBINED, theta, f, n, t + 1.0) - at_end
    assert gained == pytest.approx(by_name(COMBINED, theta)["tokens_slope"], rel=1e-6)


@given(away=deviations)
@settings(max_examples=40, deadline=None)
def test_threshold_law_has_the_two_limits_of_its_papers(away: list[float]) -> None:
    theta = unbounded(THRESHOLD, [a / 3.0 for a in away])
    named = by_name(THRESHOLD, theta)

    def log_threshold(n: float, t: float) -> float:
        return -eta(THRESHOLD, theta, 0.0, n, t) / named["frequency_slope"]

    capacity = log_threshold(1.0, FAR) - log_threshold(0.0, FAR)
    assert capacity == pytest.approx(-(1.0 + named["capacity_alpha"]), rel=1e-6)
    exposures = log_threshold(4 * FAR, 1.0) - log_threshold(4 * FAR, 0.0)
    assert exposures == pytest.approx(-1.0, rel=1e-6)
    assert log_threshold(0.0, FAR) == pytest.approx(named["log_capacity_to_exposures"], abs=1e-6)
    assert log_threshold(4 * FAR, 0.0) == pytest.approx(-named["log_capacity_to_exposures"], abs=1e-6)


@given(away=deviations, n=st.floats(-4.0, 4.0))
@settings(max_examples=40, deadline=None)
def test_accumulator_saturates_and_counts_exposures_before(away: list[float], n: float) -> None:
    theta = unbounded(ACCUMULATOR, [a / 3.0 for a in away])
    named = by_name(ACCUMULATOR, theta)
    log_time = named["log_time_constant"] + named["time_constant_exponent"] * n
    end = eta(ACCUMULATOR, theta, 0.0, n, FAR)
    assert end == pytest.approx(named["tokens_slope"] * log_time, rel=1e-9, abs=1e-9)
    assert eta(ACCUMULATOR, theta, 0.0, n, 2 * FAR) == end
    # After one time constant 1 − 1/e of that is gathered, and long before all tokens count.
    one = eta(ACCUMULATOR, theta, 0.0, n, log_time)
    assert end - one == pytest.approx(-named["tokens_slope"] * np.log(1.0 - np.exp(-1.0)), rel=1e-6)
    early = eta(ACCUMULATOR, theta, 0.0, n, log_time - 20.0)
    assert early == pytest.approx(named["tokens_slope"] * (log_time - 20.0), rel=1e-6, abs=1e-6)


def test_logistic_is_linear() -> None:
    theta = np.log([1.1, 0.6, 2.4])
    assert eta(LOGISTIC, theta, 1.0, 2.0, 3.0) == pytest.approx(1.1 + 2 * 0.6 + 3 * 2.4)


@forms
@given(away=deviations, f=st.floats(-5, 5), n=st.floats(-5, 5), t=st.floats(-5, 5))
@settings(max_examples=30, deadline=None)
def test_complex_steps_give_the_derivatives(
    form: Form, away: list[float], f: float, n: float, t: float
) -> None:
    theta = unbounded(form, [a / 2.0 for a in away])
    for j in range(len(theta)):
        moved = theta.astype(complex)
        moved[j] += 1e-20j
        psi = np.array([p.shown(value) for p, value in zip(form.parameters, moved, strict=True)])
        found = form.eta(psi, np.asarray(f), np.asarray(n), np.asarray(t)).imag / 1e-20
        h = 1e-5
        up, down = theta.copy(), theta.copy()
        up[j], down[j] = theta[j] + h, theta[j] - h
        expected = (eta(form, up, f, n, t) - eta(form, down, f, n, t)) / (2 * h)
        assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-5 * (1.0 + abs(expected)) + 1e-4)


@forms
def test_shown_and_searched_are_inverse(form: Form) -> None:
    for parameter in form.parameters:
        value = np.array([-1.3, 0.2, 2.0])
        assert np.allclose(parameter.searched(parameter.shown(value)), value)
        assert not parameter.positive or (parameter.shown(value) > 0).all()


@pytest.mark.parametrize("link", [LOGIT, LOG_LOG], ids=["logit", "log-log"])
@given(at=st.floats(-30.0, 30.0), more=step)
@settings(max_examples=60, deadline=None)
def test_links_rise_from_nothing_to_all_with_the_slope_they_state(link: Link, at: float, more: float) -> None:
    eta_ = np.array([at, at + more])
    share = link.share(eta_)
    assert (share >= 0).all() and (share <= 1).all() and share[1] >= share[0]
    slope = (link.share(eta_ + 1e-5) - link.share(eta_ - 1e-5)) / 2e-5
    assert np.allclose(link.slope(eta_), slope, atol=1e-8, rtol=1e-4)
    if 1e-6 < share[0] < 1 - 1e-6:
        assert link.inverse(share[:1])[0] == pytest.approx(at, abs=1e-4)
    assert link.share(np.array(-700.0)) < 1e-12 and link.share(np.array(700.0)) == 1.0


def test_every_form_says_where_it_comes_from() -> None:
    assert [form.name for form in (LOGISTIC, THRESHOLD, ACCUMULATOR, COMBINED)] == list(FORMS)
    for form in FORMS.values():
        assert "arXiv" in form.source and form.parameters[0].name == "frequency_slope"
