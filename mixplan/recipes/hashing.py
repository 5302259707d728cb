"""Hashes by the names that Streaming gives them: those of hashlib and of xxhash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError

DEFAULT = "xxh3_64"
_CHUNK_BYTES = 1 << 20


def known_hashes() -> list[str]:
    """What Streaming can check: all but those of no fixed length."""
    import xxhash

    of_python = (name for name in sorted(hashlib.algorithms_available) if not name.startswith("shake_"))
    return [*sorted(xxhash.algorithms_available), *(name for name in of_python if hasattr(hashlib, name))]


def check_hashes(given: Iterable[str]) -> list[str]:
    """The names, each once and in the order that Streaming wants; the default when there are none.

    Raises:
        InputError: one is not known.
    """
    names = sorted(set(given)) or [DEFAULT]
    known = known_hashes()
    problems = [
        f"hash {name!r} is not known{did_you_mean(name, known)}; use one of {', '.join(known)}"
        for name in names
        if name not in known
    ]
    if problems:
        raise InputError(problems)
    return names


def hash_bytes(name: str, data: bytes) -> str:
    """The hash of this name, in hexadecimal."""
    return str(_hasher(name)(data).hexdigest())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file; raises as `hash_file`."""
    return hash_file("sha256", path)


def hash_file(name: str, path: Path) -> str:
    """The hash of this name of a file, in hexadecimal.

    Raises:
        InputError: it cannot be read.
    """
    digest = _hasher(name)()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return str(digest.hexdigest())


def input_sha256(files: Iterable[tuple[str, int]]) -> str:
    """Over the SHA-256 and the length of every file, in their order: other documents hash differently."""
    digest = hashlib.sha256()
    for sha256, size in files:
        digest.update(bytes.fromhex(sha256) + size.to_bytes(8, "little"))
    return digest.hexdigest()


def _hasher(name: str) -> Any:
    import xxhash

    return getattr(xxhash if name in xxhash.algorithms_available else hashlib, name)
