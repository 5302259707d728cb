"""Measurements become calibration.json: the laws they support, the backtest, and what cannot be said."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy

from mixplan.documents import Calibration, Measurements, Table
from mixplan.documents.base import Provenance
from mixplan.documents.calibration import FittedLaw
from mixplan.documents.references import reference_warnings
from mixplan.errors import InputError
from mixplan.laws import interference, lm_loss, retention, tables_agree, thin_tables, units_check
from mixplan.laws.backtest import Tested, backtest
from mixplan.laws.candidates import parametric, time_exponent
from mixplan.laws.censoring import ceiling_warnings, coverage_warnings
from mixplan.laws.choice import Choice, choose
from mixplan.laws.evidence import (
    Evidence,
    collect_evidence,
    contradictions,
    coverage,
    one_value_per,
    ordered,
    standard_rows,
)
from mixplan.laws.source import fit_sources
from mixplan.laws.source_rows import contradictions as source_contradictions

MIN_DRAWS = 20


def fit_calibration(
    measurements: Measurements, *, learned_skill: float = 0.8, draws: int = 200, seed: int = 0
) -> Calibration:
    """Fit all laws. The same tables (rows in any order) and seed give the same document.

    Args:
        measurements: tables that keep the rules of their columns (as `read_measurements` returns them).
        learned_skill: skill from which a cell counts as learned, in (0, 1).
        draws: of every law's parameters.
        seed: of the draws.

    Raises:
        InputError: rows contradict each other, or there are fewer than two sizes; all problems at once.
    """
    evidence = checked_evidence(measurements, learned_skill, draws)
    loss_rows = lm_loss.loss_rows(evidence, measurements.sources, _unique_tokens(measurements))
    forgotten = None if measurements.retention is None else _sorted(measurements.retention)
    tested, untested = _try_backtest(evidence, learned_skill, draws, seed, forgotten)
    choice = choose([]) if tested is None else tested.choice
    learning, others = _learning(evidence, choice, draws, seed, forgotten)
    tasks = coverage(evidence, learned_skill)
    warnings = [
        *reference_warnings(measurements.provenance),
        *table_warnings(measurements, evidence, learned_skill),
        *learning.warnings,
        *coverage_warnings(tasks, evidence, [learning, *others], choice.weights, learned_skill),
        *ceiling_warnings(learning, tasks, learned_skill),
    ]
    forgetting: FittedLaw | None = None
    clashing: FittedLaw | None = None
    common: FittedLaw | None = None
    if forgotten is None:
        warnings.append("no retention table: nothing is said about forgetting")
    else:
        forgetting, said = retention.fit(forgotten, draws, np.random.default_rng([seed, 1]))
        warnings += said
    if measurements.interference is None:
        warnings.append("no interference table: nothing is said about gradient interference")
    else:
        table, said = standard_rows(measurements.interference, "interference")
        warnings += said
        table = _sorted(table)
        clashing = interference.fit(table, draws, np.random.default_rng([seed, 2]))
    if loss_rows is None:
        warnings.append(
            "no lm_loss in the learning table: what a mixture costs the common data cannot be forecast"
        )
    else:
        common, said = lm_loss.fit(loss_rows, draws, np.random.default_rng([seed, 3]))
        warnings += said
    own_text: list[FittedLaw] = []
    if measurements.sources is not None:
        own_text, said = fit_sources(_sorted(measurements.sources), draws, np.random.default_rng([seed, 4]))
        warnings += said
    fitted = [law for law in (forgetting, clashing, common, *own_text) if law is not None]
    warnings += [text for law in fitted for text in law.warnings]
    return Calibration(
        learned_skill=learned_skill,
        learning=learning,
        other_learning=others,
        weights=choice.weights,
        retention=forgetting,
        interference=clashing,
        lm_loss=common,
        sources=own_text,
        tasks=tasks,
        backtest=None if tested is None else tested.backtest,
        warnings=[*warnings, *untested],
        provenance=_provenance(measurements, draws, seed),
    )


def check_output(path: Path) -> Path:
    """The path, if a calibration can be written there.

    Raises:
        InputError: the name does not end in .json.
    """
    if path.suffix != ".json":
        raise InputError(f"{path}: a calibration is written as JSON; give a name that ends in .json")
    return path


def checked_evidence(measurements: Measurements, learned_skill: float, draws: int) -> Evidence:
    """The learning table's standard rows, once everything that would make a fit meaningless is ruled out.

    Raises:
        InputError: all problems at once.
    """
    problems = []
    if not 0.0 < learned_skill < 1.0:
        problems.append(f"learned skill must lie between 0 and 1, not at {learned_skill:g}")
    if draws < MIN_DRAWS:
        problems.append(f"{draws} draws cannot give 90 % intervals; use at least {MIN_DRAWS} (200 is usual)")
    learning = measurements.learning
    try:
        learning, _ = standard_rows(learning, "learning")
        if measurements.interference is not None:
            standard_rows(measurements.interference, "interference")
    except InputError as error:
        problems += error.problems
    problems += contradictions(learning)
    problems += units_check.impossible(measurements.learning, learning, learned_skill)
    problems += tables_agree.disagreements(measurements)
    problems += thin_tables.copies(learning)
    if measurements.sources is not None:
        problems += source_contradictions(measurements.sources)
    for name in ("retention", "interference", "sources"):
        table = getattr(measurements, name)
        if table is not None:
            problems += one_value_per(table, "run_id", ("rung", "block_params", "seed"), name)
    sizes = np.unique(learning["block_params"])
    if len(sizes) < 2:
        problems.append(
            f"learning: all rows have block_params={sizes[0]:g}; at least two rungs are needed to tell what "
            "size does (three to test it): add runs of another size"
        )
    if problems:
        raise InputError(problems)
    return collect_evidence(learning)


def table_warnings(measurements: Measurements, evidence: Evidence, learned_skill: float) -> list[str]:
    """What is left out of the laws, strange in the tables, or measured too little; in words."""
    return [
        *standard_rows(measurements.learning, "learning")[1],
        *units_check.strange(measurements.learning, learned_skill),
        *tables_agree.oddities(measurements),
        *thin_tables.thin(evidence),
    ]


def _unique_tokens(measurements: Measurements) -> float | None:
    """Tokens of base text that the runs could draw from, where the tables' provenance says."""
    said = measurements.provenance.get("corpus_train_tokens")
    return float(said) if isinstance(said, int | float) and said > 0 else None


def _try_backtest(
    evidence: Evidence, learned_skill: float, draws: int, seed: int, forgotten: Table | None
) -> tuple[Tested | None, list[str]]:
    try:
        return backtest(evidence, learned_skill, draws, seed, forgotten), []
    except InputError as error:
        return None, [f"no backtest: {problem}" for problem in error.problems]


def _learning(
    evidence: Evidence, choice: Choice, draws: int, seed: int, forgotten: Table | None
) -> tuple[FittedLaw, list[FittedLaw]]:
    """The law with the largest share in the forecasts, and the others, without draws where they have none."""
    laws = [
        law.document(evidence, draws if law.name in choice.weights else 0, np.random.default_rng([seed, 0]))
        for law in parametric(time_exponent(forgotten))
    ]
    first = max(laws, key=lambda law: choice.weights.get(law.law, 0.0))
    return first, [law for law in laws if law is not first]


def _sorted(table: Table) -> Table:
    """Rows in an order that does not depend on the file's."""
    return table.where(ordered(table, tuple(sorted(table.columns))))


def _provenance(measurements: Measurements, draws: int, seed: int) -> Provenance:
    tables = {
        name: {"rows": len(table), "sha256": table_hash(table)}
        for name in ("learning", "retention", "interference", "sources")
        if (table := getattr(measurements, name)) is not None
    }
    return {
        "command": "mixplan fit",
        "mixplan": version("mixplan"),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "draws": draws,
        "seed": seed,
        "tables": tables,
        "measurements": measurements.provenance,
    }


def table_hash(table: Table) -> str:
    """SHA-256 of a table's content, whatever the order of its rows and columns and whether CSV or Parquet."""
    names = sorted(table.columns)
    columns = [
        [str(value) if isinstance(value, str) else repr(float(value)) for value in table[name]]
        for name in names
    ]
    lines = sorted("\x1f".join(row) for row in zip(*columns, strict=True))
    return hashlib.sha256("\n".join(["\x1f".join(names), *lines]).encode("utf-8")).hexdigest()
