"""Pieces of a source: what is read at a time, and the tokens in it.

Shape legend: an array [n] holds token ids; documents end with the end-of-document token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mixplan.errors import InputError
from mixplan.recipes.columns import texts_of, tokens_of
from mixplan.recipes.hf_datasets import arrow_rows
from mixplan.recipes.lines import texts_in_lines
from mixplan.recipes.mds_shards import ShardFile
from mixplan.recipes.opened import opened
from mixplan.recipes.parquet import rows_in
from mixplan.recipes.texts import CHUNK_BYTES
from mixplan.recipes.token_files import read_tokens
from mixplan.recipes.tokenizing import Documents, Encoder

Kind = Literal["raw", "text", "jsonl", "parquet", "parquet tokens", "arrow", "arrow tokens", "npy", "mds"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What is read at a time."""

    path: Path
    kind: Kind
    """raw: a document as it is; text: the same, decompressed first; jsonl, parquet, arrow: a document in each
    row; parquet tokens, arrow tokens: a list of tokens in each row; npy, mds: tokens one after another."""
    stored_bytes: int
    """On disk."""
    column: str = ""
    """Of JSON lines, Parquet and Arrow."""
    start: int = 0
    """First byte (jsonl), row group (parquet), first row (arrow), first token (npy)."""
    stop: int = 0
    """Where it ends, in the same units; 0: at the end."""
    dtype: str = ""
    """Of header-less token files."""
    shard: ShardFile | None = None
    """Of MDS."""
    closes: bool = False
    """npy, mds: the last of its file or folder, so that a document ends with it."""
    tokens: int | None = None
    """Where they are known without reading, as they stand in the file."""
    last: int | None = None
    """Of these, the last, where it `closes` and can be read."""


@dataclass(frozen=True)
class Count:
    """What is in a piece, or in several."""

    tokens: int = 0
    """With the end-of-document token of each document, as `build` writes them."""
    documents: int = 0
    """Those that hold something; of tokens one after another, their end-of-document tokens."""
    text_bytes: int = 0
    """UTF-8 bytes of text; 0 for tokens."""
    empty: int = 0
    """Documents that hold nothing, and were left out."""
    problems: tuple[str, ...] = ()
    """Why the numbers are not whole."""

    def __add__(self, other: Count) -> Count:
        return Count(
            self.tokens + other.tokens,
            self.documents + other.documents,
            self.text_bytes + other.text_bytes,
            self.empty + other.empty,
            self.problems + other.problems,
        )


@dataclass
class Seen:
    """What went by while a piece was read."""

    documents: int = 0
    text_bytes: int = 0
    empty: int = 0


def is_text(piece: Piece) -> bool:
    """Whether it needs a tokenizer."""
    return piece.kind in ("raw", "text", "jsonl", "parquet", "arrow")


def read_piece(piece: Piece, encoder: Encoder, vocabulary: int, seen: Seen) -> Iterator[np.ndarray]:
    """The tokens of a piece, as `build` writes them.

    Args:
        piece: the piece.
        encoder: the plan's tokenizer; of tokens only its end of document is used.
        vocabulary: highest id + 1; ids beyond it are refused, and in text those beyond the tokenizer's.
        seen: counts what goes by.

    Yields:
        Arrays [n] of token ids.

    Raises:
        InputError: it cannot be read as the piece says, or holds ids that are no tokens.
    """
    text = is_text(piece)
    arrays = (
        encoder.encode(_documents(piece, seen))
        if text
        else _token_arrays(piece, encoder.end_of_document_id, seen)
    )
    limit = min(vocabulary, encoder.vocab_size) if text else vocabulary
    for array in arrays:  # what is written in a narrower integer type afterwards would become other ids
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < limit:
            holds = "becomes" if text else "holds"
            raise InputError(
                f"{piece.path}: {holds} the ids {array.min():,} … {array.max():,}, but the vocabulary has "
                f"{limit:,} tokens; correct tokenizer and vocab_size, or leave the file out"
            )
        yield array


def count_piece(piece: Piece, encoder: Encoder, vocabulary: int) -> Count:
    """What is in a piece, or why it cannot be counted; arguments as of `read_piece`."""
    if piece.tokens is not None:
        open_ended = piece.closes and piece.last not in (None, encoder.end_of_document_id)
        return Count(piece.tokens + open_ended)
    try:
        seen = Seen()
        tokens = sum(len(part) for part in read_piece(piece, encoder, vocabulary, seen))
        return Count(tokens, seen.documents, seen.text_bytes, seen.empty)
    except InputError as error:
        return Count(problems=tuple(error.problems))


def try_first_row(piece: Piece) -> None:
    """Read the first document, before all are.

    Raises:
        InputError: it cannot be read as the piece says.
    """
    next(iter(_documents(piece, Seen())), None)


def _documents(piece: Piece, seen: Seen) -> Documents:
    """(where, chunk, whether the document ends with it); documents that hold nothing are left out."""
    for where, chunk, ends in _chunks(piece):
        if not chunk:
            seen.empty += 1
            continue
        seen.documents += ends
        seen.text_bytes += len(chunk)
        yield where, chunk, ends


def _chunks(piece: Piece) -> Documents:
    if piece.kind == "jsonl":
        for where, text in texts_in_lines(piece.path, piece.column, piece.start, piece.stop):
            yield where, text, True
    elif piece.kind in ("parquet", "arrow"):
        number = piece.start if piece.kind == "arrow" else 0
        place = "" if piece.kind == "arrow" else f"row group {piece.start}, "
        for rows in _rows(piece):
            for text in texts_of(rows):
                yield partial(_row, piece.path, place, number), text, True
                number += 1
    else:
        with opened(piece.path, decompress=piece.kind == "text") as file:
            chunk = file.read(CHUNK_BYTES)
            if not chunk:
                yield lambda: str(piece.path), b"", True
            while chunk:
                following = file.read(CHUNK_BYTES)
                yield lambda: str(piece.path), chunk, not following
                chunk = following


def _row(path: Path, place: str, number: int) -> str:
    return f"{path} ({place}row {number})"


def _rows(piece: Piece) -> Iterator[Any]:
    if piece.kind.startswith("parquet"):
        return rows_in(piece.path, piece.column, piece.start)
    return arrow_rows(piece.path, piece.column, piece.start, piece.stop)


def _token_arrays(piece: Piece, end: int, seen: Seen) -> Iterator[np.ndarray]:
    if piece.kind in ("parquet tokens", "arrow tokens"):
        for rows in _rows(piece):
            tokens, documents, empty = tokens_of(
                rows, end, f"{piece.path}: a list in column {piece.column!r}"
            )
            seen.documents += documents
            seen.empty += empty
            yield tokens
        return
    if piece.kind == "npy":
        tokens = read_tokens(piece.path, piece.dtype, piece.start, piece.stop)
    else:
        assert piece.shard is not None, "an MDS piece is a shard"
        tokens = piece.shard.tokens()
    seen.documents += int(np.count_nonzero(tokens == end))
    yield tokens
    if piece.closes and len(tokens) and tokens[-1] != end:
        seen.documents += 1
        yield np.array([end])
