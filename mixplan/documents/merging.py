"""Measurements of several ladders as one: the first, and the further runs that were made after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mixplan.documents.measurements import ROWS, TEXT_COLUMNS, Measurements, check_table, read_measurements
from mixplan.documents.table import Table
from mixplan.errors import InputError


def read_together(paths: Sequence[Path]) -> Measurements:
    """Read measurements folders (or learning tables) and put their rows together.

    The first one's provenance leads; those of the others follow in it as `further`.

    Raises:
        InputError: what `read_measurements` refuses, in any of them; a run of the same name in two of them;
            different skills from which a cell counts as learned; all at once.
    """
    problems: list[str] = []
    read: list[Measurements] = []
    for path in paths:
        try:
            read.append(read_measurements(path))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    if len(read) == 1:
        return read[0]
    owner: dict[str, Path] = {}
    for path, one in zip(paths, read, strict=True):
        taken = sorted({str(run) for run in one.learning["run_id"]} & set(owner))
        if taken:
            problems.append(
                f"{path}: {len(taken)} run(s) have the name of one in {owner[taken[0]]}, first {taken[0]!r}; "
                "the same run counts once: leave one folder out, or rename runs that are not the same"
            )
        owner |= {str(run): path for run in one.learning["run_id"]}
    skills = sorted({one.learned_skill for one in read})
    if len(skills) > 1:
        problems.append(
            f"{', '.join(map(str, paths))}: cells count as learned from different skills "
            f"({', '.join(f'{skill:g}' for skill in skills)}); make learned_skill the same in provenance.json"
        )
    tables: dict[str, Table] = {}
    for name in ROWS:
        parts = [table for one in read if (table := getattr(one, name)) is not None]
        if parts:
            tables[name] = joined(parts)
            problems += check_table(tables[name], name, f"{name} of {', '.join(map(str, paths))}")
    if problems:
        raise InputError(problems)
    further = [one.provenance for one in read[1:]]
    return Measurements(**tables, provenance={**read[0].provenance, "further": further})


def joined(tables: Sequence[Table]) -> Table:
    """The rows of all tables, in order; a column that one of them lacks is empty there."""
    names = list(dict.fromkeys(name for table in tables for name in table.columns))
    columns = {}
    for name in names:
        text = name in TEXT_COLUMNS or any(name in t and t[name].dtype == object for t in tables)
        parts = []
        for table in tables:
            empty = np.full(len(table), "" if text else np.nan, dtype=object if text else np.float64)
            part = table.columns.get(name, empty)
            parts.append(part.astype(str).astype(object) if text else part)
        columns[name] = np.concatenate(parts)
    return Table(columns)
