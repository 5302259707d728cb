"""The learning law: recovers the truth, is an optimum, stays monotone and finite, says its limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from simulate import CENTRE, INTERCEPTS, LADDER, SLOPES, simulate_measurements

from mixplan.documents.calibration import FittedLaw
from mixplan.laws import logistic
from mixplan.laws.evidence import AXES, Evidence, collect_evidence


def fitted(draws: int = 60, **simulation: object) -> tuple[FittedLaw, Evidence]:
    evidence = collect_evidence(simulate_measurements(**simulation).learning)  # type: ignore[arg-type]
    return logistic.fit(evidence, draws, np.random.default_rng(0)), evidence


def named(law: FittedLaw) -> dict[str, float]:
    return dict(zip(law.parameters, law.values, strict=True))


def interval_of(law: FittedLaw, name: str) -> tuple[float, float]:
    column = np.array(law.draws)[:, law.parameters.index(name)]
    low, high = np.quantile(column, [0.05, 0.95])
    return float(low), float(high)


@pytest.mark.parametrize(("precision", "tolerance"), [(4.0, 0.15), (15.0, 0.08), (0.6, 0.25)])
def test_slopes_and_precision_are_recovered(precision: float, tolerance: float) -> None:
    law, _ = fitted(seeds=4, precision=precision, seed=3)
    for axis, slope in SLOPES.items():
        assert named(law)[f"log_{axis}"] == pytest.approx(slope, rel=tolerance), axis
    assert named(law)["precision"] == pytest.approx(precision, rel=0.35)
    assert law.warnings == []


def test_intercepts_are_recovered() -> None:
    law, _ = fitted(seeds=4, precision=15.0)
    values = named(law)
    for kind, intercept in INTERCEPTS.items():
        shift = sum(
            slope * (law.settings[f"centre_log_{axis}"] - np.log(CENTRE[axis]))
            for axis, slope in SLOPES.items()
        )
        assert values[logistic.intercept_name(kind)] == pytest.approx(intercept + shift, abs=0.3)


def test_intervals_of_the_slopes_cover_the_truth_about_as_often_as_they_say() -> None:
    hits = []
    for seed in range(16):
        law, _ = fitted(seed=seed, seeds=1, checkpoints=3)
        for axis, slope in SLOPES.items():
            low, high = interval_of(law, f"log_{axis}")
            hits.append(low <= slope <= high)
    assert 0.75 <= np.mean(hits) <= 1.0


def test_newton_reaches_the_optimum_that_a_general_optimiser_finds() -> None:
    evidence = collect_evidence(simulate_measurements(seeds=1, checkpoints=3).learning)
    law = logistic.fit(evidence, 20, np.random.default_rng(0))
    columns = np.column_stack([evidence.log_axes - evidence.log_axes.mean(axis=0), evidence.finished - 1.0])
    priors = np.array([logistic.INTERCEPT_PRIOR] * 6 + [logistic.SLOPE_PRIOR] * 3 + [logistic.FINISHED_PRIOR])

    def cost(p: np.ndarray) -> float:
        eta = p[evidence.kind] + columns @ p[6:]
        misfit = evidence.cell_share @ (np.logaddexp(0, eta) - evidence.skill * eta)
        return float(misfit + 0.5 * (((p - priors[:, 0]) / priors[:, 1]) ** 2).sum())

    other = minimize(
        cost, np.zeros(10), bounds=[(None, None)] * 6 + [(0, None)] * 3 + [(None, None)], tol=1e-12
    )
    ours = np.array(law.values[:10])
    assert cost(ours) <= other.fun + 1e-7
    assert np.allclose(ours, other.x, atol=2e-3)


def test_slopes_never_fall_below_zero() -> None:
    law, _ = fitted(seeds=2, slopes={"frequency": -0.8, "block_params": -0.5, "tokens": 1.0}, checkpoints=4)
    draws = np.array(law.draws)
    for axis in AXES:
        assert named(law)[f"log_{axis}"] >= 0
        assert (draws[:, law.parameters.index(f"log_{axis}")] >= 0).all()
    assert named(law)["log_frequency"] == 0.0


def test_what_the_decay_adds_is_kept_apart_from_tokens() -> None:
    law, _ = fitted(seeds=4, precision=15.0, before_decay=1.0)
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
    from mixplan.documents.table import Table

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
    law, _ = fitted(seeds=4, instances=16, precision=15.0)
    assert named(law)["log_frequency"] == pytest.approx(SLOPES["frequency"], rel=0.12)


def test_few_runs_are_named() -> None:
    law, _ = fitted(seeds=1, rungs={"8k": 8_336, "33k": 33_056, "132k": 131_648}, checkpoints=3)
    assert any("3 runs over 3 sizes" in w for w in law.warnings)


def test_mean_of_the_fit_is_that_of_the_data() -> None:
    """Score equations of free intercepts: residuals of a kind sum to (nearly) zero."""
    law, evidence = fitted(seeds=2, checkpoints=5)
    values = named(law)
    centres = np.array([law.settings[f"centre_log_{axis}"] for axis in AXES])
    slopes = np.array([values[f"log_{axis}"] for axis in AXES])
    eta = np.array([values[logistic.intercept_name(evidence.kinds[k])] for k in evidence.kind])
    eta += (evidence.log_axes - centres) @ slopes - values["finished"] * (~evidence.finished)
    for kind in range(len(evidence.kinds)):
        rows = evidence.kind == kind
        weight = evidence.cell_share[rows]
        assert weight @ expit(eta[rows]) == pytest.approx(weight @ evidence.skill[rows], abs=0.4)
