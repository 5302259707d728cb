"""The learning law: recovers the truth, is an optimum, stays monotone and finite, says its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulate import CENTRE, INTERCEPTS, LADDER, SLOPES, simulate_measurements

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.laws import logistic
from mixplan.laws.evidence import AXES, Evidence, collect_evidence


def fitted(draws: int = 60, **simulation: Any) -> tuple[FittedLaw, Evidence]:
    evidence = collect_evidence(simulate_measurements(**simulation).learning)
    return logistic.fit(evidence, draws, np.random.default_rng(0)), evidence


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
        assert named(law)[f"log_{axis}"] == pytest.approx(slope, rel=tolerance), axis
    # The law's variance, (mean + 0.05)(1.01 − mean)/(1 + φ), is a little above the simulated one.
    assert 0.9 < (1 + named(law)["precision"]) / (1 + precision) < 1.7
    assert law.warnings == []


def test_intercepts_are_recovered() -> None:
    law, _ = fitted(seeds=4, precision=15.0, draws=20)
    values = named(law)
    for kind, intercept in INTERCEPTS.items():
        shift = sum(
            slope * (law.settings[f"centre_log_{axis}"] - np.log(CENTRE[axis]))
            for axis, slope in SLOPES.items()
        )
        assert values[logistic.intercept_name(kind)] == pytest.approx(intercept + shift, abs=0.3)


def test_intervals_of_the_slopes_cover_the_truth_about_as_often_as_they_say() -> None:
    hits = []
    for seed in range(12):
        law, _ = fitted(seed=seed, seeds=1, checkpoints=2, draws=40)
        for axis, slope in SLOPES.items():
            low, high = interval_of(law, f"log_{axis}")
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
    law = logistic.fit(collect_evidence(table), 60, np.random.default_rng(0))
    assert named(law)["ceiling[comparison, 16]"] == pytest.approx(ceiling, abs=0.03)
    low, high = interval_of(law, "ceiling[comparison, 16]")
    assert low - 0.02 <= ceiling <= high + 0.02 and high - low < 0.15
    assert named(law)["ceiling[comparison, 8]"] > 0.97
    for axis, slope in SLOPES.items():
        assert named(law)[f"log_{axis}"] == pytest.approx(slope, rel=0.2), axis


def test_ceiling_of_a_task_that_was_never_learned_is_open() -> None:
    intercepts = {("comparison", 4): 2.0, ("comparison", 8): -9.0}
    law, _ = fitted(intercepts=intercepts, seeds=1, checkpoints=3, draws=100)
    low, high = interval_of(law, "ceiling[comparison, 8]")
    assert low < 0.95 and high > 0.999


def test_slopes_never_fall_below_zero() -> None:
    law, _ = fitted(seeds=2, slopes={"frequency": -0.8, "block_params": -0.5, "tokens": 1.0}, checkpoints=4)
    draws = np.array(law.draws)
    for axis in AXES:
        assert named(law)[f"log_{axis}"] >= 0
        assert (draws[:, law.parameters.index(f"log_{axis}")] >= 0).all()
    assert named(law)["log_frequency"] == 0.0


def test_what_the_decay_adds_is_kept_apart_from_tokens() -> None:
    law, _ = fitted(seeds=4, precision=15.0, before_decay=1.0, draws=20)
    assert named(law)["finished"] == pytest.approx(1.0, abs=0.3)
    assert named(law)["log_tokens"] == pytest.approx(SLOPES["tokens"], rel=0.15)


def test_final_checkpoints_alone_have_no_offset_and_no_token_slope() -> None:
    law, _ = fitted(seeds=2, checkpoints=1)
    assert "finished" not in law.parameters
    assert any("all measurements have tokens=" in w for w in law.warnings)
    low, high = interval_of(law, "log_tokens")
    assert high - low > 2.0


def test_tokens_in_step_with_size_are_called_unidentified() -> None:
    horizons = {name: 20 * params for name, params in LADDER.items()}
    parts = [
        simulate_measurements(
            seed=i, rungs={name: LADDER[name]}, seeds=1, horizons=(tokens,), checkpoints=1
        ).learning
        for i, (name, tokens) in enumerate(horizons.items())
    ]
    joined = Table({name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns})
    law = logistic.fit(collect_evidence(joined), 60, np.random.default_rng(0))
    spreads = {axis: np.subtract(*interval_of(law, f"log_{axis}")[::-1]) for axis in AXES}
    assert spreads["tokens"] > 1.5 and spreads["block_params"] > 1.5 and spreads["frequency"] < 1.0


@pytest.mark.parametrize("intercept", [-30.0, 30.0])
def test_all_or_none_learned_stays_finite_and_wide(intercept: float) -> None:
    law, _ = fitted(seeds=1, checkpoints=3, intercepts={("comparison", 8): intercept})
    assert np.isfinite(law.values).all() and np.isfinite(law.draws).all()
    assert any("hardly pinned down" in w for w in law.warnings)
    low, high = interval_of(law, "intercept[comparison, 8]")
    assert high - low > 2.0


def test_more_checkpoints_of_the_same_runs_are_not_more_evidence() -> None:
    few, _ = fitted(seeds=1, checkpoints=4, draws=100)
    many, _ = fitted(seeds=1, checkpoints=40, draws=100)
    widths = [np.subtract(*interval_of(law, "log_frequency")[::-1]) for law in (few, many)]
    assert widths[1] > 0.6 * widths[0]


def test_noise_around_chance_does_not_flatten_the_slopes() -> None:
    """With few instances most unlearned cells measure off chance; cutting at 0 would raise them."""
    law, _ = fitted(seeds=4, instances=16, precision=15.0, draws=20)
    assert named(law)["log_frequency"] == pytest.approx(SLOPES["frequency"], rel=0.12)


def test_few_runs_are_named() -> None:
    law, _ = fitted(seeds=1, rungs={"8k": 8_336, "33k": 33_056, "132k": 131_648}, checkpoints=3)
    assert any("3 runs over 3 sizes" in w for w in law.warnings)
