"""Files that may be compressed, opened by the ending of their names."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mixplan.errors import InputError

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""Endings that are understood."""


@contextmanager
def opened(path: Path, decompress: bool = True) -> Iterator[IO[bytes]]:
    """The content of a file, decompressed when its name ends in .gz, .bz2, .xz or .zst.

    Raises:
        InputError: the file cannot be read, or is not compressed as its name says; also while it is read.
    """
    try:
        with _stream(path, path.suffix if decompress else "") as file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path}: {_damaged(path)} ({error})") from None
    except OSError as error:
        damaged = path.suffix in COMPRESSED and error.errno is None
        raise InputError(
            f"{path}: {_damaged(path)} ({error})"
            if damaged
            else f"{path}: cannot be read ({error.strerror or error})"
        ) from None


def _damaged(path: Path) -> str:
    return f"is cut short or not compressed as {path.suffix} says; copy it anew"


def _stream(path: Path, suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return io.BufferedReader(gzip.open(path))
    if suffix == ".bz2":
        return bz2.open(path)
    if suffix == ".xz":
        return lzma.open(path)
    if suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(path.as_posix(), compression="zstd"))
    return path.open("rb")
