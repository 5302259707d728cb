"""What the index of an MDS folder tells without reading a shard, and without Streaming.

MDS index, version 2: `shards[i]` has column_names, column_encodings, column_sizes (bytes, empty where rows
vary), samples, raw_data {basename, bytes, hashes}, zip_data (the same, or null), hashes, format.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixplan.errors import InputError

INDEX = "index.json"
_TOKEN_COLUMNS = ("tokens", "input_ids")
_INTEGER_TYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@dataclass(frozen=True)
class MdsCount:
    """What an MDS folder of fixed-length samples holds."""

    samples: int
    sequence_length: int
    """Tokens a sample."""
    tokens: int
    """samples × sequence_length."""
    column: str
    """Column that holds the tokens."""
    dtype: str
    """Integer type of that column."""


def read_index(folder: Path) -> list[dict[str, Any]]:
    """The shards of an MDS folder, as its index lists them.

    Raises:
        InputError: the folder or its index is missing, the index is not JSON, or not MDS version 2.
    """
    folder = Path(folder)
    path = folder / INDEX
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; an MDS folder with {INDEX} is needed (`mixplan build` writes one)"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no {INDEX}; it is no MDS folder, or its writing was cut short"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error}); build the source again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    shards = index.get("shards") if isinstance(index, dict) else None
    version = index.get("version") if isinstance(index, dict) else None
    if version != 2 or not isinstance(shards, list):
        raise InputError(f"{path}: not an MDS index of version 2 (version: {version!r})")
    if not shards:
        raise InputError(f"{path} lists no shards; the source is empty")
    for number, shard in enumerate(shards):
        if (
            not isinstance(shard, dict)
            or shard.get("format") != "mds"
            or not isinstance(shard.get("samples"), int)
        ):
            raise InputError(
                f"{path}: shard {number} is not described as an MDS shard; build the source again"
            )
    return shards


def count_tokens(folder: Path) -> MdsCount:
    """Samples and tokens of an MDS folder, from its index alone.

    The token column is `tokens`, else `input_ids`, else the only integer ndarray column.

    Raises:
        InputError: as `read_index`; or no column holds token arrays of one fixed length in all shards.
    """
    shards = read_index(folder)
    kinds = {_token_column(folder, shard) for shard in shards}
    if len(kinds) > 1:
        shown = ", ".join(sorted(f"{column} ({length} × {dtype})" for column, dtype, length in kinds))
        raise InputError(f"{folder}: its shards do not agree on one token column and length: {shown}")
    column, dtype, length = kinds.pop()
    samples = sum(shard["samples"] for shard in shards)
    if samples < 1:
        raise InputError(f"{folder} holds no samples")
    return MdsCount(samples, length, samples * length, column, dtype)


def _token_column(folder: Path, shard: dict[str, Any]) -> tuple[str, str, int]:
    """Name, integer type and length of a shard's token column."""
    encodings = dict(zip(shard.get("column_names", []), shard.get("column_encodings", []), strict=False))
    arrays = [name for name, encoding in encodings.items() if _is_tokens(encoding)]
    name = next((name for name in _TOKEN_COLUMNS if name in arrays), arrays[0] if len(arrays) == 1 else None)
    if name is None:
        shown = ", ".join(f"{name} ({encoding})" for name, encoding in encodings.items()) or "none"
        raise InputError(
            f"{folder}: no column holds tokens of a fixed length, e.g. `tokens` as ndarray:int32:2048 "
            f"(columns: {shown}); tokens can only be counted, and mixed exactly, in samples of one length"
        )
    _, dtype, shape = encodings[name].split(":")
    return name, dtype, int(shape)


def _is_tokens(encoding: Any) -> bool:
    parts = str(encoding).split(":")
    return len(parts) == 3 and parts[0] == "ndarray" and parts[1] in _INTEGER_TYPES and parts[2].isdigit()
