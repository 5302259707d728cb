"""The interference law: lines in log size through the runs' means, with intervals that hold for few runs."""

from __future__ import annotations

import numpy as np
import pytest
from simulate import simulate_measurements

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.errors import InputError
from mixplan.laws import interference
from mixplan.laws.drawn import interval_90
from mixplan.laws.ranges import outside

SIZES = (8_336.0, 33_056.0, 131_648.0, 295_776.0)
MIDDLE = 5e4
LEVEL, SLOPE = np.log(0.1), -0.4
LOSS_LEVEL, LOSS_SLOPE = 4e-3, -8e-4


def abs_cosine(size: float) -> float:
    return float(np.exp(LEVEL + SLOPE * np.log(size / MIDDLE)))


def loss_change(size: float) -> float:
    return LOSS_LEVEL + LOSS_SLOPE * float(np.log(size / MIDDLE))


def measured(
    noise: float = 0.0, seed: int = 0, seeds: int = 2, sizes: tuple[float, ...] = SIZES, cells: int = 3
) -> Table:
    """`noise`: relative, of a run's |cosine| and loss change; all cells of a run share it."""
    generator = np.random.default_rng(seed)
    size = np.repeat(sizes, seeds)
    shift = np.exp(noise * generator.normal(size=len(size)))
    change = np.array([loss_change(n) for n in size]) + noise * LOSS_LEVEL * generator.normal(size=len(size))
    run_id = np.array([f"{n:.0f}-{number}" for number, n in enumerate(size)], dtype=object)
    columns = {
        "run_id": run_id,
        "block_params": size,
        "seed": np.tile(np.arange(seeds, dtype=float), len(sizes)),
        "cosine": np.array([abs_cosine(n) for n in size]) * shift,
        "loss_change": change,
    }
    table = Table({name: np.repeat(column, cells) for name, column in columns.items()})
    task = np.array([f"task-{number}" for number in np.tile(np.arange(cells), len(size))], dtype=object)
    return Table({**table.columns, "task": task})


def fitted(table: Table, draws: int = 200, seed: int = 0) -> FittedLaw:
    return interference.fit(table, draws, np.random.default_rng(seed))


def test_lines_are_recovered() -> None:
    law = fitted(measured())
    for size in SIZES:
        assert interference.value(law, "abs_cosine", size)[0] == pytest.approx(abs_cosine(size))
        assert interference.value(law, "cosine", SIZES)[0].mean() == pytest.approx(0.1, rel=0.5)
        assert interference.value(law, "loss_change", size)[0] == pytest.approx(loss_change(size))


def test_the_simulated_ladder_of_the_other_tests_fits_too() -> None:
    table = simulate_measurements(checkpoints=2).interference
    assert table is not None
    law = fitted(table)
    assert interference.value(law, "loss_change", 33_056)[0] == pytest.approx(4e-3, rel=0.05)


@pytest.mark.parametrize(
    ("noise", "sizes", "seeds"), [(0.4, SIZES, 2), (0.1, tuple(np.geomspace(8e3, 3e5, 6)), 3)]
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    noise: float, sizes: tuple[float, ...], seeds: int
) -> None:
    """200 ladders: the mean at both ends, the slope, and a run that was not in the ladder."""
    inside = np.zeros(5)
    generator = np.random.default_rng(1)
    for repetition in range(200):
        law = fitted(measured(noise, 100 + repetition, seeds, sizes), 200, repetition)
        ends = [interference.value(law, "abs_cosine", size) for size in (sizes[0], sizes[-1])]
        slope = np.array([draw[1] for draw in law.draws])
        change = interference.value(law, "loss_change", sizes[-1])
        new = interference.new_run_value(law, "abs_cosine", sizes[0])
        said = [*(end[1:] for end in ends), slope, change[1:], new]
        other = abs_cosine(sizes[0]) * np.exp(noise * generator.normal())
        truth = [abs_cosine(sizes[0]), abs_cosine(sizes[-1]), SLOPE, loss_change(sizes[-1]), other]
        low, high = np.array([interval_90(draws) for draws in said]).T
        inside += (low <= truth) & (truth <= high)
    assert ((inside / 200 >= 0.85) & (inside / 200 <= 0.95)).all(), inside / 200


def test_a_cosine_has_a_sign_no_size_turns() -> None:
    """A straight line in |cosine| through this ladder would cross zero before 3 M parameters."""
    law = fitted(measured(0.1))
    far = interference.value(law, "abs_cosine", np.geomspace(1e3, 1e12, 10))
    assert far.shape == (201, 10) and (far > 0).all() and (np.diff(far[0]) < 0).all()
    assert (interference.new_run_value(law, "abs_cosine", 1e12) > 0).all()


def test_a_new_run_is_less_certain_than_the_mean() -> None:
    law = fitted(measured(0.2, seeds=4))
    for quantity in interference.QUANTITIES:
        low, high = interval_90(interference.value(law, quantity, 33_056)[1:])
        new_low, new_high = interval_90(interference.new_run_value(law, quantity, 33_056))
        assert new_low < low < high < new_high


def test_size_of_the_cosine_differs_from_its_mean_when_signs_differ() -> None:
    table = measured(cells=40)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(table))
    law = fitted(Table({**table.columns, "cosine": table["cosine"] * signs}))
    assert interference.value(law, "abs_cosine", MIDDLE)[0] == pytest.approx(0.1, rel=0.01)
    assert abs(interference.value(law, "cosine", MIDDLE)[0]) < 0.03


def test_runs_weigh_the_same_however_many_rows_they_have() -> None:
    table = measured(0.2)
    first = np.flatnonzero(table["run_id"] == table["run_id"][0])
    more = table.where(np.r_[np.arange(len(table)), np.repeat(first, 5)])
    assert np.allclose(fitted(more).values, fitted(table).values)


def test_names_and_order_change_nothing() -> None:
    table = measured(0.2, seeds=3)
    shuffled = table.where(np.random.default_rng(3).permutation(len(table)))
    renamed = Table(
        {
            **shuffled.columns,
            "seed": 7 - shuffled["seed"],
            "run_id": np.array([name[::-1] for name in shuffled["run_id"]], dtype=object),
            "task": np.array([f"z{name}" for name in shuffled["task"]], dtype=object),
        }
    )
    one, other = fitted(table), fitted(renamed)
    assert np.allclose(one.values, other.values, rtol=1e-12)
    assert np.allclose(one.draws, other.draws, rtol=1e-6)


def test_sizes_off_the_line_are_said_to_be_so() -> None:
    table = measured(0.05, seeds=3)
    away = np.log(table["block_params"] / MIDDLE)
    bent = fitted(Table({**table.columns, "cosine": table["cosine"] * np.exp(-0.5 * away**2)}))
    assert any("abs_cosine, cosine by size bends" in warning for warning in bent.warnings)
    assert not any("abs_cosine" in warning for warning in fitted(table).warnings)


def test_one_size_is_held_constant_and_said() -> None:
    law = fitted(measured(0.1, sizes=(33_056.0,), seeds=3))
    assert law.values[1] == 0.0 and any("one size only" in w for w in law.warnings)


def test_two_runs_have_no_interval() -> None:
    law = fitted(measured(0.1, sizes=(8_336.0, 33_056.0), seeds=1))
    assert law.draws == [] and any("2 runs; too few for intervals" in w for w in law.warnings)


def test_a_run_of_zeros_is_refused_by_name() -> None:
    table = measured()
    run = table["run_id"][0]
    cosine = np.where(table["run_id"] == run, 0.0, table["cosine"])
    with pytest.raises(InputError, match=f"all cosines of {run} are 0"):
        fitted(Table({**table.columns, "cosine": cosine}))


def test_sizes_outside_the_ladder_are_named() -> None:
    law = fitted(measured(0.1))
    assert all(outside(law, block_params=size) is None for size in SIZES)
    above = outside(law, block_params=1e6)
    assert above == "block parameters 1M above the largest fitted 296K"
    assert (
        outside(law, block_params=1e3, frequency=3.0) == "block parameters 1K below the smallest fitted 8.34K"
    )
