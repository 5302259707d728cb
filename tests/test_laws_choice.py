"""Which law forecasts: weights that maximise the log score, a lead of one standard error, else combined."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from mixplan.documents import Table
from mixplan.laws.choice import choose, relevant, stack, wins
from mixplan.laws.evidence import Evidence
from mixplan.laws.forms import COMBINED, FORMS
from mixplan.laws.protocol import Scattered
from mixplan.laws.rolling import Fold, Said

NAMES = list(FORMS)
CELLS = 60
KIND = np.arange(CELLS) // 10
"""Task kinds of the cells of every rung."""


class _LeftOut:
    """What the choice reads of a left-out rung."""

    def __init__(self, size: float, skill: np.ndarray) -> None:
        self.table = Table({"block_params": np.full(len(skill), size)})
        self.skill = skill
        self.kind = KIND


def said(name: str, right: np.ndarray, skill: np.ndarray, baseline: bool = False) -> Said:
    """A forecast that gives the bin of the measured skill the probability `right`, shape (n,)."""
    bins = np.repeat(((1.0 - right) / 9.0)[:, None], 10, axis=1)
    bins[np.arange(len(skill)), (skill * 10).astype(int)] = right
    empty = np.zeros((len(skill), 1))
    return Said(
        name,
        baseline,
        np.ones(len(skill), bool),
        *(np.zeros(len(skill)),) * 4,
        bins,
        Scattered(empty, empty),
        [],
    )


def fold(size: float, ahead: int, fitted: int, right: dict[str, np.ndarray | float]) -> Fold:
    skill = np.linspace(0.05, 0.95, CELLS)
    forecasts = [
        said(name, np.broadcast_to(np.asarray(right.get(name, 0.2), float), CELLS), skill) for name in NAMES
    ]
    perfect = said("trees", np.full(CELLS, 0.99), skill, baseline=True)
    left_out = cast(Evidence, _LeftOut(size, skill))
    return Fold([float(i + 1) for i in range(fitted)], ahead, left_out, [], [*forecasts, perfect])


def ladder(right: dict[str, np.ndarray | float]) -> list[Fold]:
    return [fold(size, 1, 3, right) for size in (10.0, 20.0, 30.0)]


def test_equal_laws_have_equal_weights() -> None:
    scores = np.repeat(np.log(np.random.default_rng(0).uniform(0.1, 0.9, (50, 1))), 4, axis=1)
    assert np.allclose(stack(scores), 0.25)


def test_a_law_that_is_better_everywhere_has_all_the_weight() -> None:
    other = np.random.default_rng(0).uniform(0.1, 0.5, (50, 2))
    scores = np.log(np.column_stack([other, other.max(axis=1) + 0.1]))
    assert stack(scores) == pytest.approx([0, 0, 1], abs=1e-6)


def test_weights_are_those_of_a_grid_search() -> None:
    probability = np.random.default_rng(3).uniform(0.02, 0.9, (40, 2))
    grid = np.linspace(0, 1, 2001)
    best = grid[np.argmax([np.log(probability @ [w, 1 - w]).mean() for w in grid])]
    found = stack(np.log(probability))
    assert 0.05 < best < 0.95
    assert found[0] == pytest.approx(best, abs=1e-3) and found.sum() == pytest.approx(1.0)


def test_wins_asks_for_more_than_one_standard_error_between_blocks() -> None:
    other, block = np.zeros(100), np.arange(100)
    gain = np.tile([1.0, -1.0], 50)  # standard error of the mean of 100 blocks of one: 0.1
    assert wins(gain + 0.11, other, block) and not wins(gain + 0.09, other, block)
    assert not wins(other, other, block) and not wins(gain - 0.5, other, block)
    # Ten cells of one block say no more than one does: the standard error is that of 10 blocks, 0.333.
    tens, alike = np.repeat(np.arange(10), 10), np.repeat(np.tile([1.0, -1.0], 5), 10)
    assert wins(alike + 0.34, other, tens) and not wins(alike + 0.33, other, tens)
    assert not wins(alike + 5.0, other, np.zeros(100, dtype=np.int64))  # one block has no spread to judge by


def test_ties_go_to_the_combined_law() -> None:
    found = choose(ladder(dict.fromkeys(NAMES, 0.4)))
    assert found.weights == {COMBINED.name: 1.0}
    # Better on average, but by less than one standard error.
    noisy = np.where(KIND % 2 == 0, 0.75, 0.22)
    found = choose(ladder({COMBINED.name: 0.4, "logistic": noisy}))
    assert np.log(noisy).mean() > np.log(0.4)
    assert (
        found.weights == {COMBINED.name: 1.0}
        and "logistic wins by less than one standard error" in found.reason
    )


def test_a_law_that_wins_clearly_is_chosen_and_a_baseline_never() -> None:
    found = choose(ladder({COMBINED.name: 0.3, "capacity threshold": 0.6}))
    assert found.weights == {"capacity threshold": 1.0}
    assert "capacity threshold -0.511" in found.reason and "trees" not in found.reason


def test_laws_that_are_right_about_different_cells_are_mixed() -> None:
    even = np.arange(CELLS) % 2 == 0
    right: dict[str, np.ndarray | float] = dict.fromkeys(NAMES, 0.01)
    right |= {COMBINED.name: np.where(even, 0.9, 0.05), "logistic": np.where(even, 0.05, 0.9)}
    found = choose(ladder(right))
    assert found.weights == pytest.approx({"logistic": 0.5, COMBINED.name: 0.5}, abs=0.02)
    assert "a mixture -0.7" in found.reason


def test_a_mixture_is_judged_on_rungs_that_its_weights_have_not_seen() -> None:
    """Each rung has another law that is right about all of it: weights of the others are wrong about it."""
    one, other = {COMBINED.name: 0.9, "logistic": 0.05}, {COMBINED.name: 0.05, "logistic": 0.9}
    rest = dict.fromkeys(NAMES, 0.01)
    found = choose([fold(10.0, 1, 3, {**rest, **one}), fold(20.0, 1, 3, {**rest, **other})])
    assert found.weights == {COMBINED.name: 1.0}


def test_without_a_rung_to_leave_out_the_combined_law_stays() -> None:
    found = choose([])
    assert found.weights == {COMBINED.name: 1.0} and "no rung could be left out" in found.reason


def test_choice_looks_at_near_rungs_and_enough_fitted_ones() -> None:
    folds = [
        fold(size, ahead, fitted, {}) for size, ahead, fitted in ((30.0, 1, 2), (40.0, 1, 3), (50.0, 3, 3))
    ]
    assert relevant(folds) == [folds[1]]
    assert relevant(folds[:1]) == [folds[0]]
    assert relevant([folds[2]]) == []
