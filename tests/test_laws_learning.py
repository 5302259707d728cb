"""A fitted learning law as a document: recovers the truth, stays finite and wide, says what it cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulate import CENTRE, INTERCEPTS, LADDER, SLOPES, simulate_measurements

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.laws import learning
from mixplan.laws.evidence import Evidence, collect_evidence
from mixplan.laws.forms import COMBINED, FORMS, LOGISTIC, Form

NAMES = {"frequency": "frequency_slope", "block_params": "size_slope", "tokens": "tokens_slope"}
"""Of the logistic, which is what the simulated ladders were made with."""


def fitted(draws: int = 60, form: Form = LOGISTIC, **simulation: Any) -> tuple[FittedLaw, Evidence]:
    evidence = collect_evidence(simulate_measurements(**simulation).learning)
    return learning.fit(form, evidence, draws, np.random.default_rng(0)), evidence


def named(law: FittedLaw) -> dict[str, float]:
    return dict(zip(law.parameters, law.values, strict=True))


def interval_of(law: FittedLaw, name: str) -> tuple[float, float]:
    column = np.array(law.draws)[:, law.parameters.index(name)]
    low, high = np.quantile(column, [0.05, 0.95])
    return float(low), float(high)


@pytest.mark.parametrize(("precision", "tolerance"), [(4.0, 0.15), (15.0, 0.08), (0.6, 0.25)])
def test_slopes_and_precision_are_recovered(precision: float, tolerance: float) -> None:
    law, _ = fitted(seeds=4, precision=precision, seed=3, draws=20)
    for axis, slope in SLOPES.items():
        assert named(law)[NAMES[axis]] == pytest.approx(slope, rel=tolerance), axis
        for family in ("comparison", "modular_addition"):
            own = named(law)[f"{NAMES[axis]}[{family}]"]
            assert own == pytest.approx(slope, rel=1.5 * tolerance), axis
    # The law's variance, (mean + 0.05)(1.01 − mean)/(1 + φ), is a little above the simulated one.
    for family in ("comparison", "modular_addition"):
        assert 0.9 < (1 + named(law)[f"precision[{family}]"]) / (1 + precision) < 1.7
    assert law.warnings == []


def test_difficulties_are_recovered() -> None:
    law, _ = fitted(seeds=4, precision=15.0, draws=20)
    values = named(law)
    for kind, intercept in INTERCEPTS.items():
        shift = sum(
            slope * (law.settings[f"centre_log_{axis}"] - np.log(CENTRE[axis]))
            for axis, slope in SLOPES.items()
        )
        assert values[learning.difficulty_name(kind)] == pytest.approx(-intercept - shift, abs=0.3)


def test_intervals_of_the_slopes_cover_the_truth_about_as_often_as_they_say() -> None:
    hits = []
    for seed in range(12):
        law, _ = fitted(seed=seed, seeds=1, checkpoints=2, draws=40)
        for axis, slope in SLOPES.items():
            low, high = interval_of(law, f"{NAMES[axis]}[comparison]")
            hits.append(low <= slope <= high)
    assert 0.65 <= np.mean(hits) <= 1.0


@pytest.mark.parametrize("ceiling", [0.7, 0.85])
def test_skill_that_levels_off_below_one_is_seen_as_such(ceiling: float) -> None:
    measured = simulate_measurements(
        seeds=3, precision=15.0, intercepts={("comparison", 8): 3.0, ("comparison", 16): 2.0}
    )
    t = measured.learning
    skill = np.where(t["complexity"] == 16, ceiling, 1.0) * t["skill"]
    table = Table({**t.columns, "skill": skill, "accuracy": t["chance"] + skill * (1 - t["chance"])})
    law = learning.fit(LOGISTIC, collect_evidence(table), 60, np.random.default_rng(0))
    assert named(law)["ceiling[comparison, 16]"] == pytest.approx(ceiling, abs=0.03)
    low, high = interval_of(law, "ceiling[comparison, 16]")
    assert low - 0.02 <= ceiling <= high + 0.02 and high - low < 0.15
    assert named(law)["ceiling[comparison, 8]"] > 0.97
    for axis, slope in SLOPES.items():
        assert named(law)[f"{NAMES[axis]}[comparison]"] == pytest.approx(slope, rel=0.2), axis


def test_ceiling_of_a_task_that_was_never_learned_is_open() -> None:
    intercepts = {("comparison", 4): 2.0, ("comparison", 8): -9.0}
    law, _ = fitted(intercepts=intercepts, seeds=1, checkpoints=3, draws=100)
    low, high = interval_of(law, "ceiling[comparison, 8]")
    assert low < 0.95 and high > 0.999


@pytest.mark.parametrize("name", FORMS)
def test_slopes_stay_above_zero_where_the_truth_is_below(name: str) -> None:
    law, _ = fitted(
        form=FORMS[name],
        seeds=2,
        slopes={"frequency": -0.8, "block_params": -0.5, "tokens": 1.0},
        checkpoints=4,
    )
    draws = np.array(law.draws)
    for parameter in FORMS[name].parameters:
        if parameter.positive:
            assert named(law)[parameter.name] > 0
            assert (draws[:, law.parameters.index(parameter.name)] > 0).all()
    for family in ("comparison", "modular_addition"):
        # One steepness for all that the threshold law knows: the tokens, which do help, keep it up.
        assert named(law)[f"frequency_slope[{family}]"] < (0.5 if name == "capacity threshold" else 0.2)


def test_what_the_decay_adds_is_kept_apart_from_tokens() -> None:
    law, _ = fitted(seeds=4, precision=15.0, before_decay=1.0, draws=20)
    assert named(law)["finished"] == pytest.approx(1.0, abs=0.3)
    assert named(law)["tokens_slope[comparison]"] == pytest.approx(SLOPES["tokens"], rel=0.15)


def test_final_checkpoints_alone_have_no_offset_and_no_token_slope() -> None:
    law, _ = fitted(seeds=2, checkpoints=1)
    assert named(law)["finished"] == pytest.approx(0.0, abs=1e-2)
    assert any("all measurements have tokens=" in w for w in law.warnings)
    low, high = interval_of(law, "tokens_slope")
    assert high > 4.0 * low


def test_tokens_in_step_with_size_are_called_unidentified() -> None:
    horizons = {name: 20 * params for name, params in LADDER.items()}
    parts = [
        simulate_measurements(
            seed=i, rungs={name: LADDER[name]}, seeds=1, horizons=(tokens,), checkpoints=1
        ).learning
        for i, (name, tokens) in enumerate(horizons.items())
    ]
    joined = Table({name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns})
    law = learning.fit(LOGISTIC, collect_evidence(joined), 200, np.random.default_rng(0))
    widths = {
        axis: float(np.subtract(*interval_of(law, f"{name}[comparison]")[::-1]))
        for axis, name in NAMES.items()
    }
    assert widths["block_params"] > 1.5 and widths["tokens"] > 1.5 and widths["frequency"] < 1.0
    # Together they are known well.
    draws = np.log(np.array(law.draws)[:, [law.parameters.index(f"{NAMES[a]}[comparison]") for a in NAMES]])
    both = np.exp(draws[:, 1]) + np.exp(draws[:, 2])
    low, high = np.quantile(both, [0.05, 0.95])
    assert 0.8 * low <= SLOPES["block_params"] + SLOPES["tokens"] <= high and high < 2.0 * low


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("intercept", [-30.0, 30.0])
def test_all_or_none_learned_stays_finite_and_wide(name: str, intercept: float) -> None:
    law, _ = fitted(form=FORMS[name], seeds=1, checkpoints=3, intercepts={("comparison", 8): intercept})
    assert np.isfinite(law.values).all() and np.isfinite(law.draws).all()
    assert any("hardly pinned down" in w for w in law.warnings)
    low, high = interval_of(law, "difficulty[comparison, 8]")
    assert high - low > 2.0


def test_noise_around_chance_does_not_flatten_the_slopes() -> None:
    """With few instances most unlearned cells measure off chance; cutting at 0 would raise them."""
    law, _ = fitted(seeds=4, instances=16, precision=15.0, draws=20)
    assert named(law)["frequency_slope[comparison]"] == pytest.approx(SLOPES["frequency"], rel=0.12)


def test_few_runs_are_named() -> None:
    law, _ = fitted(seeds=1, rungs={"8k": 8_336, "33k": 33_056, "132k": 131_648}, checkpoints=3)
    assert any("3 runs over 3 sizes" in w for w in law.warnings)


def test_no_draws_is_the_point_estimate_alone() -> None:
    bare, evidence = fitted(draws=0, form=COMBINED, seeds=1, checkpoints=3)
    full = learning.fit(COMBINED, evidence, 30, np.random.default_rng(0))
    assert bare.draws == [] and bare.values == full.values
    assert len(full.draws) == 30 and bare.rows == len(evidence.skill)


def test_run_and_task_spread_are_recovered() -> None:
    law, _ = fitted(seeds=8, precision=30.0, run_effect=0.4, draws=200)
    low, high = interval_of(law, "run_spread")
    assert low < 0.4 < high and high < 2.5 * low
    quiet, _ = fitted(seeds=8, precision=30.0, draws=200)
    assert named(quiet)["run_spread"] < 0.5 * named(law)["run_spread"]
