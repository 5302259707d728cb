"""Which sources to build, from which files, to where: all that can be checked before work is spent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixplan.documents.plan import Plan, PlanSource
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.recipes.bookkeeping import other_tokenizers
from mixplan.recipes.compressing import check_compression
from mixplan.recipes.folders import LOCAL, is_url
from mixplan.recipes.hashing import check_hashes
from mixplan.recipes.locating import Located, is_remote_dataset, locate_input
from mixplan.recipes.mds_shards import SHARD_BYTES_LIMIT, ShardFormat
from mixplan.recipes.tokenizing import Encoder
from mixplan.recipes.uploading import check_remote

DTYPES = ("int32", "uint16", "int64")


@dataclass(frozen=True)
class Settings:
    """How shards are written."""

    dtype: str = "int32"
    """Integer type of the tokens: int32 (which an embedding takes), uint16 or int64."""
    compression: str | None = None
    """NAME or NAME:LEVEL, as Streaming has them."""
    hashes: tuple[str, ...] = ()
    """Of every shard. Default: xxh3_64."""
    local: Path | None = None
    """Folder in which sources with a remote `mds` are built. Default: mds-local beside the plan."""


@dataclass(frozen=True)
class Job:
    """One source to build."""

    source: PlanSource
    folder: Path
    """Where it is built."""
    remote: str | None
    """Where it is then uploaded to."""
    input: Located
    files: list[Path]
    """That are read, in their order."""


def shard_format(plan: Plan, settings: Settings) -> ShardFormat:
    """How shards are written, if the vocabulary fits and Streaming can read it.

    Raises:
        InputError: with every problem.
    """
    problems: list[str] = []
    if settings.dtype not in DTYPES:
        near = did_you_mean(settings.dtype, DTYPES)
        problems.append(f"dtype {settings.dtype!r} is not one of {', '.join(DTYPES)}{near}")
    elif plan.vocabulary - 1 > np.iinfo(settings.dtype).max:
        most = np.iinfo(settings.dtype).max + 1
        problems.append(
            f"dtype {settings.dtype} holds {most:,} tokens, but the vocabulary has {plan.vocabulary:,}; use "
            "int32, the default"
        )
    try:
        hashes = check_hashes(settings.hashes)
    except InputError as error:
        hashes = []
        problems += error.problems
    if settings.compression is not None:
        try:
            check_compression(settings.compression)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    form = ShardFormat(plan.sequence_length, settings.dtype, settings.compression, tuple(hashes))
    if form.size_limit(1) >= SHARD_BYTES_LIMIT:
        raise InputError(
            f"sequence_length={plan.sequence_length:,}: one sample is more than a shard holds (4 GiB); "
            "lower it"
        )
    return form


def select(plan: Plan, names: list[str]) -> list[PlanSource]:
    """The sources of these names; all that have `text` or `data` when no name is given.

    Raises:
        InputError: a name is unknown or its source has neither; or no source has any.
    """
    known = {source.name: source for source in plan.sources}
    problems = [
        f"no source is called {name!r}{did_you_mean(name, known)}" for name in names if name not in known
    ]
    problems += [
        f"source {name!r} has no `text` and no `data`, so there is nothing to build it from"
        for name in names
        if name in known and not _has_input(known[name])
    ]
    if problems:
        raise InputError(problems)
    sources = [s for s in plan.sources if _has_input(s) and (not names or s.name in names)]
    if not sources:
        raise InputError(
            "no source of the plan has `text` or `data`; give the input of those that are to be built"
        )
    return sources


def plan_jobs(
    plan: Plan, sources: list[PlanSource], base: Path, encoder: Encoder, local: Path | None = None
) -> list[Job]:
    """Where each source goes and from which files.

    Args:
        plan: the plan.
        sources: those of its sources that are to be built.
        base: folder that relative paths start from.
        encoder: the plan's tokenizer.
        local: where remote sources are built first.

    Raises:
        InputError: with every problem of every source.
    """
    problems: list[str] = []
    jobs: list[Job] = []
    places = {
        s.name: (local or base / LOCAL).resolve() / s.name
        if is_url(s.mds)
        else (base / Path(s.mds).expanduser()).resolve()
        for s in plan.sources
        if s.mds
    }
    names = [source.name for source in sources]
    others = {s.name: (s.mds, places[s.name]) for s in plan.sources if s.mds and s.name not in names}
    problems += other_tokenizers(base, others, encoder)
    for source in sorted(sources, key=lambda one: is_remote_dataset(one, base)):
        if problems and is_remote_dataset(source, base):
            break  # what is wrong here is told before anything is fetched
        name = f"source {source.name!r}"
        if source.mds is None:
            what = "data" if source.data is not None else "text"
            problems.append(
                f"{name} has `{what}` but no `mds`; say which folder its shards go to, e.g. mds/{source.name}"
            )
            continue
        folder = places[source.name]
        twins = [other for other, place in places.items() if place == folder and other != source.name]
        if twins:
            problems.append(f"{name} and {twins[0]!r} have the same mds folder {folder}; each needs its own")
            continue
        remote = source.mds if is_url(source.mds) else None
        try:
            if remote is not None:
                check_remote(remote)
            found = locate_input(source, plan, base)
        except InputError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
            continue
        if found is None:
            problems.append(f"{name}: what is behind a URL in `data` is not fetched; name a local copy")
            continue
        tokens = _known_tokens(found, encoder)
        if tokens is not None and tokens < plan.sequence_length:
            problems.append(too_short(source.name, tokens, plan.sequence_length))
            continue
        files = list(dict.fromkeys(piece.path for piece in found.pieces))
        jobs.append(Job(source, folder, remote, found, files))
    if problems:
        raise InputError(problems)
    return sorted(jobs, key=lambda job: names.index(job.source.name))


def least_tokens(job: Job, encoder: Encoder) -> int:
    """Tokens that a source has at least, as far as that is known without reading it."""
    return sum(
        piece.stored_bytes // encoder.bytes_per_token if piece.tokens is None else piece.tokens
        for piece in job.input.pieces
        if piece.tokens is not None or piece.kind in ("raw", "text")
    )


def too_short(name: str, tokens: int, length: int) -> str:
    """The problem of a source that fills no sample."""
    return (
        f"source {name!r} has {tokens:,} tokens, less than one sample of {length:,}; "
        "add text, or lower sequence_length"
    )


def _has_input(source: PlanSource) -> bool:
    return bool(source.text) or source.data is not None


def _known_tokens(found: Located, encoder: Encoder) -> int | None:
    """How many there are, when that is known without reading: of bytes as they stand, and of tokens."""
    tokens = 0
    for piece in found.pieces:
        if piece.tokens is not None:
            tokens += piece.tokens + (piece.closes and piece.last not in (None, encoder.end_of_document_id))
        elif piece.kind == "raw" and encoder.kind == "bytes":
            tokens += piece.stored_bytes + 1
        else:
            return None
    return tokens
