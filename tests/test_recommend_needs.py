"""The frequency a task needs, against its closed form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from planning import D0, F0, KINDS, N0, Logistic, plan_dict

from mixplan.documents import Plan
from mixplan.documents.forecast import Goal
from mixplan.recommend.checks import build_problem
from mixplan.recommend.needs import Needs, _interpolated, least_frequency

GOAL = Goal("comparison", 8.0)


def closed_form(law: Logistic, kind: tuple[str, float], params: float, tokens: float, target: float) -> float:
    rest = (
        math.log(target / (1 - target))
        - KINDS[kind]
        - law.c * math.log(params / N0)
        - law.d * math.log(tokens / D0)
    )
    return F0 * math.exp(rest / law.b)


def asked(count: int, confidence: float = np.nan) -> tuple[list[Goal], np.ndarray, np.ndarray]:
    return [GOAL], np.zeros(count, dtype=int), np.full(count, confidence)


def test_with_confidence_the_frequency_is_that_of_the_draw_that_decides() -> None:
    law, one = Logistic(spread=0.5), np.ones(1)
    for confidence, held in ((0.8, 8), (0.5, 5), (0.99, 9)):  # of nine draws
        found = least_frequency(law, *asked(1, confidence), 33_056 * one, 5e6 * one, 0.8 * one, one)
        shift = np.sort(law.shift)[::-1][held - 1]
        true = closed_form(Logistic(), ("comparison", 8.0), 33_056, 5e6, 0.8) * math.exp(-shift / law.b)
        assert found == pytest.approx(true, rel=1e-8)


@pytest.mark.parametrize("guess", [None, 1.0, 1.001, 5.0])
def test_least_frequency_is_the_closed_form_whatever_the_guess(guess: float | None) -> None:
    law = Logistic()
    tokens = np.geomspace(5e5, 5e7, 7)
    true = np.array([closed_form(law, ("comparison", 8.0), 33_056, t, 0.8) for t in tokens])
    cells = np.full(7, 33_056.0), tokens
    limits = np.full(7, 0.8), np.full(7, 1.0)
    found = least_frequency(law, *asked(7), *cells, *limits, None if guess is None else true * guess)
    assert found == pytest.approx(true, rel=1e-9)
    # The answer itself meets the target: it is rounded to the safe side.
    assert (law.reached([GOAL], np.zeros(7, int), *cells, found) >= 0.8 - 1e-10).all()


def test_few_questions_are_asked() -> None:
    law = Logistic()
    one = np.ones(1)
    least_frequency(law, *asked(1), 3e4 * one, 3e6 * one, 0.8 * one, one)
    assert law.calls <= 15


def test_out_of_reach_is_infinite_and_a_dropped_target_is_zero() -> None:
    law, two = Logistic(), np.ones(2)
    targets = np.array([0.8, -np.inf])
    found = least_frequency(law, *asked(2), 3e4 * two, 1e3 * two, targets, 1e-3 * two)
    assert found.tolist() == [np.inf, 0.0]


def test_interpolation_is_close_and_exact_points_are_exact() -> None:
    law = Logistic()
    problem = build_problem(Plan.model_validate(plan_dict()), law, Path("."))
    needs = Needs(law)
    tokens = np.geomspace(6e5, 4e7, 23)
    true = np.array(
        [
            [
                closed_form(law, kind, problem.block_params[1], t, 0.8)
                for kind in (("comparison", 8.0), ("modular_addition", 5.0))
            ]
            for t in tokens
        ]
    )
    # Also where no share could give it: next to the edge of what is possible, needs must stay smooth.
    assert (true > problem.density.max(axis=1)).any()
    assert needs.at(problem, 1, tokens) == pytest.approx(true, rel=1e-6)
    assert needs.exact(problem, 1, tokens) == pytest.approx(true, rel=1e-9)


def test_next_to_what_is_out_of_reach_interpolation_errs_to_the_safe_side() -> None:
    x, y = np.log([1.0, 2.0, 4.0]), np.array([np.inf, 3.0, 0.0])
    assert _interpolated(x, y, np.log([1.5, 2.0, 3.0, 4.0])).tolist() == [np.inf, 3.0, 3.0, 0.0]
