"""Measurements of several ladders as one: the first, and the further runs that were made after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mixplan.documents.measurements import ROWS, TEXT_COLUMNS, Measurements, check_table, read_measurements
from mixplan.documents.table import Table
from mixplan.errors import InputError

SAME = ("corpus_sha256", "corpus_train_tokens", "tokenizer", "tokenizer_sha256")
"""What provenance.json says of the text, which must be the same where two of them say it."""


def read_together(paths: Sequence[Path], learned_skill: float | None = None) -> Measurements:
    """Read measurements folders (or learning tables) and put their rows together.

    The provenance of the first one that says how it was calibrated leads; the others follow as `further`.

    Args:
        paths: one or several.
        learned_skill: where it is given, what the provenances say of it does not matter.

    Raises:
        InputError: what `read_measurements` refuses, in any of them; a run of the same name in two of them;
            other text or another tokenizer; different skills from which a cell counts as learned; all at
            once.
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
    stated = [one.learned_skill for one in read if "calibration" in one.provenance]
    if learned_skill is None and len(skills := sorted(set(stated))) > 1:
        problems.append(
            f"{', '.join(map(str, paths))}: cells count as learned from different skills "
            f"({', '.join(f'{skill:g}' for skill in skills)}); say which is meant with --learned-skill"
        )
    for key in SAME:
        said = [one.provenance[key] for one in read if one.provenance.get(key) is not None]
        if any(value != said[0] for value in said):
            problems.append(
                f"{', '.join(map(str, paths))}: provenance.json has different {key} "
                f"({', '.join(dict.fromkeys(str(value) for value in said))}); laws hold for one text and "
                "tokenizer: fit these ladders apart"
            )
    if problems:
        raise InputError(problems)
    tables: dict[str, Table] = {}
    for name in ROWS:
        parts = [table for one in read if (table := getattr(one, name)) is not None]
        if parts:
            tables[name] = joined(parts)
            problems += check_table(tables[name], name, f"{name} of {', '.join(map(str, paths))}")
    if problems:
        raise InputError(problems)
    # The one that says how it was calibrated speaks for all.
    first = next((one for one in read if "calibration" in one.provenance), read[0])
    further = [one.provenance for one in read if one is not first]
    return Measurements(**tables, provenance={**first.provenance, "further": further})


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
