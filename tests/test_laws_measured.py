"""A real ladder: accuracies of three CPU rungs (text as bytes, 3.3 M tokens each, one seed), 18 cells.

Measured by this project, rounded to two decimals. The forecast is of runs that it has not seen.
"""

from __future__ import annotations

import numpy as np
import pytest

from mixplan.documents.measurements import TEXT_COLUMNS, check_table
from mixplan.documents.table import from_rows
from mixplan.laws.backtest import DEFAULT, backtest
from mixplan.laws.baselines import Copy
from mixplan.laws.evidence import Evidence, collect_evidence

SIZES = (8_336, 33_056, 131_648)
ACCURACY = {
    ("modular_addition", 5): {
        1.0: (1.00, 1.00, 1.00), 0.5: (0.21, 1.00, 1.00), 0.25: (0.46, 0.31, 1.00),
        0.12: (0.12, 0.41, 0.93), 0.06: (0.16, 0.30, 0.67), 0.03: (0.27, 0.27, 0.27),
    },
    ("modular_addition", 9): {
        1.0: (0.11, 1.00, 1.00), 0.5: (0.27, 0.40, 1.00), 0.25: (0.12, 0.20, 0.74),
        0.12: (0.15, 0.24, 0.37), 0.06: (0.07, 0.10, 0.23), 0.03: (0.12, 0.12, 0.13),
    },
    ("comparison", 8): {
        1.0: (1.00, 1.00, 1.00), 0.5: (0.96, 1.00, 1.00), 0.25: (0.96, 1.00, 1.00),
        0.12: (0.88, 0.97, 0.88), 0.06: (0.68, 0.81, 0.94), 0.03: (0.51, 0.66, 0.80),
    },
}  # fmt: skip
"""Accuracy at each size, by task kind and instances per sequence of 128 tokens."""


@pytest.fixture(scope="module")
def ladder() -> Evidence:
    rows = []
    for (family, complexity), by_frequency in ACCURACY.items():
        chance = 0.5 if family == "comparison" else 1 / complexity
        for per_sequence, accuracies in by_frequency.items():
            for size, accuracy in zip(SIZES, accuracies, strict=True):
                rows.append({
                    "run_id": f"run-{size}", "rung": f"{size}", "block_params": size, "seed": 0, "step": 800,
                    "tokens": 800 * 4096, "task": f"{family}-{complexity}-{per_sequence}", "family": family,
                    "complexity": complexity, "frequency": per_sequence / 128, "accuracy": accuracy,
                    "chance": chance, "skill": (accuracy - chance) / (1 - chance),
                })  # fmt: skip
    table = from_rows(rows, TEXT_COLUMNS)
    assert check_table(table, "learning", "learning") == []
    return collect_evidence(table)


def test_two_runs_forecast_the_third_better_than_copying(ladder: Evidence) -> None:
    found = backtest(ladder, 0.8, 100, 0).backtest
    scores = {score.forecast: score for score in found.scores}
    law, copy, logistic = scores[DEFAULT], scores[Copy.name], scores["logistic"]
    # Learned where the copied cell was: the copy that is scored knows how far off copying was before.
    sure = np.mean([(c.copied is not None and c.copied >= 0.8) != (c.observed >= 0.8) for c in found.cells])
    assert logistic.brier < 0.6 * sure and logistic.skill_brier < 0.4 * copy.skill_brier
    # Two runs cannot tell the forms of the default apart from what it knew before: it gains less.
    assert law.brier < 0.7 * sure and law.skill_brier < 0.7 * copy.skill_brier
    assert law.log_score is not None and copy.log_score is not None and law.log_score > copy.log_score + 0.5
    assert law.auroc is not None and law.auroc > 0.85
    assert law.coverage_90 is not None and law.coverage_90 >= 0.85


def test_forecast_is_monotone_over_the_measured_cells(ladder: Evidence) -> None:
    every = backtest(ladder, 0.8, 50, 0).backtest.cells
    for kind in ACCURACY:
        cells = [c for c in every if (c.family, c.complexity) == kind]
        by_frequency = [c.predicted for c in sorted(cells, key=lambda c: c.frequency)]
        assert np.all(np.diff(by_frequency) >= 0)
