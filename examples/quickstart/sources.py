"""Text that every machine with Python has, as four sources of very different size.

library    the standard library's modules            common
tests      its test suite, where it is installed     common
encodings  the character maps                        rare
topics     the interpreter's documentation topics    rare
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

# Enough for the quickstart: the ladder reads each token of them about once.
MOST_BYTES = {"library": 6_000_000, "tests": 4_000_000, "encodings": 1_500_000, "topics": 1_000_000}
_NOT_LIBRARY = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "encodings",
    "pydoc_data",
    "__pycache__",
}


def collect(folder: Path) -> dict[str, int]:
    """Write each source as text files under folder/NAME; returns the bytes of each."""
    standard = Path(sysconfig.get_paths()["stdlib"])
    sources = {
        "library": _modules(standard),
        "tests": _files(standard / "test"),
        "encodings": _files(standard / "encodings"),
        "topics": _topics(),
    }
    sizes = {}
    for name, documents in sources.items():
        size = _write(folder / name, documents, MOST_BYTES[name])
        if size:
            sizes[name] = size
    return sizes


def _modules(standard: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(standard.rglob("*.py")):
        if not _NOT_LIBRARY & set(path.relative_to(standard).parts):
            yield _named(path, standard)


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*.py")):
        if "__pycache__" not in path.parts:
            yield _named(path, folder)


def _named(path: Path, root: Path) -> tuple[str, str]:
    return "_".join(path.relative_to(root).parts), path.read_text(encoding="utf-8", errors="replace")


def _topics() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        yield f"{name}.txt".replace("/", "_"), text


def _write(folder: Path, documents: Iterator[tuple[str, str]], most: int) -> int:
    written = 0
    for name, text in documents:
        data = text.encode("utf-8")
        if not data or written + len(data) > most:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        written += len(data)
    return written
