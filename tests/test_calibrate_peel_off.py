"""Peel-off rows against curves that are known."""

from __future__ import annotations

from typing import Any

import pytest

from mixplan.calibrate.peel_off import peel_off
from mixplan.documents import Measurements, read_measurements, write_measurements
from mixplan.documents.measurements import ROWS, TEXT_COLUMNS
from mixplan.documents.table import from_rows


def row(rung: str, tokens: int, lm_loss: float, choice_nll: float, **changes: Any) -> dict[str, Any]:
    size = {"small": 100, "middle": 200, "large": 400}[rung]
    return {
        "run_id": f"{rung}-s0", "rung": rung, "block_params": size, "seed": 0, "step": tokens / 10,
        "tokens": tokens, "task": "t@0.01", "family": "t", "complexity": 4,
        "frequency": 0.01 + 1e-5 * size / 400, "frequency_requested": 0.01, "accuracy": 0.5, "chance": 0.5,
        "skill": 0.0, "choice_nll": choice_nll, "lm_loss": lm_loss, "protocol": "standard", "decayed": 0,
        **changes,
    }  # fmt: skip


LARGE = [row("large", 100, 3.0, 0.7), row("large", 200, 2.0, 0.5), row("large", 300, 1.0, 0.1)]


def excess(rows: list[dict[str, Any]], rung: str) -> list[float | None]:
    return [one["excess_nll"] for one in peel_off(rows) if one["rung"] == rung]


def test_a_size_on_the_same_curve_has_no_excess_and_one_that_peels_off_has() -> None:
    small = [row("small", 100, 2.5, 0.6), row("small", 200, 2.0, 0.6), row("small", 300, 1.5, 0.6)]
    assert excess([*small, *LARGE], "small") == pytest.approx([0.0, 0.1, 0.3])
    found = peel_off([*small, *LARGE])
    assert [one["reference_choice_nll"] for one in found[:3]] == pytest.approx([0.6, 0.5, 0.3])


def test_there_is_no_reference_where_the_largest_size_never_was_and_for_itself() -> None:
    small = [row("small", 100, 3.1, 0.7), row("small", 200, 0.9, 0.7)]
    assert excess([*small, *LARGE], "small") == [None, None]
    assert excess([*small, *LARGE], "large") == [None, None, None]
    assert peel_off(LARGE) == []


def test_runs_of_the_largest_size_are_averaged_where_they_went() -> None:
    other = [
        row("large", 100, 2.5, 1.0, run_id="large-s1", seed=1),
        row("large", 200, 1.5, 0.6, run_id="large-s1", seed=1),
    ]
    small = [row("small", 100, 2.0, 0.9), row("small", 200, 1.25, 0.9)]
    # At 2.0: (0.5 + 0.8) ÷ 2; at 1.25 only the first run: 0.2.
    assert excess([*small, *LARGE, *other], "small") == pytest.approx([0.9 - 0.65, 0.9 - 0.2])


def test_other_protocols_other_cells_and_decayed_models_do_not_enter() -> None:
    small = [row("small", 100, 2.0, 0.6), row("small", 300, 1.5, 0.6)]
    foreign = [
        row("large", 150, 2.0, 9.0, protocol="gap 8 steps"),
        row("large", 150, 2.0, 9.0, task="t@0.02", frequency_requested=0.02),
        row("large", 150, 2.0, 9.0, decayed=1),
        row("large", 160, None, 9.0),  # type: ignore[arg-type]
    ]
    branch = row("small", 200, 1.2, 0.1, decayed=1)
    end = row("small", 400, 1.1, 0.1, decayed=1)
    assert excess([*small, branch, end, *LARGE, *foreign], "small") == pytest.approx([0.1, 0.3])


def test_the_table_survives_being_written_and_read(tmp_path) -> None:
    small = [row("small", 100, 3.5, 0.6), row("small", 200, 1.5, 0.6)]
    learning = [*small, *LARGE]
    tables = {"learning": learning, "peel_off": peel_off(learning)}
    made = {
        name: from_rows(rows, TEXT_COLUMNS, list(ROWS[name].model_fields)) for name, rows in tables.items()
    }
    write_measurements(Measurements(**made), tmp_path)
    back = read_measurements(tmp_path).peel_off
    assert back is not None
    assert [one["excess_nll"] for one in back.rows()][:2] == [None, pytest.approx(0.3)]
