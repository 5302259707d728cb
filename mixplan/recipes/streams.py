"""Format `streaming`: streams.yaml, one epoch of which is the whole run, and the loader that reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mixplan.documents.loading import as_yaml
from mixplan.documents.mixture import DatasetSettings, Mixture, StreamSettings
from mixplan.documents.recipe import Recipe, RecipeSource
from mixplan.errors import InputError
from mixplan.recipes.fitting import amount_problems, check_source, together_problems
from mixplan.recipes.folders import is_url
from mixplan.recipes.indexes import NotReached, SourceIndex, local_index, remote_index
from mixplan.recipes.ordering import ordered
from mixplan.recipes.written import Options, Written

STREAMS, RECIPE, LOADER = "streams.yaml", "recipe.yaml", "loader.py"
# Picking fractions of epochs sample by sample is the most even over shards; beyond this many samples it takes
# minutes at every start, and 256 samples are picked together instead.
_PICK_SINGLY_UP_TO = 5_000_000
_PICK_TOGETHER = 256
# py1e shifts samples by up to half of a block, drawn from 0.75 to 1.25 of block_samples, within the run. So
# from four times the run on every shift is bounded by the run alone.
_LARGEST_BLOCK_RUNS = 4

_HEADER = """Made by `mixplan emit`; loader.py loads it, `mixplan verify` checks it.
`streams` are keyword arguments of streaming.Stream, `dataset` of streaming.StreamingDataset.
One epoch is the whole run: `choose` is exact, do not add epoch_size, proportion or repeat."""


def streaming(recipe: Recipe, folder: Path, options: Options) -> Written:
    """streams.yaml, loader.py and recipe.yaml.

    Args:
        recipe: with absolute MDS folders.
        folder: where the files will be.
        options: what was asked.

    Raises:
        InputError: with every problem of every source, or what was asked contradicts itself.
        NoAnswer: no order that is even fits into the cache that was asked for.
    """
    options.check_order()
    found = _sources(recipe, folder)
    largest = _LARGEST_BLOCK_RUNS * recipe.samples
    if options.block_samples is not None and options.block_samples > largest:
        found.notes.append(
            f"--block-samples {options.block_samples:,}: {largest:,} is written; the run has "
            f"{recipe.samples:,} samples, and larger blocks change nothing about its order"
        )
    mixture = Mixture(
        name=recipe.name,
        fingerprint="",
        samples=recipe.samples,
        sequence_length=recipe.sequence_length,
        tokens=recipe.tokens,
        column=next((index.counted.column for index in found.indexes.values()), "tokens"),
        dataset=DatasetSettings(
            shuffle_seed=recipe.shuffle_seed,
            shuffle_block_size=min(options.block_samples or recipe.samples, largest),
            sampling_granularity=1 if recipe.samples <= _PICK_SINGLY_UP_TO else _PICK_TOGETHER,
        ),
        streams=found.streams,
        index_sha256={name: index.sha256 for name, index in found.indexes.items()},
    )
    rare = [source.name for source in recipe.sources if source.role == "rare" and source.choose]
    settings, notes, measured = ordered(mixture, rare, found.indexes, options)
    mixture = mixture.model_copy(update={"dataset": settings})
    mixture = mixture.model_copy(update={"fingerprint": mixture.digest()})
    texts = {
        STREAMS: as_yaml(mixture, _HEADER),
        LOADER: Path(__file__).with_name(LOADER).read_text(encoding="utf-8"),
        RECIPE: as_yaml(recipe, "The recipe that streams.yaml was made from; `mixplan verify` reads it."),
    }
    return Written(texts, [*found.notes, *notes], mixture.fingerprint, measured=measured)


@dataclass
class _Found:
    """What there is of the recipe's sources."""

    streams: dict[str, StreamSettings] = field(default_factory=dict)
    indexes: dict[str, SourceIndex] = field(default_factory=dict)
    """Of the streams whose index could be read."""
    notes: list[str] = field(default_factory=list)


def _sources(recipe: Recipe, folder: Path) -> _Found:
    """Every source's stream and index; all problems of all sources at once."""
    found = _Found()
    problems: list[str] = []
    for source in recipe.sources:
        if source.choose == 0:
            found.notes.append(f"source {source.name!r} has no samples in this recipe and is left out")
        elif source.mds is None:
            problems.append(
                f"source {source.name!r} has no `mds`; say where its shards are, or use --format weights"
            )
        else:
            try:
                look = _remote if is_url(source.mds) else _local
                look(recipe, source, source.mds, folder, found)
            except InputError as error:
                problems += [f"source {source.name!r}: {problem}" for problem in error.problems]
    problems += together_problems(recipe) + _columns(found)
    if problems:
        raise InputError(problems)
    return found


def _local(recipe: Recipe, source: RecipeSource, mds: str, folder: Path, found: _Found) -> None:
    index = local_index(Path(mds))
    found.notes += check_source(recipe, source, Path(mds), index.counted)
    found.streams[source.name] = StreamSettings(local=mds, choose=source.choose)
    found.indexes[source.name] = index


def _remote(recipe: Recipe, source: RecipeSource, mds: str, folder: Path, found: _Found) -> None:
    """A source behind a URL; that its index cannot be read from here is no reason not to emit."""
    cache = str(folder / "cache" / source.name)
    found.streams[source.name] = StreamSettings(local=cache, remote=mds, choose=source.choose)
    try:
        index = remote_index(mds)
    except NotReached as error:
        found.notes.append(
            f"source {source.name!r} is remote and {error.problems[0]}: its length, size and evenness were "
            f"not checked (`mixplan verify` does); the loader keeps its shards in {cache}"
        )
        return
    counted = index.counted
    if counted.sequence_length != recipe.sequence_length:
        raise InputError(
            f"{mds} holds samples of {counted.sequence_length:,} tokens, the recipe's have "
            f"{recipe.sequence_length:,}; build the source with that sequence_length"
        )
    if problems := amount_problems(source, counted.samples, counted.sequence_length, mds):
        raise InputError(problems)
    found.indexes[source.name] = index
    found.notes.append(f"source {source.name!r} is remote: the loader keeps its shards in {cache}")


def _columns(found: _Found) -> list[str]:
    """Streaming reads one column of all streams."""
    columns: dict[str, list[str]] = {}
    for name, index in found.indexes.items():
        columns.setdefault(index.counted.column, []).append(name)
    if len(columns) < 2:
        return []
    shown = "; ".join(f"{column!r} in {', '.join(names)}" for column, names in columns.items())
    return [f"the sources keep their tokens in columns of different names: {shown}; build them alike"]
