"""JSON lines as a table: one object a line, as evaluation tools and trainers log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mixplan.documents.loading import read_text
from mixplan.errors import InputError


def read_jsonl(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Every object with its line number, from 1; empty lines are skipped.

    Raises:
        InputError: the file cannot be read, or every line that holds no JSON object.
    """
    found: list[tuple[int, dict[str, Any]]] = []
    problems = []
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            problems.append(f"{path}:{line}: not JSON ({error.msg}, column {error.colno})")
            continue
        if isinstance(value, dict):
            found.append((line, value))
        else:
            problems.append(f"{path}:{line}: a JSON object is needed, not {text:.40}")
    if problems:
        raise InputError(problems)
    return found
