"""A table as named numpy columns, read from and written to CSV or Parquet. No pandas needed for CSV."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from mixplan.documents.atomic import write_bytes, write_text
from mixplan.errors import InputError

ENDINGS = (".csv", ".csv.gz", ".parquet")
"""What a table's file name may end in."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length. Text columns have dtype object, all others float64 (NaN where empty)."""

    columns: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def where(self, keep: np.ndarray) -> Table:
        """The rows where `keep` (bool, or indices) holds."""
        return Table({name: column[keep] for name, column in self.columns.items()})

    def rows(self) -> list[dict[str, Any]]:
        """The table as a list of dicts; empty numbers become None."""
        out = []
        for index in range(len(self)):
            row = {}
            for name, column in self.columns.items():
                value = column[index]
                row[name] = (None if np.isnan(value) else float(value)) if column.dtype != object else value
            out.append(row)
        return out


def from_rows(rows: Sequence[Mapping[str, Any]], text_columns: set[str], order: Sequence[str] = ()) -> Table:
    """A table from dicts. Columns in `order` first; missing values are empty."""
    names = list(dict.fromkeys([*order, *(name for row in rows for name in row)]))
    columns: dict[str, np.ndarray] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if name in text_columns:
            columns[name] = np.array([("" if v is None else str(v)) for v in values], dtype=object)
        else:
            columns[name] = np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)
    return Table(columns)


def read_table(path: Path, text_columns: set[str]) -> Table:
    """Read CSV (gzipped if the name ends in .gz) or Parquet by the file's ending.

    Columns in `text_columns`, and columns that are not all numbers, have dtype object and hold str; the
    others are float64, NaN where a field is empty. Whether a column should hold numbers the caller checks.

    Raises:
        InputError: the file is missing, a folder, empty, in another format, has columns without a name or
            with the same name, or rows of another length than the header.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; a CSV or Parquet file is needed")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".parquet":
        return _read_parquet(path, text_columns)
    header: list[str] = []
    rows: list[list[str]] = []
    ragged: list[int] = []
    try:
        with _open_text(path) as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            for row in reader:
                if len(row) == len(header):
                    rows.append(row)
                elif row:
                    ragged.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not CSV in UTF-8 ({error})") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a whole gzip file ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    problems = _header_problems(path, header)
    if ragged:
        problems.append(
            f"{path}:{ragged[0]}: {len(ragged)} row(s) do not have the header's {len(header)} fields; "
            "this is the first"
        )
    if problems:
        raise InputError(problems)
    return Table(
        {
            name: _column([row[index] for row in rows], name in text_columns)
            for index, name in enumerate(header)
        }
    )


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8-sig")
    return path.open(newline="", encoding="utf-8-sig")


def _header_problems(path: Path, header: list[str]) -> list[str]:
    if not any(header):
        return [f"{path}: the file is empty; the first line must name the columns"]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        return [f"{path}:1: the fields are not separated by commas; save the table as comma-separated CSV"]
    problems = [
        f"{path}:1: column {name!r} is given twice" for name in sorted(set(header)) if header.count(name) > 1
    ]
    if "" in header:
        problems.append(f"{path}:1: a column has no name (field {header.index('') + 1})")
    return problems


def write_table(table: Table, path: Path) -> None:
    """Write CSV, .csv.gz or Parquet by the file's ending, atomically. Numbers keep their exact value."""
    path = Path(path)
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        arrays = {
            name: pa.array(column, pa.string() if column.dtype == object else pa.float64(), from_pandas=True)
            for name, column in table.columns.items()
        }
        pq.write_table(pa.table(arrays), sink)
        write_bytes(path, sink.getvalue())
        return
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    text = {name: [_cell(value) for value in column] for name, column in table.columns.items()}
    writer.writerows(zip(*text.values(), strict=True))
    if path.suffix == ".gz":
        # No time and no name inside: the same table gives the same bytes.
        write_bytes(path, gzip.compress(out.getvalue().encode("utf-8"), mtime=0))
        return
    write_text(path, out.getvalue())


def _cell(value: Any) -> str:
    if not isinstance(value, float | np.floating):
        return str(value)
    if np.isnan(value):
        return ""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _column(values: list[str], text: bool) -> np.ndarray:
    if not text:
        try:
            return np.array([np.nan if v.strip() == "" else float(v) for v in values], dtype=np.float64)
        except ValueError:
            pass
    return np.array(values, dtype=object)


def _read_parquet(path: Path, text_columns: set[str]) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(
            f"{path}: reading Parquet needs pyarrow; install it, or save the table as CSV"
        ) from None
    try:
        table = pq.read_table(path)
    except Exception as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from None
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: columns given twice: {', '.join(twice)}")
    columns = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if numeric and name not in text_columns:
            columns[name] = table[name].cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
        else:
            columns[name] = _column(
                ["" if v is None else str(v) for v in table[name].to_pylist()], name in text_columns
            )
    return Table(columns)
