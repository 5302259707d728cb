"""The entry of a built source in sources.lock; those of others stay, and must go with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixplan.documents.loading import load, save
from mixplan.documents.mds_index import INDEX
from mixplan.documents.source_build import SOURCE, SourceBuild
from mixplan.documents.sources_lock import SOURCES_LOCK, LockedFile, LockedInput, LockedSource, SourcesLock
from mixplan.recipes.folders import is_url, locked
from mixplan.recipes.pieces import Count
from mixplan.recipes.tokenizing import Encoder

_HEADER = """Made by `mixplan build`: the files that every source was built from, and what came of them.
Keep it with the plan."""


def book(
    base: Path,
    build: SourceBuild,
    mds: str,
    folder: Path,
    files: Sequence[tuple[Path, str]],
    counts: Mapping[Path, Count] | None,
) -> list[str]:
    """Enter a source.

    Args:
        base: folder of the plan.
        build: what was built.
        mds: its place, as the plan gives it.
        folder: where its shards are.
        files: its input files in their order, with SHA-256.
        counts: what is in each file; nothing where they were not read again, and what is known stays.

    Returns:
        Warnings about files that are in other sources too.
    """
    path = base / SOURCES_LOCK
    with locked(base):  # of two builds side by side neither undoes the other's entry
        lock = load(path, SourcesLock) if path.is_file() else SourcesLock()
        known = (
            {one.sha256: one for one in lock.sources[build.name].input} if build.name in lock.sources else {}
        )
        entries = []
        for file, sha256 in files:
            if counts is not None:
                entry = LockedInput(
                    sha256=sha256, documents=counts[file].documents, tokens=counts[file].tokens
                )
            else:
                entry = known.get(sha256, LockedInput(sha256=sha256))
            entries.append(entry)
        source = LockedSource(
            mds=mds,
            samples=build.samples,
            sequence_length=build.sequence_length,
            tokens=build.tokens,
            dropped_tokens=build.dropped_tokens,
            documents=build.documents,
            tokenizer=build.tokenizer,
            tokenizer_sha256=build.tokenizer_sha256,
            index_sha256=hashlib.sha256((folder / INDEX).read_bytes()).hexdigest(),
            input=entries,
        )
        sources = {**lock.sources, build.name: source}
        new = SourcesLock(files=_files(lock, sources, base, files), sources=dict(sorted(sources.items())))
        if new != lock:
            save(new, path, _HEADER)
    return _warnings(new, build.name)


def other_tokenizers(base: Path, others: Mapping[str, tuple[str, Path]], encoder: Encoder) -> list[str]:
    """A problem for every source that is built already, with another tokenizer: their ids mean other text.

    Args:
        base: folder of the plan.
        others: the plan's sources that are not to be built now: `mds` as the plan gives it, and the folder
            that it is built in.
        encoder: the plan's tokenizer.

    Raises:
        InputError: sources.lock or a source.json cannot be read.
    """
    path = base / SOURCES_LOCK
    booked = load(path, SourcesLock).sources if path.is_file() else {}
    problems = []
    for name, (mds, folder) in others.items():
        there: dict[str, object] = {}
        if (folder / SOURCE).is_file():
            there = load(folder / SOURCE, SourceBuild).model_dump()
        elif name in booked and booked[name].mds == mds and (is_url(mds) or folder.is_dir()):
            there = booked[name].model_dump()
        wanted = {
            "tokenizer": encoder.kind,
            "tokenizer_sha256": encoder.sha256,
            "end_of_document_id": encoder.end_of_document_id,
        }
        differ = [
            f"{key} is {there[key]}, not {one}" for key, one in wanted.items() if there.get(key, one) != one
        ]
        if differ:
            problems.append(
                f"source {name!r} was built with another tokenizer than the plan's ({', '.join(differ)}); a "
                f"mixture cannot have both: build it anew ({folder} must go, or its `mds` be another), or go "
                "back to its tokenizer"
            )
    return problems


def _files(
    lock: SourcesLock, sources: Mapping[str, LockedSource], base: Path, files: Sequence[tuple[Path, str]]
) -> dict[str, LockedFile]:
    """The files that some source refers to, by their hash; paths of files that changed since are dropped."""
    now = {os.path.relpath(path, base): sha256 for path, sha256 in files}
    sizes = {sha256: path.stat().st_size for path, sha256 in files}
    paths: dict[str, set[str]] = {sha256: set() for sha256 in now.values()}
    for sha256, file in lock.files.items():
        paths.setdefault(sha256, set()).update(one for one in file.paths if now.get(one, sha256) == sha256)
    for one, sha256 in now.items():
        paths[sha256].add(one)
    used = {one.sha256 for source in sources.values() for one in source.input}
    return {
        sha256: LockedFile(bytes=sizes.get(sha256) or lock.files[sha256].bytes, paths=sorted(paths[sha256]))
        for sha256 in sorted(used)
    }


def _warnings(lock: SourcesLock, name: str) -> list[str]:
    together: dict[str, list[str]] = {}
    for sha256, names in lock.shared().items():
        for other in names:
            if name in names and other != name:
                together.setdefault(other, []).append((lock.files[sha256].paths or [sha256])[0])
    return [
        f"source {name!r} and source {other!r} were built from {len(paths):,} file(s) of the same content, "
        f"e.g. {paths[0]}: the same tokens are no two sources'; leave them out of one"
        for other, paths in together.items()
    ]
