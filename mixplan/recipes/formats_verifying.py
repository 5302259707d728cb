"""Token files for Megatron, nanotron and Hugging Face: as they were written, and weighted as the recipe says.

In which order these trainers read is theirs, and not looked at here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mixplan.documents.loading import load
from mixplan.documents.mds_index import INDEX
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.data_folders import damage
from mixplan.recipes.formats_settings import Named, Settings, settings_in
from mixplan.recipes.shards import check_shards
from mixplan.recipes.streams import RECIPE
from mixplan.recipes.verified import Verification
from mixplan.recipes.weights_verifying import read_weights


@dataclass
class _Found:
    files: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """Also what could not be looked at."""


def with_formats(
    found: Verification, folder: Path, hashes: bool, progress: Callable[[str], None]
) -> Verification:
    """What is known of a folder, and what its files for these trainers add to that.

    Args:
        found: of the folder's mixture, or of its weights.
        folder: what `emit` wrote.
        hashes: read the files and compare digests, not only presence and size.
        progress: called with a line a source.

    Raises:
        InputError: a trainer's settings are broken, or neither recipe nor weights are there to compare with.
    """
    told = settings_in(folder)
    if not told:
        return found
    samples, length, choose = _expected(folder)
    seen = _Found()
    for settings in told:
        seen.problems += settings.problems + _unlike(settings, samples, length, choose)
        _check_data(settings, list(choose), hashes, seen, progress)
    warnings, checked = found.warnings, found.checked
    if checked == "weights" and seen.files:
        warnings, checked = [], "files"
    return replace(
        found,
        checked=checked,
        shards_checked=found.shards_checked + seen.files,
        shards_hashed=found.shards_hashed + (seen.files if hashes else 0),
        problems=found.problems + seen.problems,
        warnings=warnings + seen.warnings,
    )


def _expected(folder: Path) -> tuple[int, int, dict[str, int]]:
    """Samples of the run, tokens of each, and `choose` of every source that has any, in order."""
    if (folder / RECIPE).is_file():
        recipe = load(folder / RECIPE, Recipe)
        choose = {source.name: source.choose for source in recipe.sources}
        samples, length = recipe.samples, recipe.sequence_length
    else:
        weights = read_weights(folder)
        choose = {name: weight.choose for name, weight in weights.sources.items()}
        samples, length = weights.samples, weights.sequence_length
    return samples, length, {name: count for name, count in choose.items() if count}


def _unlike(settings: Settings, samples: int, length: int, choose: dict[str, int]) -> list[str]:
    """Where a trainer is told something else than the recipe says."""
    problems = []
    if settings.samples != samples:
        problems.append(f"the run is {settings.samples:,} samples, the recipe says {samples:,}")
    if settings.sequence_length != length:
        problems.append(f"samples have {settings.sequence_length:,} tokens, the recipe says {length:,}")
    if len(settings.sources) != len(choose):
        problems.append(
            f"there are {len(settings.sources):,} sources, the recipe takes samples of {len(choose):,}"
        )
    else:
        for source, (name, count) in zip(settings.sources, choose.items(), strict=True):
            if not _is(source, name):
                problems.append(f"where source {name!r} should be, {source.source or source.folder} is")
            elif source.choose != count:
                problems.append(
                    f"source {name!r}: {source.choose:,g} samples are taken, the recipe says {count:,}"
                )
    return [f"{settings.file}: {problem}; emit again" for problem in problems]


def _is(source: Named, name: str) -> bool:
    """Whether what a trainer is told is of this source, as far as that can be seen."""
    if source.source is not None:
        return source.source == name
    # data/NAME-DIGEST, or data/NAME where it was not known what the data would be
    return source.folder is None or source.folder.name in (name, f"{name}-{source.folder.name[-12:]}")


def _check_data(
    settings: Settings, names: list[str], hashes: bool, seen: _Found, progress: Callable[[str], None]
) -> None:
    missing: list[str] = []
    for number, source in enumerate(settings.sources):
        name = source.source or (names[number] if number < len(names) else f"number {number + 1}")
        progress(f"{name}: checking the data that {settings.file.name} names")
        if not source.files:
            problems = _shard_problems(source, hashes, seen)
        elif absent := [str(file) for file in source.files if not file.is_file()]:
            are = "is" if len(absent) == 1 else "are"
            missing.append(f"source {name!r}: {', '.join(absent)} {are} missing")
            continue
        else:
            problems = _file_problems(source, name, hashes, seen)
        seen.problems += [f"source {name!r}: {problem}" for problem in problems]
    # Without --with-data emit writes the settings alone; Parquet files it then does not name.
    if len(missing) == len(settings.sources) and not any(source.source for source in settings.sources):
        seen.warnings.append(
            f"none of the token files that {settings.file} names is there, and only the weights were "
            "checked; emit with --with-data to have them written"
        )
    else:
        seen.problems += [f"{line}; emit again with --with-data" for line in missing]


def _shard_problems(source: Named, hashes: bool, seen: _Found) -> list[str]:
    """Of shards that are read as they are."""
    assert source.shards is not None
    try:
        checked = check_shards(source.shards, hashes)
        digest = hashlib.sha256((source.shards / INDEX).read_bytes()).hexdigest()
    except InputError as error:
        return error.problems
    seen.files += checked.shards
    problems = list(checked.problems)
    if digest != source.index_sha256:
        problems.append(f"{source.shards / INDEX} is not the one that was emitted for; emit again")
    return problems


def _file_problems(source: Named, name: str, hashes: bool, seen: _Found) -> list[str]:
    """Of token files that are there."""
    if source.folder is None:
        seen.warnings.append(
            f"source {name!r}: {source.files[0]} was not written by emit; only that it is there was checked"
        )
        return []
    seen.files += len(source.files)
    damaged = damage(source.folder, hashes)
    problems = [f"{problem}; move {source.folder} away and emit again" for problem in damaged]
    if not problems and (wrong := source.contradiction()):
        problems.append(f"{wrong}; emit again")
    return problems
