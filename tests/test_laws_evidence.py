"""The learning table as evidence: order does not matter, contradictions are all reported; coverage."""

from __future__ import annotations

import numpy as np
import pytest
from simulate import simulate_measurements

from mixplan.documents import Table
from mixplan.laws.evidence import collect_evidence, contradictions, coverage

SMALL = {"8k": 8_336, "33k": 33_056}


@pytest.fixture(scope="module")
def learning() -> Table:
    return simulate_measurements(rungs=SMALL, seeds=1, checkpoints=4).learning


def changed(table: Table, column: str, row: int, value: object) -> Table:
    values = table[column].copy()
    values[row] = value
    return Table({**table.columns, column: values})


def test_clean_table_has_no_contradictions(learning: Table) -> None:
    assert contradictions(learning) == []


def test_order_of_rows_does_not_matter(learning: Table) -> None:
    shuffled = learning.where(np.random.default_rng(1).permutation(len(learning)))
    first, second = collect_evidence(learning), collect_evidence(shuffled)
    for name in ("run", "kind", "log_axes", "skill", "finished", "cell_share"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert first.run_ids == second.run_ids and first.kinds == second.kinds


def test_every_cell_of_a_run_weighs_one_and_ends_once(learning: Table) -> None:
    evidence = collect_evidence(learning)
    cells = len(SMALL) * 36
    assert evidence.cell_share.sum() == pytest.approx(cells)
    assert evidence.finished.sum() == cells
    assert set(evidence.table["step"][evidence.finished]) == {800.0}


def test_skill_below_chance_is_kept(learning: Table) -> None:
    assert (learning["skill"] < 0).any()
    assert collect_evidence(learning).skill.min() == learning["skill"].min()


def test_run_with_two_sizes(learning: Table) -> None:
    problems = contradictions(changed(learning, "block_params", 0, 9000.0))
    assert any("run_id must have one block_params; 1 have several" in p for p in problems)
    assert any("'8k' with 8336, 9000" in p for p in problems)


def test_run_with_two_seeds_and_rungs(learning: Table) -> None:
    broken = changed(changed(learning, "seed", 0, 5.0), "rung", 1, "33k")
    problems = contradictions(broken)
    assert any("one seed" in p for p in problems) and any("one rung" in p for p in problems)
    assert any("each rung must have one block_params" in p for p in problems)


def test_cell_twice_at_one_step(learning: Table) -> None:
    twice = learning.where(np.r_[np.arange(len(learning)), 3])
    assert any("stand twice at the same step" in p for p in contradictions(twice))


def test_skill_that_contradicts_accuracy(learning: Table) -> None:
    row = int(np.argmax(learning["accuracy"] == 1.0))
    problems = contradictions(changed(learning, "skill", row, 0.5))
    assert any(f"first row {row + 1} with skill 0.5 where accuracy and chance give 1" in p for p in problems)


def test_rounded_accuracy_is_no_contradiction(learning: Table) -> None:
    rounded = Table({**learning.columns, "accuracy": np.round(learning["accuracy"], 2)})
    assert contradictions(rounded) == []


@pytest.mark.parametrize(
    ("intercept", "status"), [(-20.0, "never learned"), (0.0, "bracketed"), (20.0, "always learned")]
)
def test_coverage(intercept: float, status: str) -> None:
    table = simulate_measurements(
        rungs=SMALL, seeds=1, checkpoints=2, intercepts={("comparison", 8): intercept}
    )
    (task,) = coverage(collect_evidence(table.learning), 0.8)
    final = table.learning["skill"][table.learning["step"] == 800]
    assert (task.status, task.cells, task.learned) == (status, 12, int((final >= 0.8).sum()))
