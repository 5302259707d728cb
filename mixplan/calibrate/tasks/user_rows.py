"""The rows of a user's task: lines of a JSONL file, or rows of a `datasets` folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixplan.errors import InputError

Row = tuple[str, Any, str]
"""Where the row is, what it holds, and why it cannot be read (empty if it can)."""


def rows_of(path: Path) -> Iterator[Row]:
    """Every row of a file or folder, not checked yet.

    Raises:
        InputError: it cannot be read, or it is a folder and `datasets` is not installed.
    """
    return _datasets_rows(path) if path.is_dir() else _lines(path)


def _lines(path: Path) -> Iterator[Row]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    # Not splitlines: JSON text may hold other line separators than the newline.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line), ""
            except json.JSONDecodeError as error:
                yield f"{path}:{number}", None, f"not JSON: {error.msg}"


def _datasets_rows(folder: Path) -> Iterator[Row]:
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"{folder}: install `datasets` to read a task from a folder, or give it as JSONL"
        ) from None
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise InputError(
            f"{folder}: not a folder written by Dataset.save_to_disk or DatasetDict.save_to_disk ({error})"
        ) from None
    if not isinstance(loaded, datasets.DatasetDict):
        for index, row in enumerate(loaded):
            yield f"{folder}, row {index}", row, ""
        return
    for split, dataset in loaded.items():
        for index, row in enumerate(dataset):
            # The name of the split stands for a missing column.
            yield f"{folder}, {split} row {index}", {"split": str(split), **row}, ""
