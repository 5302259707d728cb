"""measurements/: tables with fixed column names and units, which any tool can write."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from mixplan.documents.atomic import write_json
from mixplan.documents.base import Provenance
from mixplan.documents.loading import read_data
from mixplan.documents.suggest import did_you_mean
from mixplan.documents.table import ENDINGS, Table, read_table, write_table
from mixplan.errors import InputError


class _Row(BaseModel):
    """Unknown extra columns are kept: other tools may add their own."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)


class _RunRow(_Row):
    run_id: str
    rung: str
    block_params: float = Field(gt=0)
    seed: float = Field(ge=0)


class _CellRow(_RunRow):
    tokens: float = Field(ge=0)
    task: str
    family: str
    complexity: float = Field(gt=0)
    frequency: float = Field(gt=0, le=1)


class LearningRow(_Row):
    """One cell at one evaluation of one run."""

    run_id: str
    rung: str
    block_params: float = Field(gt=0)
    """Parameters without input embedding and unembedding."""
    total_params: float | None = Field(default=None, gt=0)
    seed: float = Field(ge=0)
    step: float = Field(ge=0)
    tokens: float = Field(gt=0)
    """Training tokens seen."""
    task: str
    family: str
    complexity: float = Field(gt=0)
    """Grows with difficulty within a family."""
    frequency: float = Field(gt=0, le=1)
    """Injected instances per training token."""
    exposures: float | None = Field(default=None, ge=0)
    """frequency × tokens."""
    accuracy: float = Field(ge=0, le=1)
    """On unseen instances, among the task's own answers."""
    chance: float = Field(ge=0, lt=1)
    skill: float = Field(le=1)
    """(accuracy − chance) ÷ (1 − chance)."""
    choice_nll: float | None = Field(default=None, ge=0)
    """NLL of the answer among the task's own answers, nats."""
    lm_loss: float | None = Field(default=None, ge=0)
    """On held-out base text, nats per token."""
    decayed: float | None = Field(default=None, ge=0, le=1)
    """1 at the end of a learning-rate decay (the end of a run or of one of its branches), else 0. Where a
    run says nothing, its last step counts as its end."""
    protocol: str | None = None
    """How the cell was injected. The laws use `standard` (or empty) rows only: spread over the whole run."""
    gap_tokens: float | None = Field(default=None, ge=0)
    """Tokens for which the cell was withheld between two bursts; 0: spread over all steps."""
    exposures_per_instance: float | None = Field(default=None, ge=0)
    """exposures ÷ different training instances of the cell."""


class RetentionRow(_RunRow):
    """One probe task at one delay after its burst."""

    task: str
    family: str
    complexity: float = Field(gt=0)
    instances: float = Field(gt=0)
    """Instances in the burst."""
    injected_at_tokens: float = Field(ge=0)
    delay_tokens: float = Field(ge=0)
    """Tokens between the burst and this measurement."""
    choice_nll_before: float = Field(ge=0)
    choice_nll: float = Field(ge=0)
    gain: float
    """choice_nll_before − choice_nll, nats."""
    decaying: float | None = Field(default=None, ge=0, le=1)
    """1 where the learning rate was already decaying at the end of the run: the law leaves such rows out."""


class InterferenceRow(_CellRow):
    """One task's gradient against the common gradient at one point of one run."""

    cosine: float = Field(ge=-1, le=1)
    """Between the gradient on common data and the task's gradient, over block parameters. mixplan's common
    data is a training batch less the tokens that answer for this task."""
    task_grad_norm: float = Field(ge=0)
    """Of the task's gradient, over block parameters."""
    common_grad_norm: float = Field(ge=0)
    """Of the gradient on common data, over block parameters."""
    loss_change: float
    """First-order change of the task's loss by one optimizer step on common data alone, nats."""
    protocol: str | None = None
    """As in the learning table."""
    cosine_all: float | None = Field(default=None, ge=-1, le=1)
    """`cosine` over all parameters, embeddings included."""
    cosine_top_neurons: float | None = Field(default=None, ge=-1, le=1)
    """`cosine` over the neurons of the first feed-forward layer with the largest task gradient."""
    cosine_own: float | None = Field(default=None, ge=-1, le=1)
    """Between the gradient on the batch's own tokens of this task and the task's gradient, over block
    parameters; empty where the batch holds none."""
    own_grad_norm: float | None = Field(default=None, ge=0)
    """Of the gradient on the batch's own tokens of this task, over block parameters; empty likewise."""


class FeaturesRow(_CellRow):
    """What one layer's hidden states hold of one task at one point of one run."""

    layer: float = Field(ge=0)
    """0: embeddings; l: output of block l."""
    feature: str
    """order_r2: R² of a linear read-out of the hidden order on items it was not fitted to; fourier_modes:
    modes with a share of variance above twice that of noise."""
    value: float
    null: float
    """The same without any structure: shuffled order, random states."""
    protocol: str | None = None
    """As in the learning table."""


class PeelOffRow(_RunRow):
    """One cell's loss at one evaluation against that of the largest rung at the same LM loss."""

    task: str
    family: str
    complexity: float = Field(gt=0)
    frequency: float = Field(gt=0, le=1)
    tokens: float = Field(gt=0)
    lm_loss: float = Field(ge=0)
    choice_nll: float = Field(ge=0)
    reference_choice_nll: float | None = Field(default=None, ge=0)
    """Of the largest rung at this LM loss, interpolated; empty outside the LM losses it went through."""
    excess_nll: float | None = None
    """choice_nll − reference_choice_nll, nats: above zero, the size has peeled off."""


class SourceRow(_RunRow):
    """One of the team's own sources at one evaluation of one run, whatever was mixed into the run."""

    tokens: float = Field(gt=0)
    source: str
    anchor: str | None = None
    """The source whose skill 1 the run anchors, `zero` where it anchors skill 0 of all, else empty."""
    share: float = Field(ge=0, le=1)
    """Tokens of the source per training token, over the whole run."""
    source_tokens: float = Field(ge=0)
    """Tokens of the source seen so far."""
    source_epochs: float = Field(ge=0)
    """How often its text was read so far."""
    nats_per_token: float = Field(ge=0)
    """On held-out text of the source."""
    bits_per_byte: float = Field(ge=0)
    """The same per byte of text; per token where the corpus came as tokens that nobody knows the text of."""


class DependenceRow(_Row):
    """One cell trained alone against the same cell beside all others, at the end of a horizon."""

    run_id: str
    """The run that trains the cell alone."""
    together_run_id: str
    rung: str
    block_params: float = Field(gt=0)
    seed: float = Field(ge=0)
    tokens: float = Field(gt=0)
    task: str
    family: str
    complexity: float = Field(gt=0)
    frequency: float = Field(gt=0, le=1)
    skill_alone: float = Field(le=1)
    skill_together: float = Field(le=1)
    skill_difference: float
    """skill_alone − skill_together."""
    skill_seed_sd: float | None = Field(default=None, ge=0)
    """Standard deviation of skill_together between seeds; empty with one seed."""
    choice_nll_alone: float = Field(ge=0)
    choice_nll_together: float = Field(ge=0)
    choice_nll_difference: float
    """choice_nll_alone − choice_nll_together, nats."""


LEARNED_SKILL = 0.8
ROWS: dict[str, type[_Row]] = {
    "learning": LearningRow,
    "retention": RetentionRow,
    "interference": InterferenceRow,
    "features": FeaturesRow,
    "peel_off": PeelOffRow,
    "sources": SourceRow,
    "dependence": DependenceRow,
}
_TEXT = ("run_id", "together_run_id", "rung", "task", "family", "protocol", "feature", "source", "anchor")
TEXT_COLUMNS = set(_TEXT)
STANDARD = "standard"
"""The protocol of cells that are spread over the whole run; an empty field means the same."""
_ROUNDING = 0.02
"""How far a column may be from what others imply: tables written by hand are rounded to two digits."""


@dataclass(frozen=True)
class Measurements:
    """The tables; all but learning may be missing."""

    learning: Table
    retention: Table | None = None
    interference: Table | None = None
    provenance: Provenance = field(default_factory=dict)
    features: Table | None = None
    peel_off: Table | None = None
    sources: Table | None = None
    dependence: Table | None = None

    @property
    def learned_skill(self) -> float:
        """Skill from which a cell counts as learned: as the calibration behind the tables says, else 0.8."""
        made_by = self.provenance.get("calibration")
        said = made_by.get("learned_skill") if isinstance(made_by, dict) else None
        return float(said) if isinstance(said, int | float) and 0 < said < 1 else LEARNED_SKILL


def read_measurements(folder: Path) -> Measurements:
    """Read and check a measurements folder (or a single learning table).

    Raises:
        InputError: missing learning table, missing column, text where numbers belong, NaN, values out of
            range; all of them at once, with the first offending row.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"{folder}: no such file or folder; `mixplan collect RUNS` writes measurements")
    if folder.is_file():
        files: dict[str, Path] = {"learning": folder}
    else:
        files = {}
        for name in ROWS:
            found = [folder / f"{name}{end}" for end in ENDINGS if (folder / f"{name}{end}").is_file()]
            if len(found) > 1:
                raise InputError(f"{folder} holds both {found[0].name} and {found[1].name}; keep one")
            if found:
                files[name] = found[0]
    if "learning" not in files:
        raise InputError(
            f"{folder}: no learning.csv or learning.parquet here; `mixplan collect RUNS` writes them"
        )
    problems: list[str] = []
    tables: dict[str, Table] = {}
    for name, path in files.items():
        try:
            table = read_table(path, TEXT_COLUMNS)
        except InputError as error:
            problems += error.problems
            continue
        problems += check_table(table, name, str(path))
        tables[name] = table
    if problems:
        raise InputError(problems)
    provenance: Provenance = {}
    note = folder / "provenance.json" if folder.is_dir() else None
    if note is not None and note.is_file():
        provenance = read_data(note).data
    return Measurements(**tables, provenance=provenance)


def write_measurements(measurements: Measurements, folder: Path, parquet: bool = False) -> list[Path]:
    """Write the tables that there are, and provenance.json. Returns the paths.

    A table that an earlier call left in the same folder and this one does not write is removed: the folder
    holds one set of measurements.
    """
    folder = Path(folder)
    end = ".parquet" if parquet else ".csv"
    written = []
    for name in ROWS:
        table: Table | None = getattr(measurements, name)
        if table is not None and len(table):
            write_table(table, folder / f"{name}{end}")
            written.append(folder / f"{name}{end}")
    for old in (folder / f"{name}{kind}" for name in ROWS for kind in ENDINGS):
        if old not in written:
            old.unlink(missing_ok=True)
    write_json(folder / "provenance.json", measurements.provenance)
    return [*written, folder / "provenance.json"]


def check_table(table: Table, name: str, where: str) -> list[str]:
    """Every way in which a table breaks the rules of its columns; empty when it keeps them."""
    problems: list[str] = []
    if not len(table):
        return [f"{where}: no rows"]
    for column, info in ROWS[name].model_fields.items():
        if column not in table:
            if info.is_required():
                missing = did_you_mean(column, [c for c in table.columns if c not in ROWS[name].model_fields])
                problems.append(
                    f"{where}: column {column!r} is missing{missing if 'mean' in missing else ''}"
                )
            continue
        values = table[column]
        if column in TEXT_COLUMNS:
            if not info.is_required():
                continue
            empty = np.flatnonzero(np.array([str(v).strip() == "" for v in values]))
            if len(empty):
                problems.append(
                    f"{where}: column {column!r} is empty in {len(empty)} row(s), first row {empty[0] + 1}"
                )
            continue
        if values.dtype == object:
            bad = next((i for i, v in enumerate(values) if not _is_number(v)), 0)
            problems.append(f"{where}: column {column!r} needs numbers; row {bad + 1} has {values[bad]!r}")
            continue
        problems += _check_numbers(values, column, info, where)
    return problems or _check_meaning(table, name, where)


def _check_meaning(table: Table, name: str, where: str) -> list[str]:
    """Columns that follow from others must agree with them, and a cell is measured once at a time."""
    problems = []
    if name == "learning":
        implied = (table["accuracy"] - table["chance"]) / (1 - table["chance"])
        problems += _disagree(table["skill"], implied, "skill", "(accuracy − chance) ÷ (1 − chance)", where)
        keys = ("run_id", "tokens", "task", "family", "complexity", "frequency")
        first: dict[tuple[Any, ...], int] = {}
        for row, key in enumerate(zip(*(table[column] for column in keys), strict=True)):
            if first.setdefault(key, row) != row:
                problems.append(
                    f"{where}: rows {first[key] + 1} and {row + 1} measure the same cell at the same time "
                    f"(same {', '.join(keys)}); keep one, or give different runs different run_id"
                )
                break
    if name == "retention":
        implied = table["choice_nll_before"] - table["choice_nll"]
        problems += _disagree(table["gain"], implied, "gain", "choice_nll_before − choice_nll", where)
    if name == "peel_off" and "excess_nll" in table and "reference_choice_nll" in table:
        implied = table["choice_nll"] - table["reference_choice_nll"]
        formula = "choice_nll − reference_choice_nll"
        problems += _disagree(table["excess_nll"], implied, "excess_nll", formula, where)
    return problems


def _disagree(given: np.ndarray, implied: np.ndarray, column: str, formula: str, where: str) -> list[str]:
    wrong = np.flatnonzero(np.abs(given - implied) > _ROUNDING)
    if not len(wrong):
        return []
    row = wrong[0]
    return [
        f"{where}: column {column!r} is not {formula} in {len(wrong)} row(s), first row {row + 1}: "
        f"{given[row]:g} against {implied[row]:g}"
    ]


def _check_numbers(values: np.ndarray, column: str, info: FieldInfo, where: str) -> list[str]:
    problems = []
    missing = np.flatnonzero(~np.isfinite(values) if info.is_required() else np.isinf(values))
    if len(missing):
        problems.append(
            f"{where}: column {column!r} is empty, NaN or infinite in {len(missing)} row(s), first row "
            f"{missing[0] + 1}; leave such rows out"
        )
    meaning = f" ({info.description.split('. ')[0].rstrip('.')})" if info.description else ""
    for rule in info.metadata:
        for attribute, holds, sign in (
            ("gt", np.greater, ">"), ("ge", np.greater_equal, "≥"),
            ("lt", np.less, "<"), ("le", np.less_equal, "≤"),
        ):  # fmt: skip
            limit = getattr(rule, attribute, None)
            if limit is None:
                continue
            broken = np.flatnonzero(np.isfinite(values) & ~holds(values, limit))
            if len(broken):
                percent = limit == 1 and 1 < np.nanmax(values) <= 100
                problems.append(
                    f"{where}: column {column!r} must be {sign} {limit:g}; {len(broken)} row(s) are not, "
                    f"first row {broken[0] + 1} with {values[broken[0]]:g}{meaning}"
                    f"{'; if it is in percent, divide by 100' if percent else ''}"
                )
    return problems


def _is_number(value: Any) -> bool:
    try:
        float(value) if str(value).strip() else 0.0
    except ValueError:
        return False
    return True
