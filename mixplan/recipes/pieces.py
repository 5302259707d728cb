"""How many tokens there are in a file of text, or in a row group of a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.recipes.opened import opened
from mixplan.recipes.parquet import texts_in, tokens_in
from mixplan.recipes.texts import CHUNK_BYTES
from mixplan.recipes.tokenizing import Documents, Encoder


@dataclass(frozen=True)
class Piece:
    """What is counted at a time."""

    path: Path
    kind: Literal["raw", "text", "jsonl", "parquet", "parquet tokens"]
    """raw: a document as it is (what `build` reads); text: the same, decompressed first; jsonl, parquet: a
    document in each row; parquet tokens: a list of tokens in each row."""
    stored_bytes: int
    """On disk."""
    column: str = ""
    """Of JSON lines and Parquet."""
    row_group: int = 0
    """Of Parquet."""


@dataclass(frozen=True)
class Count:
    """What is in a piece, or in several."""

    tokens: int = 0
    """With the end-of-document token of each document of text, as `build` writes them."""
    documents: int = 0
    """Those that hold something."""
    text_bytes: int = 0
    """UTF-8 bytes of text; 0 for lists of tokens."""
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


def count_piece(piece: Piece, encoder: Encoder | None) -> Count:
    """What is in a piece, or why it cannot be counted.

    Args:
        piece: the piece.
        encoder: the plan's tokenizer; not needed for lists of tokens.
    """
    try:
        if piece.kind == "parquet tokens":
            return Count(*tokens_in(piece.path, piece.column, piece.row_group))
        assert encoder is not None, "text needs a tokenizer"
        seen = _Seen()
        tokens = sum(len(part) for part in encoder.encode(_documents(piece, seen)))
        return Count(tokens, seen.documents, seen.text_bytes, seen.empty)
    except InputError as error:
        return Count(problems=tuple(error.problems))


def try_first_row(piece: Piece) -> None:
    """Read the first document, before all are.

    Raises:
        InputError: it cannot be read as the piece says.
    """
    next(iter(_documents(piece, _Seen())), None)


@dataclass
class _Seen:
    """What went by while documents were read."""

    documents: int = 0
    text_bytes: int = 0
    empty: int = 0


def _documents(piece: Piece, seen: _Seen) -> Documents:
    """(file, chunk, whether the document ends with it); documents that hold nothing are left out."""
    for chunk, ends in _chunks(piece):
        if not chunk:
            seen.empty += 1
            continue
        seen.documents += ends
        seen.text_bytes += len(chunk)
        yield piece.path, chunk, ends


def _chunks(piece: Piece) -> Iterator[tuple[bytes, bool]]:
    if piece.kind == "jsonl":
        yield from ((text, True) for text in _texts_in_lines(piece.path, piece.column))
    elif piece.kind == "parquet":
        yield from ((text, True) for text in texts_in(piece.path, piece.column, piece.row_group))
    else:
        with opened(piece.path, decompress=piece.kind == "text") as file:
            chunk = file.read(CHUNK_BYTES)
            if not chunk:
                yield b"", True
            while chunk:
                following = file.read(CHUNK_BYTES)
                yield chunk, not following
                chunk = following


def _texts_in_lines(path: Path, column: str) -> Iterator[bytes]:
    """The text of each line's JSON object; nothing where it is null."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _text(line, column, f"{path}:{number}")


def _text(line: bytes, column: str, where: str) -> bytes:
    """The column of one line as UTF-8.

    Raises:
        InputError: the line is no JSON object with text in that column.
    """
    try:
        row: Any = json.loads(line)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: not UTF-8 text (byte {error.start} of the line); convert the file"
        ) from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(
            f"{where}: not JSON ({error}); format jsonl has one object a line: leave other files out with "
            "`pattern`"
        ) from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: {type(row).__name__} where an object with {column!r} is needed")
    if column not in row:
        raise InputError(f"{where}: no column {column!r}{did_you_mean(column, row)}; set data.column")
    if row[column] is None:
        return b""
    if not isinstance(row[column], str):
        raise InputError(f"{where}: {column!r} holds {type(row[column]).__name__}, not text; set data.column")
    try:
        return row[column].encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: {column!r} holds half of a surrogate pair (character {error.start}), which is no "
            "text; repair the file"
        ) from None
