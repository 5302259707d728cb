"""Runs the parts of a testbed and writes what calibrate writes, part by part and while a part trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mixplan.documents.atomic import refuse_foreign, write_json
from mixplan.documents.measurements import ROWS, TEXT_COLUMNS, Measurements, write_measurements
from mixplan.documents.table import from_rows
from mixplan.errors import InputError
from mixplan.testbed.findings import CAPTURED, findings
from mixplan.testbed.parts import Part, checked
from mixplan.testbed.rows import Rows
from mixplan.testbed.training import train

MEASUREMENTS, FINDINGS = "measurements", "findings.json"
SAVE_SECONDS = 60.0
"""While a part trains, its tables are saved about so often."""


def run(
    parts: Sequence[Part], out: Path, device: str, force: bool, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Train all parts; write measurements/ and findings.json.

    Args:
        parts: in the order of training.
        out: folder.
        device: of torch.
        force: replace what an earlier run wrote there.
        tell: takes a line about how far it is.

    Returns:
        The findings by part, as in findings.json.

    Raises:
        InputError: a part cannot run, the device is not there, or the folder holds something else; nothing
            was trained.
    """
    parts = checked(parts)
    _check_device(device)
    refuse_foreign(out, (MEASUREMENTS, FINDINGS), "testbed run")
    if (out / FINDINGS).exists() and not force:
        raise InputError(
            f"{out} holds an earlier run; testbed run does not overwrite it: add --force, or give another "
            "folder with -o"
        )
    done = Rows()
    said: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for part in parts:
        models = len(part.widths) * len(part.seeds) * len(part.gaps)
        tell(f"{part.name}: {models} models, {part.steps:,} steps")
        started, cpu, saved = time.monotonic(), time.process_time(), time.monotonic()

        def progress(step: int, rows: Rows, part: Part = part, earlier: Rows = done) -> None:
            nonlocal saved
            if time.monotonic() - saved > SAVE_SECONDS:
                save(_joined(earlier, rows), parts, facts, out)
                saved = time.monotonic()
                tell(f"{part.name}: {step:,} of {part.steps:,} steps, tables saved")

        rows = train(part, device, progress)
        facts[part.name] = {
            "seconds": round(time.monotonic() - started, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "models": models,
        }
        done = _joined(done, rows)
        said[part.name] = findings(part, rows)
        save(done, parts, facts, out)
        write_json(out / FINDINGS, said)
    return said


def save(rows: Rows, parts: Sequence[Part], facts: dict[str, Any], out: Path) -> None:
    """Write the tables, with what made them as provenance."""
    tables = {
        name: from_rows(found, TEXT_COLUMNS, list(ROWS[name].model_fields))
        for name, found in asdict(rows).items()
        if found
    }
    provenance = {
        # As a calibration says it: half of a task's energy is what the testbed calls learned.
        "calibration": {"name": "testbed", "learned_skill": CAPTURED},
        "testbed": {"parts": [asdict(part) for part in parts], "execution": facts},
        "versions": {name: version(name) for name in ("mixplan", "torch", "numpy")},
    }
    write_measurements(Measurements(**tables, provenance=provenance), out / MEASUREMENTS)


def _joined(first: Rows, second: Rows) -> Rows:
    return Rows(
        first.learning + second.learning,
        first.retention + second.retention,
        first.interference + second.interference,
    )


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used here ({error}); use cpu") from None
