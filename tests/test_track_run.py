"""The courses of one run: at every point the law's own distribution, and over a whole run calibrated."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import beta, norm

from mixplan.documents import Calibration, load
from mixplan.documents.forecast import Goal, RunPoints
from mixplan.documents.references import resolve
from mixplan.laws.beta_noise import ABOVE, BELOW
from mixplan.laws.one_run import COURSES, REACH, STAYS, STRAYS, Scatter, courses
from mixplan.laws.predict import LawForecast

SIZE, LENGTH = 74_160.0, 7_372_800.0
KIND = ("table_lookup", 6.0)


@cache
def forecast(name: str) -> LawForecast:
    return LawForecast(load(resolve(Path(f"ref:{name}")).path / "calibration.json", Calibration))


def points(tokens, frequency, finished=True, error=0.0) -> RunPoints:
    tokens = np.atleast_1d(np.asarray(tokens, dtype=float))
    full = np.full(len(tokens), 1.0)
    return RunPoints(tokens, frequency * full, full * finished > 0, error * full)


def likelihood(run, at, value: float) -> float:
    """P(value within half of 0.01) before anything is measured, from the marginal Beta distribution."""
    mean, _ = run._mean(at.tokens, at.frequency, at.finished)
    low, high = (run._z(np.array([value + side]), mean)[0] for side in (-0.005, 0.005))
    count = len(run.draw)
    _, p = Scatter(np.zeros(count), np.ones(count), np.zeros(count)).within(low, high)
    assert p == pytest.approx(norm.cdf(high) - norm.cdf(low), abs=1e-12)
    return float(p @ run.law_weight)


@pytest.mark.parametrize(
    ("name", "goal", "length", "frequency"),
    [
        ("cpu-manuals", Goal(*KIND), LENGTH, 8e-4),
        ("cpu-manuals", Goal(*KIND, skill=0.5), LENGTH / 4, 8e-4),
        ("cpu-manuals", Goal("parity", 2.0), LENGTH, 2e-3),
        ("quickstart", Goal("table_lookup", 4.0), 2.8e6, 1e-3),
        ("cpu-sources", Goal("kjv", bits_per_byte=2.9), 1.8e6, 0.05),
        ("cpu-sources", Goal("formal", bits_per_byte=2.2), 1.8e6, 0.1),
    ],
)
def test_at_one_point_the_courses_are_the_laws(name, goal, length, frequency):
    laws = forecast(name)
    run = laws.one_run(goal, SIZE)
    cell = [goal], np.zeros(1, dtype=int), np.array([SIZE]), np.array([length]), np.array([frequency])
    expected = laws.reached(*cell).mean()
    found = run.reached(np.array([length]), np.array([frequency]))[0] @ run.law_weight
    assert found == pytest.approx(expected, abs=0.01)
    told = laws.told(*cell)
    values = run.measured(points(length, frequency), np.random.default_rng(0))[0][run.law_weight > 0]
    low, high = np.quantile(values, [0.05, 0.95])
    # told rounds the ends in skill outwards to 0.01
    assert told.low[0] - 0.02 <= low <= told.low[0] + 0.03
    assert told.high[0] - 0.03 <= high <= told.high[0] + 0.02


def test_a_measurement_is_as_likely_as_it_is_drawn():
    run = forecast("cpu-manuals").one_run(Goal(*KIND), SIZE)
    at = points(LENGTH, 8e-4)
    drawn = np.round(run.measured(at, np.random.default_rng(1))[0], 2)
    for value in (0.0, 0.5, 0.9, 1.0):
        said = likelihood(run, at, value)
        count = (np.abs(drawn - value) < 1e-9)[run.law_weight > 0].sum()
        assert abs(count - COURSES * said) <= 5 * np.sqrt(COURSES * said) + 1


def test_skills_all_add_up_to_one():
    run = forecast("cpu-manuals").one_run(Goal(*KIND), SIZE)
    at = points(LENGTH / 2, 8e-4, finished=False)
    assert sum(likelihood(run, at, step / 100) for step in range(101)) == pytest.approx(1.0, abs=1e-9)


def test_guesses_below_chance_are_a_skill_of_0():
    run = forecast("cpu-manuals").one_run(Goal(*KIND), SIZE)
    at = points(LENGTH / 2, 8e-4, finished=False)
    zero, below = (run.after(at, np.array([value])) for value in (0.0, -0.2))
    assert np.array_equal(zero.weight, below.weight)
    end = np.array([LENGTH]), np.array([8e-4])
    assert np.array_equal(zero.reached(*end), below.reached(*end))


def test_unfinished_runs_measure_less_and_evaluations_scatter():
    run = forecast("cpu-manuals").one_run(Goal(*KIND), SIZE)
    law = run.law_weight > 0
    spread = {
        key: run.measured(points(LENGTH, 6e-4, *key), np.random.default_rng(2))[0][law]
        for key in ((True, 0.0), (False, 0.0), (True, 0.3))
    }
    assert np.mean(spread[False, 0.0]) < np.mean(spread[True, 0.0]) - 0.01
    assert np.var(spread[True, 0.3]) == pytest.approx(np.var(spread[True, 0.0]) + 0.09, rel=0.1)


def test_a_vague_evaluation_says_less():
    run = forecast("cpu-manuals").one_run(Goal(*KIND), SIZE)
    often = np.array([8e-4])
    before = run.reached(np.array([LENGTH]), often)[0] @ run.law_weight
    moved = []
    for error in (0.0, 0.1, 0.4):
        now = run.after(points(LENGTH / 2, 8e-4, False, error), np.array([0.1]))
        moved.append(before - now.reached(np.array([LENGTH]), often)[0] @ now.weight)
    assert moved[0] > moved[1] > moved[2] > 0


def test_courses_weigh_one_and_strays_little():
    found = courses(7, 0)
    assert found.weight.sum() == pytest.approx(1.0)
    assert found.law_weight.sum() == pytest.approx(1.0)
    assert found.weight[found.law_weight == 0].sum() == pytest.approx(STRAYS)
    assert np.bincount(found.draw[found.law_weight > 0]).min() * 7 >= COURSES


def simulated(laws: LawForecast, frequency: float, tokens: np.ndarray, generator) -> np.ndarray:
    """Skills of one run at unfinished points and, last, at its end, written out from the law's parameters."""
    law = laws._calibration.learning
    at = dict(zip(law.parameters, law.draws[generator.integers(len(law.draws))], strict=True))
    family = KIND[0]
    axes = {"frequency": frequency, "block_params": SIZE}
    f, n = (np.log(axes[axis]) - law.settings[f"centre_log_{axis}"] for axis in axes)
    t = np.log(tokens) - law.settings["centre_log_tokens"]
    time = at[f"log_time_constant[{family}]"] + at[f"time_constant_exponent[{family}]"] * n
    lived = -np.logaddexp(-t, -time)
    grown = -np.logaddexp(-n, -at[f"log_enough_size[{family}]"])
    eta = at[f"frequency_slope[{family}]"] * f + at[f"tokens_slope[{family}]"] * lived
    eta = eta + at[f"size_slope[{family}]"] * grown - at[f"difficulty[{family}, 6]"]
    eta = eta + generator.normal(0, at["task_spread"]) + generator.normal(0, at["run_spread"])
    eta = eta - at["finished"] * (np.arange(len(tokens)) < len(tokens) - 1)
    mean = at[f"ceiling[{family}, 6]"] * -np.expm1(-np.exp(eta))
    width, phi = 1 + BELOW + ABOVE, at[f"precision[{family}]"]
    centre = (mean + BELOW) / width
    stays = np.empty(len(eta))
    stays[0] = generator.normal()
    for index in range(1, len(eta)):
        left = np.exp(-abs(eta[index] - eta[index - 1]) / REACH)
        stays[index] = left * stays[index - 1] + np.sqrt(1 - left**2) * generator.normal()
    z = np.sqrt(STAYS) * stays + np.sqrt(1 - STAYS) * generator.normal(size=len(eta))
    return np.clip(beta.ppf(norm.cdf(z), centre * phi, (1 - centre) * phi) * width - BELOW, 0, 1)


@pytest.mark.slow
def test_what_is_said_of_the_end_comes_true_as_often_as_it_is_said():
    """200 runs simulated from the law itself, measured at 15 %, 30 % and 50 % of their length."""
    laws = forecast("cpu-manuals")
    assert laws._calibration.learning.law == "combined"
    run = laws.one_run(Goal(*KIND), SIZE)
    generator = np.random.default_rng(5)
    tokens = LENGTH * np.array([0.15, 0.3, 0.5, 1.0])
    before, after, learned = (np.empty(200) for _ in range(3))
    for index in range(200):
        frequency = float(np.exp(generator.uniform(np.log(1.2e-4), np.log(1.2e-3))))
        skill = simulated(laws, frequency, tokens, generator)
        now = run.after(points(tokens[:-1], frequency, False), skill[:-1])
        end = tokens[-1:], np.array([frequency])
        before[index] = run.reached(*end)[0] @ run.law_weight
        after[index] = now.reached(*end)[0] @ now.weight
        learned[index] = skill[-1] >= 0.8
    for p in (before, after):
        assert abs(learned.sum() - p.sum()) <= 4 * np.sqrt((p * (1 - p)).sum())
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 0.9), (0.9, 1.0)):
        some = (after >= low) & (after < high)
        assert some.sum() >= 15  # or nothing would be tested
        p = after[some]
        assert abs(learned[some].sum() - p.sum()) <= 3.5 * np.sqrt((p * (1 - p)).sum()) + 0.5
    # It must also be worth something: sharper than before, and as sharp as it says.
    brier_before, brier_after = ((p - learned) ** 2 for p in (before, after))
    assert brier_after.mean() < 0.95 * brier_before.mean()
    expected = (after * (1 - after)).mean()
    assert abs(brier_after.mean() - expected) <= 4 * brier_after.std() / np.sqrt(200)


def test_bits_per_byte_come_true_as_often_as_said():
    laws = forecast("cpu-sources")
    law = next(one for one in laws._calibration.sources if one.subject == "kjv")
    run = laws.one_run(Goal("kjv", bits_per_byte=2.95), SIZE)
    generator = np.random.default_rng(6)
    share = np.array([0.05, 0.05, 0.05])
    tokens = np.array([4.7e5, 9.3e5, 1.85e6])
    # The curve itself is tested with the law; here only what scatters around it is written out.
    goals = laws._source_goals("kjv")
    curve, own = goals.of_run(np.full(3, SIZE), tokens, share)
    row = goals.named["row_sd"]
    assert row.min() > 0 and own.min() > 0 and len(law.draws) == curve.shape[1]
    p, reached = np.empty(400), np.empty(400)
    before = run.reached(tokens[-1:], share[-1:])[0] @ run.law_weight
    for index in range(400):
        draw = generator.integers(curve.shape[1])
        mean = curve[:, draw] + own[:, draw] * generator.normal()
        bits = np.exp(mean + row[draw] * generator.normal(size=3))
        now = run.after(points(tokens[:2], 0.05), bits[:2])
        p[index] = now.reached(tokens[-1:], share[-1:])[0] @ now.weight
        reached[index] = bits[-1] <= 2.95
    assert abs(reached.sum() - p.sum()) <= 4 * np.sqrt((p * (1 - p)).sum())
    brier = (p - reached) ** 2
    assert abs(brier.mean() - (p * (1 - p)).mean()) <= 4 * brier.std() / 20
    # Rows scatter nearly as much as runs do, so little can be said; that little is said.
    assert p.std() > 0.05
    assert brier.mean() < np.mean((before - reached) ** 2)


def test_a_run_that_the_laws_do_not_describe_is_followed():
    run = forecast("cpu-manuals").one_run(Goal("associative_recall", 64.0), SIZE)
    often = 2e-3
    tokens = LENGTH * np.array([0.2, 0.4, 0.6, 0.8])
    end = np.array([LENGTH]), np.array([often])
    assert run.reached(*end)[0] @ run.law_weight > 0.9
    now = run.after(points(tokens, often, False), np.zeros(4))
    assert now.reached(*end)[0] @ now.weight < 0.1
    assert now.weight[run.law_weight == 0].sum() > 0.9


def test_quantiles_of_normals_are_even():
    found = courses(1, 0)
    own = np.sort(found.own[found.law_weight > 0])
    assert own == pytest.approx(ndtri((np.arange(COURSES) + 0.5) / COURSES))


def test_what_an_interval_says_of_the_scatter_is_exact():
    """Against integrals over the state, for one interval."""
    state = Scatter(np.array([0.3]), np.array([0.6]), np.array([0.0]))
    grid = np.linspace(-9, 9, 20_001)
    for low, high in ((-np.inf, -1.0), (0.2, 0.25), (1.5, np.inf), (-0.5, 2.0), (3.0, 3.01)):
        found, p = state.within(np.array([low]), np.array([high]))
        density = norm.pdf(grid, 0.3, np.sqrt(0.6))
        of_z = [norm.cdf(end, np.sqrt(STAYS) * grid, np.sqrt(1 - STAYS)) for end in (low, high)]
        density = density * (of_z[1] - of_z[0])
        whole = np.trapezoid(density, grid)
        mean = np.trapezoid(density * grid, grid) / whole
        variance = np.trapezoid(density * (grid - mean) ** 2, grid) / whole
        assert p[0] == pytest.approx(whole, rel=1e-5)
        assert found.mean[0] == pytest.approx(mean, abs=1e-4)
        assert found.variance[0] == pytest.approx(variance, rel=1e-3)


def test_an_interval_far_out_leaves_finite_numbers():
    state = Scatter(np.zeros(2), np.ones(2), np.zeros(2))
    for low, high in ((40.0, 41.0), (-np.inf, -60.0), (9.0, 9.0), (np.inf, np.inf)):
        found, p = state.within(np.full(2, low), np.full(2, high))
        for values in (found.mean, found.variance, p):
            assert np.isfinite(values).all()
        assert (found.variance >= 0).all()


def test_the_scatter_is_forgotten_over_its_reach():
    state = Scatter(np.array([2.0]), np.array([0.1]), np.array([1.0]))
    near, far = state.at(np.array([1.0])), state.at(np.array([1.0 + 40 * REACH]))
    assert (near.mean[0], near.variance[0]) == (2.0, pytest.approx(0.1))
    assert far.mean[0] == pytest.approx(0.0, abs=1e-9)
    assert far.variance[0] == pytest.approx(1.0)
    assert state.at(np.array([1.0 + REACH])).mean[0] == pytest.approx(2 / np.e)
