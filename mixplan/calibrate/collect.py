"""Run folders become measurements: tables and where they came from."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from mixplan.calibrate.dependence import dependence_rows
from mixplan.calibrate.peel_off import peel_off
from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.provenance import merge_runs, mixed_notes
from mixplan.calibrate.runs import DamagedMetrics, RunSpec
from mixplan.calibrate.source_skill import source_learning
from mixplan.calibrate.sources import ZERO
from mixplan.documents.measurements import ROWS, TEXT_COLUMNS, Measurements
from mixplan.documents.table import from_rows
from mixplan.errors import InputError

Entries = dict[str, list[dict[str, Any]]]
"""Measurements of a run by table: the row, when, and in which branch it was measured."""


def collect(out: Path) -> tuple[Measurements, list[str]]:
    """Gather the measurements of all finished runs, smallest rung first.

    Cells come from the runs that hold all of them over base text and at most the sources' shares. The runs in
    which a source saturates have another base text and those of the dependence check another mix of cells:
    they only enter the tables `sources` and `dependence`. Of the sources' losses the learning table gets
    those between the anchors, as skill. LM loss is left to runs of base text alone.

    Returns:
        The measurements, and notes: runs that are missing, diverged or damaged and left out, sources without
        skill, what the dependence check found.

    Raises:
        InputError: no ladder, or nothing measured yet.
    """
    prepared = Prepared.read(out)
    finished, statuses, notes = _finished(prepared)
    standard = [
        (run, found) for run, found in finished if run.only_cell is None and run.anchor in (None, ZERO)
    ]
    tables: dict[str, list[dict[str, Any]]] = {
        name: [entry["row"] for _, found in standard for entry in found[name]] for name in ROWS
    }
    tables["sources"] = [
        {**entry["row"], "anchor": run.anchor} for run, found in finished for entry in found["sources"]
    ]
    skills, more = source_learning(prepared.spec, [(run, found["sources"]) for run, found in finished])
    # Base text is not all that such a run reads: its loss there is not that of a run of so many tokens of it.
    mixed = {run.run_id for run, _ in finished if run.shares}
    tables["learning"] = [
        {**row, "lm_loss": None} if row["run_id"] in mixed else row for row in [*tables["learning"], *skills]
    ]
    tables["dependence"], said = dependence_rows(
        [(run, [entry["row"] for entry in found["learning"]]) for run, found in finished],
        [run for run in prepared.runs() if run.only_cell is not None],
    )
    notes += more + said
    tables["peel_off"] = peel_off(tables["learning"])
    if not tables["learning"]:
        what = "nothing for the learning table" if finished else "no finished run"
        raise InputError([f"{out}: {what} yet; `mixplan status {out}` tells how far they are", *notes])
    executed = _executed(prepared, [run for run, _ in finished])
    notes += mixed_notes(executed)
    provenance = {
        "calibration": prepared.spec.model_dump(mode="json"),
        "runs": statuses,
        "execution": merge_runs(executed),
        **prepared.facts,
    }
    made = {
        name: from_rows(rows, TEXT_COLUMNS, list(ROWS[name].model_fields))
        for name, rows in tables.items()
        if rows
    }
    return Measurements(**made, provenance=provenance), notes


def _finished(
    prepared: Prepared,
) -> tuple[list[tuple[RunSpec, Entries]], dict[str, list[str]], list[str]]:
    """Finished runs with their measurements, smallest rung first; run ids by status; notes."""
    finished: list[tuple[RunSpec, Entries]] = []
    statuses: dict[str, list[str]] = {"finished": [], "diverged": [], "unfinished": [], "damaged": []}
    notes: list[str] = []
    for run in sorted(prepared.runs(), key=lambda run: (run.shape.block_params, run.tokens, run.run_id)):
        folder = prepared.folder(run)
        done = folder.done()
        status = done["status"] if done else "unfinished"
        if status == "finished":
            entries: Entries = defaultdict(list)
            try:
                for row in folder.rows():
                    entries[row["kind"]].append(row)
            except DamagedMetrics as damage:
                status = "damaged"
                notes.append(
                    f"{run.run_id} left out: {damage}; to train it again, delete {folder.path / 'done.json'} "
                    "and run `mixplan calibrate` again"
                )
            else:
                finished.append((run, entries))
        statuses[status].append(run.run_id)
    for status, what in (("unfinished", "not finished, left out"), ("diverged", "diverged, left out")):
        if statuses[status]:
            notes.append(f"{len(statuses[status])} run(s) {what}: {', '.join(statuses[status])}")
    return finished, statuses, notes


def _executed(prepared: Prepared, runs: list[RunSpec]) -> dict[str, dict[str, Any]]:
    """What done.json says of each run besides its status: time, tokens, hardware, versions, code."""
    said = {run.run_id: prepared.folder(run).done() or {} for run in runs}
    return {name: {key: done[key] for key in done if key != "status"} for name, done in said.items()}
