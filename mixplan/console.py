"""The only place that prints. Results go to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mixplan.errors import MixplanError
from mixplan.units import byte_size, duration, number

_RUN_COLUMNS = ("run", "status", "step", "tokens/s", "loss", "time left")


def say(text: str = "") -> None:
    """A line of result on standard output."""
    print(text, flush=True)


def note(text: str) -> None:
    """A line about what is going on, on standard error."""
    print(text, file=sys.stderr, flush=True)


def notes(texts: Iterable[str], label: str = "note") -> None:
    """Several of them, each after what it is."""
    for text in texts:
        note(f"{label}: {text}")


def wrote(paths: Iterable[Path]) -> None:
    """The files that a command made."""
    for path in paths:
        say(f"wrote {path}")


def emit_json(value: Any) -> None:
    """A JSON document on standard output, for programs."""
    print(json.dumps(value, indent=2, allow_nan=False), flush=True)


def fail(error: MixplanError) -> None:
    """Every problem of an error, one a line, on standard error."""
    label = "error" if error.exit_code == 2 else "no"
    for problem in error.problems:
        print(f"{label}: {problem}", file=sys.stderr, flush=True)


def resolved(given: Path, file: str | None = None) -> Path:
    """A path as it is; for `ref:NAME` the shipped reference, or a file of it, announced on standard error."""
    from mixplan.documents.references import resolve

    path, warning = resolve(given)
    if warning is None:
        return path
    note(f"warning: {warning}")
    return path / file if file else path


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
        padded = [
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(padded).rstrip())
    sys.stdout.flush()


def tables(drawn: Iterable[tuple[str, Sequence[str], Iterable[Sequence[Any]]]], gap: bool = False) -> None:
    """Several tables, each as title, columns and rows; with `gap` an empty line after each."""
    for shown in drawn:
        table(*shown)
        if gap:
            say()


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


class RunsDisplay:
    """One display for all runs: a live table on a terminal, else a plain line now and then."""

    def __init__(self, every_seconds: float = 15.0) -> None:
        self._live: Any = None
        self._every = every_seconds
        self._told = 0.0
        self._statuses: dict[str, str] = {}

    def __enter__(self) -> RunsDisplay:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def update(self, states: Sequence[Any]) -> None:
        """Show the runs; `states` have run_id, status, step, steps, tokens_per_second, loss, seconds_left."""
        if self._live is not None:
            from rich.table import Table

            drawn = Table(box=None, header_style="bold")
            for name in _RUN_COLUMNS:
                drawn.add_column(name, justify="left" if name in ("run", "status") else "right")
            for state in states:
                drawn.add_row(*_run_row(state))
            self._live.update(drawn)
            return
        changed = [s for s in states if self._statuses.get(s.run_id, "waiting") != s.status]
        self._statuses = {s.run_id: s.status for s in states}
        due = time.monotonic() - self._told > self._every
        if due:
            self._told = time.monotonic()
        for state in states if due else changed:
            if state in changed or state.status == "running":
                run, status, step, rate, loss, left = _run_row(state)
                note(f"{run}: {status}, step {step}, {rate} tokens/s, loss {loss}, {left} left")


class Bar:
    """How far something long is, in bytes: a bar on a terminal, else a plain line now and then."""

    def __init__(self, what: str, every_seconds: float = 15.0) -> None:
        self._what = what
        self._every = every_seconds
        self._told = time.monotonic()
        self._live: Any = None
        self._task: Any = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = TextColumn(self._what), BarColumn(), DownloadColumn(), TimeRemainingColumn()
            self._live = Progress(*columns, console=Console(stderr=True), transient=True)
            self._live.__enter__()
            self._task = self._live.add_task(self._what, total=None)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def update(self, done: int, total: int) -> None:
        """Show how many of all bytes are done."""
        if self._live is not None:
            self._live.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._told > self._every:
            self._told = time.monotonic()
            note(f"{self._what}: {byte_size(done)} of {byte_size(total)}")


def runs_table(states: Sequence[Any]) -> None:
    """The runs as a table on standard output."""
    table(f"{len(states)} runs", _RUN_COLUMNS, [_run_row(state) for state in states])


def _run_row(state: Any) -> list[str]:
    over = state.status in ("finished", "diverged", "failed")
    return [
        state.run_id,
        state.status,
        f"{state.step}/{state.steps}",
        number(state.tokens_per_second),
        "–" if state.loss is None else f"{state.loss:.3f}",
        "–" if state.seconds_left is None or over else duration(state.seconds_left),
    ]
