"""`mixplan testbed`: theory and training of the solvable mixture. Heavy imports happen inside commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

testbed = typer.Typer(
    help="The solvable mixture of linear-regression tasks: exact theory, and training against it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
SHOWN_FEATURES = 3


@testbed.command()
def theory(
    tasks: Annotated[int, typer.Option(help="Number of tasks.")] = 32,
    block: Annotated[int, typer.Option(help="Directions of a task; 1: rank-one.")] = 32,
    dim: Annotated[int, typer.Option(help="Input directions.")] = 1024,
    frequency_exponent: Annotated[float, typer.Option(help="β of a task's frequency, k^-β.")] = 2.0,
    spectrum_exponent: Annotated[
        list[float] | None,
        typer.Option(help="a of a feature's energy, j^-a. Once, or once a task. Default: 2."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print who learns what at which width, without training."""
    from mixplan import console
    from mixplan.testbed.mixture import Mixture
    from mixplan.testbed.shown import theory_json, theory_table

    mixture = Mixture(tasks, block, dim, frequency_exponent, tuple(spectrum_exponent or [2.0]))
    if as_json:
        console.emit_json(theory_json(mixture))
    else:
        console.tables([theory_table(mixture, SHOWN_FEATURES)])


@testbed.command()
def run(
    preset: Annotated[str, typer.Option(help="quick: under a minute; paper: the paper's sizes.")] = "quick",
    out: Annotated[Path, typer.Option("-o", help="Folder for measurements/ and findings.json.")] = Path(
        "testbed"
    ),
    only: Annotated[list[str] | None, typer.Option(help="Only this part of the preset; repeatable.")] = None,
    widths: Annotated[str | None, typer.Option(help="Widths instead of the preset's: 2,4,8.")] = None,
    gaps: Annotated[str | None, typer.Option(help="Gaps in steps instead of the preset's: 8,32.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the sweep; long horizons are 10 times longer.")
    ] = None,
    tasks: Annotated[int | None, typer.Option(help="Number of tasks.")] = None,
    block: Annotated[int | None, typer.Option(help="Directions of a task; 1: rank-one.")] = None,
    dim: Annotated[int | None, typer.Option(help="Input directions.")] = None,
    frequency_exponent: Annotated[float | None, typer.Option(help="β of a task's frequency.")] = None,
    spectrum_exponent: Annotated[
        list[float] | None, typer.Option(help="a of a feature's energy. Once, or once a task.")
    ] = None,
    device: Annotated[str, typer.Option(help="Of torch: cpu, cuda.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier run in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Train the students and hold them against the theory; writes the tables that calibrate writes."""
    from mixplan import console
    from mixplan.testbed.changes import Changes, changed
    from mixplan.testbed.run import FINDINGS, MEASUREMENTS
    from mixplan.testbed.run import run as train
    from mixplan.testbed.shown import findings_tables

    exponents = tuple(spectrum_exponent) if spectrum_exponent else None
    asked = Changes(only, widths, gaps, seeds, steps, tasks, block, dim, frequency_exponent, exponents)
    found = train(changed(preset, asked), out, device, force, console.note)
    if as_json:
        console.emit_json(found)
        return
    console.tables(findings_tables(found), gap=True)
    console.wrote([out / MEASUREMENTS, out / FINDINGS])
