"""The retention law: half-lives by size are recovered, in either form; runs without a gain are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulate import simulate_measurements

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.documents.measurements import TEXT_COLUMNS
from mixplan.documents.table import from_rows
from mixplan.laws import retention
from mixplan.laws.retention import half_life, kept
from mixplan.laws.retention_forms import EXPONENTIAL, LOG_LINEAR

STEP = 4096
DELAYS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
SIZES = {"8k": 8_336, "33k": 33_056, "132k": 131_648, "296k": 295_776}
HALF_LIFE, CENTRE, EXPONENT = 40 * STEP, 50_000.0, 0.5


def true_half_life(block_params: float) -> float:
    return HALF_LIFE * (block_params / CENTRE) ** EXPONENT


def curve(form: str, delay: float, half: float, peak: float) -> float:
    """Gain as a share of its peak; before the peak it grows from a half."""
    if delay < peak:
        return 0.5 + 0.5 * delay / peak
    s = STEP if peak == 0 else 0
    if form == EXPONENTIAL:
        return 2 ** (-(delay - peak) / half)
    return 1 - 0.5 * np.log((delay + s) / (peak + s)) / np.log((half + peak + s) / (peak + s))


def simulate(
    form: str, noise: float = 0.0, peak_steps: int = 0, seeds: int = 2, sizes: dict[str, int] = SIZES
) -> Table:
    """Four probes a run, peak gains that differ between runs and probes."""
    generator = np.random.default_rng(5)
    rows: list[dict[str, Any]] = []
    for rung, size in sizes.items():
        for seed in range(seeds):
            for probe in range(4):
                peak = generator.uniform(0.5, 2.0)
                for steps in DELAYS:
                    left = curve(form, steps * STEP, true_half_life(size), peak_steps * STEP)
                    gain = peak * left + noise * generator.normal()
                    rows.append(
                        {
                            "run_id": f"{rung}-{seed}", "rung": rung, "block_params": size, "seed": seed,
                            "task": f"probe_{probe}", "family": "comparison", "complexity": 4,
                            "instances": 64, "injected_at_tokens": 1e6, "delay_tokens": steps * STEP,
                            "choice_nll_before": 3.0, "choice_nll": 3.0 - gain, "gain": gain,
                        }
                    )  # fmt: skip
    return from_rows(rows, TEXT_COLUMNS)


def fitted(measured: Table, draws: int = 100) -> tuple[FittedLaw | None, list[str]]:
    return retention.fit(measured, draws, np.random.default_rng(0))


@pytest.mark.parametrize("form", [EXPONENTIAL, LOG_LINEAR])
@pytest.mark.parametrize("peak_steps", [0, 4])
@pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 0.02), (0.05, 0.35)])
def test_form_and_half_lives_are_recovered(
    form: str, peak_steps: int, noise: float, tolerance: float
) -> None:
    law, problems = fitted(simulate(form, noise, peak_steps))
    assert law is not None and problems == [] and law.warnings == []
    assert law.law == form
    assert law.settings["start_delay_tokens"] == peak_steps * STEP
    for size in SIZES.values():
        assert half_life(law, size)[0] == pytest.approx(true_half_life(size), rel=tolerance)


def test_a_law_that_forgets_faster_in_larger_models_is_not_assumed_away() -> None:
    law, _ = fitted(
        simulate(EXPONENTIAL, 0.05, sizes={"8k": 295_776, "33k": 131_648, "132k": 33_056, "296k": 8_336})
    )
    assert law is not None
    swapped = simulate(EXPONENTIAL, 0.05)
    turned = 8_336 * 295_776 / swapped["block_params"]
    other, _ = fitted(Table({**swapped.columns, "block_params": turned}))
    assert other is not None and law.values[1] > 0 > other.values[1]


def test_intervals_cover_the_truth_and_grow_with_noise() -> None:
    widths = []
    for noise in (0.02, 0.2):
        law, _ = fitted(simulate(EXPONENTIAL, noise, seeds=3), draws=200)
        assert law is not None
        low, high = np.quantile(half_life(law, 33_056)[1:], [0.005, 0.995])
        assert low <= true_half_life(33_056) <= high
        widths.append(high - low)
    assert widths[1] > widths[0]


@pytest.mark.parametrize("form", [EXPONENTIAL, LOG_LINEAR])
def test_half_of_a_gain_is_left_after_the_half_life(form: str) -> None:
    law, _ = fitted(simulate(form, peak_steps=4))
    assert law is not None
    after = law.settings["start_delay_tokens"] + half_life(law, 33_056)[0]
    assert kept(law, 33_056, law.settings["start_delay_tokens"])[0] == pytest.approx(1.0)
    assert kept(law, 33_056, after)[0] == pytest.approx(0.5)


def test_a_run_without_a_gain_is_left_out_and_named() -> None:
    measured = simulate(EXPONENTIAL, 0.02)
    none = measured["run_id"] == "8k-0"
    noise = np.random.default_rng(0).normal(0, 0.1, len(measured))
    law, _ = fitted(Table({**measured.columns, "gain": np.where(none, noise, measured["gain"])}))
    assert law is not None and law.runs == 7
    assert any("1 injection(s) left out (8k-0)" in warning for warning in law.warnings)


def test_no_gain_at_all_gives_no_law() -> None:
    measured = simulate(EXPONENTIAL)
    law, problems = fitted(Table({**measured.columns, "gain": -np.abs(measured["gain"])}))
    assert law is None
    assert any("no run gained anything" in problem for problem in problems)


def test_too_few_delays_from_the_peak_on() -> None:
    measured = simulate(EXPONENTIAL, peak_steps=4)
    law, problems = fitted(measured.where(measured["delay_tokens"] <= 8 * STEP))
    assert law is None and any("fewer than 3 delays" in problem for problem in problems)


def test_one_size_is_held_constant_and_said() -> None:
    law, _ = fitted(simulate(EXPONENTIAL, sizes={"33k": 33_056}))
    assert law is not None
    assert law.values[1] == pytest.approx(0.0, abs=1e-6)
    assert any("one size only" in warning for warning in law.warnings)


def test_curves_that_no_law_describes_are_said_to_be_so() -> None:
    measured = simulate(EXPONENTIAL)
    swing = measured["gain"] * np.where(measured["delay_tokens"] % (3 * STEP) == 0, 1.0, -0.6)
    first = measured["delay_tokens"] <= 2 * STEP
    law, _ = fitted(Table({**measured.columns, "gain": np.where(first, measured["gain"], swing)}))
    assert law is not None
    assert any("no simple curve describes these gains" in warning for warning in law.warnings)


def test_a_half_life_beyond_the_longest_delay_is_flagged() -> None:
    measured = simulate(EXPONENTIAL)
    short = measured.where(measured["delay_tokens"] <= 8 * STEP)
    law, _ = fitted(short)
    assert law is not None
    assert any("beyond the longest delay measured" in warning for warning in law.warnings)


def test_two_runs_have_no_interval() -> None:
    """Every bootstrap draw would be the same fit, and an interval of no width looks like certainty."""
    law, _ = fitted(simulate(EXPONENTIAL, seeds=1, sizes={"8k": 8_336, "132k": 131_648}))
    assert law is not None and law.draws == []
    assert any("2 runs with a gain; too few for intervals" in warning for warning in law.warnings)


def test_the_simulated_ladder_of_the_other_tests_fits_too() -> None:
    table = simulate_measurements(checkpoints=1, intercepts={("comparison", 4): 0.0}).retention
    assert table is not None
    law, problems = fitted(table)
    assert law is not None and problems == [] and law.law == LOG_LINEAR


def test_injections_of_a_run_are_curves_of_their_own_with_one_weight() -> None:
    """A later injection that gains twice as much, over fewer delays, does not bend the first one's curve."""
    first = simulate(EXPONENTIAL, 0.0, 0)
    late = {**first.columns, "injected_at_tokens": np.full(len(first), 2e6), "gain": 2 * first["gain"]}
    short = Table(late).where(first["delay_tokens"] <= 32 * STEP)
    both = Table({name: np.concatenate([first[name], short[name]]) for name in first.columns})
    law, _ = fitted(both)
    assert law is not None and law.runs == len(SIZES) * 2
    for size in SIZES.values():
        assert half_life(law, size)[0] == pytest.approx(true_half_life(size), rel=0.02)


def test_an_injection_without_a_gain_is_named_with_its_time() -> None:
    first = simulate(EXPONENTIAL, 0.02)
    noise = np.random.default_rng(0).normal(0, 0.1, len(first))
    none = Table({**first.columns, "injected_at_tokens": np.full(len(first), 2e6), "gain": noise})
    none = none.where(first["run_id"] == "8k-0")
    both = Table({name: np.concatenate([first[name], none[name]]) for name in first.columns})
    law, _ = fitted(both, 20)
    assert law is not None and law.runs == 8
    assert any("1 injection(s) left out (8k-0 at 2e+06 tokens)" in warning for warning in law.warnings)


def test_rows_measured_while_the_rate_decays_are_left_out() -> None:
    clean = simulate(EXPONENTIAL)
    late = (clean["delay_tokens"] >= 128 * STEP).astype(float)
    spoilt = Table({**clean.columns, "decaying": late, "gain": np.where(late == 1, 9.0, clean["gain"])})
    law, _ = fitted(spoilt, 20)
    expected, _ = fitted(clean.where(late == 0), 20)
    assert law is not None and expected is not None and law.values == expected.values
    nothing, problems = fitted(Table({**clean.columns, "decaying": np.ones(len(clean))}), 20)
    assert nothing is None and "only while the learning rate was decaying" in problems[0]
