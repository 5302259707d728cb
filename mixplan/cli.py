"""The command line: one short function a command; parse, call, show. Heavy imports happen inside commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="mixplan",
    help="Plan the size and the data mixture of a pretraining run so that the rare skills are learned too.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace the output file if it exists.")]


def main() -> None:
    """Run the app; errors meant for the user become messages and exit codes (0 done, 1 no, 2 wrong input)."""
    from mixplan import console
    from mixplan.errors import MixplanError

    try:
        app()
    except MixplanError as error:
        console.fail(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console.note("interrupted; the same command continues where it can")
        sys.exit(130)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Folder for the starter files; created if missing.")],
) -> None:
    """Write commented starter files that validate."""
    from mixplan import console
    from mixplan.documents.starters import write_starters

    for path in write_starters(directory):
        console.say(f"wrote {path}")


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Documents, or measurements folders.")],
) -> None:
    """Check files: every error at once, with line numbers and "did you mean"."""
    from mixplan import console
    from mixplan.documents.registry import validate as check
    from mixplan.errors import InputError

    problems: list[str] = []
    for path in files:
        try:
            kind = check(path)
        except InputError as error:
            problems += error.problems
        else:
            console.say(f"{path}: valid {kind}")
    if problems:
        raise InputError(problems)


@app.command()
def schema(
    name: Annotated[str, typer.Argument(help="calibration-spec, measurements, calibration, plan, recipe, presets.")],
) -> None:
    """Print a document's JSON Schema (or the known model presets)."""
    from mixplan import console
    from mixplan.documents.registry import schema as describe

    console.emit_json(describe(name))


# --- calibrate: plan, calibrate, status, collect ---


# --- laws: fit, predict, backtest ---


# --- recommend ---


# --- recipes: build, emit, verify ---


# --- report ---
