"""The only place that prints. Results go to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from mixplan.errors import MixplanError


def say(text: str = "") -> None:
    """A line of result on standard output."""
    print(text, flush=True)


def note(text: str) -> None:
    """A line about what is going on, on standard error."""
    print(text, file=sys.stderr, flush=True)


def emit_json(value: Any) -> None:
    """A JSON document on standard output, for programs."""
    print(json.dumps(value, indent=2, allow_nan=False), flush=True)


def fail(error: MixplanError) -> None:
    """Every problem of an error, one a line, on standard error."""
    label = "error" if error.exit_code == 2 else "no"
    for problem in error.problems:
        print(f"{label}: {problem}", file=sys.stderr, flush=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on standard output: first column left, numbers right; plain text where there is no terminal."""
    cells = [[_text(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        drawn = Table(title=title, title_justify="left", header_style="bold")
        for index, name in enumerate(columns):
            drawn.add_column(name, justify="left" if index == 0 else "right")
        for row in cells:
            drawn.add_row(*row)
        Console().print(drawn)
        return
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    print(title)
    for row in [list(columns), *cells]:
        padded = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  " + "  ".join(padded).rstrip())
    sys.stdout.flush()


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: 1.2K, 3.4M, 5.6B, 7.8T; small ones in significant digits; '–' for none."""
    if value is None:
        return "–"
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{unit}" if abs(value) < 1e15 else f"{value:.{digits}g}"
    return f"{value:.{digits}g}"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
