"""Parquet files: a column of text or of token lists, row group by row group, without loading the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.recipes.columns import held_by

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
    holds = column_kind(file.schema_arrow, column, str(path))
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    return ParquetColumn(holds, [_stored_bytes(group, column) for group in groups])


def column_kind(schema: Any, column: str, where: str) -> Literal["text", "tokens"]:
    """What a column of an Arrow schema holds.

    Raises:
        InputError: there is none of that name, or it holds neither text nor lists of integers.
    """
    if column not in schema.names:
        raise InputError(
            f"{where}: no column {column!r}{did_you_mean(column, schema.names)}; set data.column"
        )
    kind = schema.field(column).type
    holds = held_by(kind)
    if holds is None:
        raise InputError(
            f"{where}: column {column!r} holds {kind}; text or lists of integer tokens are needed: "
            "set data.column"
        )
    return holds


def rows_in(path: Path, column: str, row_group: int) -> Iterator[Any]:
    """Arrow arrays of up to 1024 rows of a column.

    Raises:
        InputError: the file is damaged.
    """
    import pyarrow

    file = _open(path)
    try:
        for batch in file.iter_batches(
            _ROWS_AT_ONCE, row_groups=[row_group], columns=[column], use_threads=False
        ):
            yield batch.column(0)
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from None


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


def _unreadable(path: Path, error: Exception) -> InputError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(
        f"{path}: cannot be read as Parquet ({first}); copy it anew, or leave it out with `pattern`"
    )
