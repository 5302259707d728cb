"""A recipe becomes files that a trainer reads."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mixplan.documents.atomic import refuse_foreign, write_text
from mixplan.documents.base import Document
from mixplan.documents.loading import load
from mixplan.documents.mds_index import INDEX, count_tokens
from mixplan.documents.mixture import DatasetSettings, Mixture, StreamSettings
from mixplan.documents.recipe import Recipe
from mixplan.documents.syntax import dump_yaml
from mixplan.errors import InputError
from mixplan.recipes.fitting import check_source
from mixplan.recipes.folders import is_url

STREAMS, WEIGHTS, RECIPE, LOADER = "streams.yaml", "weights.json", "recipe.yaml", "loader.py"
FORMATS = ("streaming", "weights")
# Picking fractions of epochs sample by sample is the most even over shards; beyond this many samples it takes
# minutes at every start, and 256 samples are picked together instead.
_PICK_SINGLY_UP_TO = 5_000_000
_PICK_TOGETHER = 256


@dataclass(frozen=True)
class Emitted:
    """What was written."""

    files: list[Path]
    fingerprint: str | None
    """Of the mixture. Empty with format weights."""
    notes: list[str]
    """What the user should know: sources dropped, sizes that differ."""


def emit(
    recipe_path: Path,
    folder: Path,
    format: Literal["streaming", "weights"] | str = "streaming",
    block_samples: int | None = None,
    force: bool = False,
) -> Emitted:
    """Write a recipe for a trainer.

    streaming: streams.yaml (one epoch is the whole run, exact `choose` per stream, all paths absolute),
    loader.py, weights.json and recipe.yaml. weights: weights.json alone.

    Args:
        recipe_path: the recipe; relative `mds` paths start from its folder.
        folder: output folder: new, empty, or written by emit before.
        format: see above.
        block_samples: shuffle within blocks of this many samples (py1e) instead of the whole run at once, so
            that not all shards are needed on a node at a time. Scarce sources become less even.
        force: replace files of another mixture.

    Raises:
        InputError: with every problem: unknown format, missing or unfit MDS folders, more epochs than
            allowed, an output folder that holds something else.
    """
    if format not in FORMATS:
        raise InputError(f"format {format!r} is not known; use one of {', '.join(FORMATS)}")
    recipe = load(recipe_path, Recipe)
    base = Path(recipe_path).resolve().parent
    folder = Path(folder).absolute()
    refuse_foreign(folder, [STREAMS, WEIGHTS], "emit")
    texts = {WEIGHTS: _weights(recipe)}
    notes: list[str] = []
    fingerprint = None
    if format == "streaming":
        recipe = _resolved(recipe, base)
        mixture, notes = _mixture(recipe, folder, block_samples)
        fingerprint = mixture.fingerprint
        texts[STREAMS] = _yaml(mixture, _HEADER)
        texts[LOADER] = Path(__file__).with_name(LOADER).read_text(encoding="utf-8")
        texts[RECIPE] = _yaml(
            recipe, "The recipe that streams.yaml was made from; `mixplan verify` reads it."
        )
    _refuse_changes(folder, texts, force)
    for name, text in texts.items():
        write_text(folder / name, text)
    return Emitted([folder / name for name in texts], fingerprint, notes)


_HEADER = """Made by `mixplan emit`; loader.py loads it, `mixplan verify` checks it.
`streams` are keyword arguments of streaming.Stream, `dataset` of streaming.StreamingDataset.
One epoch is the whole run: `choose` is exact, do not add epoch_size, proportion or repeat."""


def _yaml(document: Document, header: str) -> str:
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + dump_yaml(document.model_dump(mode="json"))


def _weights(recipe: Recipe) -> str:
    """weights.json: for trainers of every kind."""
    sources = {
        source.name: source.model_dump(
            mode="json", include={"share", "natural_share", "rate", "epochs", "tokens", "choose"}
        )
        for source in recipe.sources
    }
    head = {
        "schema_version": 1,
        "name": recipe.name,
        "samples": recipe.samples,
        "sequence_length": recipe.sequence_length,
        "tokens": recipe.tokens,
        "shuffle_seed": recipe.shuffle_seed,
    }
    return json.dumps({**head, "sources": sources}, indent=2, allow_nan=False) + "\n"


def _resolved(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with absolute MDS folders, so that its copy means the same."""
    sources = []
    for source in recipe.sources:
        place = source.mds
        if place is not None and not is_url(place):
            place = os.path.normpath(base / Path(place).expanduser())
        sources.append(source.model_copy(update={"mds": place}))
    return recipe.model_copy(update={"sources": sources})


def _mixture(recipe: Recipe, folder: Path, block_samples: int | None) -> tuple[Mixture, list[str]]:
    """The mixture, and notes; every problem of every source at once."""
    if block_samples is not None and block_samples < 1:
        raise InputError(f"--block-samples {block_samples}: at least one sample is needed")
    problems: list[str] = []
    notes: list[str] = []
    streams: dict[str, StreamSettings] = {}
    digests: dict[str, str] = {}
    columns: dict[str, list[str]] = {}
    for source in recipe.sources:
        if source.choose == 0:
            notes.append(f"source {source.name!r} has no samples in this recipe and is left out")
        elif source.mds is None:
            problems.append(
                f"source {source.name!r} has no `mds`; say where its shards are, or use --format weights"
            )
        elif is_url(source.mds):
            cache = str(folder / "cache" / source.name)
            streams[source.name] = StreamSettings(local=cache, remote=source.mds, choose=source.choose)
            notes.append(
                f"source {source.name!r} is remote: its length and size were not checked (`mixplan verify` "
                f"does); the loader keeps its shards in {cache}"
            )
        else:
            place = Path(source.mds)
            try:
                counted = count_tokens(place)
                notes += check_source(recipe, source, place, counted)
            except InputError as error:
                problems += [f"source {source.name!r}: {problem}" for problem in error.problems]
                continue
            streams[source.name] = StreamSettings(local=source.mds, choose=source.choose)
            digests[source.name] = hashlib.sha256((place / INDEX).read_bytes()).hexdigest()
            columns.setdefault(counted.column, []).append(source.name)
    readers: dict[str, list[str]] = {}
    for name, stream in streams.items():
        readers.setdefault(stream.remote or stream.local, []).append(name)
    problems += [
        f"sources {', '.join(names)} read the same shards, {shards}; merge them, or split the data"
        for shards, names in readers.items()
        if len(names) > 1
    ]
    if len(columns) > 1:
        shown = "; ".join(f"{column!r} in {', '.join(names)}" for column, names in columns.items())
        problems.append(
            f"the sources keep their tokens in columns of different names: {shown}; build them alike"
        )
    if problems:
        raise InputError(problems)
    mixture = Mixture(
        name=recipe.name,
        fingerprint="",
        samples=recipe.samples,
        sequence_length=recipe.sequence_length,
        tokens=recipe.tokens,
        column=next(iter(columns), "tokens"),
        dataset=DatasetSettings(
            shuffle_algo="naive" if block_samples is None else "py1e",
            shuffle_seed=recipe.shuffle_seed,
            shuffle_block_size=block_samples or recipe.samples,
            sampling_granularity=1 if recipe.samples <= _PICK_SINGLY_UP_TO else _PICK_TOGETHER,
        ),
        streams=streams,
        index_sha256=digests,
    )
    return mixture.model_copy(update={"fingerprint": mixture.digest()}), notes


def _refuse_changes(folder: Path, texts: dict[str, str], force: bool) -> None:
    """Files of the same mixture may be written again; those of another one only with force."""
    changed = [
        name
        for name, text in texts.items()
        if (folder / name).exists() and (folder / name).read_bytes() != text.encode("utf-8")
    ]
    if not changed:
        return
    if not force:
        raise InputError(
            f"{folder} holds another mixture ({', '.join(changed)} would change), which a run may be "
            "training on: give another folder with -o, or add --force"
        )
    for name in (STREAMS, RECIPE, LOADER):  # of the other mixture, when only weights are written now
        if name not in texts:
            (folder / name).unlink(missing_ok=True)
