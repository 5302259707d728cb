"""`mixplan predict`: a table of cells in, the same table with forecasts out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixplan.documents import Calibration, Table
from mixplan.documents.references import reference_warnings
from mixplan.documents.suggest import did_you_mean
from mixplan.documents.table import read_table
from mixplan.errors import InputError
from mixplan.laws.predict import LawForecast

NUMBERS = ("block_params", "tokens", "frequency", "complexity")
NEEDED = (*NUMBERS, "family")
WRITTEN = (
    *("skill", "skill_low", "skill_high", "mean_low", "mean_high", "p_learned"),
    *("extrapolated", "why_extrapolated", "reference"),
)
_SHOWN_ROWS = 10


def check_output(path: Path) -> Path:
    """The path, if a table can be written there.

    Raises:
        InputError: the name ends in neither .csv nor .parquet.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(
            f"{path}: a table is written as CSV or Parquet; give a name that ends in .csv or .parquet"
        )
    return path


def read_cells(path: Path) -> Table:
    """Cells from CSV or Parquet; columns that are not needed are kept as they are.

    Raises:
        InputError: a missing column, one that the forecast would overwrite, or rows with bad numbers; all at
        once.
    """
    names = set(read_table(path, set()).columns)
    # Everything that is not a needed number stays text, so that it is written back to the letter.
    table = read_table(path, names - set(NUMBERS))
    problems = []
    for name in NEEDED:
        if name not in table:
            hint = did_you_mean(name, [c for c in table.columns if c not in NEEDED])
            problems.append(f"{path}: column {name!r} is missing{hint if 'mean' in hint else ''}")
    taken = [name for name in WRITTEN if name in table]
    if taken:
        problems.append(
            f"{path}: {', '.join(taken)} would be overwritten by the forecast; rename or remove there"
        )
    if not len(table):
        problems.append(f"{path}: no rows")
    if problems:
        raise InputError(problems)
    for name in NUMBERS:
        values = table[name]
        if values.dtype == object:
            bad = [i for i, value in enumerate(values) if not _is_number(str(value))]
            rows = f"{_rows(bad)} has" if len(bad) == 1 else f"{_rows(bad)} have"
            problems.append(f"{path}: column {name!r} needs numbers; {rows} {values[bad[0]]!r}")
            continue
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0))).tolist()
        if bad:
            problems.append(f"{path}: column {name!r} must be a number above 0; not so in {_rows(bad)}")
        few = np.flatnonzero((values > 0) & (values < 1)).tolist()
        if few and name in ("block_params", "tokens"):
            problems.append(
                f"{path}: column {name!r} counts in ones; less than 1 in {_rows(few)}: is it in millions?"
            )
        if name == "frequency" and (high := np.flatnonzero(values > 1).tolist()):
            problems.append(
                f"{path}: frequency is instances per training token, at most 1; more in {_rows(high)}"
            )
    if problems:
        raise InputError(problems)
    return table


def predict_cells(calibration: Calibration, cells: Table, where: str) -> Table:
    """The cells with WRITTEN added (extrapolated is 0 or 1, why_extrapolated in words, reference only where
    the calibration is one that ships).

    Raises:
        InputError: every row whose task kind the calibration cannot speak about, grouped by reason.
    """
    forecast = LawForecast(calibration)
    family = [str(name) for name in cells["family"]]
    by_reason: dict[str, list[int]] = {}
    for row, reason in forecast.problems(family, cells["complexity"]):
        by_reason.setdefault(reason, []).append(row)
    if by_reason:
        raise InputError([f"{where}: {_rows(rows)}: {reason}" for reason, rows in by_reason.items()])
    found = forecast.skill(
        family, cells["complexity"], cells["block_params"], cells["tokens"], cells["frequency"]
    )
    origin = "; ".join(reference_warnings(calibration.provenance))
    return Table({
        **cells.columns,
        "skill": found.skill,
        "skill_low": found.skill_low,
        "skill_high": found.skill_high,
        "mean_low": found.mean_low,
        "mean_high": found.mean_high,
        "p_learned": found.p_learned,
        "extrapolated": np.array([float(bool(reasons)) for reasons in found.extrapolated]),
        "why_extrapolated": np.array(["; ".join(reasons) for reasons in found.extrapolated], dtype=object),
        **({"reference": np.array([origin] * len(cells), dtype=object)} if origin else {}),
    })  # fmt: skip


def _rows(indices: list[int]) -> str:
    numbers = [str(index + 1) for index in indices[:_SHOWN_ROWS]]
    more = f", … ({len(indices)} in all)" if len(indices) > _SHOWN_ROWS else ""
    return f"row{'s' if len(indices) > 1 else ''} {', '.join(numbers)}{more}"


def _is_number(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True
