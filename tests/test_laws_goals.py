"""Goals: probabilities in every draw against quadrature and simulation, common draws, bits, words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import betainc
from scipy.stats import norm, spearmanr

from mixplan.documents import Calibration
from mixplan.documents.calibration import FittedLaw, Range
from mixplan.documents.forecast import Forecast, Goal
from mixplan.errors import InputError
from mixplan.laws import source_predict
from mixplan.laws.beta_noise import to_unit
from mixplan.laws.forms import COMBINED, FORMS, LOG_LOG, LOGISTIC, LOGIT, Form, Link
from mixplan.laws.predict import LawForecast
from mixplan.laws.protocol import Cells
from mixplan.laws.reached_tables import Tables, over_eta, over_mean
from mixplan.laws.surface import Surface

KINDS = (("adding", 3.0), ("adding", 9.0), ("sorting", 4.0))
RANGES = {"frequency": (1e-4, 1e-2), "block_params": (1e4, 1e6), "tokens": (1e6, 1e8)}
Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def learning_law(
    form: Form = COMBINED,
    draws: int = 50,
    seed: int = 0,
    kinds: tuple[tuple[str, float], ...] = KINDS,
    precision: tuple[float, float] = (0.2, 60.0),
    like: dict[str, str] | None = None,
) -> FittedLaw:
    """A law with known draws; those of a family are the same whatever it is called (`like`: its old name)."""
    named: dict[str, np.ndarray] = {}
    old = like or {}

    def normal(name: str, centre: float, spread: float) -> np.ndarray:
        for new, before in old.items():
            name = name.replace(f"[{new}", f"[{before}")
        key = np.random.default_rng([seed, *name.encode()])
        return centre + spread * key.standard_normal(draws + 1)

    families = sorted({family for family, _ in kinds})
    for one in form.parameters:
        named[one.name] = np.ones(draws + 1)
        for family in families:
            name = f"{one.name}[{family}]"
            named[name] = one.shown(normal(name, one.mean, 0.3 * one.spread))
    for family, level in kinds:
        name = f"difficulty[{family}, {level:g}]"
        named[name] = normal(name, 0.3 * np.log(level) - 1.0, 0.5)
        name = f"ceiling[{family}, {level:g}]"
        named[name] = 1.0 / (1.0 + np.exp(-normal(name, 2.5, 1.0)))
    named["finished"] = np.zeros(draws + 1)
    named["task_spread"] = np.exp(normal("task_spread", np.log(0.2), 0.3))
    named["run_spread"] = np.exp(normal("run_spread", np.log(0.3), 0.5))
    low, high = np.log(precision)
    for family in families:
        name = f"precision[{family}]"
        named[name] = np.exp((low + high) / 2 + (high - low) / 2 * np.tanh(normal(name, 0.0, 1.0)))
    table = np.array(list(named.values()))
    return FittedLaw(
        law=form.name,
        formula="",
        parameters=list(named),
        values=table[:, 0].tolist(),
        draws=table[:, 1:].T.tolist(),
        ranges={axis: Range(low=low, high=high) for axis, (low, high) in RANGES.items()},
        settings={f"centre_log_{axis}": float(np.log(ends).mean()) for axis, ends in RANGES.items()},
        rows=1,
        runs=1,
    )


def source_law(subject: str = "manuals", draws: int = 80, **changes: Any) -> FittedLaw:
    """A source's law, additive, with draws around it."""
    at = {
        "E": 0.9, "A": 12.0, "alpha": 0.3, "B": 60.0, "beta": 0.35, "S": 1.2, "H": 0.05, "gamma": 0.9,
        "R": 15.0, "misfit_sd": 0.02, "run_sd": 0.008, "row_sd": 0.005,
    }  # fmt: skip
    values = np.array(list(at.values()))
    spread = np.random.default_rng(3).normal(0.0, 0.03, (draws, len(values)))
    law = FittedLaw(
        law="additive, power of share",
        subject=subject,
        formula="",
        parameters=list(at),
        values=values.tolist(),
        draws=(values * np.exp(spread)).tolist(),
        ranges={
            "block_params": Range(low=1e4, high=1e6),
            "tokens": Range(low=1e6, high=1e8),
            "share": Range(low=0.01, high=0.2),
            "epochs": Range(low=0.0, high=4.0),
        },
        rows=1,
        runs=1,
    )
    return law.model_copy(update=changes)


def forecast(law: FittedLaw | None = None, **more: Any) -> LawForecast:
    return LawForecast(Calibration(learning=law or learning_law(), **more))


def cells(count: int, seed: int = 0, beyond: float = 3.0) -> Columns:
    """Block parameters, tokens and frequencies, some of them `beyond` e-folds outside."""
    generator = np.random.default_rng(seed)
    ends = {axis: np.log(ends) for axis, ends in RANGES.items()}
    size, tokens, frequency = (
        np.exp(generator.uniform(ends[axis][0] - beyond, ends[axis][1] + beyond, count))
        for axis in ("block_params", "tokens", "frequency")
    )
    return size, tokens, frequency


def tail(skill: float, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    centre = to_unit(mean)
    return 1.0 - betainc(centre * precision, (1.0 - centre) * precision, to_unit(np.array(skill)))


Z = np.linspace(-8.0, 8.0, 161)
WEIGHTS = norm.pdf(Z) / norm.pdf(Z).sum()


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_in_every_draw_it_is_the_integral_over_runs_of_the_beta_tail(form: Form) -> None:
    law = learning_law(form, draws=12)
    goals = [
        *(Goal(*kind) for kind in KINDS),
        Goal("adding", 5.0, skill=0.5),
        Goal("sorting", 4.0, skill=0.95),
    ]
    which = np.arange(60) % len(goals)
    columns = cells(60)
    found = forecast(law).reached(goals, which, *columns)
    at = {name: np.array(law.draws).T[index] for index, name in enumerate(law.parameters)}
    task = np.random.default_rng(0)
    task.normal(size=(4, 12)), task.normal(size=(3, 12))
    shift = task.standard_normal((2, 12))[0] * at["task_spread"]
    names = [goals[index].family for index in which]
    asked = Cells.of(names, np.array([goals[index].complexity for index in which]), *columns)
    eta, ceiling = Surface(law)._eta(asked)
    for row in range(60):
        goal = goals[which[row]]
        around = (eta[row] + shift)[:, None] + at["run_spread"][:, None] * Z
        mean = ceiling[row][:, None] * form.link.share(around)
        true = tail(goal.skill or 0.8, mean, at[f"precision[{goal.family}]"][:, None]) @ WEIGHTS
        np.testing.assert_allclose(found[row], true, atol=1e-4)


@pytest.mark.parametrize("link", [LOG_LOG, LOGIT], ids=["log-log", "logit"])
@pytest.mark.parametrize("precision", [(0.02, 0.1), (0.3, 3.0), (5.0, 50.0), (1e3, 1e4)])
def test_tables_are_within_a_ten_thousandth_and_rise(link: Link, precision: tuple[float, float]) -> None:
    generator = np.random.default_rng(0)
    draws = 2
    # Off the table's own points; a sharp step needs more nodes of the normal than a gradual one.
    eta = np.linspace(-16.0, 8.0, 97) + generator.uniform(0.0, 0.25, 97)
    z = np.linspace(-8.0, 8.0, 161 if precision[0] < 1e3 else 1601)
    weights = norm.pdf(z) / norm.pdf(z).sum()
    for runs, skill, top in ((1e-6, 0.8, 0.99), (0.2, 0.8, 0.85), (0.2, 0.3, 0.5), (1.5, 0.95, 0.999)):
        phi, ceiling = (
            np.exp(generator.uniform(*np.log(precision), draws)),
            generator.uniform(top - 0.1, top, draws),
        )
        shift, spread = generator.normal(0.0, 0.3, draws), np.full(draws, runs)
        start, per_step, values = over_eta(over_mean(skill, phi), link, ceiling, shift, spread)
        asked = np.repeat(eta[:, None], draws, axis=1)
        found = Tables(start[None], per_step[None], values).at(np.zeros(len(eta), dtype=np.int64), asked)
        assert (np.diff(found, axis=0) >= 0).all() and (found > 0).all() and (found < 1).all()
        for draw in range(draws):
            mean = ceiling[draw] * link.share(eta[:, None] + shift[draw] + runs * z)
            np.testing.assert_allclose(found[:, draw], tail(skill, mean, phi[draw]) @ weights, atol=1e-4)


def test_its_mean_is_the_share_of_simulated_new_runs_that_reach_it() -> None:
    draws = 2000
    law = learning_law(draws=draws)
    size, tokens, frequency = cells(6, seed=2, beyond=1.0)
    names, levels = ["adding", "sorting"] * 3, np.array([9.0, 4.0] * 3)
    goals = [Goal("adding", 9.0), Goal("sorting", 4.0)]
    found = forecast(law).reached(goals, np.array([0, 1] * 3), size, tokens, frequency)
    assert found.shape == (6, draws) and np.ptp(found.mean(axis=1)) > 0.3
    run = Surface(law).new_run(Cells.of(names, levels, size, tokens, frequency))
    centre, generator = to_unit(run.mean), np.random.default_rng(5)
    share = np.zeros(6)
    for _ in range(10):
        drawn = generator.beta(centre * run.precision, (1.0 - centre) * run.precision)
        share += (drawn >= to_unit(np.array(0.8))).mean(axis=1) / 10
    # Ten runs a draw, and one shift of the run a draw: 0.005 is one standard deviation of the latter.
    np.testing.assert_allclose(found.mean(axis=1), share, atol=0.02)


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_never_falls_with_frequency_size_or_tokens_in_any_draw(form: Form) -> None:
    asked = forecast(learning_law(form))
    goals = [Goal("adding", 9.0), Goal("sorting", 4.0, skill=0.4)]
    for axis in range(3):
        given = [np.repeat(column, 60) for column in cells(8, seed=axis)]
        given[axis] = (given[axis].reshape(8, 60) * np.geomspace(1e-9, 1e4, 60)).ravel()
        found = asked.reached(goals, np.repeat(np.arange(8) % 2, 60), *given).reshape(8, 60, -1)
        assert (np.diff(found, axis=1) >= 0).all() and np.ptp(found.mean(axis=2), axis=1).max() > 0.3
        assert (found > 0).all() and (found < 1).all()


def test_draws_are_common_to_goals_cells_and_calls() -> None:
    asked = forecast(learning_law(draws=64), sources=[source_law()])
    goals = [
        Goal("adding", 9.0),
        Goal("sorting", 4.0),
        Goal("manuals", bits_per_byte=2.5),
        Goal("adding", 9.0, 0.5),
    ]
    which, columns = np.arange(800) % 4, cells(800, beyond=1.0)
    together = asked.reached(goals, which, *columns)
    assert together.shape == (800, 64) and np.isfinite(together).all()
    order = np.random.default_rng(1).permutation(800)
    again = asked.reached(goals, which[order], *(column[order] for column in columns))
    np.testing.assert_array_equal(again, together[order])
    fresh = forecast(learning_law(draws=64), sources=[source_law()])
    for at, goal in enumerate(goals):
        rows = which == at
        alone = fresh.reached([goal], np.zeros(rows.sum(), dtype=np.int64), *(one[rows] for one in columns))
        np.testing.assert_array_equal(alone, together[rows])
    same = [np.repeat(column[:1], 2) for column in columns]
    easy, hard = asked.reached(goals, np.array([3, 0]), *same)
    assert (easy >= hard).all()


def test_both_of_two_goals_are_as_likely_as_their_common_draws_say() -> None:
    # What two tasks share is uncertain, so they are reached together more often than by chance.
    law = learning_law(draws=1500, precision=(30.0, 60.0))
    at = law.parameters.index("task_spread")
    law = law.model_copy(update={"draws": [[*row[:at], 1.5, *row[at + 1 :]] for row in law.draws]})
    goals, here = (
        [Goal("adding", 9.0), Goal("sorting", 4.0)],
        [np.repeat(v, 2) for v in ([2e5], [2e7], [1e-3])],
    )
    one, other = forecast(law).reached(goals, np.arange(2), *here)
    cells_ = [Cells.of([g.family], np.array([g.complexity]), *(v[:1] for v in here)) for g in goals]
    (one_run,), (other_run,) = (
        (tail(0.8, (run := Surface(law).new_run(cell)).mean, run.precision)) for cell in cells_
    )
    both = float((one * other).mean())
    assert both == pytest.approx(float((one_run * other_run).mean()), abs=0.03)
    assert both > one.mean() * other.mean() + 0.05


def test_p_learned_is_its_mean_at_the_calibrations_threshold() -> None:
    kinds = tuple((f"f{index % 4}", float(2 + index)) for index in range(70))
    asked = LawForecast(Calibration(learning=learning_law(draws=10, kinds=kinds), learned_skill=0.6))
    family, level = [name for name, _ in kinds], np.array([level for _, level in kinds])
    columns = cells(70, beyond=0.0)
    goals = [Goal(*kind) for kind in kinds]
    mean = asked.reached(goals, np.arange(70), *columns).mean(axis=1)
    np.testing.assert_allclose(asked.p_learned(family, level, *columns), mean, atol=1e-15)
    np.testing.assert_array_equal(
        asked.skill(family, level, *columns).p_learned, asked.p_learned(family, level, *columns)
    )
    named = [Goal(*kind, skill=0.6) for kind in kinds]
    np.testing.assert_allclose(asked.reached(named, np.arange(70), *columns).mean(axis=1), mean, atol=1e-15)


def test_several_laws_share_the_columns_as_their_weights_say() -> None:
    one, other = learning_law(COMBINED, 50), learning_law(LOGISTIC, 40, seed=1)
    shared = forecast(one, other_learning=[other], weights={COMBINED.name: 0.6, LOGISTIC.name: 0.4})
    goals, which, columns = [Goal(*kind) for kind in KINDS], np.arange(30) % 3, cells(30)
    found = shared.reached(goals, which, *columns)
    first, second = (forecast(law).reached(goals, which, *columns) for law in (one, other))
    assert found.shape == (30, 50)
    np.testing.assert_array_equal(found[:, :30], first[:, np.arange(30) * 50 // 30])
    np.testing.assert_array_equal(found[:, 30:], second[:, np.arange(20) * 40 // 20])
    names, values = shared.parameters(goals)
    assert values.shape == (50, len(names))
    which_law = values[:, names.index("whether the law is logistic")]
    assert which_law.tolist() == [0.0] * 30 + [1.0] * 20
    of_one = values[:, names.index("difficulty of sorting 4 (law: combined)")]
    assert np.ptp(of_one[:30]) > 0 and np.allclose(of_one[30:], of_one[:30].mean())


def test_bits_goals_agree_with_the_intervals_for_a_new_run() -> None:
    law = source_law(draws=400)
    asked = forecast(learning_law(draws=400), sources=[source_law("other", S=3.0), law])
    size, tokens, share = np.array([1e5, 3e4, 1e7, 1e5, 1e5]), np.array([1e7, 9e7, 1e9, 1e7, 1e7]), np.array(
        [0.05, 0.15, 0.1, 1.0, 0.001]
    )  # fmt: skip
    said = source_predict.predict(law, share, size, tokens, 0.0)
    for level, bits in ((0.05, said.low), (0.5, said.bits), (0.95, said.high)):
        goals = [Goal("manuals", bits_per_byte=float(one)) for one in bits]
        found = asked.reached(goals, np.arange(5), size, tokens, share).mean(axis=1)
        np.testing.assert_allclose(found[:2], level, atol=0.012)
        # Beyond the measured sizes and lengths as well; beyond the shares the misfit stays as it is.
        assert found[2] == pytest.approx(level, abs=0.025)
        np.testing.assert_allclose(found[3:], level, atol=0.06)


def test_bits_goals_never_fall_with_share_in_any_draw() -> None:
    asked = forecast(sources=[source_law()])
    share = np.tile(np.concatenate([[1e-300], np.geomspace(1e-6, 1.0, 100), [1.0, 50.0]]), 4)
    size, tokens = np.repeat([3e4, 3e4, 1e8, 1e8], 103), np.repeat([1e7, 1e10, 1e7, 1e10], 103)
    bits = [float(source_law().values[0]) * scale for scale in (1.1, 1.6, 2.5)]
    for target in bits:
        goals = [Goal("manuals", bits_per_byte=target)]
        found = asked.reached(goals, np.zeros(412, dtype=np.int64), size, tokens, share).reshape(4, 103, -1)
        assert (np.diff(found, axis=1) >= 0).all() and (found > 0).all() and (found < 1).all()
        np.testing.assert_array_equal(found[:, -1], found[:, -2])  # more than all tokens is all tokens


def test_a_source_with_fewer_or_more_draws_still_fills_every_column() -> None:
    goals, columns = (
        [Goal("manuals", bits_per_byte=2.4)],
        (np.array([1e5]), np.array([1e7]), np.array([0.05])),
    )
    zero = np.zeros(1, dtype=np.int64)
    means = []
    for draws in (20, 50, 300):
        found = forecast(sources=[source_law(draws=draws)]).reached(goals, zero, *columns)
        assert found.shape == (1, 50)
        means.append(found.mean())
    point = forecast(sources=[source_law().model_copy(update={"draws": []})]).reached(goals, zero, *columns)
    assert np.ptp(point) == 0 and np.ptp(means) < 0.1 and abs(point.mean() - np.mean(means)) < 0.1
    bare = learning_law().model_copy(update={"draws": []})
    assert forecast(bare, sources=[source_law(draws=80)]).reached(goals, zero, *columns).shape == (1, 80)
    alone = forecast(bare)
    assert alone.reached([Goal(*KINDS[0])], zero, *columns).shape == (1, 1)
    assert alone.parameters([Goal(*KINDS[0])])[1].shape == (1, 0)


def test_told_is_what_the_laws_say_of_a_new_run() -> None:
    law = source_law()
    asked: Forecast = forecast(sources=[law])
    goals = [Goal("sorting", 4.0, skill=0.5), Goal("manuals", bits_per_byte=2.0)]
    size, tokens, often = np.array([1e5, 1e5, 1e8]), np.array([1e7] * 3), np.array([1e-3, 1e-300, 0.1])
    found = asked.told(goals, np.array([0, 1, 1]), size, tokens, often)
    skill = forecast().skill(["sorting"], np.array([4.0]), size[:1], tokens[:1], often[:1])
    bits = source_predict.predict(law, np.array([0.0, 0.1]), size[1:], tokens[1:], 0.0)
    np.testing.assert_array_equal(found.value, [*skill.skill, *bits.bits])
    np.testing.assert_array_equal(found.low, [*skill.skill_low, *bits.low])
    np.testing.assert_array_equal(found.high, [*skill.skill_high, *bits.high])
    assert found.extrapolated == [*skill.extrapolated, *bits.extrapolated]
    assert not found.extrapolated[0] and found.extrapolated[1] and "block_params" in found.extrapolated[2][0]


def test_what_is_uncertain_is_named_and_lines_up_with_the_draws() -> None:
    law = learning_law(draws=200)
    asked = forecast(law, sources=[source_law(draws=200)])
    goals = [Goal("sorting", 4.0), Goal("manuals", bits_per_byte=2.5)]
    names, values = asked.parameters(goals)
    assert values.shape == (200, len(names)) and len(set(names)) == len(names)
    assert (np.ptp(values, axis=0) > 0).all() and not any("adding" in name for name in names)
    for name in (
        "effect of frequency in sorting", "effect of model size in sorting", "difficulty of sorting 4",
        "ceiling of sorting 4", "differences between runs", "doubt beyond the fitted model sizes",
        "effect of training length on manuals", "misfit of the law of manuals",
    ):  # fmt: skip
        assert name in names
    assert not any("complexit" in name for name in names)
    drawn = np.array(law.draws)[:, law.parameters.index("difficulty[sorting, 4]")]
    np.testing.assert_array_equal(values[:, names.index("difficulty of sorting 4")], drawn)
    here = tuple(np.repeat(v, 2) for v in ([1e5], [1e7], [2e-3]))
    skill, bits = asked.reached(goals, np.arange(2), *here)
    by_name = dict(zip(names, values.T, strict=True))
    assert spearmanr(by_name["difficulty of sorting 4"], skill)[0] < -0.3
    assert spearmanr(by_name["misfit of the law of manuals"], bits)[0] < -0.3
    assert asked.parameters(goals[::-1])[0] == names
    further = asked.parameters([Goal("adding", 40.0)])[0]
    assert "doubt beyond the fitted complexities" in further and "difficulty of adding 40" in further


def test_nothing_depends_on_what_families_and_sources_are_called() -> None:
    renamed = {"zzz": "adding", "aaa": "sorting"}
    kinds = (("zzz", 3.0), ("zzz", 9.0), ("aaa", 4.0))
    old = forecast(sources=[source_law("manuals"), source_law("poems", 30)])
    new = forecast(learning_law(kinds=kinds, like=renamed), sources=[source_law("a", 30), source_law("b")])
    goals = [
        *(Goal(*kind) for kind in KINDS),
        Goal("manuals", bits_per_byte=2.4),
        Goal("poems", bits_per_byte=2.4),
    ]
    other = [*(Goal(*kind) for kind in kinds), Goal("b", bits_per_byte=2.4), Goal("a", bits_per_byte=2.4)]
    which, columns = np.arange(50) % 5, cells(50, beyond=1.0)
    np.testing.assert_array_equal(old.reached(goals, which, *columns), new.reached(other, which, *columns))


def test_goals_that_nothing_is_known_about_are_all_named() -> None:
    goals = [Goal("sortin", 4.0), Goal("sorting", 5.0), Goal("manual", bits_per_byte=2.0)]
    columns = (np.array([1e5]), np.array([1e7]), np.array([1e-3]))
    zero = np.zeros(1, dtype=np.int64)
    asked = forecast(sources=[source_law()])
    for ask in (asked.reached, asked.told):
        with pytest.raises(InputError) as caught:
            ask(goals, zero, *columns)
        said = str(caught.value)
        assert "did you mean 'sorting'" in said and "did you mean 'manuals'" in said
        assert "complexity 5 of 'sorting' was not measured" in said
    with pytest.raises(InputError, match="has none for any"):
        forecast().parameters(goals[2:])
    with pytest.raises(InputError, match="block_params must be a number above 0"):
        asked.reached([Goal("sorting", 4.0)], zero, np.array([0.0]), *columns[1:])
    with pytest.raises(InputError, match="its law is 'spline'"):
        forecast(sources=[source_law(law="spline")]).reached(
            [Goal("manuals", bits_per_byte=2.0)], zero, *columns
        )
    with pytest.raises(InputError, match="at most 1; given 2"):
        asked.told([Goal("manuals", bits_per_byte=2.0)], zero, *columns[:2], np.array([2.0]))


def test_lm_loss_in_every_draw() -> None:
    path = Path(__file__).resolve().parent.parent / "mixplan/references/quickstart/calibration.json"
    asked = LawForecast(Calibration.model_validate_json(path.read_text()))
    size, tokens = np.array([1e4, 5e4, 1e5]), np.array([1e6, 1e6, 2e6])
    drawn, loss = asked.lm_loss_draws(size, tokens), asked.lm_loss(size, tokens)
    assert drawn is not None and loss is not None and drawn.shape == (3, 200)
    np.testing.assert_allclose(np.median(drawn, axis=1), loss, rtol=0.01)
    assert asked.sources() == [] and forecast().lm_loss_draws(size, tokens) is None
    assert forecast(sources=[source_law()]).sources() == ["manuals"]
