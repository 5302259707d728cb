"""Simulated ladders whose truth is known: do 90 % intervals of the learning law hold it about as often?

The full study of 200 repetitions, four forms and three noise levels: benchmarks/law_recovery.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from recovery_of_learning import NOISES, draw_truth, repetition, simulate

from mixplan.laws.forms import COMBINED, FORMS, LOGISTIC, Form

REPETITIONS = 30
LEAST = int(binom.ppf(1e-4, REPETITIONS, 0.85))
"""An interval that holds the truth in 85 % of all cases does so less often in one of 10,000 studies."""


@pytest.mark.slow
@pytest.mark.parametrize("form", [COMBINED, LOGISTIC], ids=["combined", "logistic"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(form: Form) -> None:
    inside: dict[str, list[bool]] = {}
    for seed in range(REPETITIONS):
        found = repetition(form, NOISES[1], 200, np.random.default_rng([99, seed]))
        for quantity, (estimate, low, high, truth) in found.items():
            assert np.isfinite([estimate, truth]).all() and low <= high
            inside.setdefault(quantity, []).append(low <= truth <= high)
    assert {"mean skill", "skill of a new run", "ln threshold frequency"} <= set(inside)
    assert {f"{parameter.name}, one family" for parameter in form.parameters} <= set(inside)
    for quantity, hits in inside.items():
        assert sum(hits) >= LEAST - (REPETITIONS - len(hits)), (quantity, sum(hits), len(hits))
    share = np.mean([hit for hits in inside.values() for hit in hits])
    assert 0.84 <= share <= 0.97


@pytest.mark.parametrize("name", FORMS)
def test_simulated_tables_have_the_means_that_they_were_made_with(name: str) -> None:
    generator = np.random.default_rng(0)
    truth = draw_truth(FORMS[name], generator)
    # Nearly without noise, a finished cell is the truth.
    evidence = simulate(truth, NOISES[0]._replace(precision=1e5, run=1e-6, task=1e-6), generator)
    done = evidence.finished
    for kind in range(len(evidence.kinds)):
        rows = done & (evidence.kind == kind)
        expected = truth.skill(kind, truth.eta(kind, evidence.log_axes[rows]))
        assert np.abs(evidence.skill[rows] - expected).max() < 0.02
