"""The commands around mixtures: scan, build, emit, verify, track. Heavy imports happen inside commands."""

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
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a core.")] = None,
    dtype: Annotated[
        str,
        typer.Option(help="Of the tokens: int32, which an embedding takes, uint16 or int64."),
    ] = "int32",
    compression: Annotated[
        str | None, typer.Option(help="Of the shards: zstd:3, or what else Streaming reads. Default: none.")
    ] = None,
    hash: Annotated[
        list[str] | None, typer.Option(help="Of every shard; may be repeated. Default: xxh3_64.")
    ] = None,
    local: Annotated[
        Path | None,
        typer.Option(help="Where sources with a remote `mds` are built. Default: mds-local beside the plan."),
    ] = None,
) -> None:
    """Write each source's text or tokens as MDS shards into its `mds`. What is there already is kept."""
    from mixplan import commands_recipes

    shards = dtype, compression, tuple(hash or ()), local
    commands_recipes.build(plan, source or [], hashes, workers, *shards)


def emit(
    recipe: Annotated[Path, typer.Argument(help="recipe.yaml")],
    out: Annotated[Path, typer.Option("-o", help="Folder to write.")],
    format: Annotated[
        str,
        typer.Option(
            help="streaming, olmo-core, llm-foundry, megatron, nanotron, huggingface or weights (JSON, CSV)."
        ),
    ] = "streaming",
    block_samples: Annotated[
        int | None, typer.Option(help="Shuffle in blocks of this many samples, not the whole run at once.")
    ] = None,
    cache_limit: Annotated[
        str | None,
        typer.Option(help="What a node can hold of the shards, e.g. 200gb: find the smallest even order."),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="Machines that the run is planned for. Default: 1.")
    ] = None,
    canonical_nodes: Annotated[
        int | None, typer.Option(help="Streaming's num_canonical_nodes. Default: chosen.")
    ] = None,
    with_data: Annotated[
        bool,
        typer.Option("--with-data", help="Other trainers' formats: also write the tokens as they read them."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace another mixture in the folder.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a recipe as a mixture that a trainer loads."""
    from mixplan import commands_recipes
    from mixplan.recipes.written import Options, read_bytes_given

    options = Options(
        block_samples=block_samples,
        cache_limit=read_bytes_given(cache_limit),
        nodes=nodes,
        canonical_nodes=canonical_nodes,
        with_data=with_data,
    )
    commands_recipes.emit(recipe, out, format, options, force, as_json)


def verify(
    directory: Annotated[Path, typer.Argument(help="Folder that emit wrote.")],
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Compute the order; shards by presence and size, not read.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="DataLoader workers of each rank.")] = 0,
    ranks: Annotated[int, typer.Option(min=1, help="Processes that read, as a trainer's ranks do.")] = 1,
    resume_check: Annotated[
        bool,
        typer.Option("--resume-check", help="After the stop in the middle, read on to the very end."),
    ] = False,
    allow_uneven: Annotated[
        bool, typer.Option("--allow-uneven", help="A rare source in bursts is a warning, not a failure.")
    ] = False,
    stall_seconds: Annotated[
        float, typer.Option(min=1, help="Give up when no sample has arrived for so long.")
    ] = 300.0,
    out: Annotated[
        Path | None,
        typer.Option("-o", help="Also write the JSON here, for the report; an earlier one is replaced."),
    ] = None,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Read a mixture end to end with Streaming and compare it with its recipe."""
    from mixplan import commands_recipes
    from mixplan.recipes.verifying import How

    how = How(workers, ranks, stall_seconds, plan_only, resume_check, allow_uneven)
    commands_recipes.verify(directory, how, out, force, as_json)


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
