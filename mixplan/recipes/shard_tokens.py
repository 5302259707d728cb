"""The tokens in the shards of an MDS folder, as arrays.

Shape legend: n = samples of one shard, S = samples of the folder, L = tokens a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.mds_index import count_tokens, read_index
from mixplan.errors import InputError
from mixplan.recipes.shards import check_shards


def samples_of(folder: Path, vocab_size: int) -> Iterator[np.ndarray]:
    """Tokens of every shard of a folder, in order: integer arrays [n, L].

    The shards are compared with the index by size and hash first, so a corrupt one never yields a token.

    Args:
        folder: MDS folder with samples of one length.
        vocab_size: ids that there are; an id outside them is refused.

    Raises:
        InputError: as `read_index`; or a shard is missing or damaged, or holds ids outside the vocabulary.
    """
    counted = count_tokens(folder)
    damaged = check_shards(folder).problems
    if damaged:
        raise InputError([f"{problem}; copy it anew, or build the source again" for problem in damaged])
    for number, shard in enumerate(read_index(folder)):
        tokens = _tokens(folder, shard, counted.column, counted.sequence_length, np.dtype(counted.dtype))
        if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
            raise InputError(
                f"{folder}: shard {number} holds the ids {tokens.min():,} … {tokens.max():,}, but the "
                f"recipe's vocabulary has {vocab_size:,} tokens; build the source with the recipe's tokenizer"
            )
        yield tokens


def write_flat(folder: Path, path: Path, dtype: str, vocab_size: int) -> None:
    """Write all tokens of a folder, one after another and nothing else, as integers of `dtype`.

    Raises:
        InputError: as `samples_of`; or the vocabulary does not fit into `dtype`.
    """
    if vocab_size - 1 > np.iinfo(dtype).max:
        raise InputError(f"a vocabulary of {vocab_size:,} tokens does not fit into {dtype}")
    with path.open("wb") as file:
        for tokens in samples_of(folder, vocab_size):
            file.write(tokens.astype(dtype).tobytes())


def _tokens(folder: Path, shard: dict[str, Any], column: str, length: int, dtype: np.dtype) -> np.ndarray:
    """Tokens [n, L] of one shard.

    A shard of MDS version 2: uint32 n; uint32 offsets [n + 1] of the samples in the file; a header; the
    samples. A sample: uint32 sizes of its columns whose size varies; then all columns, in the index's order.
    """
    data = _content(folder, shard)
    sizes: list[int | None] = shard["column_sizes"]
    n = shard["samples"]
    starts = np.frombuffer(data, "<u4", n, offset=4).astype(np.int64)
    varying = [number for number, size in enumerate(sizes) if not size]
    at = shard["column_names"].index(column)
    begins = starts + 4 * len(varying) + sum(size or 0 for size in sizes[:at])  # [n]
    bytes_ = np.frombuffer(data, np.uint8)
    for slot, number in enumerate(varying):
        if number < at:
            places = starts[:, None] + 4 * slot + np.arange(4)
            begins += bytes_[places].view("<u4").reshape(n)
    width = length * dtype.itemsize
    step = int(begins[1] - begins[0]) if n > 1 else width
    if n and np.array_equal(begins, begins[0] + step * np.arange(n)):
        rows = np.lib.stride_tricks.as_strided(bytes_[begins[0] :], (n, width), (step, 1), writeable=False)
    else:
        rows = bytes_[begins[:, None] + np.arange(width)]
    return np.ascontiguousarray(rows).view(dtype.newbyteorder("<")).reshape(n, length)


def _content(folder: Path, shard: dict[str, Any]) -> bytes:
    """The shard as it is uncompressed."""
    raw = folder / shard["raw_data"]["basename"]
    if raw.is_file():
        return raw.read_bytes()
    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    from streaming.base.compression import decompress

    return bytes(decompress(shard["compression"], (folder / shard["zip_data"]["basename"]).read_bytes()))
