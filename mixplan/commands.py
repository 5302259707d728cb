"""What the longer commands do between parsing and the last line shown; heavy imports happen inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixplan import console

if TYPE_CHECKING:
    from mixplan.documents import Calibration, CalibrationSpec, Measurements, Plan, Recipe
    from mixplan.documents.table import Table
    from mixplan.laws.suggest_budget import Limit


@dataclass(frozen=True)
class NextRuns:
    """What `fit` was asked about further runs."""

    out: Path | None
    spec: Path | None
    plan: Path | None
    budget: str | None


def train(document: CalibrationSpec, base: Path, out: Path, slots: int | None, follow: bool) -> None:
    """`calibrate`: train the ladder with its engine and say how it ended.

    Args:
        document: the calibration.
        base: folder of calibration.yaml.
        out: folder of the ladder.
        slots: local: how many, instead of engine.slots.
        follow: Slurm: wait for the runs.

    Raises:
        InputError: something cannot run; nothing was started.
        NoAnswer: a run crashed, was stopped, or is trained by another process.
    """
    from mixplan.calibrate.engines import outcome, runner
    from mixplan.calibrate.prepared import prepare
    from mixplan.errors import NoAnswer

    chosen = runner(document.engine, slots, follow)
    prepared, notes = prepare(document, base, out)
    console.notes(notes)
    console.note(f"{len(prepared.runs())} runs on {chosen.place}, longest first, in {prepared.out}")
    with console.RunsDisplay() as display:
        found = outcome(prepared, chosen.launch(prepared, display.update))
    console.notes(found.notes)
    if found.problems:
        raise NoAnswer(found.problems)
    for text in found.results:
        console.say(text)


def fit(
    measurements: list[Path],
    out: Path,
    learned_skill: float | None,
    draws: int,
    seed: int,
    force: bool,
    as_json: bool,
    next_runs: NextRuns,
) -> None:
    """`fit`: fit the laws, save them, show them; suggest further runs where that is asked for."""
    from mixplan.documents import save
    from mixplan.documents.atomic import refuse_overwrite
    from mixplan.documents.merging import read_together
    from mixplan.laws.calibration import check_output, fit_calibration
    from mixplan.laws.tables import calibration_summary, calibration_tables, default_said

    refuse_overwrite(check_output(out), "fit", force)
    tables = read_together([console.resolved(path) for path in measurements], learned_skill)
    wanted = _wanted(next_runs, tables, force)
    threshold = tables.learned_skill if learned_skill is None else learned_skill
    found = fit_calibration(tables, learned_skill=threshold, draws=draws, seed=seed)
    save(found, out)
    if as_json:
        suggestion = {} if wanted is None else {"suggestion": _suggest(wanted, tables, found, show=False)}
        console.emit_json({**calibration_summary(found), **suggestion})
        return
    console.tables(calibration_tables(found), gap=True)
    if found.backtest is not None:
        console.say(found.backtest.verdict)
        console.say(default_said(found.weights, found.backtest.choice))
    console.notes(found.warnings, "warning")
    console.wrote([out])
    if wanted is not None:
        _suggest(wanted, tables, found, show=True)


@dataclass(frozen=True)
class Wanted:
    """What a suggestion of further runs starts from."""

    out: Path
    spec: CalibrationSpec
    """Its paths lead from the folder of `out`, as far as that is known."""
    plan: Plan | None
    limit: Limit


def _wanted(asked: NextRuns, tables: Measurements, force: bool) -> Wanted | None:
    """The documents behind a suggestion, checked before anything is fitted; None where none is asked for.

    Raises:
        InputError: an option without --suggest, a name that is no YAML's, no calibration to start from or
            not the measurements' own, or a plan that asks for kinds of tasks that were not measured.
    """
    from pydantic import ValidationError

    from mixplan.documents import CalibrationSpec, Plan, load
    from mixplan.documents.atomic import refuse_overwrite
    from mixplan.documents.spec_paths import moved
    from mixplan.errors import InputError
    from mixplan.laws.suggest import check
    from mixplan.laws.suggest_budget import DEFAULT, parse_limit

    if asked.out is None:
        given = {"--spec": asked.spec, "--plan": asked.plan, "--suggest-budget": asked.budget}
        alone = [name for name, value in given.items() if value is not None]
        if alone:
            raise InputError(f"{', '.join(alone)} without --suggest: name the calibration.yaml to write")
        return None
    if asked.out.suffix not in (".yaml", ".yml"):
        raise InputError(f"{asked.out}: a calibration is YAML; give a name that ends in .yaml")
    refuse_overwrite(asked.out, "fit --suggest", force)
    limit = parse_limit(asked.budget or DEFAULT)
    plan = None if asked.plan is None else load(asked.plan, Plan)
    if asked.spec is not None:
        spec = moved(load(asked.spec, CalibrationSpec), asked.spec.parent, asked.out.parent)
    else:
        try:
            spec = CalibrationSpec.model_validate(tables.provenance.get("calibration"))
        except ValidationError:
            raise InputError(
                "--suggest needs the calibration.yaml behind the measurements, and their provenance.json "
                "holds no valid one: give it with --spec"
            ) from None
    check(tables, spec, plan)
    return Wanted(asked.out, spec, plan, limit)


def _suggest(wanted: Wanted, tables: Measurements, found: Calibration, show: bool) -> dict[str, Any]:
    """Find further runs, save their calibration.yaml, show them; returns them for programs.

    Raises:
        NoAnswer: no run is within the budget.
    """
    from mixplan.documents import save
    from mixplan.documents.spec_paths import missing
    from mixplan.laws.suggest import suggest
    from mixplan.laws.suggest_words import (
        HEADER,
        suggestion_sentences,
        suggestion_summary,
        suggestion_tables,
    )

    suggested = suggest(tables, found, wanted.spec, wanted.plan, wanted.limit)
    save(suggested.document, wanted.out, HEADER.format(name=wanted.spec.name, file=wanted.out.name))
    if show:
        console.say()
        console.tables(suggestion_tables(suggested), gap=True)
        for text in suggestion_sentences(suggested):
            console.say(text)
    lost = ", ".join(missing(suggested.document, wanted.out.parent))
    if lost:
        console.note(
            f"warning: {lost}: not found from {wanted.out.parent.resolve()}; before `mixplan calibrate`, put "
            f"{wanted.out.name} beside the calibration.yaml that was run, or give that one with --spec"
        )
    if show:
        console.wrote([wanted.out])
    return suggestion_summary(suggested)


def gaps(calibration: Path, small: float | None, large: float | None, as_json: bool) -> None:
    """`gaps`: the argument from the fitted loss law, shown.

    Raises:
        NoAnswer: there is no loss law.
    """
    from dataclasses import asdict

    from mixplan.documents import Calibration, load
    from mixplan.laws.gap_tables import gap_sentences, gap_tables
    from mixplan.laws.loss_gaps import loss_gaps

    laws = load(console.resolved(calibration, "calibration.json"), Calibration)
    found = loss_gaps(laws, small, large)
    if as_json:
        console.emit_json(asdict(found))
        return
    console.tables(gap_tables(found), gap=True)
    for text in gap_sentences(found):
        console.say(text)
    console.notes(found.warnings, "warning")


@dataclass(frozen=True)
class Searching:
    """How `recommend` was asked to search."""

    seed: int | None
    storage: str | None
    workers: int
    pareto: Path | None


def _table_name(path: Path) -> Path:
    """The path, if a table can be written there.

    Raises:
        InputError: its ending is none of a table's.
    """
    from mixplan.documents.table import ENDINGS
    from mixplan.errors import InputError

    if not path.name.endswith(ENDINGS):
        raise InputError(f"--pareto {path}: a table's name ends in {', '.join(ENDINGS)}; give another name")
    return path


def _recipe_name(path: Path) -> Path:
    """The path, if a recipe can be written there.

    Raises:
        InputError: its ending is none of a recipe's.
    """
    from mixplan.errors import InputError

    if path.suffix not in (".yaml", ".yml", ".json"):
        raise InputError(f"-o {path}: a recipe is YAML or JSON; give a name that ends in .yaml or .json")
    return path


def _write_front(front: Table | None, path: Path | None, as_json: bool) -> dict[str, Any]:
    """The front, where one was asked for, written and shown; its rows, for programs."""
    from mixplan.documents.table import write_table
    from mixplan.recommend.pareto import front_table

    if front is None or path is None:
        return {}
    write_table(front, path)
    if not as_json:
        console.table(*front_table(front))
        console.wrote([path])
        console.say()
    return {"front": front.rows()}


def recommend(
    plan: Path, calibration: Path, out: Path, why: bool, searching: Searching, force: bool, as_json: bool
) -> None:
    """`recommend`: search; then save and show the front, if asked for, and the recipe.

    Raises:
        InputError: the input is wrong; nothing is written.
        Infeasible: no size and mixture reach every target; the front is written all the same.
    """
    from mixplan.documents import Calibration, Plan, load, save
    from mixplan.documents.atomic import refuse_overwrite
    from mixplan.documents.references import reference_warnings
    from mixplan.laws.predict import LawForecast
    from mixplan.recommend import HEADER, Infeasible, hashes
    from mixplan.recommend import recommend as find
    from mixplan.recommend.pareto import pareto_front

    refuse_overwrite(_recipe_name(out), "recommend", force)
    if searching.pareto is not None:
        refuse_overwrite(_table_name(searching.pareto), "recommend --pareto", force)
    named, calibration = calibration, console.resolved(calibration, "calibration.json")
    asked, laws = load(plan, Plan), load(calibration, Calibration)
    told = [] if named == calibration else reference_warnings(laws.provenance)
    origin = hashes({"plan": plan, "calibration": calibration})
    how: dict[str, Any] = {
        "calibration": laws,
        "seed": searching.seed,
        "storage": searching.storage,
        "workers": searching.workers,
    }
    forecast = LawForecast(laws)
    front = pareto_front(asked, forecast, plan.parent, **how) if searching.pareto else None
    try:
        recipe = find(asked, forecast, plan.parent, provenance=origin, **how)
    except Infeasible as no:
        rows = _write_front(front, searching.pareto, as_json)
        if as_json:
            console.emit_json({**no.report, **rows})
        raise
    rows = _write_front(front, searching.pareto, as_json)
    save(recipe, out, HEADER)
    _show_recipe(recipe, True, why, rows if as_json else None, told)
    if not as_json:
        console.wrote([out])


def what_if(
    plan: Path,
    calibration: Path,
    mixture: Path,
    out: Path | None,
    why: bool,
    searching: Searching,
    force: bool,
    as_json: bool,
) -> None:
    """`recommend --what-if`: say what a mixture gives and costs, save that where it is asked for.

    Raises:
        InputError: options of a search beside it.
        NoAnswer: it breaks limits of the plan; it is shown, and saved, all the same.
    """
    from mixplan.documents import Calibration, Plan, load, save
    from mixplan.documents.atomic import refuse_overwrite
    from mixplan.documents.references import reference_warnings
    from mixplan.documents.whatif import WhatIf
    from mixplan.errors import InputError, NoAnswer
    from mixplan.laws.predict import LawForecast
    from mixplan.recommend import WHAT_IF_HEADER, hashes
    from mixplan.recommend.whatif import what_if as evaluate

    if searching != Searching(None, None, 1, None):
        raise InputError(
            "--what-if evaluates one mixture and searches nothing: leave out --seed, --storage, --workers "
            "and --pareto"
        )
    if out is not None:
        refuse_overwrite(_recipe_name(out), "recommend --what-if", force)
    named, calibration = calibration, console.resolved(calibration, "calibration.json")
    given, laws = load(plan, Plan), load(calibration, Calibration)
    told = [] if named == calibration else reference_warnings(laws.provenance)
    asked = load(mixture, WhatIf)
    origin = hashes({"plan": plan, "calibration": calibration, "what_if": mixture})
    found = evaluate(given, asked, LawForecast(laws), plan.parent, calibration=laws, provenance=origin)
    if out is not None:
        save(found.recipe, out, WHAT_IF_HEADER)
    _show_recipe(found.recipe, not found.broken, why, {} if as_json else None, told)
    if out is not None and not as_json:
        console.wrote([out])
    if found.broken:
        raise NoAnswer([f"breaks {text}" for text in found.broken])


def _show_recipe(
    recipe: Recipe, feasible: bool, why: bool, with_json: dict[str, Any] | None, noted: list[str]
) -> None:
    """A recipe's tables, the reasons where asked for, and its warnings but those that were noted before; as
    JSON where something (or {}) is to stand beside it there."""
    from mixplan.recommend import explain, headline, tables

    if with_json is not None:
        told = {"explanation": explain(recipe)} if why else {}
        document = recipe.model_dump(mode="json")
        console.emit_json({"feasible": feasible, "recipe": document, **told, **with_json})
        return
    console.say(headline(recipe))
    for shown in tables(recipe):
        console.say()
        console.table(*shown)
    for text in ["", *explain(recipe)] if why else []:
        console.say(text)
    # What a mixture breaks is the answer itself, not a warning beside it.
    new = [text for text in recipe.warnings if text not in noted and not text.startswith("breaks ")]
    console.notes([] if why else new, "warning")
