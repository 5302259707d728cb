"""The log of a run's evaluations: one row a task and token count, in skill, accuracy or bits per byte.

Shape legend: m = measurements of one task.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.forecast import FloatArray
from mixplan.documents.jsonl import read_jsonl
from mixplan.documents.recipe import Recipe, RecipeTask
from mixplan.documents.suggest import did_you_mean
from mixplan.documents.table import ENDINGS, read_table
from mixplan.errors import InputError

NUMBERS = ("tokens", "skill", "accuracy", "chance", "bits_per_byte", "evaluated", "decayed", "seed")
"""Columns that are read as numbers."""
TEXTS = ("task", "run_id")
AGREE = 0.02
"""How far a rounded accuracy may be off the skill beside it."""
AT_END = 1e-6
"""Relative distance from the recipe's tokens within which a measurement stands at the end."""


@dataclass(frozen=True)
class Observed:
    """What a run has measured of one task, by tokens; arrays of shape (m,)."""

    tokens: FloatArray
    value: FloatArray
    """Skill, or bits per byte where the target is in those; mean over `seed` where there are several."""
    error: FloatArray
    """Standard error of the evaluation alone; 0 where `evaluated` is not given."""
    finished: np.ndarray
    """Whether the learning rate had decayed, bool."""

    def where(self, keep: np.ndarray) -> Observed:
        """Some of them."""
        return Observed(self.tokens[keep], self.value[keep], self.error[keep], self.finished[keep])


@dataclass(frozen=True)
class Log:
    """A run so far."""

    tokens: float
    """The furthest that any task was measured."""
    observed: dict[str, Observed]
    """By task, of those that were measured."""
    notes: list[str]


@dataclass(frozen=True)
class _Row:
    place: str
    task: str
    tokens: float
    value: float
    accuracy: float | None
    chance: float | None
    evaluated: float | None
    finished: bool
    seed: float | None


def read_log(path: Path, recipe: Recipe) -> Log:
    """Read a log (.jsonl, .csv, .csv.gz or .parquet) of a run of this recipe. Rows may stand in any order.

    Columns: task, tokens, and skill, or accuracy with chance, or bits_per_byte for a target in those.
    Optional: evaluated (instances scored), decayed (1 where the learning rate had decayed; else only the end
    of the recipe counts as that), seed (of repeated evaluations, which are averaged), run_id. Others are left
    alone. Rows at 0 tokens are left out: nothing was trained.

    Raises:
        InputError: every problem of the file, with its lines.
    """
    given = _rows(Path(path))
    problems: list[str] = []
    tasks = {task.name: task for task in recipe.tasks}
    if not tasks:
        raise InputError(f"the recipe {recipe.name!r} has no tasks: there is nothing to track")
    if not given:
        raise InputError(f"{path}: no rows; log one a task and token count")
    runs = sorted({str(row["run_id"]) for _, row in given if row.get("run_id") not in (None, "")})
    if len(runs) > 1:
        problems.append(f"{path}: {len(runs)} runs ({', '.join(runs[:4])}); keep the rows of one run_id")
    rows, untrained = [], 0
    for place, row in given:
        found = _checked(place, row, tasks, recipe.tokens, problems)
        if found is not None and found.tokens == 0:
            untrained += 1
        elif found is not None:
            rows.append(found)
    problems += _twice(rows)
    if problems:
        raise InputError(problems)
    if not rows:
        raise InputError(f"{path}: every row is at 0 tokens; log evaluations of the run under way")
    notes = [f"{untrained} row(s) at 0 tokens are left out: nothing was trained"] if untrained else []
    observed = {
        name: _observed([row for row in rows if row.task == name])
        for name in tasks
        if any(row.task == name for row in rows)
    }
    return Log(max(row.tokens for row in rows), observed, notes)


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every row with the place it stands at."""
    if path.suffix == ".jsonl":
        return [(f"{path}:{line}", row) for line, row in read_jsonl(path)]
    if not path.name.endswith(ENDINGS):
        raise InputError(f"--log {path}: a log's name ends in .jsonl, {', '.join(ENDINGS)}")
    rows = read_table(path, set(TEXTS)).rows()
    if path.name.endswith(".csv"):
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [reader.line_num for row in reader if row][1:]
        return [(f"{path}:{line}", row) for line, row in zip(lines, rows, strict=True)]
    return [(f"{path}: row {index}", row) for index, row in enumerate(rows, start=1)]


def _checked(
    place: str, row: dict[str, Any], tasks: dict[str, RecipeTask], most: int, problems: list[str]
) -> _Row | None:
    """The row, if nothing is wrong with it; else None, and what is wrong in `problems`."""
    before = len(problems)
    number = {name: _number(place, name, row.get(name), problems) for name in NUMBERS}
    name = "" if row.get("task") is None else str(row["task"])
    if not name:
        problems.append(f"{place}: no task")
    elif name not in tasks:
        problems.append(f"{place}: {name!r} is no task of the recipe{did_you_mean(name, tasks)}")
    tokens = number["tokens"]
    if tokens is None:
        if len(problems) == before or row.get("tokens") in (None, ""):
            problems.append(f"{place}: no tokens")
    elif tokens < 0:
        problems.append(f"{place}: tokens is {tokens:g}; it counts training tokens so far")
    elif tokens > most * (1 + AT_END):
        problems.append(
            f"{place}: tokens is {tokens:g}, beyond the recipe's {most:,}; count tokens of this recipe's run"
        )
    for column, low, high in (("accuracy", 0.0, 1.0), ("skill", -1.0, 1.0)):
        value = number[column]
        if value is not None and not low <= value <= high:
            problems.append(f"{place}: {column} is {value:g}; it is from {low:g} to {high:g}")
    chance, evaluated, decayed = number["chance"], number["evaluated"], number["decayed"]
    if chance is not None and not 0 <= chance < 1:
        problems.append(f"{place}: chance is {chance:g}; it is the accuracy of guessing, from 0 to below 1")
    if evaluated is not None and evaluated < 1:
        problems.append(f"{place}: evaluated is {evaluated:g}; it counts the instances scored, from 1")
    if decayed not in (None, 0, 1):
        problems.append(f"{place}: decayed is {decayed:g}; it is 1 where the learning rate had decayed, or 0")
    if len(problems) > before or tokens is None:
        return None
    value = _value(place, tasks[name], number, problems)
    if value is None:
        return None
    finished = tokens >= most * (1 - AT_END) if decayed is None else bool(decayed)
    return _Row(place, name, tokens, value, number["accuracy"], chance, evaluated, finished, number["seed"])


def _number(place: str, name: str, value: Any, problems: list[str]) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        problems.append(f"{place}: {name} is {str(value)[:40]!r}; a finite number is needed")
        return None
    return found


def _value(
    place: str, task: RecipeTask, number: dict[str, float | None], problems: list[str]
) -> float | None:
    """What the task's target is about: skill, or bits per byte."""
    if task.target_bits_per_byte is not None:
        bits = number["bits_per_byte"]
        if bits is None:
            problems.append(f"{place}: the target of {task.name!r} is in bits per byte; log bits_per_byte")
        elif bits <= 0:
            problems.append(f"{place}: bits_per_byte is {bits:g}; it is above 0")
        else:
            return bits
        return None
    skill, accuracy, chance = number["skill"], number["accuracy"], number["chance"]
    if accuracy is not None and chance is not None:
        implied = (accuracy - chance) / (1 - chance)
        if skill is not None and abs(chance + skill * (1 - chance) - accuracy) > AGREE:
            problems.append(
                f"{place}: skill is {skill:g}, but accuracy and chance give {implied:.3g}; skill is "
                "(accuracy − chance) ÷ (1 − chance)"
            )
            return None
        if implied < -1:
            problems.append(f"{place}: accuracy and chance give a skill of {implied:.3g}, below −1")
            return None
        skill = implied if skill is None else skill
    if skill is None:
        problems.append(f"{place}: neither skill nor accuracy with chance; log one of these")
    elif number["evaluated"] is not None and chance is None:
        problems.append(f"{place}: evaluated needs chance beside it: a skill's error depends on both")
        return None
    return skill


def _twice(rows: list[_Row]) -> list[str]:
    """Rows of the same task and tokens that are no repeated evaluations."""
    problems = []
    seen: dict[tuple[str, float, bool, float | None], str] = {}
    unseeded: dict[tuple[str, float, bool], tuple[str, float | None]] = {}
    for row in rows:
        where = (row.task, row.tokens, row.finished)
        key = (*where, row.seed)
        first, seed = unseeded.setdefault(where, (row.place, row.seed))
        if key in seen or (first != row.place and (seed is None) != (row.seed is None)):
            problems.append(
                f"{row.place}: {row.task!r} at {row.tokens:g} tokens stands at {seen.get(key, first)} "
                "already; keep one, or number repeated evaluations by `seed`"
            )
        seen.setdefault(key, row.place)
    return problems


def _observed(rows: list[_Row]) -> Observed:
    """One task's rows, sorted, repeated evaluations averaged."""
    points: dict[tuple[float, bool], list[_Row]] = {}
    for row in sorted(rows, key=lambda row: (row.tokens, row.finished, row.seed or 0.0)):
        points.setdefault((row.tokens, row.finished), []).append(row)
    return Observed(
        tokens=np.array([tokens for tokens, _ in points]),
        value=np.array([float(np.mean([row.value for row in same])) for same in points.values()]),
        error=np.array([_error(same) for same in points.values()]),
        finished=np.array([finished for _, finished in points], dtype=bool),
    )


def _error(rows: list[_Row]) -> float:
    """Standard error of the mean skill of repeated evaluations: binomial, of (right + 1)/(scored + 2); 0
    where one of them does not say how many instances it scored."""
    variances = []
    for row in rows:
        if row.evaluated is None or row.chance is None:
            return 0.0
        right = row.chance + row.value * (1 - row.chance) if row.accuracy is None else row.accuracy
        smooth = (min(max(right, 0.0), 1.0) * row.evaluated + 1) / (row.evaluated + 2)
        variances.append(smooth * (1 - smooth) / row.evaluated / (1 - row.chance) ** 2)
    return math.sqrt(sum(variances)) / len(rows)
