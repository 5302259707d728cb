"""The testbed's figure in the report: its numbers, and that it stays out of other reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mixplan.documents.measurements import TEXT_COLUMNS, Measurements
from mixplan.documents.table import Table, from_rows
from mixplan.report.figures import testbed
from mixplan.report.figures.base import Sizes

SIZES = Sizes([("width_2", 2.0), ("width_4", 4.0)])


def learning(signals: dict[tuple[str, int, int], float]) -> Table:
    """Final rows by task, width and seed; task a has critical width 2, b 4."""
    tasks: dict[str, dict[str, Any]] = {
        "a": {"frequency": 0.2, "first_feature_utility": 0.2, "first_critical_width": 2},
        "b": {"frequency": 0.8, "first_feature_utility": 0.1, "first_critical_width": 4},
    }
    rows = [
        {
            "run_id": f"w{width}-s{seed}", "rung": f"width_{width}", "block_params": width, "seed": seed,
            "step": 10, "tokens": 100, "task": task, "family": "linear_regression", "complexity": 1,
            "accuracy": 0.5, "chance": 0, "skill": 0.5, "decayed": 1, "protocol": "standard",
            "first_feature_signal": signal, **tasks[task],
        }
        for (task, width, seed), signal in signals.items()
    ]  # fmt: skip
    return from_rows(rows, TEXT_COLUMNS)


FOUND = {
    ("a", 2, 0): 0.9, ("a", 2, 1): 0.7, ("a", 4, 0): 1.0, ("a", 4, 1): 1.0,
    ("b", 2, 0): -0.1, ("b", 2, 1): -0.1, ("b", 4, 0): 0.3, ("b", 4, 1): 0.5,
}  # fmt: skip


def retention() -> Table:
    rows = [
        {
            "run_id": f"w{width}-s{seed}", "rung": f"width_{width}", "block_params": width, "seed": seed,
            "task": "b", "delay_tokens": delay, "gap_tokens": 64.0,
            "skill": (0.1 if width == 2 else 0.8) + 0.2 * seed - 0.001 * delay,
        }
        for width in (2, 4) for seed in (0, 1) for delay in (0, 8, 32)
    ]  # fmt: skip
    return from_rows(rows, TEXT_COLUMNS)


def test_the_phase_diagram_counts_agreement_with_the_theory() -> None:
    found = testbed.phase(learning(FOUND))
    assert found.task == ["a", "b"] and found.width.tolist() == [2, 4]
    assert found.signal.ravel().tolist() == pytest.approx([0.8, 1.0, -0.1, 0.4])
    assert found.agrees.tolist() == [[True, True], [True, False]]
    figure = testbed.figure(Measurements(learning=learning(FOUND), retention=retention()), SIZES)
    assert figure is not None and figure.finding.startswith("In 3 of 4 cells")
    assert "Injected every 64 samples" in figure.body


def test_an_unmeasured_cell_is_not_counted() -> None:
    some = {key: value for key, value in FOUND.items() if key[:2] != ("b", 4)}
    figure = testbed.figure(Measurements(learning=learning(some)), SIZES)
    assert figure is not None and figure.finding.startswith("In 3 of 3 cells")


def test_traces_are_means_over_seeds() -> None:
    curves = testbed.traces(retention())[64.0]
    assert curves["width_2", 2.0][:, 0].tolist() == [0, 8, 32]
    assert curves["width_2", 2.0][:, 1] == pytest.approx([0.2, 0.192, 0.168])
    assert curves["width_4", 4.0][:, 1] == pytest.approx([0.9, 0.892, 0.868])


def test_tables_of_others_have_no_such_figure() -> None:
    table = learning(FOUND)
    plain = Table({name: values for name, values in table.columns.items() if not name.startswith("first_")})
    measured = Measurements(learning=plain, retention=retention())
    assert testbed.figure(measured, SIZES) is None
    gaps = Table({**table.columns, "protocol": np.array(["gap 2 steps", "gap 4 steps"] * 4, dtype=object)})
    assert testbed.figure(replace(measured, learning=gaps), SIZES) is None
