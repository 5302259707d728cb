"""The text files of a source: which they are, in which order, and their content as documents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from mixplan.errors import InputError

CHUNK_BYTES = 1 << 24
_WILDCARDS = frozenset("*?[")


class Hasher(Protocol):
    """What is needed of a hashlib object."""

    def update(self, data: bytes, /) -> None: ...


def collect(
    entries: Iterable[str], pattern: str, base: Path, outputs: Iterable[Path], key: str = "text"
) -> list[Path]:
    """The non-empty files that a source's `text` names, sorted by path, each once.

    Args:
        entries: files, folders (searched recursively for `pattern`) or glob patterns, relative to `base`.
        pattern: which files to take from folders.
        base: folder that relative entries start from.
        outputs: folders of built shards; files inside them are never text.
        key: what names them in the plan, for messages.

    Raises:
        InputError: an entry names nothing, or all files are empty.
    """
    problems: list[str] = []
    found: set[Path] = set()
    shards = [folder.resolve() for folder in outputs]
    for entry in entries:
        matches = [path for path in _matches(entry, pattern, base) if path.is_file()]
        matches = [
            path for path in matches if not any(path.resolve().is_relative_to(folder) for folder in shards)
        ]
        if not matches:
            problems.append(_nothing(key, entry, pattern, base))
        found.update(matches)
    if problems:
        raise InputError(problems)
    files = [path for path in sorted(found) if path.stat().st_size > 0]
    if not files:
        raise InputError(f"all {len(found)} file(s) are empty; there is nothing to read")
    return files


def read_documents(files: Iterable[Path], hasher: Hasher) -> Iterator[tuple[Path, bytes, bool]]:
    """The files' content in chunks: (file, chunk, whether the document ends with it).

    `hasher` gets every document followed by a zero byte and its length (8 bytes), so that the same bytes cut
    into other documents hash differently.

    Raises:
        InputError: a file cannot be read, or is empty by now.
    """
    for path in files:
        size = 0
        try:
            with path.open("rb") as file:
                chunk = file.read(CHUNK_BYTES)
                if not chunk:
                    raise InputError(f"{path} became empty while it was read; build again")
                while chunk:
                    following = file.read(CHUNK_BYTES)
                    hasher.update(chunk)
                    size += len(chunk)
                    yield path, chunk, not following
                    chunk = following
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        hasher.update(b"\0" + size.to_bytes(8, "little"))


def input_sha256(files: Iterable[Path]) -> str:
    """The hash that `read_documents` gives over these files."""
    hasher = hashlib.sha256()
    for _ in read_documents(files, hasher):
        pass
    return hasher.hexdigest()


def _matches(entry: str, pattern: str, base: Path) -> list[Path]:
    path = base / Path(entry).expanduser()
    if path.is_dir():
        return list(path.rglob(pattern))
    if path.exists():
        return [path]
    if not _WILDCARDS & set(entry):
        return []
    parts = path.parts
    first = next(index for index, part in enumerate(parts) if _WILDCARDS & set(part))
    return list(Path(*parts[:first]).glob(str(Path(*parts[first:]))))


def _nothing(key: str, entry: str, pattern: str, base: Path) -> str:
    path = base / Path(entry).expanduser()
    if path.is_dir():
        return (
            f"{key} {entry!r}: no file in the folder {path} matches the pattern {pattern!r}; change `pattern`"
        )
    if _WILDCARDS & set(entry):
        return f"{key} {entry!r}: no file matches {path}"
    return f"{key} {entry!r}: no such file or folder: {path}"
