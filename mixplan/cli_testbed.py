"""`mixplan testbed`: theory and training of the solvable mixture. Heavy imports happen inside commands."""

from __future__ import annotations

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
