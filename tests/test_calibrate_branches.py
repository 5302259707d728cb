"""Branches and probes leave the trunk alone; a branch is the run that its horizon would have been."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from ladders import TINY, write_ladder

from mixplan.calibrate.distributed import SAVE, World
from mixplan.calibrate.prepared import Prepared, prepare
from mixplan.calibrate.runs import RunFolder, RunSpec
from mixplan.calibrate.training import Run
from mixplan.documents import CalibrationSpec, load

TOKENS = 256
"""Training tokens a step."""
PROBES = {"evaluations": 8, "lm_loss_tokens": 512, "retention": None, "interference": None, "features": None}


def ladder(folder: Path, probes: dict[str, Any]) -> tuple[Prepared, RunSpec]:
    """One run of 40 steps, with branches that leave after 16 and 24 of them and end after 20 and 30."""
    path = write_ladder(
        folder,
        ladder=[TINY],
        horizons={"tokens": [20 * TOKENS, 30 * TOKENS, 40 * TOKENS]},
        training={"batch_sequences": 4, "decay_fraction": 0.2},
        # Two a step and one every second step: the same steps whatever the length of the run.
        tasks=[{"family": "comparison", "complexities": [6], "frequencies": [2 / TOKENS, 0.5 / TOKENS]}],
        probes=probes,
    )
    prepared, _ = prepare(load(path, CalibrationSpec), folder, folder / "out")
    (run,) = prepared.runs()
    return prepared, run


def trained(prepared: Prepared, run: RunSpec, name: str) -> list[dict[str, Any]]:
    """All that a run writes down, trained in a folder of its own."""
    folder = RunFolder(prepared.out / "runs" / name)
    folder.create(run)
    Run(prepared, folder, World("cpu", threading.Event())).train()
    return list(folder.rows())


def test_the_trunk_is_the_run_without_branches(tmp_path: Path) -> None:
    retention = {"at_fractions": [0.25, 0.5], "instances": 4, "burst_steps": 2, "replicas": 2,
                 "delays_steps": [0, 1, 4, 8]}  # fmt: skip
    probes = {
        **PROBES, "retention": retention, "interference": {"points": 8, "batch_sequences": 4},
        "features": {"points": 4, "contexts": 2},
    }  # fmt: skip
    prepared, run = ladder(tmp_path, probes)
    assert [(branch.fork_step, branch.end_step) for branch in run.branches] == [(16, 20), (24, 30)]
    branched = trained(prepared, run, "branched")
    plain = trained(prepared, run.model_copy(update={"branches": []}), "plain")
    trunk = [entry for entry in branched if entry["branch"] is None]
    # Where a branch ends, the run without branches evaluates itself and the trunk does not.
    assert trunk == [
        entry for entry in plain if entry["kind"] != "learning" or entry["at_step"] not in (20, 30)
    ]
    assert {entry["at_step"] for entry in trunk if entry["kind"] == "learning"} >= {10, 25, 35, 40}


@pytest.mark.parametrize("number", [0, 1])
def test_a_branch_is_the_run_that_its_horizon_would_have_been(tmp_path: Path, number: int) -> None:
    prepared, run = ladder(tmp_path, PROBES)
    branch = run.branches[number]
    shorter = {"branches": [], "steps": branch.end_step, "decay_steps": branch.end_step - branch.fork_step}
    alone = trained(prepared, run.model_copy(update=shorter), "alone")
    found = [entry["row"] for entry in trained(prepared, run, "branched") if entry["branch"] == number]
    assert len(found) == 2 and all(row["decayed"] for row in found)
    assert found == [entry["row"] for entry in alone if entry["at_step"] == branch.end_step]


def test_probes_leave_training_alone(tmp_path: Path) -> None:
    more = {"interference": {"points": 8, "batch_sequences": 4}, "features": {"points": 8, "contexts": 2}}
    rows = []
    for name, probes in (("bare", PROBES), ("probed", {**PROBES, **more})):
        prepared, run = ladder(tmp_path / name, probes)
        rows.append([entry for entry in trained(prepared, run, "run") if entry["kind"] == "learning"])
    assert rows[0] == rows[1]


class SavesEveryStep(World):
    def order(self, save: bool) -> int:
        return SAVE


def test_killed_between_a_branchs_rows_and_the_checkpoint_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, run = ladder(tmp_path, PROBES)
    whole = trained(prepared, run, "whole")
    folder = RunFolder(prepared.out / "runs" / "killed")
    folder.create(run)
    killed = Run(prepared, folder, SavesEveryStep("cpu", threading.Event()))
    save = killed.checkpoints.save

    def dies(state: dict[str, Any], kind: str = "state") -> None:
        if state["branches_done"] == 1:
            raise KeyboardInterrupt
        save(state, kind)

    monkeypatch.setattr(killed.checkpoints, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    Run(prepared, folder, World("cpu", threading.Event())).train()
    key = str  # a branch is measured when it is trained
    assert sorted(folder.rows(), key=key) == sorted(whole, key=key)
