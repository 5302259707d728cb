"""The files of a source: which they are, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mixplan.errors import InputError

CHUNK_BYTES = 1 << 24
_WILDCARDS = frozenset("*?[")


def collect(
    entries: Iterable[str], pattern: str, base: Path, outputs: Iterable[Path], key: str = "text"
) -> list[Path]:
    """The non-empty files that a source's `text` names, sorted by path, each once.

    Args:
        entries: files, folders (searched recursively for `pattern`) or glob patterns, relative to `base`.
        pattern: which files to take from folders.
        base: folder that relative entries start from.
        outputs: folders that are built, and other files that are written; none of them is ever read.
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
