"""A run of several phases: each phase's mixture, and all together against the recipe of the whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

from mixplan.documents.loading import load
from mixplan.documents.phases import Phases
from mixplan.documents.recipe import Recipe, RecipeSource
from mixplan.errors import InputError
from mixplan.recipes.comparing import SourceReading
from mixplan.recipes.fitting import cap_problems
from mixplan.recipes.phases import PHASES, phase_recipes
from mixplan.recipes.streams import RECIPE
from mixplan.recipes.verified import Checked, Verification
from mixplan.recipes.weights import WEIGHTS
from mixplan.recipes.weights_verifying import read_weights

One = Callable[[Path, Callable[[str], None]], Verification]
"""(folder of one phase, progress) → its verification."""


def verify_phases(folder: Path, one: One, progress: Callable[[str], None]) -> Verification:
    """Verify each phase in order, then what only all of them together show.

    Args:
        folder: holds phases.yaml.
        one: verifies the mixture of one phase.
        progress: called with a line now and then, that begins with the phase.

    Raises:
        InputError: with the problems of all phases' documents.
    """
    listed, recipe = load(folder / PHASES, Phases), load(folder / RECIPE, Recipe)
    found: dict[str, Verification] = {}
    broken: list[str] = []
    for phase in listed.phases:

        def tell(line: str, name: str = phase.folder) -> None:
            progress(f"{name}: {line}")

        try:
            found[phase.folder] = one(folder / phase.folder, tell)
        except InputError as error:
            broken += [f"{phase.folder}: {problem}" for problem in error.problems]
    if broken:
        raise InputError(broken)
    problems = _not_the_recipes(folder, listed, recipe, found)
    sources = []
    for source in recipe.sources:
        parts = [read for phase in found.values() for read in phase.sources if read.name == source.name]
        if not parts:
            continue
        total = _total(source, parts, sum(phase.samples for phase in found.values()))
        sources.append(total)
        if total.samples != source.choose and all(phase.passed for phase in found.values()):
            problems.append(
                f"source {source.name!r}: {total.samples:,} samples come in all phases together, the recipe "
                f"says {source.choose:,}"
            )
        problems += [
            f"source {source.name!r}, in all phases together: {problem}"
            for problem in cap_problems(source, total.samples_available, "its shards")
        ]
    return Verification(
        name=listed.name,
        fingerprint="",
        samples_expected=recipe.samples,
        samples=sum(phase.samples for phase in found.values()),
        shards_checked=sum(phase.shards_checked for phase in found.values()),
        shards_hashed=sum(phase.shards_hashed for phase in found.values()),
        sources=sources,
        problems=_named(found, lambda phase: phase.problems) + problems,
        warnings=_named(found, lambda phase: phase.warnings),
        checked=_least(found),
        ranks=next(iter(found.values())).ranks,
        workers=next(iter(found.values())).workers,
        padding_samples=sum(phase.padding_samples for phase in found.values()),
        phases=found,
    )


def _named(found: dict[str, Verification], lines: Callable[[Verification], Iterable[str]]) -> list[str]:
    return [f"{name}: {line}" for name, phase in found.items() for line in lines(phase)]


def _least(found: dict[str, Verification]) -> Checked:
    """What the answer of all phases rests on: the least of each one's."""
    return min((phase.checked for phase in found.values()), key=get_args(Checked).index)


def _not_the_recipes(root: Path, listed: Phases, recipe: Recipe, found: dict[str, Verification]) -> list[str]:
    """Where phases.yaml, the phases' folders and the recipe are not of one run."""
    wanted = phase_recipes(recipe)
    folders = [phase.folder for phase in listed.phases]
    if folders != list(wanted):
        return [
            f"{PHASES} lists {', '.join(folders)}, the recipe's phases are {', '.join(wanted) or 'none'}; "
            "emit again"
        ]
    problems = []
    for phase in listed.phases:
        there = found[phase.folder]
        if there.fingerprint and phase.fingerprint not in (None, there.fingerprint):
            problems.append(
                f"{phase.folder}: it is not the mixture that {PHASES} lists (fingerprint "
                f"{there.fingerprint[:12]}…, not {phase.fingerprint[:12]}…); emit again"
            )
        if there.samples_expected != wanted[phase.folder].samples or phase.samples != there.samples_expected:
            problems.append(
                f"{phase.folder}: it has {there.samples_expected:,} samples, {PHASES} says {phase.samples:,} "
                f"and the recipe {wanted[phase.folder].samples:,}; emit again"
            )
        elif there.checked in ("weights", "files"):  # these say nothing of single sources
            problems += _other_weights(phase.folder, root / phase.folder, wanted[phase.folder])
    return problems


def _other_weights(name: str, folder: Path, wanted: Recipe) -> list[str]:
    weights = read_weights(folder).sources
    return [
        f"{name}: source {source.name!r}: {WEIGHTS} takes {there:,} samples, the recipe says "
        f"{source.choose:,}; emit again"
        for source in wanted.sources
        if (there := weights[source.name].choose if source.name in weights else 0) != source.choose
    ]


def _total(source: RecipeSource, parts: list[SourceReading], samples: int) -> SourceReading:
    """A source over all phases. Which samples came in several of them is not added up."""
    came = sum(part.samples for part in parts)
    available = max(part.samples_available for part in parts)
    return SourceReading(
        name=source.name,
        role=source.role,
        samples_expected=source.choose,
        samples=came,
        tokens_expected=source.tokens,
        tokens=sum(part.tokens for part in parts),
        share=came / max(samples, 1),
        samples_available=available,
        distinct_samples=None,
        epochs=came / available,
        epochs_expected=source.epochs,
        most_repeats=None,
        spread=None,
    )
