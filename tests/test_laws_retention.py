"""The retention law: rates by size are recovered from the peak on; probes without a gain are counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulate import CENTRE, LADDER, PEAK_STEPS, RETENTION, STEP_TOKENS, simulate_measurements

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.laws import retention
from mixplan.laws.retention import kept_until, rate

GENERATOR_SEED = 0


def table(**simulation: Any) -> Table:
    found = simulate_measurements(checkpoints=1, intercepts={("comparison", 4): 0.0}, **simulation).retention
    assert found is not None
    return found


def fitted(measured: Table, draws: int = 100) -> tuple[FittedLaw | None, list[str]]:
    return retention.fit(measured, draws, np.random.default_rng(GENERATOR_SEED))


def true_rate(block_params: float) -> float:
    return RETENTION["at_centre"] + RETENTION["per_log_params"] * np.log(
        block_params / CENTRE["block_params"]
    )


def with_noise(measured: Table, size: float) -> Table:
    noise = np.random.default_rng(5).normal(0, size, len(measured))
    return Table({**measured.columns, "gain": measured["gain"] + noise})


@pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 0.01), (0.05, 0.05)])
def test_rate_by_size_is_recovered(noise: float, tolerance: float) -> None:
    law, problems = fitted(with_noise(table(), noise))
    assert law is not None and problems == [] and law.warnings == []
    for size in LADDER.values():
        assert rate(law, size)[0] == pytest.approx(true_rate(size), abs=tolerance)


def test_intervals_cover_the_truth_and_grow_with_noise() -> None:
    quiet, _ = fitted(with_noise(table(), 0.01))
    loud, _ = fitted(with_noise(table(), 0.05))
    widths = []
    for law in (quiet, loud):
        low, high = np.quantile(rate(law, 33_056)[1:], [0.01, 0.99])
        assert low <= true_rate(33_056) <= high
        widths.append(high - low)
    assert widths[1] > widths[0]


def test_fit_starts_at_the_peak_of_the_mean_curve() -> None:
    law, _ = fitted(table())
    assert law is not None
    peak = np.exp(law.values[law.parameters.index(retention.LOG_PEAK)])
    assert peak == pytest.approx(PEAK_STEPS * STEP_TOKENS)


def test_half_life_and_zero_crossing_solve_the_law() -> None:
    law, _ = fitted(table())
    assert law is not None
    for kept in (0.5, 0.0):
        delay = kept_until(law, 33_056, kept)[0]
        peak = np.exp(law.values[2])
        assert 1 - rate(law, 33_056)[0] * np.log(delay / peak) == pytest.approx(kept)
    assert kept_until(law, 1e9, 0.5)[0] == np.inf  # the line in ln N has crossed zero there


def test_probe_without_a_gain_is_left_out_and_counted() -> None:
    measured = table()
    none = (measured["task"] == "probe_0") & (measured["rung"] == "8k")
    noise = np.random.default_rng(0).normal(0, 0.01, len(measured))
    law, _ = fitted(Table({**measured.columns, "gain": np.where(none, noise, measured["gain"])}))
    assert law is not None
    assert any("2 probe(s) left out" in w for w in law.warnings)
    assert rate(law, 8_336)[0] == pytest.approx(true_rate(8_336), abs=0.02)


def test_no_gain_at_all_gives_no_law() -> None:
    measured = table()
    law, problems = fitted(Table({**measured.columns, "gain": -np.abs(measured["gain"])}))
    assert law is None
    assert any("no probe gained anything" in p for p in problems) and any("left out" in p for p in problems)


def test_too_few_delays_from_the_peak_on() -> None:
    measured = table()
    early = measured.where(measured["delay_tokens"] <= 16 * STEP_TOKENS)
    law, problems = fitted(early)
    assert law is None and any("fewer than 3 delays" in p for p in problems)


def test_one_size_is_held_constant_and_said() -> None:
    law, _ = fitted(table(rungs={"33k": 33_056}))
    assert law is not None
    assert law.values[1] == 0.0 and any("one size only" in w for w in law.warnings)


def test_probes_that_lack_a_delay_do_not_hide_the_peak() -> None:
    measured = table()
    at_peak = measured["delay_tokens"] == 8 * STEP_TOKENS
    law, _ = fitted(measured.where(~(at_peak & (measured["task"] == "probe_1"))))
    assert law is not None
    assert np.exp(law.values[2]) == pytest.approx(8 * STEP_TOKENS)
    assert rate(law, 33_056)[0] == pytest.approx(true_rate(33_056), abs=0.01)


def test_one_probe_alone_at_a_delay_does_not_set_the_peak() -> None:
    measured = table()
    alone = (measured["delay_tokens"] == 4 * STEP_TOKENS) & (measured["task"] == "probe_0")
    keep = (measured["delay_tokens"] != 4 * STEP_TOKENS) | alone
    gain = np.where(alone, 9.0, measured["gain"])
    law, _ = fitted(Table({**measured.columns, "gain": gain}).where(keep))
    assert law is not None and np.exp(law.values[2]) == pytest.approx(8 * STEP_TOKENS)


def test_a_line_through_two_runs_has_no_interval() -> None:
    """Every bootstrap draw would be the same line, and an interval of no width looks like certainty."""
    law, _ = fitted(table(rungs={"8k": 8_336, "132k": 131_648}, seeds=1))
    assert law is not None
    assert law.draws == [] and rate(law, 33_056).shape == (1,)
    assert any("2 runs with a gain; too few for intervals" in w for w in law.warnings)
