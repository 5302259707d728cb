"""The commands from data to mixtures and their runs: scan, build, emit, verify, track. Imports stay inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace the output file if it exists.")]


def scan(
    plan: Annotated[Path, typer.Argument(help="plan.yaml")],
    out: Annotated[
        Path | None, typer.Option("-o", help="Also write the plan with tokens_available filled in.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that tokenise. Default: one a core.")
    ] = None,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Count the tokens that every source of a plan has: MDS, .npy, Parquet, JSON lines or text."""
    from mixplan import commands_recipes

    commands_recipes.scan(plan, out, workers, force, as_json)


def build(
    plan: Annotated[Path, typer.Argument(help="plan.yaml")],
    source: Annotated[list[str] | None, typer.Option(help="Build only this source; may be repeated.")] = None,
    hashes: Annotated[
        bool, typer.Option("--hashes", help="Check shards that are already there by hash, not only by size.")
    ] = False,
) -> None:
    """Write each source's text as MDS shards into its `mds` folder. What is already there is left alone."""
    from mixplan import commands_recipes

    commands_recipes.build(plan, source or [], hashes)


def emit(
    recipe: Annotated[Path, typer.Argument(help="recipe.yaml")],
    out: Annotated[Path, typer.Option("-o", help="Folder to write.")],
    format: Annotated[str, typer.Option(help="streaming or weights.")] = "streaming",
    block_samples: Annotated[
        int | None, typer.Option(help="Shuffle in blocks of this many samples, not the whole run at once.")
    ] = None,
    with_data: Annotated[
        bool,
        typer.Option("--with-data", help="Other trainers' formats: also write the tokens as they read them."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace another mixture in the folder.")] = False,
) -> None:
    """Write a recipe as a mixture that a trainer loads."""
    from mixplan import commands_recipes

    commands_recipes.emit(recipe, out, format, block_samples, with_data, force)


def verify(
    directory: Annotated[Path, typer.Argument(help="Folder that emit wrote.")],
    workers: Annotated[int, typer.Option(min=0, help="DataLoader workers of the reader.")] = 0,
    stall_seconds: Annotated[
        float, typer.Option(min=1, help="Give up when no sample has arrived for so long.")
    ] = 300.0,
    out: Annotated[Path | None, typer.Option("-o", help="Also write the JSON here, for the report.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Read a mixture end to end with Streaming and compare it with its recipe."""
    from mixplan import commands_recipes

    commands_recipes.verify(directory, workers, stall_seconds, out, as_json)


def track(
    recipe: Annotated[Path, typer.Argument(help="recipe.yaml that the run was started with.")],
    log: Annotated[
        Path,
        typer.Option(help="Evaluations so far (.jsonl, .csv or .parquet): task, tokens, skill or accuracy."),
    ],
    calibration: Annotated[
        Path | None,
        typer.Option(help="calibration.json, or ref:NAME. Default: the reference that the recipe came from."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", help="Also write the JSON here.")] = None,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare a run under way with its forecast; exit 1 where a task will not be learned."""
    from mixplan import commands_recipes

    commands_recipes.track(recipe, log, calibration, out, force, as_json)
