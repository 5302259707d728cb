"""Run folders become measurements: three tables and where they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixplan.calibrate.prepared import Prepared
from mixplan.documents.measurements import ROWS, TEXT_COLUMNS, Measurements
from mixplan.documents.table import Table, from_rows
from mixplan.errors import InputError


def collect(out: Path) -> tuple[Measurements, list[str]]:
    """Gather the measurements of all finished runs, smallest rung first.

    Returns:
        The measurements, and notes: runs that are missing, and diverged runs, which are left out.

    Raises:
        InputError: no ladder, or no finished run.
    """
    prepared = Prepared.read(out)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS}
    statuses: dict[str, list[str]] = {"finished": [], "diverged": [], "unfinished": []}
    for run in sorted(prepared.runs(), key=lambda run: (run.shape.block_params, run.tokens, run.run_id)):
        folder = prepared.folder(run)
        done = folder.done()
        statuses[done["status"] if done else "unfinished"].append(run.run_id)
        if done and done["status"] == "finished":
            for row in folder.rows():
                tables[row["kind"]].append(row["row"])
    if not tables["learning"]:
        raise InputError(f"{out}: no finished run yet; `mixplan status {out}` tells how far they are")
    notes = [
        f"{len(runs)} run(s) {what}: {', '.join(runs)}"
        for what, runs in (
            ("not finished, left out", statuses["unfinished"]),
            ("diverged, left out", statuses["diverged"]),
        )
        if runs
    ]
    provenance = {
        "calibration": prepared.spec.model_dump(mode="json"),
        "runs": statuses,
        **prepared.facts,
    }
    made: dict[str, Table | None] = {
        name: from_rows(rows, TEXT_COLUMNS, list(ROWS[name].model_fields)) if rows else None
        for name, rows in tables.items()
    }
    learning = made["learning"]
    assert learning is not None
    return Measurements(learning, made["retention"], made["interference"], provenance), notes
