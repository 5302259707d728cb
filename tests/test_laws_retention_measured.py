"""The retention law on the shipped measurements: what it says of runs and sizes that it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixplan.documents import Table
from mixplan.documents.measurements import read_measurements
from mixplan.laws import retention
from mixplan.laws.drawn import interval_90
from mixplan.laws.retention_curves import read_curves

REFERENCE = Path(retention.__file__).parents[1] / "references" / "cpu-manuals"
SLACK = 0.05
"""Noise of a mean gain as a share of the early gain: the intervals are of shares without it."""


@pytest.fixture(scope="module")
def measured() -> Table:
    table = read_measurements(REFERENCE).retention
    assert table is not None
    return table.where(table["decaying"] != 1)


def inside(train: Table, test: Table) -> list[bool]:
    """Whether the shares of the early gain in `test` lie in the intervals for a new run from `train`."""
    law, _ = retention.fit(train, 200, np.random.default_rng(0))
    assert law is not None
    found = []
    for curve in read_curves(test, law.settings[retention.START])[0]:
        for delay, share in zip(curve.delay, curve.gain, strict=True):
            if delay >= 16_384:  # before, it is the early gain itself
                told = retention.new_run_kept(law, curve.block_params, delay, curve.injected_at)
                low, high = interval_90(told)
                found.append(low - SLACK <= share <= high + SLACK)
    return found


@pytest.mark.slow
def test_runs_left_out_lie_in_the_intervals_for_a_new_run(measured: Table) -> None:
    """One seed's run of every size, each left out of a fit of its own."""
    found = []
    for run in np.unique(measured["run_id"][measured["seed"] == 1].astype(str)):
        own = measured["run_id"] == run
        found += inside(measured.where(~own), measured.where(own))
    assert 0.8 <= np.mean(found) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("held_out", [131_648.0, 295_776.0])
def test_a_larger_size_lies_in_the_interval_from_smaller_ones(measured: Table, held_out: float) -> None:
    small = measured["block_params"] < held_out
    law, _ = retention.fit(measured.where(small), 200, np.random.default_rng(0))
    known, _ = retention.fit(measured, 200, np.random.default_rng(0))
    assert law is not None and known is not None
    low, high = interval_90(retention.half_life(law, held_out)[1:])
    assert low <= retention.half_life(known, held_out)[0] <= high
    assert np.mean(inside(measured.where(small), measured.where(measured["block_params"] == held_out))) > 0.8
