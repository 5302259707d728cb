"""MDS shards, read and written as Streaming does, without a Python object for each sample.

A shard is: samples (uint32), samples + 1 offsets (uint32), its description as JSON, then the samples. A
sample is the sizes (uint32) of its columns of no fixed size, then its columns in the order of their names.

Shape legend: n samples of L tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.errors import InputError
from mixplan.recipes.compressing import compress, decompress, extension
from mixplan.recipes.hashing import hash_bytes, known_hashes

COLUMN = "tokens"
OFFSET_BYTES = 4
# Offsets are uint32.
SHARD_BYTES_LIMIT = 1 << 32


@dataclass(frozen=True)
class ShardFile:
    """A shard of an MDS folder, as its index describes it."""

    path: Path
    compression: str | None
    """None: the file is as it will be read."""
    stored_bytes: int
    hashes: tuple[tuple[str, str], ...]
    samples: int
    sequence_length: int
    dtype: str
    column: int
    """Number of the token column."""
    column_sizes: tuple[int | None, ...]
    """Bytes of every column in a sample; None where they vary."""

    def tokens(self) -> np.ndarray:
        """All its tokens [n · L], sample after sample.

        Raises:
            InputError: the file is missing, cut short, or not what was written.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from None
        if len(data) != self.stored_bytes:
            raise InputError(f"{self.path} has {len(data):,} bytes, its index says {self.stored_bytes:,}")
        for name, digest in self.hashes:
            if name in known_hashes() and hash_bytes(name, data) != digest:
                raise InputError(f"{self.path}: its content is not what was written ({name} is not {digest})")
        try:
            return self._parse(decompress(self.compression, data) if self.compression else data)
        except Exception as error:
            raise InputError(f"{self.path}: cannot be read as an MDS shard ({error}); copy it anew") from None

    def _parse(self, data: bytes) -> np.ndarray:
        samples = int(np.frombuffer(data, np.uint32, 1)[0])
        if samples != self.samples:
            raise ValueError(f"it has {samples} samples, its index says {self.samples}")
        offsets = np.frombuffer(data, np.uint32, samples + 1, OFFSET_BYTES).astype(np.int64)
        size = self.column_sizes[self.column]
        assert size is not None, "the token column has a fixed size"
        before = self.column_sizes[: self.column]
        varying = sum(one is None for one in self.column_sizes)
        fixed = OFFSET_BYTES * varying + sum(one or 0 for one in before)
        if not varying:
            body = np.frombuffer(data, np.uint8, int(offsets[-1] - offsets[0]), int(offsets[0]))
            columns = body.reshape(samples, -1)[:, fixed : fixed + size]
            return np.ascontiguousarray(columns).view(self.dtype).reshape(-1)
        ahead = sum(one is None for one in before)
        rows = []
        for offset in offsets[:-1]:
            sizes = np.frombuffer(data, np.uint32, varying, int(offset))
            start = int(offset) + fixed + int(sizes[:ahead].sum())
            rows.append(np.frombuffer(data, self.dtype, self.sequence_length, start))
        return np.concatenate(rows)


@dataclass(frozen=True)
class ShardFormat:
    """How the shards of a folder are written."""

    sequence_length: int
    dtype: str
    compression: str | None
    hashes: tuple[str, ...]

    @property
    def sample_bytes(self) -> int:
        """Of a sample, without its offset."""
        return self.sequence_length * np.dtype(self.dtype).itemsize

    def config(self, size_limit: int) -> dict[str, Any]:
        """What the index says of every shard."""
        return {
            "version": 2,
            "format": "mds",
            "compression": self.compression,
            "hashes": list(self.hashes),
            "size_limit": size_limit,
            "column_names": [COLUMN],
            "column_encodings": [f"ndarray:{self.dtype}:{self.sequence_length}"],
            "column_sizes": [self.sample_bytes],
        }

    def size_limit(self, samples: int) -> int:
        """Smallest limit with which Streaming's writer puts so many samples into a shard."""
        body = samples * (self.sample_bytes + OFFSET_BYTES)
        limit = 0
        while limit < (needed := 2 * OFFSET_BYTES + len(self._header(limit)) + body):
            limit = needed
        return limit

    def _header(self, size_limit: int) -> bytes:
        return json.dumps(self.config(size_limit), sort_keys=True).encode()

    def shard(self, rows: np.ndarray, number: int, size_limit: int) -> tuple[dict[str, Any], str, bytes]:
        """A shard as `streaming.MDSWriter` writes it.

        Args:
            rows: tokens [n, L] of this format's integer type.
            number: of the shard in its folder.
            size_limit: as the shard is to say.

        Returns:
            Its entry in the index, the name of its file, and the file.
        """
        header = self._header(size_limit)
        first = OFFSET_BYTES * (len(rows) + 2) + len(header)
        offsets = first + np.arange(len(rows) + 1, dtype=np.int64) * self.sample_bytes
        raw = b"".join(
            (np.uint32(len(rows)).tobytes(), offsets.astype(np.uint32).tobytes(), header, rows.tobytes())
        )
        name, data = f"shard.{number:05}.mds", raw
        entry: dict[str, Any] = {
            "samples": len(rows),
            "raw_data": self._described(name, raw),
            "zip_data": None,
            **self.config(size_limit),
        }
        if self.compression:
            name, data = f"{name}.{extension(self.compression)}", compress(self.compression, raw)
            entry["zip_data"] = self._described(name, data)
        return entry, name, data

    def _described(self, name: str, data: bytes) -> dict[str, Any]:
        hashes = {algorithm: hash_bytes(algorithm, data) for algorithm in self.hashes}
        return {"basename": name, "bytes": len(data), "hashes": hashes}
