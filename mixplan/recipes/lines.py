"""JSON lines: the text of each line's object, of a file or of the lines that start in some of its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.recipes.opened import opened

_READ_BYTES = 1 << 20


def texts_in_lines(
    path: Path, column: str, start: int = 0, stop: int = 0
) -> Iterator[tuple[Callable[[], str], bytes]]:
    """(where the line is, its text as UTF-8); no bytes where it is null.

    Args:
        path: the file, decompressed as its name says.
        column: the field that holds the text.
        start: lines that start at this byte or later, of a file that is not compressed.
        stop: and before this one; 0: to the end.

    Raises:
        InputError: a line is no JSON object with text in that column.
    """
    with opened(path) as file:
        at = _next_line(file, start)
        for number, line in enumerate(file, 1):
            if stop and at >= stop:
                return
            at += len(line)
            if line.strip():
                where = partial(_where, path, start, number)
                yield where, _text(line, column, where)


def _next_line(file: IO[bytes], start: int) -> int:
    """Go to the first line that starts at `start` or later; its place."""
    if start == 0:
        return 0
    file.seek(start - 1)
    return start - 1 + len(file.readline())


def _where(path: Path, start: int, number: int) -> str:
    """FILE:LINE of the `number`-th line that starts at byte `start` or later; counted only for a message."""
    ends, left, last = 0, start, b"\n"
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(left, _READ_BYTES))):
            ends, left, last = ends + chunk.count(b"\n"), left - len(chunk), chunk[-1:]
    within = last != b"\n"  # the range starts inside a line, which is not its own
    return f"{path}:{ends + within + number}"


def _text(line: bytes, column: str, where: Callable[[], str]) -> bytes:
    """The column of one line as UTF-8.

    Raises:
        InputError: the line is no JSON object with text in that column.
    """
    try:
        row: Any = json.loads(line)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where()}: not UTF-8 text (byte {error.start} of the line); convert the file"
        ) from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(
            f"{where()}: not JSON ({error}); format jsonl has one object a line: leave other files out with "
            "`pattern`"
        ) from None
    if not isinstance(row, dict):
        raise InputError(f"{where()}: {type(row).__name__} where an object with {column!r} is needed")
    if column not in row:
        raise InputError(f"{where()}: no column {column!r}{did_you_mean(column, row)}; set data.column")
    if row[column] is None:
        return b""
    if not isinstance(row[column], str):
        raise InputError(
            f"{where()}: {column!r} holds {type(row[column]).__name__}, not text; set data.column"
        )
    try:
        return row[column].encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where()}: {column!r} holds half of a surrogate pair (character {error.start}), which is no "
            "text; repair the file"
        ) from None
