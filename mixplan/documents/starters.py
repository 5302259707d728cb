"""`mixplan init`: commented files to start from, which validate as they are."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from mixplan.documents.atomic import write_text
from mixplan.errors import InputError

_CELLS = """\
block_params,tokens,frequency,family,complexity
33056,3200000,0.0015,table_lookup,4
131648,3200000,0.0015,table_lookup,9
131648,12800000,0.0004,table_lookup,9
295776,3200000,0.0004,comparison,32
"""


def write_starters(directory: Path) -> list[Path]:
    """Write calibration.yaml, plan.yaml, my_task.jsonl (a task of one's own) and cells.csv (for `predict`).

    Returns:
        The files, in that order.

    Raises:
        InputError: one of them exists, or the path is no folder; nothing is written then.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; `mixplan init` needs a folder: give another path")
    templates = files("mixplan.documents") / "starter"
    contents = {
        "calibration.yaml": (templates / "calibration.yaml").read_text(encoding="utf-8"),
        "plan.yaml": (templates / "plan.yaml").read_text(encoding="utf-8"),
        "my_task.jsonl": _example_task(),
        "cells.csv": _CELLS,
    }
    existing = [name for name in contents if (directory / name).exists()]
    if existing:
        raise InputError(
            f"{directory / name} exists and is not overwritten, so nothing was written; give `mixplan init` "
            "a new or empty folder"
            for name in existing
        )
    for name, text in contents.items():
        write_text(directory / name, text)
    return [directory / name for name in contents]


def _example_task() -> str:
    """Is a sequence of three digits rising or falling? Every third triple is held out for testing."""
    triples = [(a, b, c) for a in range(10) for b in range(10) for c in range(10) if a < b < c]
    rows = []
    for index, (a, b, c) in enumerate(triples):
        split = "test" if index % 3 == 2 else "train"
        for prompt, answer in ((f"{a} {b} {c} is ", "rising"), (f"{c} {b} {a} is ", "falling")):
            rows.append(
                {"prompt": prompt, "answer": answer, "choices": ["rising", "falling"], "split": split}
            )
    return "".join(json.dumps(row) + "\n" for row in rows)
