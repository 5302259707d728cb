"""The dependence check: cells alone against the same cells beside all others."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from ladders import TINY, write_ladder

from mixplan.calibrate.batches import Batches
from mixplan.calibrate.collect import collect
from mixplan.calibrate.dependence import dependence_rows
from mixplan.calibrate.distributed import World
from mixplan.calibrate.prepared import Prepared, prepare
from mixplan.calibrate.training import train
from mixplan.documents import CalibrationSpec, load, read_measurements, write_measurements

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two cells, two horizons, two seeds; one cell alone on one rung."""
    folder = tmp_path_factory.mktemp("dependence")
    path = write_ladder(
        folder,
        ladder=[TINY],
        horizons={"tokens": [5120, 10240]},
        seeds=[0, 1],
        dependence={"cells": 1},
        probes={"evaluations": 2, "lm_loss_tokens": 512, "retention": None, "interference": None},
    )
    prepared, _ = prepare(load(path, CalibrationSpec), folder, folder / "out")
    for run in prepared.runs():
        train(prepared.out, run.run_id, 1, World("cpu", threading.Event()))
    return prepared


def test_a_cell_alone_has_the_tokens_it_has_beside_the_others(measured: Prepared) -> None:
    alone = next(run for run in measured.runs() if run.only_cell is not None)
    together = next(run for run in measured.runs() if run.only_cell is None and run.seed == alone.seed)
    (lone,) = measured.cells(alone)
    (same,) = [cell for cell in measured.cells(together) if cell.task.name == alone.only_cell]
    assert lone.task == same.task and lone.frequency == same.frequency
    batches = Batches(measured, alone, [lone], [])
    batch, owners = batches.with_owners(5)
    instances = [*lone.task.train, *lone.task.test]
    symbols = {token for one in instances for part in (one.prompt, *one.choices) for token in part}
    assert set(np.unique(batch[batch > 256])) <= symbols
    assert set(np.unique(owners)) == {-1, 0}
    # And at the same steps: only what stands around them differs.
    everything = Batches(measured, together, measured.cells(together), [])
    index = [cell.task.name for cell in measured.cells(together)].index(lone.task.name)
    for step in range(alone.steps):
        documents, whose = everything.injector.documents_at(step)
        own = [document for document, cell in zip(documents, whose, strict=True) if cell == index]
        assert batches.injector.documents_at(step)[0] == own


def test_the_table_compares_like_with_like(measured: Prepared, tmp_path: Path) -> None:
    measurements, notes = collect(measured.out)
    write_measurements(measurements, tmp_path)
    table = read_measurements(tmp_path).dependence
    assert table is not None
    # At the end of each horizon, where the learning rate has decayed.
    assert sorted(table["tokens"]) == [5120.0, 10240.0]
    learning = measurements.learning
    assert not any("alone" in run for run in learning["run_id"])
    for row in table.rows():
        at = (learning["task"] == row["task"]) & (learning["tokens"] == row["tokens"])
        at &= learning["decayed"] == 1
        skills = dict(zip(learning["seed"][at], learning["skill"][at], strict=True))
        assert set(skills) == {0.0, 1.0}
        assert row["skill_together"] == skills[row["seed"]]
        assert row["skill_difference"] == pytest.approx(row["skill_alone"] - row["skill_together"])
        assert row["skill_seed_sd"] == pytest.approx(np.std(list(skills.values()), ddof=1))
        difference = row["choice_nll_alone"] - row["choice_nll_together"]
        assert row["choice_nll_difference"] == pytest.approx(difference) and difference != 0
        assert row["run_id"].endswith("-alone0") and row["together_run_id"] == row["run_id"][:-7]
    (said,) = [note for note in notes if note.startswith("dependence check")]
    worst = max(table.rows(), key=lambda row: abs(row["skill_difference"]))
    assert f"{worst['skill_difference']:+.3f}" in said and "2 comparisons" in said


def test_what_is_missing_is_said(measured: Prepared) -> None:
    runs = [
        (run, [row["row"] for row in measured.folder(run).rows() if row["kind"] == "learning"])
        for run in measured.runs()
    ]
    alone = [run for run, _ in runs if run.only_cell is not None]
    lone = [pair for pair in runs if pair[0].only_cell is not None]
    assert dependence_rows(runs, []) == ([], [])
    rows, (note,) = dependence_rows(lone, alone)
    assert rows == [] and "1 run(s) have nothing to compare yet" in note
    one_seed = [(run, found) for run, found in runs if run.seed == alone[0].seed]
    rows, (note,) = dependence_rows(one_seed, alone)
    assert [row["skill_seed_sd"] for row in rows] == [None, None] and "one seed only" in note
