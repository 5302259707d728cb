"""What the commands from data to mixtures do between parsing and the last line shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mixplan import console

if TYPE_CHECKING:
    from mixplan.recipes.verifying import How
    from mixplan.recipes.written import Options


def scan(plan: Path, out: Path | None, workers: int | None, force: bool, as_json: bool) -> None:
    """`scan`: count every source, show the counts, write the plan with them.

    Raises:
        InputError: a source cannot be counted, and nothing is written. Where that is seen while counting, and
            not before it (as a path that is not there), what the others have is shown.
    """
    from mixplan.documents.atomic import refuse_overwrite
    from mixplan.errors import InputError
    from mixplan.recipes.scanned import check_output, write_scanned
    from mixplan.recipes.scanning import scan as count
    from mixplan.recipes.tables import scan_table

    if out is not None:
        refuse_overwrite(check_output(out), "scan", force)
    with console.Bar("counting") as bar:
        found = count(plan, workers, bar.update)
    if as_json:
        console.emit_json(found.to_json())
    else:
        console.table(*scan_table(found))
    console.notes(found.notes, "warning")
    if found.problems:
        raise InputError(found.problems)
    if out is not None:
        write_scanned(plan, found, out)
        if not as_json:
            console.wrote([out])


def build(
    plan: Path,
    sources: list[str],
    check_hashes: bool,
    workers: int | None,
    dtype: str,
    compression: str | None,
    hashes: tuple[str, ...],
    local: Path | None,
) -> None:
    """`build`: write shards, show what there is."""
    from mixplan.recipes.building import build as build_sources
    from mixplan.recipes.jobs import Settings
    from mixplan.recipes.tables import build_table

    settings = Settings(dtype, compression, hashes, local)
    with console.Bar("building") as bar:
        built = build_sources(plan, sources, check_hashes, console.note, settings, workers, bar.update)
    console.table(*build_table(built))
    for one in built:
        console.notes(one.warnings, "warning")
        console.say(f"{'kept' if one.skipped else 'wrote'} {one.folder}")
        if one.uploaded is not None:
            console.say(f"uploaded to {one.uploaded}")


def emit(recipe: Path, out: Path, format: str, options: Options, force: bool, as_json: bool) -> None:
    """`emit`: write the mixture, say what is next."""
    from mixplan.recipes.emitting import emit as emit_recipe

    emitted = emit_recipe(recipe, out, format, options, force, console.note)
    if as_json:
        console.emit_json(emitted.to_json())
        return
    console.notes(emitted.notes)
    console.wrote(emitted.files)
    for folder, fingerprint in emitted.phases.items():
        if fingerprint is not None:
            console.say(f"fingerprint of {folder} {fingerprint}")
    if emitted.fingerprint is not None:
        console.say(f"fingerprint {emitted.fingerprint}")
    console.say(f"next: mixplan verify {out}")


def verify(directory: Path, how: How, out: Path | None, force: bool, as_json: bool) -> None:
    """`verify`: read the mixture, compare, show.

    Raises:
        InputError: there is nothing to verify, or `out` is another file than an earlier answer.
        NoAnswer: it is not what its recipe says.
    """
    from mixplan.documents.atomic import refuse_overwrite, write_json
    from mixplan.documents.verification import is_verification
    from mixplan.errors import NoAnswer
    from mixplan.recipes.tables import said, verification_notes, verification_tables
    from mixplan.recipes.verifying import verify as verify_mixture

    if out is not None:
        refuse_overwrite(out, "verify", force or is_verification(out))
    found = verify_mixture(directory, how, console.note)
    if out is not None:
        write_json(out, found.to_json())
    if as_json:
        console.emit_json(found.to_json())
    else:
        console.tables(verification_tables(found), gap=True)
        console.notes(verification_notes(found))
    console.notes(found.warnings, "warning")
    if found.problems:
        raise NoAnswer(found.problems)
    if not as_json:
        console.say(said(found))


def track(
    recipe: Path, log: Path, calibration: Path | None, out: Path | None, force: bool, as_json: bool
) -> None:
    """`track`: judge the run, show and write what was found.

    Raises:
        InputError: recipe, log or calibration are wrong, or do not belong together.
        NoAnswer: a task will not be learned; all is shown, and written, all the same.
    """
    from mixplan.documents import Calibration, Recipe, load
    from mixplan.documents.atomic import refuse_overwrite, write_json
    from mixplan.documents.references import reference_warnings
    from mixplan.errors import NoAnswer
    from mixplan.laws.predict import LawForecast
    from mixplan.recommend.track import track as judge
    from mixplan.recommend.track_log import read_log
    from mixplan.recommend.track_origin import calibration_of, other_calibration
    from mixplan.recommend.track_shown import advice, headline, lost, table

    if out is not None:
        refuse_overwrite(out, "track", force)
    planned = load(recipe, Recipe)
    path = calibration_of(planned) if calibration is None else calibration
    file = console.resolved(path, "calibration.json")
    laws = load(file, Calibration)
    warnings = other_calibration(planned, file)
    if file == path:
        warnings += reference_warnings(laws.provenance)
    found = judge(planned, LawForecast(laws), read_log(log, planned))
    if out is not None:
        write_json(out, found.to_json())
    if as_json:
        console.emit_json(found.to_json())
    else:
        console.say(headline(found))
        console.say()
        console.table(*table(found))
        for text in advice(found):
            console.say(text)
        if out is not None:
            console.wrote([out])
    console.notes(found.notes)
    console.notes(warnings, "warning")
    if found.lost:
        raise NoAnswer(lost(found))
