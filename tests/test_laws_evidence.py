"""The learning table as evidence: order does not matter, contradictions are all reported; coverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulate import simulate_measurements

from mixplan.documents import Table
from mixplan.errors import InputError
from mixplan.laws.calibration import fit_calibration
from mixplan.laws.evidence import collect_evidence, contradictions, coverage, standard_rows
from mixplan.laws.lm_loss import loss_rows

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


def test_a_kind_without_a_final_cell_was_never_finished(learning: Table) -> None:
    kind = (learning["family"] == learning["family"][0]) & (
        learning["complexity"] == learning["complexity"][0]
    )
    final = learning["step"] == learning["step"].max()
    tasks = coverage(collect_evidence(learning.where(~(kind & final))), 0.8)
    open_ = [task for task in tasks if task.status == "never finished"]
    assert [(task.family, task.complexity) for task in open_] == [
        (learning["family"][0], learning["complexity"][0])
    ]
    assert (open_[0].cells, open_[0].learned) == (0, 0) and len(tasks) > 1


def with_columns(table: Table, **columns: np.ndarray) -> Table:
    return Table({**table.columns, **columns})


def test_a_branch_ends_a_horizon_too(learning: Table) -> None:
    """`decayed` says where a horizon ends: on the way (a branch) and at the end of the run."""
    ends = (learning["step"] == 400) | (learning["step"] == 800)
    evidence = collect_evidence(with_columns(learning, decayed=ends.astype(float)))
    assert evidence.finished.sum() == 2 * collect_evidence(learning).finished.sum()
    assert set(evidence.table["step"][evidence.finished]) == {400.0, 800.0}


def test_a_run_that_says_nothing_of_decays_ends_at_its_last_step(learning: Table) -> None:
    silent = learning["run_id"] == learning["run_id"][0]
    ends = np.where(silent, np.nan, (learning["step"] == 400).astype(float))
    evidence = collect_evidence(with_columns(learning, decayed=ends))
    own = evidence.table["run_id"] == learning["run_id"][0]
    assert set(evidence.table["step"][evidence.finished & own]) == {800.0}
    assert set(evidence.table["step"][evidence.finished & ~own]) == {400.0}


def test_branches_of_a_run_are_final_rows_of_the_lm_loss_law(learning: Table) -> None:
    ends = (learning["step"] == 400) | (learning["step"] == 800)
    rows = loss_rows(collect_evidence(with_columns(learning, decayed=ends.astype(float))))
    assert rows is not None
    assert rows.finished.sum() == 2 * len(SMALL)
    assert len(set(rows.tokens[rows.finished])) == 2


def test_no_end_at_all_is_a_problem(learning: Table) -> None:
    (problem,) = contradictions(with_columns(learning, decayed=np.zeros(len(learning))))
    assert "`decayed` is 1 in no row" in problem


def protocols(table: Table, **of_task: str) -> Table:
    first = sorted(set(table["task"]))[: len(of_task)]
    named = dict(zip(first, of_task.values(), strict=True))
    values = [named.get(task, "standard") for task in table["task"]]
    return with_columns(table, protocol=np.array(values, dtype=object))


def test_only_standard_cells_are_kept_and_the_others_counted(learning: Table) -> None:
    table = protocols(learning, a="gap 64 steps", b="8 unique instances")
    kept, (warning,) = standard_rows(table, "learning")
    others = table["protocol"] != "standard"
    assert len(kept) == (~others).sum() and set(kept["protocol"]) == {"standard"}
    cells = len({(r, t) for r, t in zip(table["run_id"][others], table["task"][others], strict=True)})
    assert f"{cells} of " in warning and "'8 unique instances', 'gap 64 steps'" in warning


def test_an_empty_protocol_is_the_standard_one(learning: Table) -> None:
    for value in ("", "standard"):
        table = with_columns(learning, protocol=np.array([value] * len(learning), dtype=object))
        kept, warnings = standard_rows(table, "learning")
        assert len(kept) == len(learning) and warnings == []
    assert standard_rows(learning, "learning") == (learning, [])


def test_a_ladder_of_another_protocol_throughout_is_fitted_by_what_its_cells_share(learning: Table) -> None:
    every = np.array(["start"] * len(learning), dtype=object)
    kept, (warning,) = standard_rows(with_columns(learning, protocol=every), "learning")
    assert len(kept) == len(learning) and "protocol 'start'" in warning
    every[learning["task"] == learning["task"][0]] = "gap 8 steps, start"
    kept, warnings = standard_rows(with_columns(learning, protocol=every), "learning")
    assert set(kept["protocol"]) == {"start"} and len(warnings) == 2
    every[every == "start"] = "poisson"
    with pytest.raises(InputError, match="none that the others only add to"):
        standard_rows(with_columns(learning, protocol=every), "learning")


def test_a_fit_sees_standard_rows_only() -> None:
    """Cells that are spoilt by another protocol change nothing but the warnings."""
    tables = simulate_measurements(rungs=SMALL, seeds=1, checkpoints=2)
    first = sorted(set(tables.learning["task"]))[0]
    plain = replace(
        tables, learning=tables.learning.where(tables.learning["task"] != first), interference=None
    )
    spoilt = with_columns(
        protocols(tables.learning, a="gap 64 steps"),
        accuracy=np.where(
            tables.learning["task"] == first, tables.learning["chance"], tables.learning["accuracy"]
        ),
        skill=np.where(tables.learning["task"] == first, 0.0, tables.learning["skill"]),
    )
    mixed = replace(tables, learning=spoilt, interference=None)
    a, b = (fit_calibration(m, draws=20) for m in (plain, mixed))
    assert a.learning == b.learning and a.lm_loss == b.lm_loss and a.tasks == b.tasks
    assert [w for w in b.warnings if w not in a.warnings] == [
        f"learning: 2 of {2 * 36} cells (counted in every run) were injected by other protocols "
        "('gap 64 steps') and are left out of the laws"
    ]
