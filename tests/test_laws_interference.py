"""The interference law: lines in log size through the runs' means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulate import CENTRE, INTERFERENCE, LADDER, simulate_measurements

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.laws import interference


def measured(**simulation: Any) -> Table:
    found = simulate_measurements(checkpoints=2, **simulation).interference
    assert found is not None
    return found


def fitted(table: Table) -> FittedLaw:
    return interference.fit(table, 100, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("quantity", "truth"), [("abs_cosine", "cosine"), ("cosine", "cosine"), ("loss_change",) * 2]
)
def test_lines_are_recovered(quantity: str, truth: str) -> None:
    law = fitted(measured())
    at, slope = INTERFERENCE[truth]
    for size in LADDER.values():
        expected = at + slope * np.log(size / CENTRE["block_params"])
        assert interference.value(law, quantity, size)[0] == pytest.approx(expected, rel=0.03)


def test_size_of_the_cosine_differs_from_its_mean_when_signs_differ() -> None:
    table = measured()
    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(table))
    law = fitted(Table({**table.columns, "cosine": table["cosine"] * signs}))
    assert interference.value(law, "abs_cosine", 33_056)[0] == pytest.approx(0.1, rel=0.05)
    assert abs(interference.value(law, "cosine", 33_056)[0]) < 0.02


def test_runs_weigh_the_same_however_many_rows_they_have() -> None:
    table = measured(seeds=1)
    more = table.where(np.r_[np.arange(len(table)), np.repeat(np.flatnonzero(table["rung"] == "8k"), 5)])
    assert np.allclose(fitted(more).values, fitted(table).values)


def test_one_size_is_held_constant_and_said() -> None:
    law = fitted(measured(rungs={"33k": 33_056}))
    assert law.values[1] == 0.0 and any("one size only" in w for w in law.warnings)


def test_two_runs_have_no_interval() -> None:
    law = fitted(measured(rungs={"8k": 8_336, "33k": 33_056}, seeds=1))
    assert law.draws == [] and any("2 runs; too few for intervals" in w for w in law.warnings)
