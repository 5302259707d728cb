"""Format `streaming`: streams.yaml, one epoch of which is the whole run, and the loader that reads it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mixplan.documents.mds_index import INDEX, count_tokens
from mixplan.documents.mixture import DatasetSettings, Mixture, StreamSettings
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.fitting import check_source
from mixplan.recipes.folders import is_url
from mixplan.recipes.written import Options, Written, commented_yaml

STREAMS, RECIPE, LOADER = "streams.yaml", "recipe.yaml", "loader.py"
# Picking fractions of epochs sample by sample is the most even over shards; beyond this many samples it takes
# minutes at every start, and 256 samples are picked together instead.
_PICK_SINGLY_UP_TO = 5_000_000
_PICK_TOGETHER = 256

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
        InputError: with every problem of every source.
    """
    mixture, notes = _mixture(recipe, folder, options.block_samples)
    texts = {
        STREAMS: commented_yaml(mixture, _HEADER),
        LOADER: Path(__file__).with_name(LOADER).read_text(encoding="utf-8"),
        RECIPE: commented_yaml(
            recipe, "The recipe that streams.yaml was made from; `mixplan verify` reads it."
        ),
    }
    return Written(texts, notes, mixture.fingerprint)


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
