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
SCHEMA_NAMES = "calibration-spec, measurements, calibration, plan, recipe, mixture, presets, references."
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
    name: Annotated[str, typer.Argument(help=SCHEMA_NAMES)],
) -> None:
    """Print a document's JSON Schema (or the known model presets)."""
    from mixplan import console
    from mixplan.documents.registry import schema as describe

    console.emit_json(describe(name))


# --- calibrate: plan, calibrate, status, collect ---


@app.command()
def plan(
    spec: Annotated[Path, typer.Argument(help="calibration.yaml")],
    slots: Annotated[
        int | None, typer.Option(min=1, help="Runs side by side, instead of engine.slots.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a ladder costs before anything starts: runs, tokens, FLOPs, hours and money."""
    from dataclasses import asdict

    from mixplan import console
    from mixplan.calibrate.cost import price
    from mixplan.calibrate.cost_tables import cost_tables
    from mixplan.documents import CalibrationSpec, load

    document = load(spec, CalibrationSpec)
    cost = price(document, spec.parent, slots)
    if as_json:
        console.emit_json(asdict(cost))
        return
    for shown in cost_tables(cost, document.hardware):
        console.table(*shown)
    for warning in cost.warnings:
        console.note(f"warning: {warning}")


@app.command()
def calibrate(
    spec: Annotated[Path, typer.Argument(help="calibration.yaml")],
    out: Annotated[
        Path | None, typer.Option("-o", help="Folder of the ladder. Default: runs/ beside the file.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="local or slurm, instead of engine.kind.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Local: slots, instead of engine.slots.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Slurm: wait for the runs and show them.")] = False,
    emit_skypilot: Annotated[
        Path | None, typer.Option(help="Only write a SkyPilot task (.yaml) that runs this command.")
    ] = None,
) -> None:
    """Train the ladder and measure it. The same command continues what was interrupted."""
    from mixplan import console
    from mixplan.calibrate.engines import outcome, runner, skypilot, with_engine
    from mixplan.calibrate.prepared import prepare
    from mixplan.documents import CalibrationSpec, load
    from mixplan.errors import NoAnswer

    document = with_engine(load(spec, CalibrationSpec), engine)
    if emit_skypilot is not None:
        skypilot.write_task(document, spec, emit_skypilot)
        console.say(f"wrote {emit_skypilot}")
        return
    chosen = runner(document.engine, slots, follow)
    prepared, notes = prepare(document, spec.parent, out or spec.parent / "runs")
    for text in notes:
        console.note(f"note: {text}")
    console.note(f"{len(prepared.runs())} runs on {chosen.place}, longest first, in {prepared.out}")
    with console.RunsDisplay() as display:
        found = outcome(prepared, chosen.launch(prepared, display.update))
    for text in found.notes:
        console.note(f"note: {text}")
    if found.problems:
        raise NoAnswer(found.problems)
    for text in found.results:
        console.say(text)


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
        for text in prepared.folder(run).notes():
            console.note(f"note: {run.run_id}: {text}")


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
    for text in notes:
        console.note(f"note: {text}")
    for path in write_measurements(measurements, folder, parquet):
        console.say(f"wrote {path}")


# --- laws: fit, predict, backtest ---

TablesPath = Annotated[Path, typer.Argument(help="Measurements folder, learning table, or ref:NAME.")]
LearnedSkill = Annotated[
    float | None,
    typer.Option(help="Skill from which a cell counts as learned. Default: the calibration's, else 0.8."),
]
Draws = Annotated[int, typer.Option(help="Bootstrap draws over runs, for the intervals.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")]


@app.command()
def fit(
    measurements: TablesPath,
    out: Annotated[Path, typer.Option("-o", help="Calibration to write (.json).")] = Path("calibration.json"),
    learned_skill: LearnedSkill = None,
    draws: Draws = 200,
    seed: Seed = 0,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Fit the laws to a ladder's measurements and test them on its largest rung."""
    from mixplan import console
    from mixplan.documents import read_measurements, save
    from mixplan.documents.atomic import refuse_overwrite
    from mixplan.laws.calibration import check_output, fit_calibration
    from mixplan.laws.tables import calibration_summary, calibration_tables

    refuse_overwrite(check_output(out), "fit", force)
    tables = read_measurements(console.resolved(measurements))
    threshold = tables.learned_skill if learned_skill is None else learned_skill
    found = fit_calibration(tables, learned_skill=threshold, draws=draws, seed=seed)
    save(found, out)
    if as_json:
        console.emit_json(calibration_summary(found))
        return
    for shown in calibration_tables(found):
        console.table(*shown)
        console.say()
    if found.backtest is not None:
        console.say(found.backtest.verdict)
    for warning in found.warnings:
        console.note(f"warning: {warning}")
    console.say(f"wrote {out}")


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
    """Leave out the largest rung, predict it from the rest, and score that against copying."""
    from mixplan import console
    from mixplan.documents import read_measurements
    from mixplan.laws.backtest import backtest as run_backtest
    from mixplan.laws.calibration import checked_evidence
    from mixplan.laws.evidence import standard_rows
    from mixplan.laws.tables import backtest_tables

    tables = read_measurements(console.resolved(measurements))
    threshold = tables.learned_skill if learned_skill is None else learned_skill
    evidence = checked_evidence(tables, threshold, draws)
    found = run_backtest(evidence, threshold, draws, seed)
    for warning in standard_rows(tables.learning, "learning")[1]:
        console.note(f"warning: {warning}")
    if as_json:
        console.emit_json(found.model_dump(mode="json"))
        return
    for shown in backtest_tables(found):
        console.table(*shown)
    console.say(found.verdict)


# --- recommend ---


@app.command()
def recommend(
    plan: Annotated[Path, typer.Argument(help="plan.yaml")],
    calibration: Annotated[Path, typer.Option(help="calibration.json of `mixplan fit`, or ref:NAME.")],
    out: Annotated[Path, typer.Option("-o", help="Recipe to write (.yaml or .json).")] = Path("recipe.yaml"),
    why: Annotated[bool, typer.Option("--explain", help="Say in words why this is the answer.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the search, instead of search.seed.")
    ] = None,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the cheapest size and mixture that reach every target; exit 1 and say why if there is none."""
    from mixplan import console
    from mixplan.documents import Calibration, Plan, load, save
    from mixplan.documents.atomic import refuse_overwrite
    from mixplan.laws.predict import LawForecast
    from mixplan.recommend import HEADER, Infeasible, explain, hashes, headline, tables
    from mixplan.recommend import recommend as find

    refuse_overwrite(out, "recommend", force)
    calibration = console.resolved(calibration, "calibration.json")
    asked, laws = load(plan, Plan), load(calibration, Calibration)
    origin = hashes({"plan": plan, "calibration": calibration})
    try:
        recipe = find(asked, LawForecast(laws), plan.parent, calibration=laws, seed=seed, provenance=origin)
    except Infeasible as no:
        if as_json:
            console.emit_json(no.report)
        raise
    save(recipe, out, HEADER)
    if as_json:
        told = {"explanation": explain(recipe)} if why else {}
        console.emit_json({"feasible": True, "recipe": recipe.model_dump(mode="json"), **told})
        return
    console.say(headline(recipe))
    for shown in tables(recipe):
        console.say()
        console.table(*shown)
    for text in explain(recipe) if why else []:
        console.say(text)
    for text in recipe.warnings if not why else []:
        console.note(f"warning: {text}")
    console.say(f"wrote {out}")


# --- recipes: build, emit, verify ---


@app.command()
def build(
    plan: Annotated[Path, typer.Argument(help="plan.yaml")],
    source: Annotated[list[str] | None, typer.Option(help="Build only this source; may be repeated.")] = None,
    hashes: Annotated[
        bool, typer.Option("--hashes", help="Check shards that are already there by hash, not only by size.")
    ] = False,
) -> None:
    """Write each source's text as MDS shards into its `mds` folder. What is already there is left alone."""
    from mixplan import console
    from mixplan.recipes.building import build as build_sources
    from mixplan.recipes.tables import build_table

    built = build_sources(plan, source or [], hashes, console.note)
    console.table(*build_table(built))
    for one in built:
        console.say(f"{'kept' if one.skipped else 'wrote'} {one.folder}")


@app.command()
def emit(
    recipe: Annotated[Path, typer.Argument(help="recipe.yaml")],
    out: Annotated[Path, typer.Option("-o", help="Folder to write.")],
    format: Annotated[str, typer.Option(help="streaming or weights.")] = "streaming",
    block_samples: Annotated[
        int | None, typer.Option(help="Shuffle in blocks of this many samples, not the whole run at once.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another mixture in the folder.")] = False,
) -> None:
    """Write a recipe as a mixture that a trainer loads."""
    from mixplan import console
    from mixplan.recipes.emitting import emit as emit_recipe

    emitted = emit_recipe(recipe, out, format, block_samples, force)
    for text in emitted.notes:
        console.note(f"note: {text}")
    for path in emitted.files:
        console.say(f"wrote {path}")
    if emitted.fingerprint is not None:
        console.say(f"fingerprint {emitted.fingerprint}")
        console.say(f"next: mixplan verify {out}")


@app.command()
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
    from mixplan import console
    from mixplan.documents.atomic import write_json
    from mixplan.errors import NoAnswer
    from mixplan.recipes.tables import verification_tables
    from mixplan.recipes.verifying import verify as verify_mixture

    found = verify_mixture(directory, workers, stall_seconds, console.note)
    if out is not None:
        write_json(out, found.to_json())
    if as_json:
        console.emit_json(found.to_json())
    else:
        for shown in verification_tables(found):
            console.table(*shown)
            console.say()
    for warning in found.warnings:
        console.note(f"warning: {warning}")
    if found.problems:
        raise NoAnswer(found.problems)
    if not as_json:
        console.say(f"verified: {found.samples:,} samples, as the recipe says")


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
    for line in inputs.missing:
        console.note(f"note: not in {directory}: {line}")
    console.say(f"wrote {out}")
