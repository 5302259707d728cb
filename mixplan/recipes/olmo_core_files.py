"""A source's samples become OLMo-core's token files: header-less, in random order, whole samples only.

OLMo-core takes the first tokens of a file, as many as it needs. In a file in random order that is a random
subset of the source; in shards as they were built it would be its first documents.

Shape legend: n = samples of the source, m = samples that are written, L = tokens a sample; a file holds
[rows, L] integers and nothing else.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.mds_index import MdsCount
from mixplan.errors import InputError
from mixplan.recipes.data_folders import HELD as HELD
from mixplan.recipes.data_folders import write_held
from mixplan.recipes.folders import written_whole
from mixplan.recipes.shard_tokens import samples_of

# Tokens of one file. OLMo-core keeps positions within a file in 32 bits.
FILE_TOKENS = 2**31
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class SourceFiles:
    """What is to be written of one source."""

    source: str
    folder: Path
    """Of its files, e.g. data/web-0123456789ab; it appears when all of them are whole."""
    shards: Path
    """MDS folder that they are made from."""
    counted: MdsCount
    """What that folder holds."""
    written: int
    """Samples that are written, m: no more than the run takes."""
    rows: list[int]
    """Samples of each file; they sum to `written`."""
    seed: tuple[int, int]
    dtype: str
    vocab_size: int
    end_of_document_id: int

    @property
    def paths(self) -> list[Path]:
        return [self.folder / f"{self.folder.name}-{number:05d}.npy" for number in range(len(self.rows))]

    @property
    def row_bytes(self) -> int:
        return int(self.counted.sequence_length * np.dtype(self.dtype).itemsize)


def file_rows(written: int, sequence_length: int) -> list[int]:
    """How many of `written` samples go into each file: as few files as there can be, evenly filled."""
    most = max(1, FILE_TOKENS // sequence_length)
    files = -(-written // most)
    return [written * (number + 1) // files - written * number // files for number in range(files)]


def content_digest(index_sha256: str, seed: int, written: int, dtype: str) -> str:
    """Twelve hexadecimal digits that stand for the content of a source's files."""
    content = f"{index_sha256} {seed} {written} {dtype} {FILE_TOKENS}"
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def write_files(wanted: SourceFiles) -> None:
    """Write a source's files, or none.

    Every shard is read once; the samples that the permutation of the source puts among the first m go to
    their place. held.json has, besides sizes and digests, the tokens of each file and the documents that end
    in it.

    Raises:
        InputError: shards are damaged, hold ids that are no tokens, no document ends in a file (OLMo-core
            cannot open such a file), or there is no room.
    """
    place = np.empty(wanted.counted.samples, np.int64)
    place[np.random.default_rng(wanted.seed).permutation(wanted.counted.samples)] = np.arange(
        wanted.counted.samples
    )
    with written_whole(wanted.folder) as folder:
        folder.mkdir()
        paths = [folder / path.name for path in wanted.paths]
        _fill(wanted, paths, place)
        write_held(folder, {path.name: _held(wanted, path) for path in paths})


def _fill(wanted: SourceFiles, paths: list[Path], place: np.ndarray) -> None:
    """Put each sample where `place` [n] says, if that is below m."""
    starts = np.cumsum([0, *wanted.rows])
    length = wanted.counted.sequence_length
    targets: list[np.memmap] = []
    for path, rows in zip(paths, wanted.rows, strict=True):
        with path.open("wb") as file:
            # Room first: writing to a mapped file on a full disk ends the process.
            os.posix_fallocate(file.fileno(), 0, rows * wanted.row_bytes)
        targets.append(np.memmap(path, wanted.dtype, "r+", shape=(rows, length)))
    first = 0
    try:
        for tokens in samples_of(wanted.shards, wanted.vocab_size):  # [samples of the shard, L]
            at = place[first : first + len(tokens)]
            first += len(tokens)
            kept = np.flatnonzero(at < wanted.written)
            file_of = np.searchsorted(starts, at[kept], side="right") - 1
            for number in np.unique(file_of):
                mine = kept[file_of == number]
                targets[number][at[mine] - starts[number]] = tokens[mine]
    except InputError as error:
        raise InputError([f"source {wanted.source!r}: {problem}" for problem in error.problems]) from None
    for target in targets:
        target.flush()


def _held(wanted: SourceFiles, path: Path) -> dict[str, Any]:
    """Tokens, digest and documents of a file, from what is on the disk."""
    hasher = hashlib.sha256()
    documents = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
            documents += int((np.frombuffer(chunk, wanted.dtype) == wanted.end_of_document_id).sum())
    if not documents:
        raise InputError(
            f"source {wanted.source!r}: no document ends in {path.name}: the token "
            f"{wanted.end_of_document_id} is not in it, and OLMo-core cannot open such a file; build the "
            "source with end-of-document tokens, or train from the shards (emit without --with-data)"
        )
    tokens = path.stat().st_size // np.dtype(wanted.dtype).itemsize
    return {
        "bytes": path.stat().st_size,
        "sha256": hasher.hexdigest(),
        "tokens": tokens,
        "documents": documents,
    }
