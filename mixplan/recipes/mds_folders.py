"""The tokens of one or several MDS folders, from their indices."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

from mixplan.documents.loading import load
from mixplan.documents.mds_index import INDEX, count_tokens, read_index
from mixplan.documents.source_build import SOURCE, SourceBuild
from mixplan.errors import InputError
from mixplan.recipes.mds_shards import ShardFile
from mixplan.recipes.shards import check_shards


@dataclass(frozen=True)
class MdsTotal:
    """What several folders hold together."""

    folders: list[Path]
    tokens: int
    documents: int | None
    """Known where `build` wrote all the folders."""
    text_bytes: int | None
    """UTF-8 bytes that were tokenised; known likewise, where that was text."""
    notes: list[str]


def folders_in(folder: Path) -> list[Path]:
    """The folder itself when it has an index or none below it has, else those below that have one."""
    if (folder / INDEX).is_file():
        return [folder]
    found: list[Path] = []
    for place in sorted(index.parent for index in folder.rglob(INDEX)):
        # An index above speaks for the folders below it, when Streaming merged theirs.
        if not any(place.is_relative_to(above) for above in found):
            found.append(place)
    return found or [folder]


def named_folders(entries: list[str], base: Path) -> list[Path]:
    """The MDS folders that entries (folders or glob patterns, relative to `base`) name, each once.

    Raises:
        InputError: an entry names no folder.
    """
    problems: list[str] = []
    found: set[Path] = set()
    for entry in entries:
        path = base / Path(entry).expanduser()
        matches = [path] if path.is_dir() else [Path(one) for one in glob.glob(str(path), recursive=True)]
        places = [one.resolve() for one in matches if one.is_dir()]
        if not places:
            problems.append(f"data.paths {entry!r}: no such folder: {path}")
        for place in places:
            found.update(folders_in(place))
    if problems:
        raise InputError(problems)
    return sorted(found)


def shard_files(folder: Path) -> list[ShardFile]:
    """The shards of an MDS folder, for reading their tokens.

    Raises:
        InputError: the index is missing, unreadable, or has no column of tokens of one length.
    """
    counted = count_tokens(folder)
    found = []
    for shard in read_index(folder):
        raw, packed = shard["raw_data"], shard.get("zip_data")
        part = raw if packed is None or (folder / raw["basename"]).exists() else packed
        found.append(
            ShardFile(
                folder / part["basename"],
                shard["compression"] if part is packed else None,
                part["bytes"],
                tuple(part.get("hashes", {}).items()),
                shard["samples"],
                counted.sequence_length,
                counted.dtype,
                shard["column_names"].index(counted.column),
                tuple(shard["column_sizes"]),
            )
        )
    return found


def total(folders: list[Path], sequence_length: int, strict: bool) -> MdsTotal:
    """Count the folders.

    Args:
        folders: MDS folders.
        sequence_length: the plan's tokens a sample.
        strict: samples must have that length, because a recipe will choose whole ones; else they are noted.

    Raises:
        InputError: with every problem of every folder.
    """
    problems: list[str] = []
    notes: list[str] = []
    builds: list[SourceBuild] = []
    tokens = 0
    for folder in folders:
        try:
            counted = count_tokens(folder)
            missing = check_shards(folder, hashes=False).problems
            if (folder / SOURCE).is_file():
                builds.append(load(folder / SOURCE, SourceBuild))
        except InputError as error:
            problems += error.problems
            continue
        tokens += counted.tokens
        if missing:
            notes.append(f"{missing[0]} ({len(missing)} such shard(s)); counted as the index has it")
        if counted.sequence_length != sequence_length:
            differs = (
                f"{folder} holds samples of {counted.sequence_length:,} tokens, the plan's sequence_length "
                f"is {sequence_length:,}; a recipe chooses whole samples"
            )
            if strict:
                problems.append(f"{differs}: use one length")
            else:
                notes.append(f"{differs}: write the source anew before `mixplan emit`")
    if problems:
        raise InputError(problems)
    documents = [build.documents for build in builds]
    text_bytes = [build.text_bytes for build in builds if build.text_bytes is not None]
    return MdsTotal(
        folders,
        tokens,
        sum(documents) if len(documents) == len(folders) else None,
        sum(text_bytes) if len(text_bytes) == len(folders) else None,
        notes,
    )
