"""A recipe becomes files that a trainer reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixplan.documents.loading import as_yaml, load
from mixplan.documents.recipe import Recipe
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError, MixplanError, NoAnswer
from mixplan.recipes.data_folders import remove_unfinished
from mixplan.recipes.emitted_files import check_folder, check_texts, mark, write_texts
from mixplan.recipes.folders import is_url
from mixplan.recipes.huggingface import huggingface
from mixplan.recipes.llm_foundry import llm_foundry
from mixplan.recipes.megatron import megatron
from mixplan.recipes.nanotron import nanotron
from mixplan.recipes.olmo_core import olmo_core
from mixplan.recipes.phases import PHASES, phase_recipes, phases_document, whole_run
from mixplan.recipes.streams import RECIPE, streaming
from mixplan.recipes.weights import weights
from mixplan.recipes.written import Format, Options, Progress, Written

FORMATS: dict[str, Format] = {
    "streaming": streaming,
    "olmo-core": olmo_core,
    "llm-foundry": llm_foundry,
    "megatron": megatron,
    "nanotron": nanotron,
    "huggingface": huggingface,
    "weights": weights,
}
_WITH_DATA = ("olmo-core", "megatron", "nanotron", "huggingface")
_ORDERED = ("streaming", "llm-foundry", "olmo-core")


@dataclass(frozen=True)
class Emitted:
    """What was written."""

    files: list[Path]
    fingerprint: str | None
    """Of the mixture. Empty with formats that have none, and with phases."""
    notes: list[str]
    """What the user should know: sources dropped, sizes that differ, how even the order is, what it costs."""
    phases: dict[str, str | None] = field(default_factory=dict)
    """Fingerprint of each phase's mixture, by its folder; empty without phases."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What was measured of the planned order; with phases, by folder."""

    def to_json(self) -> dict[str, Any]:
        return {
            "files": [str(path) for path in self.files],
            "fingerprint": self.fingerprint,
            "phases": self.phases,
            "notes": self.notes,
            "order": self.measured,
        }


def emit(
    recipe_path: Path,
    folder: Path,
    format: str = "streaming",
    options: Options = Options(),  # noqa: B008 frozen
    force: bool = False,
    progress: Progress = lambda _: None,
) -> Emitted:
    """Write a recipe for a trainer; weights.json comes with every format.

    A recipe with phases becomes one mixture a phase, in folders of their own that phases.yaml lists.

    Args:
        recipe_path: the recipe; relative `mds` paths start from its folder.
        folder: output folder: new, empty, or written by emit before.
        format: one of FORMATS.
        options: what concerns single formats.
        force: replace files of another mixture.
        progress: called with a line now and then while data are written.

    Raises:
        InputError: with every problem: unknown format, options that are not of this format, missing or unfit
            MDS folders, more epochs than allowed, an output folder that holds something else: nothing was
            written. Or writing data failed: the texts are as they were, and data folders that were finished
            stay for the next time.
        NoAnswer: what was asked of the order cannot be had. Nothing was written.
    """
    if format not in FORMATS:
        near = did_you_mean(format, FORMATS)
        raise InputError(f"format {format!r} is not known{near}; use one of {', '.join(FORMATS)}")
    _check_options(format, options)
    recipe = load(recipe_path, Recipe)
    recipe = _resolved(recipe, Path(recipe_path).resolve().parent)
    folder = Path(folder).absolute()
    check_folder(folder)
    if recipe.phases:
        parts, texts, notes = _phased(recipe, folder, format, options)
    else:
        parts = {"": _one(recipe, folder, format, options)}
        texts, notes = {}, []
    for name, written in parts.items():
        texts |= {os.path.join(name, file): text for file, text in written.texts.items()}
        notes += [f"{name}: {note}" if name else note for note in written.notes]
    check_texts(folder, format, texts, force)
    remove_unfinished(folder)
    # Data before the texts that name them: a mixture without its data must not look like one.
    data: list[Path] = []
    for written in parts.values():
        if written.data is not None:
            mark(folder)
            data += written.data(progress)
    write_texts(folder, format, texts, force)
    files = [*(folder / name for name in texts), *data]
    whole = parts.get("")
    if whole is not None:
        return Emitted(files, whole.fingerprint, notes, measured=whole.measured)
    return Emitted(
        files,
        None,
        notes,
        phases={name: written.fingerprint for name, written in parts.items()},
        measured={name: written.measured for name, written in parts.items() if written.measured},
    )


def _check_options(format: str, options: Options) -> None:
    """Refuse what this format has no use for; silently left out, it would be taken for done.

    Raises:
        InputError: with everything that does not apply.
    """
    problems = []
    if options.with_data and format not in _WITH_DATA:
        problems.append(
            f"--with-data: format {format} has no data of its own; it goes with {', '.join(_WITH_DATA)}"
        )
    if order := options.of_the_order():
        given = ", ".join(order)
        if format not in _ORDERED:
            problems.append(
                f"{given}: format {format} leaves the order to its trainer; of use with {', '.join(_ORDERED)}"
            )
        elif options.with_data and format in _WITH_DATA:
            problems.append(
                f"{given}: with --with-data {format} draws an order of its own; of use without it, where the "
                "shards are read"
            )
    if problems:
        raise InputError(problems)


def _one(recipe: Recipe, folder: Path, format: str, options: Options) -> Written:
    """What the format writes, after the weights."""
    written = FORMATS[format](recipe, folder, options)
    texts = {**weights(recipe, folder, options).texts, **written.texts}
    return Written(texts, written.notes, written.fingerprint, written.data, written.measured)


def _phased(
    recipe: Recipe, folder: Path, format: str, options: Options
) -> tuple[dict[str, Written], dict[str, str], list[str]]:
    """What each phase's folder and the folder above them get, and notes.

    Raises:
        InputError, NoAnswer: with the problems of all phases.
    """
    problems, notes = whole_run(recipe)
    parts: dict[str, Written] = {}
    errors: dict[str, MixplanError] = {}
    for name, part in phase_recipes(recipe).items():
        try:
            parts[name] = _one(part, folder / name, format, options)
        except (InputError, NoAnswer) as error:
            errors[name] = error
    problems += [f"{name}: {problem}" for name, error in errors.items() for problem in error.problems]
    if problems:
        only_no = errors and all(isinstance(error, NoAnswer) for error in errors.values())
        raise (NoAnswer if only_no else InputError)(problems)
    listed = phases_document(recipe, format, _fingerprints(parts))
    header = "Made by `mixplan emit`: mixtures to train on one after another, each until it ends."
    texts = {
        PHASES: as_yaml(listed, header),
        RECIPE: as_yaml(recipe, "The recipe of the whole run; each phase's folder holds its own."),
        **weights(recipe, folder, options).texts,
    }
    return parts, texts, notes


def _fingerprints(parts: Mapping[str, Written]) -> dict[str, str | None]:
    return {name: written.fingerprint for name, written in parts.items()}


def _resolved(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with absolute folders of MDS and tokenizer, so that its copy means the same."""
    sources = []
    for source in recipe.sources:
        place = source.mds
        if place is not None and not is_url(place):
            place = os.path.normpath(base / Path(place).expanduser())
        sources.append(source.model_copy(update={"mds": place}))
    tokenizer = recipe.tokenizer
    if tokenizer.path is not None:
        path = os.path.normpath(base / Path(tokenizer.path).expanduser())
        tokenizer = tokenizer.model_copy(update={"path": path})
    return recipe.model_copy(update={"sources": sources, "tokenizer": tokenizer})
