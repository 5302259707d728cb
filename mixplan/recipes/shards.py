"""Are an MDS folder's shards what its index says? Streaming does not tell: it ends early, or reads on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixplan.documents.mds_index import INDEX, read_index
from mixplan.errors import InputError

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class ShardCheck:
    """What was found."""

    problems: list[str]
    """One line per bad file, with its path."""
    shards: int
    hashed: int
    """Of these, compared by hash, not only by size."""
    without_hash: int
    """Of these, without any hash in the index."""
    compressed: bool
    """Whether Streaming would decompress shards into the folder."""


def check_shards(
    folder: Path,
    hashes: bool = True,
    present_only: bool = False,
    beat: Callable[[Path], None] = lambda _: None,
) -> ShardCheck:
    """Compare every shard file with the index: presence, size, and the first hash that the index names.

    Args:
        folder: the MDS folder.
        hashes: read the files and compare hashes too.
        present_only: files that are missing are fine (a cache that was filled as far as needed).
        beat: called with each file before something of it is read.

    Raises:
        InputError: the index is missing, unreadable or incomplete.
    """
    problems: list[str] = []
    hashed = without_hash = 0
    shards = read_index(folder)
    for number, shard in enumerate(shards):
        candidates = [part for part in (shard.get("raw_data"), shard.get("zip_data")) if part]
        if not candidates or not all(_describes_file(part) for part in candidates):
            raise InputError(
                f"{folder / INDEX}: shard {number} has no file name and size; build the source again"
            )
        present = [part for part in candidates if (folder / part["basename"]).exists()]
        if not present:
            if not present_only:
                names = " or ".join(part["basename"] for part in candidates)
                problems.append(f"{folder / names} is missing, though its index lists it")
            continue
        part = present[0]
        without_hash += not part.get("hashes")
        path = folder / part["basename"]
        beat(path)
        if not path.is_file():
            problems.append(f"{path} is not a file")
        elif path.stat().st_size != part["bytes"]:
            problems.append(f"{path} has {path.stat().st_size:,} bytes, its index says {part['bytes']:,}")
        elif hashes and part.get("hashes"):
            hashed += 1
            problems += _compare(path, part["hashes"], beat)
    compressed = any(shard.get("zip_data") for shard in shards)
    return ShardCheck(problems, len(shards), hashed, without_hash, compressed)


def _describes_file(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    return isinstance(part.get("basename"), str) and isinstance(part.get("bytes"), int)


def _compare(path: Path, wanted: dict[str, str], beat: Callable[[Path], None]) -> list[str]:
    name, digest = next(iter(wanted.items()))
    hasher = _hasher(name)
    if hasher is None:
        return [f"{path}: its index names the hash {name!r}, which is not known here"]
    beat(path)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
            beat(path)
    if hasher.hexdigest() != digest:
        return [f"{path}: its content is not what was written ({name} is {hasher.hexdigest()}, not {digest})"]
    return []


def _hasher(name: str) -> Any:
    """Streaming's names: those of hashlib and of xxhash."""
    if name in hashlib.algorithms_available:
        return hashlib.new(name)
    import xxhash

    return getattr(xxhash, name)() if name in xxhash.algorithms_available else None
