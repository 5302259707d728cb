"""The compressions of shards that Streaming knows, without importing it: br, bz2, gz, snappy, zstd."""

from __future__ import annotations

import bz2
import gzip
from importlib import import_module

from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError

# Levels, and the one that Streaming takes when none is given.
_LEVELS: dict[str, tuple[range, int]] = {
    "br": (range(12), 11),
    "bz2": (range(1, 10), 9),
    "gz": (range(10), 9),
    "snappy": (range(0), 0),
    "zstd": (range(1, 23), 3),
}


def check_compression(given: str) -> str:
    """The compression as it is, if Streaming reads it: NAME or NAME:LEVEL.

    Raises:
        InputError: it does not.
    """
    name, _, level = given.partition(":")
    if name not in _LEVELS:
        raise InputError(
            f"compression {given!r} is not known{did_you_mean(name, _LEVELS)}; use one of "
            f"{', '.join(_LEVELS)}, with a level as in zstd:3, or none"
        )
    levels = _LEVELS[name][0]
    if ":" in given and not (level.isdigit() and str(int(level)) == level and int(level) in levels):
        allowed = f"{levels[0]} … {levels[-1]}" if levels else "it has none"
        raise InputError(f"compression {given!r}: no such level ({allowed})")
    return given


def extension(compression: str) -> str:
    """Ending of the files, without a dot."""
    return compression.partition(":")[0]


def compress(compression: str, data: bytes) -> bytes:
    """The data, compressed as Streaming would; gz without the time, so that the same data give the same."""
    name, _, level = compression.partition(":")
    number = int(level) if level else _LEVELS[name][1]
    if name == "br":
        return bytes(import_module("brotli").compress(data, quality=number))
    if name == "bz2":
        return bz2.compress(data, number)
    if name == "gz":
        return gzip.compress(data, number, mtime=0)
    if name == "snappy":
        return bytes(import_module("snappy").compress(data))
    return bytes(import_module("zstd").compress(data, number))


def decompress(compression: str, data: bytes) -> bytes:
    """The reverse.

    Raises:
        Exception: of the library, when the data are damaged.
    """
    name = extension(compression)
    if name == "br":
        return bytes(import_module("brotli").decompress(data))
    if name == "bz2":
        return bz2.decompress(data)
    if name == "gz":
        return gzip.decompress(data)
    if name == "snappy":
        return bytes(import_module("snappy").decompress(data))
    return bytes(import_module("zstd").decompress(data))
