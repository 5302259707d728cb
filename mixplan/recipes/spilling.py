"""Tokens of a source, batch by batch, in files beside its folder: what an interrupted build continues from.

A batch is some neighbouring pieces. Its file is named by all that decides what is in it: how tokens are made,
the pieces, and size, times of change and inode of the files they are in.

Shape legend: a spill file is an array [n] of token ids of the narrowest integer type.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixplan.documents.atomic import write_json
from mixplan.errors import InputError
from mixplan.recipes.counting import grouped
from mixplan.recipes.hashing import file_sha256, hash_file
from mixplan.recipes.pieces import Count, Piece, Seen, read_piece
from mixplan.recipes.tokenizing import Encoder

BATCH_BYTES = 1 << 23
# Part of the name of every spill: to be raised when other tokens are made of the same input.
_VERSION = 1
Stamp = tuple[int, int, int, int]
"""Bytes, time of the last change (ns), of the last change of name, owner, time, … (ns), and inode of a file.

The last two tell a file that was put in another's place with its size and time, as copies and archives do."""
Stamps = Mapping[Path, Stamp]
"""Of every input file."""


@dataclass(frozen=True)
class Batch:
    """What is tokenised at a time."""

    pieces: tuple[Piece, ...]
    hashed: tuple[Path, ...]
    """Files whose SHA-256 is taken on the way: those that start in this batch."""
    folder: Path
    """Where its spill goes."""
    name: str
    """Of the spill, without ending."""
    dtype: str
    vocabulary: int

    @property
    def tokens_file(self) -> Path:
        """The tokens."""
        return self.folder / f"{self.name}.tokens"

    @property
    def record_file(self) -> Path:
        """What is in them; written last."""
        return self.folder / f"{self.name}.json"


@dataclass(frozen=True)
class Spilled:
    """A batch that is done, or why it is not."""

    tokens: int
    counts: list[Count]
    """Of each piece."""
    sha256: dict[str, str]
    """Of the files that start in it."""
    problems: tuple[str, ...] = ()


def stamps(files: Sequence[Path]) -> dict[Path, Stamp]:
    """By what a file is known not to have changed."""
    found = {}
    for path in files:
        state = path.stat()
        found[path] = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    return found


def changed(before: Stamps) -> list[str]:
    """A problem for every file that is not what it was."""
    problems = []
    for path, stamp in before.items():
        try:
            if stamps([path])[path] != stamp:
                problems.append(f"{path} changed while it was read; build again when it is complete")
        except OSError as error:
            problems.append(f"{path} cannot be read any more ({error.strerror}); build again")
    return problems


def batches(
    pieces: Sequence[Piece], files: Stamps, folder: Path, encoder: Encoder, vocabulary: int
) -> list[Batch]:
    """The pieces of a source, cut into batches.

    Args:
        pieces: in their order.
        files: the files that they are in.
        folder: where the spills go.
        encoder: the plan's tokenizer.
        vocabulary: how many tokens there are.
    """
    dtype = narrowest(max(vocabulary, encoder.vocab_size))
    backend = hashlib.sha256(encoder.backend.encode()).hexdigest()
    settings = [_VERSION, encoder.kind, backend, encoder.end_of_document_id, dtype, vocabulary]
    started: set[Path] = set()
    found = []
    for numbers in grouped(pieces, BATCH_BYTES):
        some = tuple(pieces[number] for number in numbers)
        paths = dict.fromkeys(piece.path for piece in some)
        hashed = tuple(path for path in paths if path not in started)
        started.update(paths)
        key = [settings, [repr(piece) for piece in some], [files[path] for path in paths], len(hashed)]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
        found.append(Batch(some, hashed, folder, name, dtype, vocabulary))
    return found


def narrowest(vocabulary: int) -> str:
    """The narrowest integer type that holds the ids 0 … vocabulary − 1."""
    return next(
        kind for kind in ("uint8", "uint16", "uint32", "int64") if vocabulary - 1 <= np.iinfo(kind).max
    )


def spill(encoder: Encoder, batch: Batch) -> Spilled:
    """Tokenise a batch into its spill. Nothing is left where it cannot be read."""
    import xxhash

    hasher = xxhash.xxh3_64()
    counts: list[Count] = []
    unfinished = batch.tokens_file.with_suffix(f".{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            for piece in batch.pieces:
                seen, tokens = Seen(), 0
                for array in read_piece(piece, encoder, batch.vocabulary, seen):
                    data = array.astype(batch.dtype).tobytes()
                    hasher.update(data)
                    file.write(data)
                    tokens += len(array)
                counts.append(Count(tokens, seen.documents, seen.text_bytes, seen.empty))
        sha256 = {str(path): file_sha256(path) for path in batch.hashed}
    except InputError as error:
        unfinished.unlink(missing_ok=True)
        return Spilled(0, [], {}, tuple(error.problems))
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    os.replace(unfinished, batch.tokens_file)
    record = {
        "tokens": sum(one.tokens for one in counts),
        "xxh3_64": hasher.hexdigest(),
        "pieces": [[one.tokens, one.documents, one.text_bytes, one.empty] for one in counts],
        "sha256": sha256,
    }
    write_json(batch.record_file, record)
    return Spilled(sum(one.tokens for one in counts), counts, sha256)


def spilled_before(encoder: Encoder, batch: Batch) -> Spilled | None:
    """What an earlier build left of a batch, if it is whole."""
    try:
        record = json.loads(batch.record_file.read_text(encoding="utf-8"))
        found = hash_file("xxh3_64", batch.tokens_file)
    except (InputError, OSError, ValueError):
        return None
    if found != record["xxh3_64"]:  # power was lost before it was on the disk
        return None
    return Spilled(record["tokens"], [Count(*one) for one in record["pieces"]], record["sha256"])
