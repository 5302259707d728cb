"""Parquet files: a column of text or of token lists, row group by row group, without loading the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class ParquetColumn:
    """What a file's footer says of a column."""

    holds: Literal["text", "tokens"]
    row_group_bytes: list[int]
    """Bytes on disk of the column in each row group."""


def column_of(path: Path, column: str) -> ParquetColumn:
    """Read the footer of a Parquet file.

    Raises:
        InputError: it is no Parquet file, or has no such column of text or of lists of integers.
    """
    file = _open(path)
    names = file.schema_arrow.names
    if column not in names:
        raise InputError(f"{path}: no column {column!r}{did_you_mean(column, names)}; set data.column")
    kind = file.schema_arrow.field(column).type
    holds = _holds(kind)
    if holds is None:
        raise InputError(
            f"{path}: column {column!r} holds {kind}; text or lists of integer tokens are needed: "
            "set data.column"
        )
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    return ParquetColumn(holds, [_stored_bytes(group, column) for group in groups])


def texts_in(path: Path, column: str, row_group: int) -> Iterator[bytes]:
    """The text of every row as UTF-8; nothing where it is null.

    Raises:
        InputError: the file is damaged.
    """
    import pyarrow

    for rows in _batches(path, column, row_group):
        for value in rows.cast(pyarrow.large_binary()).to_pylist():
            yield value or b""


def tokens_in(path: Path, column: str, row_group: int) -> tuple[int, int, int, int]:
    """Tokens, lists that hold some, 0 bytes of text, and empty or null lists, as they stand in the file.

    Raises:
        InputError: the file is damaged, or a list holds nothing where a token should be.
    """
    import pyarrow.compute as pc

    tokens = documents = empty = 0
    for rows in _batches(path, column, row_group):
        if rows.flatten().null_count:
            raise InputError(f"{path}: a list in column {column!r} holds null where a token should be")
        lengths = pc.fill_null(pc.list_value_length(rows), 0)
        filled = pc.sum(pc.greater(lengths, 0)).as_py() or 0
        tokens += pc.sum(lengths).as_py() or 0
        documents += filled
        empty += len(rows) - filled
    return tokens, documents, 0, empty


def _holds(kind: Any) -> Literal["text", "tokens"] | None:
    from pyarrow import types

    inner = kind.value_type if types.is_dictionary(kind) else kind
    if any(
        test(inner)
        for test in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    ):
        return "text"
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return "tokens" if lists and types.is_integer(kind.value_type) else None


def _stored_bytes(group: Any, column: str) -> int:
    chunks = (group.column(number) for number in range(group.num_columns))
    return sum(
        chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == column
    )


def _open(path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from None


def _batches(path: Path, column: str, row_group: int) -> Iterator[Any]:
    """Arrays of up to 1024 rows of a column."""
    import pyarrow

    file = _open(path)
    try:
        for batch in file.iter_batches(
            _ROWS_AT_ONCE, row_groups=[row_group], columns=[column], use_threads=False
        ):
            yield batch.column(0)
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(
        f"{path}: cannot be read as Parquet ({first}); copy it anew, or leave it out with `pattern`"
    )
