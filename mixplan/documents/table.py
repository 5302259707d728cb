"""A table as named numpy columns, read from and written to CSV or Parquet. No pandas needed for CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.atomic import write_bytes, write_text
from mixplan.errors import InputError


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
    """Read CSV or Parquet by the file's ending; columns that are not all numbers stay text.

    Raises:
        InputError: missing file, unreadable format, ragged rows, or text in a column that needs numbers is
            left to the caller (it arrives as dtype object).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".parquet":
        return _read_parquet(path, text_columns)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, None)
            if not header:
                raise InputError(f"{path}: the file is empty; the first line must name the columns")
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                raise InputError(f"{path}:1: columns given twice: {', '.join(twice)}")
            rows = []
            ragged = []
            for row in reader:
                if len(row) == len(header):
                    rows.append(row)
                elif row:
                    ragged.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not CSV in UTF-8 ({error})") from None
    if ragged:
        raise InputError(
            f"{path}: {len(ragged)} row(s) do not have the header's {len(header)} fields, first in line {ragged[0]}"
        )
    columns = {}
    for index, name in enumerate(header):
        columns[name] = _column([row[index] for row in rows], name in text_columns)
    return Table(columns)


def write_table(table: Table, path: Path) -> None:
    """Write CSV or Parquet by the file's ending, atomically. Numbers keep their exact value."""
    path = Path(path)
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(pa.table({name: pa.array(list(column)) for name, column in table.columns.items()}), sink)
        write_bytes(path, sink.getvalue())
        return
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    text = {name: [_cell(value) for value in column] for name, column in table.columns.items()}
    writer.writerows(zip(*text.values(), strict=True))
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
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{path}: reading Parquet needs pyarrow; install it, or save the table as CSV") from None
    try:
        table = pq.read_table(path)
    except Exception as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from None
    columns = {}
    for name in table.column_names:
        values = table[name].to_pylist()
        columns[name] = _column(["" if v is None else str(v) for v in values], name in text_columns)
    return Table(columns)
