"""Forecasts: the protocol, new runs inside their intervals, monotone, wider and flagged outside.

The rest of a fit is not repeated for each of them: `learning_only` fits one form and nothing else.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulate import LADDER, mean_skill, simulate_measurements

from mixplan.documents import Calibration, Measurements
from mixplan.documents.forecast import Forecast, SkillForecast
from mixplan.errors import InputError
from mixplan.laws import learning
from mixplan.laws.calibration import fit_calibration
from mixplan.laws.evidence import AXES, collect_evidence, coverage
from mixplan.laws.forms import COMBINED, FORMS, Form
from mixplan.laws.predict import LawForecast
from mixplan.laws.protocol import Cells, Scattered, mixed
from mixplan.laws.surface import Surface


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fit_calibration(simulate_measurements(), draws=60)


@pytest.fixture(scope="module")
def forecast(calibration: Calibration) -> LawForecast:
    return LawForecast(calibration)


def learning_only(measured: Measurements, draws: int, seed: int = 0, form: Form = COMBINED) -> Calibration:
    evidence = collect_evidence(measured.learning)
    law = learning.fit(form, evidence, draws, np.random.default_rng(seed))
    return Calibration(learning=law, tasks=coverage(evidence, 0.8))


@pytest.fixture(scope="module", params=[*FORMS, "mixture"])
def any_forecast(request: pytest.FixtureRequest) -> LawForecast:
    """Of every form, and of two that share it."""
    ladder = simulate_measurements(checkpoints=3, precision=8.0)
    if request.param != "mixture":
        return LawForecast(learning_only(ladder, 120, 0, FORMS[request.param]))
    one, other = (learning_only(ladder, 120, 0, FORMS[name]) for name in ("combined", "logistic"))
    shared = {"other_learning": [other.learning], "weights": {"combined": 0.6, "logistic": 0.4}}
    return LawForecast(one.model_copy(update=shared))


def one(
    forecast: LawForecast,
    family: str = "comparison",
    complexity: float = 8,
    block_params: float = 33_056,
    tokens: float = 3.2768e6,
    frequency: float = 1e-3,
) -> SkillForecast:
    return forecast.skill(
        [family], np.array([complexity]), np.array([block_params]), np.array([tokens]), np.array([frequency])
    )


def test_satisfies_the_protocol(forecast: LawForecast) -> None:
    asked: Forecast = forecast
    assert asked.families() == {"comparison": [4, 8, 16], "modular_addition": [3, 5, 9]}
    cells = (
        ["comparison", "modular_addition"],
        np.array([4.0, 9.0]),
        np.array([1e5]),
        np.array([3e6]),
        np.array([1e-3]),
    )
    found = asked.skill(*cells)
    for column in (found.skill, found.skill_low, found.skill_high, found.p_learned, asked.p_learned(*cells)):
        assert column.shape == (2,) and ((column >= 0) & (column <= 1)).all()
    assert np.array_equal(found.p_learned, asked.p_learned(*cells))
    loss = asked.lm_loss(np.array([1e4, 1e5]), np.array([3e6]))
    assert loss is not None and loss.shape == (2,) and loss[0] > loss[1]


def test_no_lm_loss_law_no_lm_loss(calibration: Calibration) -> None:
    assert (
        LawForecast(calibration.model_copy(update={"lm_loss": None})).lm_loss(
            np.array([1e4]), np.array([1e6])
        )
        is None
    )


def test_mean_skill_is_near_the_truth(forecast: LawForecast) -> None:
    for family, complexity in (("comparison", 8.0), ("modular_addition", 5.0)):
        for size in LADDER.values():
            found = one(forecast, family, complexity, size).skill[0]
            assert found == pytest.approx(mean_skill(family, complexity, size, 3.2768e6, 1e-3), abs=0.1)


@pytest.mark.parametrize("precision", [0.6, 4.0, 15.0])
@pytest.mark.parametrize(("seeds", "run_effect"), [(2, 0.0), (1, 0.4)])
def test_intervals_cover_new_runs_inside_and_one_rung_up(
    precision: float, seeds: int, run_effect: float
) -> None:
    fitted_rungs = dict(list(LADDER.items())[:5])
    inside, outside = [], []
    for seed in range(3):
        ladder = simulate_measurements(
            seed=seed,
            rungs=fitted_rungs,
            seeds=seeds,
            checkpoints=5,
            precision=precision,
            run_effect=run_effect,
        )
        law = LawForecast(learning_only(ladder, 60, seed))
        new = simulate_measurements(
            seed=100 + seed, seeds=2, checkpoints=1, precision=precision, run_effect=run_effect
        ).learning
        found = law.skill(
            list(new["family"]), new["complexity"], new["block_params"], new["tokens"], new["frequency"]
        )
        observed = np.clip(new["skill"], 0, 1)
        hit = (found.skill_low <= observed) & (observed <= found.skill_high)
        larger = new["rung"] == "296k"
        inside += hit[~larger].tolist()
        outside += hit[larger].tolist()
    assert 0.87 <= np.mean(inside) <= 0.99
    assert 0.82 <= np.mean(outside) <= 1.0


positive = st.floats(-3, 3)


@given(
    at=st.tuples(positive, positive, positive),
    more=st.tuples(st.floats(0, 3), st.floats(0, 3), st.floats(0, 3)),
    complexity=st.sampled_from([3.0, 4.0, 6.0, 16.0, 40.0]),
)
@settings(max_examples=40, deadline=None)
def test_never_falls_with_size_tokens_or_frequency(
    any_forecast: LawForecast, at: tuple[float, ...], more: tuple[float, ...], complexity: float
) -> None:
    base = np.array([1e-3, 5e4, 2e6])
    low, high = base * np.exp(at), base * np.exp(np.array(at) + more)
    f, n, t = np.minimum(np.array([low, high]).T, np.array([[1.0], [1e12], [1e15]]))
    found = any_forecast.skill(["comparison"] * 2, np.array([complexity]), n, t, f)
    # A mixture's draws are stood for by fewer points, in whose ends a thousandth may be lost.
    for column in (found.skill, found.p_learned, found.mean_low, found.mean_high):
        assert column[1] >= column[0] - 2e-3
    assert found.skill[1] >= found.skill[0] - 1e-9
    for column in (found.skill_low, found.skill_high):
        assert column[1] >= column[0] - 0.01 - 1e-9


@given(
    at=st.tuples(*[st.floats(-20, 20)] * 3),
    complexity=st.sampled_from([2.0, 4.0, 6.0, 16.0, 1000.0]),
)
@settings(max_examples=40, deadline=None)
def test_intervals_contain_each_other_and_probabilities_are_probabilities_anywhere(
    any_forecast: LawForecast, at: tuple[float, ...], complexity: float
) -> None:
    f, n, t = np.array([[1e-3], [5e4], [2e6]]) * np.exp(np.array(at))[:, None]
    found = any_forecast.skill(["comparison"], np.array([complexity]), n, t, f)
    assert 0.0 <= found.skill_low[0] <= found.mean_low[0] <= found.skill[0]
    assert found.skill[0] <= found.mean_high[0] <= found.skill_high[0] <= 1.0
    assert 0.0 <= found.p_learned[0] <= 1.0


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_draws_spread_with_the_distance_beyond_the_range(name: str, axis: int) -> None:
    """η below a frequency; ln of the threshold frequency beyond a size or a length."""
    ladder = simulate_measurements(checkpoints=3, precision=8.0)
    law = learning_only(ladder, 200, 0, FORMS[name]).learning
    surface = Surface(law)
    widths = []
    for distance in (0.0, 1.0, 2.0, 3.0, 5.0):
        at = np.log([[7.8e-3, 295_776.0, 3.2768e6]]) if axis else np.log([[2.3e-4, 33_056.0, 3.2768e6]])
        at[0, axis] += distance if axis else -distance
        cells = Cells(["comparison"], np.array([8.0]), at)
        if axis:
            drawn = surface.log_threshold_frequency(cells, 0.4)[0]
        else:
            hard = Cells(["modular_addition"], np.array([9.0]), at)
            ceiling = np.array(law.draws)[:, law.parameters.index("ceiling[modular_addition, 9]")]
            drawn = FORMS[name].link.inverse(surface.mean(hard)[0] / ceiling)
        widths.append(np.subtract(*np.quantile(drawn, [0.95, 0.05])))
    # At the edge of a range two lines may cross: from there on nothing may narrow much.
    assert min(widths) > 0.9 * widths[0], widths
    assert widths[-1] > max(widths[0], widths[2]), widths
    if AXES[axis] not in FORMS[name].levels_off:
        assert (np.diff(widths) > 0).all() and widths[-1] > 1.4 * widths[0], widths


def test_mixture_takes_of_every_law_as_many_draws_as_its_weight_says() -> None:
    parts = [
        (Scattered(np.arange(10.0)[None] + start, np.full((1, 10), start)), weight)
        for start, weight in ((100.0, 0.3), (200.0, 0.5), (300.0, 0.2))
    ]
    found = mixed(parts, 10)
    assert [(found.precision == start).sum() for start in (100.0, 200.0, 300.0)] == [3, 5, 2]
    assert found.mean[0].tolist() == [100, 103, 106, 200, 202, 204, 206, 208, 300, 305]
    # More draws than a law has are its own again.
    twice = mixed(parts, 40)
    assert twice.mean.shape == (1, 40) and np.unique(twice.mean[0, 12:32]).tolist() == list(range(200, 210))
    assert mixed(parts[:1], 10) is parts[0][0]


def test_limits(forecast: LawForecast, calibration: Calibration) -> None:
    assert calibration.weights in ({}, {calibration.learning.law: 1.0})
    tiny = one(forecast, tokens=1.0)
    huge = one(forecast, tokens=1e15, block_params=1e12, frequency=1.0)
    assert tiny.skill[0] < 0.01 and tiny.p_learned[0] < 0.01 and tiny.skill_low[0] == 0
    # With everything in plenty what is left open is where the kind levels off.
    law = calibration.learning
    ceiling = np.array(law.draws)[:, law.parameters.index("ceiling[comparison, 8]")]
    assert huge.skill[0] == pytest.approx(ceiling.mean(), abs=1e-3) and ceiling.mean() > 0.95
    assert huge.p_learned[0] > 0.94
    # At a fixed frequency neither tokens nor size alone bring what both do.
    both = one(forecast, tokens=1e15, block_params=1e12, complexity=16, frequency=2e-6)
    assert one(forecast, tokens=1e15, complexity=16, frequency=2e-6).skill[0] < both.skill[0]
    assert one(forecast, block_params=1e12, complexity=16, frequency=2e-6).skill[0] < both.skill[0]


def test_unmeasured_complexity_lies_between_its_neighbours(forecast: LawForecast) -> None:
    easy, between, hard = (one(forecast, complexity=c).skill[0] for c in (4, 6, 8))
    assert easy > between > hard
    assert one(forecast, complexity=6).extrapolated == [[]]


def test_complexity_beyond_the_measured_is_flagged_and_never_easier(forecast: LawForecast) -> None:
    hardest, beyond = one(forecast, complexity=16), one(forecast, complexity=64)
    assert beyond.skill[0] < hardest.skill[0]
    assert beyond.extrapolated == [["complexity of comparison 64 is 4.00× above the largest measured 16"]]
    assert (
        one(forecast, complexity=2).extrapolated[0][0].startswith("complexity of comparison 2 is 2.00× below")
    )


def test_families_that_nothing_is_known_about_are_all_named(forecast: LawForecast) -> None:
    with pytest.raises(InputError) as error:
        forecast.p_learned(
            ["comparision", "poems", "comparison"],
            np.array([8.0]),
            np.array([1e5]),
            np.array([1e6]),
            np.array([1e-3]),
        )
    assert error.value.problems == [
        "family 'comparision' was not measured; did you mean 'comparison'?",
        "family 'poems' was not measured; known: comparison, modular_addition",
    ]


def test_one_measured_complexity_says_nothing_about_others() -> None:
    ladder = simulate_measurements(intercepts={("comparison", 8): 0.0}, checkpoints=2, seeds=1)
    law = LawForecast(learning_only(ladder, 20))
    assert one(law, complexity=8).extrapolated == [[]]
    with pytest.raises(
        InputError, match=r"complexity 9 of 'comparison' was not measured, and one.*measure a second"
    ):
        one(law, complexity=9)


def test_distance_is_said_per_cell_and_widens_the_interval() -> None:
    ladder = simulate_measurements(
        slopes={"frequency": 1.15, "block_params": 0.3, "tokens": 2.4}, precision=200.0
    )
    law = LawForecast(learning_only(ladder, 100))
    near, far = one(law, block_params=295_776), one(law, block_params=2.95776e7)
    assert near.extrapolated == [[]]
    assert far.extrapolated == [["block_params 29.6M is 100× above the largest fitted 296K"]]
    assert one(law, tokens=6.5536e6).extrapolated == [
        ["tokens 6.55M is 2.00× above the largest fitted 3.28M"]
    ]
    assert one(law, frequency=1.15e-4).extrapolated == [
        ["frequency 0.000115 is 2.00× below the smallest fitted 0.00023"]
    ]
    assert one(law, frequency=2.3e-12).extrapolated == [
        ["frequency 2.3e-12 is 1.0e+08× below the smallest fitted 0.00023"]
    ]
    assert one(law, frequency=1e-300).extrapolated == [
        ["no instance at all; the smallest frequency fitted is 0.00023"]
    ]
    cell: dict[str, Any] = {"complexity": 16, "frequency": 2.4e-4}
    near, far = one(law, block_params=295_776, **cell), one(law, block_params=2.95776e7, **cell)
    assert far.mean_high[0] - far.mean_low[0] > 1.5 * (near.mean_high[0] - near.mean_low[0])
    # Most of a new run's interval is noise, which does not grow.
    assert far.skill_high[0] - far.skill_low[0] > 1.1 * (near.skill_high[0] - near.skill_low[0])


def test_never_learned_is_only_a_bound_beyond_the_ladder() -> None:
    ladder = simulate_measurements(
        intercepts={("comparison", 4): 2.0, ("comparison", 8): -9.0}, checkpoints=4, seeds=1
    )
    law = LawForecast(learning_only(ladder, 40))
    assert one(law).extrapolated == [[]] and one(law).p_learned[0] < 0.05
    assert any("never learned" in reason for reason in one(law, block_params=1e7).extrapolated[0])


def test_same_calibration_same_forecast(calibration: Calibration) -> None:
    first, second = (one(LawForecast(calibration), block_params=1e7) for _ in range(2))
    assert first.skill == second.skill and first.skill_low == second.skill_low


def test_without_draws_the_point_estimate_answers(calibration: Calibration) -> None:
    law = calibration.learning.model_copy(update={"draws": []})
    bare = LawForecast(calibration.model_copy(update={"learning": law}))
    assert one(bare).skill[0] == pytest.approx(one(LawForecast(calibration)).skill[0], abs=0.03)


@pytest.mark.parametrize(
    ("column", "value"), [("tokens", 0.0), ("block_params", np.nan), ("frequency", -1.0)]
)
def test_impossible_numbers_are_refused(forecast: LawForecast, column: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{column} must be a number above 0; cell 1"):
        one(forecast, **cast(dict[str, Any], {column: value}))


def test_foreign_calibrations_are_refused(calibration: Calibration) -> None:
    other = calibration.learning.model_copy(update={"law": "spline"})
    with pytest.raises(InputError, match="learning law is 'spline'; known: 'logistic'"):
        LawForecast(calibration.model_copy(update={"learning": other, "weights": {}}))
    with pytest.raises(InputError, match="weights name 'spline', of which there are none"):
        LawForecast(calibration.model_copy(update={"weights": {"spline": 1.0}}))
    assert calibration.lm_loss is not None
    strange = calibration.lm_loss.model_copy(update={"law": "linear"})
    with pytest.raises(InputError, match="LM-loss law is 'linear'"):
        LawForecast(calibration.model_copy(update={"lm_loss": strange}))
    short = calibration.learning.model_copy(update={"settings": {}, "ranges": {}})
    with pytest.raises(InputError, match=r"lacks centre_log_frequency.*ranges\.tokens"):
        LawForecast(calibration.model_copy(update={"learning": short}))
