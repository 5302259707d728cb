"""The command line: one short function a command; parse, call, show. Heavy imports happen inside commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mixplan.cli_recipes import build, emit, scan, track, verify
from mixplan.cli_testbed import testbed

app = typer.Typer(
    name="mixplan",
    help="Plan the size and the data mixture of a pretraining run so that the rare skills are learned too.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")]
SCHEMA_NAMES = (
    "calibration-spec, measurements, calibration, plan, recipe, mixture, what-if, phases, olmo-core, "
    "sources-lock, presets, references."
)
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace the output file if it exists.")]


def main() -> None:
    """Run the app; errors meant for the user become messages and exit codes (0 done, 1 no, 2 wrong input)."""
    from mixplan import console
    from mixplan.errors import MixplanError

    try:
        app(prog_name="mixplan")
    except MixplanError as error:
        console.fail(error)
        sys.exit(error.exit_code)
    except OSError as error:
        console.fail(MixplanError(f"{error.filename or 'a file'}: {error.strerror or error}"))
        sys.exit(MixplanError.exit_code)
    except SystemExit as left:
        if left.code == 130:  # what an interrupted command is turned into
            console.note("interrupted; the same command continues where it can")
        raise


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Folder for the starter files; created if missing.")],
) -> None:
    """Write commented starter files that validate."""
    from mixplan import console
    from mixplan.documents.starters import write_starters

    console.wrote(write_starters(directory))


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
    name: Annotated[str, typer.Argument(help=SCHEMA_NAMES)],
) -> None:
    """Print a document's JSON Schema (or the known model presets)."""
    from mixplan import console
    from mixplan.documents.registry import schema as describe

    console.emit_json(describe(name))


# --- calibrate: plan, calibrate, status, collect ---

EngineKind = Annotated[str | None, typer.Option("--engine", help="local or slurm, instead of engine.kind.")]
Slots = Annotated[int | None, typer.Option(min=1, help="Local: slots, instead of engine.slots.")]


@app.command()
def plan(
    spec: Annotated[Path, typer.Argument(help="calibration.yaml")],
    engine: EngineKind = None,
    slots: Slots = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a ladder costs before anything starts: runs, tokens, FLOPs, hours and money."""
    from dataclasses import asdict

    from mixplan import console
    from mixplan.calibrate.cost import price
    from mixplan.calibrate.cost_tables import cost_tables
    from mixplan.calibrate.engines import with_engine
    from mixplan.documents import CalibrationSpec, load

    document = with_engine(load(spec, CalibrationSpec), engine)
    cost = price(document, spec.parent, slots)
    if as_json:
        console.emit_json(asdict(cost))
        return
    console.tables(cost_tables(cost, document.hardware))
    console.notes(cost.warnings, "warning")


@app.command()
def calibrate(
    spec: Annotated[Path, typer.Argument(help="calibration.yaml")],
    out: Annotated[
        Path | None, typer.Option("-o", help="Folder of the ladder. Default: runs/ beside the file.")
    ] = None,
    engine: EngineKind = None,
    slots: Slots = None,
    follow: Annotated[bool, typer.Option("--follow", help="Slurm: wait for the runs and show them.")] = False,
    emit_skypilot: Annotated[
        Path | None, typer.Option(help="Only write a SkyPilot task (.yaml) that runs this command.")
    ] = None,
) -> None:
    """Train the ladder and measure it. The same command continues what was interrupted."""
    from mixplan import commands, console
    from mixplan.calibrate.engines import skypilot, with_engine
    from mixplan.documents import CalibrationSpec, load

    document = with_engine(load(spec, CalibrationSpec), engine)
    if emit_skypilot is None:
        commands.train(document, spec.parent, out or spec.parent / "runs", slots, follow)
    else:
        skypilot.write_task(document, spec, emit_skypilot)
        console.wrote([emit_skypilot])


@app.command()
def status(
    directory: Annotated[Path, typer.Argument(help="Folder of the ladder.")],
    as_json: JsonFlag = False,
) -> None:
    """Show how far each run is."""
    from dataclasses import asdict

    from mixplan import console
    from mixplan.calibrate.prepared import Prepared

    prepared = Prepared.read(directory)
    states = [prepared.folder(run).state() for run in prepared.runs()]
    if as_json:
        console.emit_json([asdict(state) for state in states])
        return
    console.runs_table(states)
    for run in prepared.runs():
        console.notes(prepared.folder(run).notes(), f"note: {run.run_id}")


@app.command()
def collect(
    directory: Annotated[Path, typer.Argument(help="Folder of the ladder.")],
    out: Annotated[Path | None, typer.Option("-o", help="Default: measurements/ in that folder.")] = None,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write Parquet instead of CSV.")] = False,
) -> None:
    """Gather the finished runs' measurements into tables."""
    from mixplan import console
    from mixplan.calibrate.collect import collect as gather
    from mixplan.documents import write_measurements
    from mixplan.documents.atomic import refuse_foreign

    folder = out or directory / "measurements"
    refuse_foreign(folder, ["learning.csv", "learning.parquet"], "collect")
    measurements, notes = gather(directory)
    console.notes(notes)
    console.wrote(write_measurements(measurements, folder, parquet))


# --- laws: fit, predict, backtest ---

TablesPath = Annotated[
    list[Path],
    typer.Argument(help="Measurements folder, learning table, or ref:NAME; several are put together."),
]
LearnedSkill = Annotated[
    float | None,
    typer.Option(help="Skill from which a cell counts as learned. Default: the calibration's, else 0.8."),
]
Draws = Annotated[int, typer.Option(help="Draws of the laws' parameters, for the intervals.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the draws.")]


@app.command()
def fit(
    measurements: TablesPath,
    out: Annotated[Path, typer.Option("-o", help="Calibration to write (.json).")] = Path("calibration.json"),
    learned_skill: LearnedSkill = None,
    draws: Draws = 200,
    seed: Seed = 0,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
    suggest: Annotated[
        Path | None, typer.Option(help="Also write the further runs that would tell most (.yaml).")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(help="--suggest: calibration.yaml that was run. Default: as provenance has it."),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="--suggest: plan.yaml whose tasks and sizes are to be forecast.")
    ] = None,
    suggest_budget: Annotated[
        str | None, typer.Option(help="--suggest: 25% of the FLOPs so far (default), 2e15 (FLOPs), '6 runs'.")
    ] = None,
) -> None:
    """Fit the laws to a ladder's measurements and test them on its largest rung."""
    from mixplan import commands

    asked = commands.NextRuns(suggest, spec, plan, suggest_budget)
    commands.fit(measurements, out, learned_skill, draws, seed, force, as_json, asked)


@app.command()
def predict(
    calibration: Annotated[Path, typer.Argument(help="calibration.json, or ref:NAME.")],
    cells: Annotated[Path, typer.Option(help="Table: block_params, tokens, frequency, family, complexity.")],
    out: Annotated[Path, typer.Option("-o", help="Table to write (.csv or .parquet).")],
    force: ForceFlag = False,
) -> None:
    """Forecast skill, its 90 % interval and the probability that it is learned, for each row of a table."""
    from mixplan import console
    from mixplan.documents import Calibration, load
    from mixplan.documents.atomic import refuse_overwrite
    from mixplan.documents.table import write_table
    from mixplan.laws.cells import check_output, predict_cells, read_cells

    refuse_overwrite(check_output(out), "predict", force)
    laws = load(console.resolved(calibration, "calibration.json"), Calibration)
    found = predict_cells(laws, read_cells(cells), str(cells))
    write_table(found, out)
    outside = int(found["extrapolated"].sum())
    console.say(f"wrote {out}: {len(found)} cells, {outside} of them outside what was measured")


@app.command()
def backtest(
    measurements: TablesPath,
    learned_skill: LearnedSkill = None,
    draws: Draws = 200,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Leave out rung after rung, predict it from the smaller ones, and score that against copying."""
    from mixplan import console
    from mixplan.documents.merging import read_together
    from mixplan.laws.backtest import backtest as run_backtest
    from mixplan.laws.calibration import checked_evidence, table_warnings
    from mixplan.laws.tables import backtest_tables, default_said

    tables = read_together([console.resolved(path) for path in measurements], learned_skill)
    threshold = tables.learned_skill if learned_skill is None else learned_skill
    evidence = checked_evidence(tables, threshold, draws)
    tested = run_backtest(evidence, threshold, draws, seed, tables.retention)
    found, choice = tested.backtest, tested.choice
    console.notes(table_warnings(tables, evidence, threshold), "warning")
    if as_json:
        console.emit_json(found.model_dump(mode="json"))
        return
    console.tables(backtest_tables(found))
    console.say(found.verdict)
    console.say(default_said(choice.weights, choice.reason))


@app.command()
def gaps(
    calibration: Annotated[Path, typer.Argument(help="calibration.json, or ref:NAME.")],
    small: Annotated[
        float | None, typer.Option(help="Block parameters. Default: every size of the ladder.")
    ] = None,
    large: Annotated[float | None, typer.Option(help="Block parameters, likewise.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say which gaps in LM loss between sizes more data can close, and which only size."""
    from mixplan import commands

    commands.gaps(calibration, small, large, as_json)


# --- recommend ---


@app.command()
def recommend(
    plan: Annotated[Path, typer.Argument(help="plan.yaml")],
    calibration: Annotated[Path, typer.Option(help="calibration.json of `mixplan fit`, or ref:NAME.")],
    out: Annotated[
        Path | None, typer.Option("-o", help="Recipe to write (.yaml or .json). Default: recipe.yaml.")
    ] = None,
    what_if: Annotated[
        Path | None, typer.Option(help="Evaluate this mixture (what-if.yaml) instead; written only with -o.")
    ] = None,
    why: Annotated[bool, typer.Option("--explain", help="Say in words why this is the answer.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the search, instead of search.seed.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Journal (.log) or database URL to keep the search in, or go on from.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that search.")] = 1,
    pareto: Annotated[
        Path | None, typer.Option(help="Also write the front of FLOPs, coverage and common loss here.")
    ] = None,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the cheapest size and mixture that reach every target; exit 1 and say why if there is none."""
    from mixplan import commands

    searching = commands.Searching(seed, storage, workers, pareto)
    if what_if is None:
        commands.recommend(plan, calibration, out or Path("recipe.yaml"), why, searching, force, as_json)
    else:
        commands.what_if(plan, calibration, what_if, out, why, searching, force, as_json)


for _command in (scan, build, emit, verify, track):
    app.command()(_command)


# --- report ---


@app.command()
def report(
    directory: Annotated[
        Path, typer.Argument(help="Working folder with measurements, calibration.json, recipe.yaml.")
    ],
    out: Annotated[Path, typer.Option("-o", help="Page to write (.html).")] = Path("report.html"),
    force: ForceFlag = False,
) -> None:
    """Write one self-contained HTML page: what was measured, what the laws say, what is recommended."""
    from mixplan import console
    from mixplan.documents.atomic import refuse_overwrite
    from mixplan.laws.predict import LawForecast
    from mixplan.report import find_inputs, write_report

    refuse_overwrite(out, "report", force)
    inputs = find_inputs(console.resolved(directory))
    write_report(inputs, LawForecast(inputs.calibration) if inputs.calibration else None, out, force)
    console.notes(inputs.missing, f"note: not in {directory}")
    console.wrote([out])


app.add_typer(testbed, name="testbed")
