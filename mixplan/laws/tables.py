"""What `fit` and `backtest` show: a calibration as titled tables of text and numbers, for console.table."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mixplan.documents import Calibration
from mixplan.documents.calibration import (
    Backtest,
    BacktestScore,
    FittedLaw,
    RungBacktest,
    TaskCoverage,
)
from mixplan.laws import interference, retention
from mixplan.laws.drawn import interval_90
from mixplan.laws.learning import ceiling_name
from mixplan.laws.source_predict import predict
from mixplan.units import number


class Shown(NamedTuple):
    """One table."""

    title: str
    columns: list[str]
    rows: list[list[Any]]


def calibration_tables(calibration: Calibration) -> list[Shown]:
    """Slopes, coverage, retention, interference, LM loss, sources, backtest; those that there are."""
    learning = calibration.learning
    slopes = [name for name in learning.parameters if "[" not in name]
    shown = [
        Shown(
            f"Learning law ({learning.law}; {learning.runs} runs, {learning.rows} rows; slopes per e-fold)",
            ["parameter", "estimate", "90 % low", "90 % high"],
            [_parameter(learning, name) for name in slopes],
        ),
        Shown(
            f"Task coverage (learned: skill ≥ {calibration.learned_skill:g} at the end of a run)",
            ["family", "complexity", "cells", "learned", "status", "levels off at", "90 %"],
            [_task(learning, task) for task in calibration.tasks],
        ),
    ]
    sizes = _sizes(learning)
    if calibration.retention is not None:
        shown.append(_retention(calibration.retention, sizes))
    if calibration.interference is not None:
        shown.append(_interference(calibration.interference, sizes))
    if calibration.lm_loss is not None:
        law = calibration.lm_loss
        shown.append(
            Shown(
                f"LM loss on common data ({law.formula})",
                ["parameter", "estimate", "90 % low", "90 % high"],
                [_parameter(law, name) for name in law.parameters],
            )
        )
    shown += [_source(law) for law in calibration.sources]
    if calibration.backtest is not None:
        shown += backtest_tables(calibration.backtest)
    return shown


def calibration_summary(calibration: Calibration) -> dict[str, Any]:
    """The document without draws and left-out cells, for programs that only want the findings."""
    laws = ("learning", "retention", "interference", "lm_loss")
    return calibration.model_dump(
        mode="json",
        exclude={
            **{law: {"draws"} for law in laws},
            "sources": {"__all__": {"draws"}},
            "backtest": {"cells"},
        },
    )


def backtest_tables(found: Backtest) -> list[Shown]:
    """Scores on the largest rung from all others; then every rung from every set of smaller ones."""
    ahead = next(
        (one for one in found.rolling if one.left_out_rung == found.left_out_rung and one.rungs_ahead == 1),
        None,
    )
    rows: list[list[Any]] = [
        [s.forecast, s.brier, s.skill_brier, s.log_score, s.auroc, s.coverage_90, _near(s), s.cells]
        for s in found.scores
    ]
    if found.seed_noise_brier is not None:
        learned = None if ahead is None else ahead.seed_noise_learned
        name = "noise floor (half the squared difference of seeds)"
        rows.append([name, learned, found.seed_noise_brier, *[None] * 5])
    title = (
        f"Backtest: {found.left_out_rung} ({number(found.left_out_block_params)} block params) "
        f"predicted from {', '.join(found.fitted_rungs)}"
    )
    columns = ["forecast", "Brier learned", "Brier skill", "log score", "AUROC", "90 % coverage"]
    columns += ["f_crit within 1.5×", "cells"]
    shown = [Shown(title, columns, rows)]
    if len(found.rolling) > 1:
        shown.append(_rolling(found.rolling))
    return shown


def default_said(weights: dict[str, float], reason: str) -> str:
    """Which law forecasts by default, or which mixture, and why."""
    parts = [name if share == 1.0 else f"{name} {share:.0%}" for name, share in weights.items()]
    return f"default forecast: {' + '.join(parts)} ({reason})"


def _near(score: BacktestScore) -> str | None:
    return f"{score.thresholds_near} of {score.thresholds}" if score.thresholds else None


def _rolling(every: list[RungBacktest]) -> Shown:
    """Brier on skill of all forecasts, with the noise floor."""
    names = list(dict.fromkeys(score.forecast for one in every for score in one.scores))
    rows: list[list[Any]] = []
    for one in every:
        briers = {score.forecast: score.skill_brier for score in one.scores}
        ahead = f"{one.rungs_ahead} ({one.size_ratio:.1f}×)"
        rows.append([
            one.fitted_rungs[-1], one.left_out_rung, ahead, one.seed_noise_skill,
            *(briers.get(name) for name in names),
        ])  # fmt: skip
    return Shown(
        "Brier on skill, every rung from every set of smaller ones",
        ["fitted up to", "left out", "rungs ahead", "noise floor", *names],
        rows,
    )


def _sizes(law: FittedLaw) -> list[float]:
    """Both ends of the fitted sizes and the geometric middle."""
    low, high = law.ranges["block_params"].low, law.ranges["block_params"].high
    return [low, float(np.sqrt(low * high)), high]


def _parameter(law: FittedLaw, name: str) -> list[Any]:
    at = law.parameters.index(name)
    return [name, law.values[at], *_ends(np.array([draw[at] for draw in law.draws]))]


def _ends(draws: np.ndarray) -> tuple[float | None, float | None]:
    """90 % interval of draws, shape (D,); none without draws."""
    return interval_90(draws) if len(draws) else (None, None)


def _span(draws: np.ndarray) -> str | None:
    low, high = _ends(draws)
    return None if low is None else f"{low:.2g} … {high:.2g}"


def _task(law: FittedLaw, task: TaskCoverage) -> list[Any]:
    at = law.parameters.index(ceiling_name((task.family, task.complexity)))
    cells = [task.family, f"{task.complexity:g}", task.cells, task.learned, task.status]
    return [*cells, f"{law.values[at]:.2f}", _span(np.array([draw[at] for draw in law.draws]))]


def _retention(law: FittedLaw, sizes: list[float]) -> Shown:
    longest = law.ranges["delay_tokens"].high
    delays = [longest / 8, longest]
    rows: list[list[Any]] = []
    for size in sizes:
        half = retention.half_life(law, size)
        low, high = _ends(half[1:])
        left = [f"{max(0.0, float(retention.kept(law, size, delay)[0])):.2f}" for delay in delays]
        rows.append([number(size), *(v and number(v) for v in (float(half[0]), low, high)), *left])
    return Shown(
        f"Retention by size ({law.law}; half-life in tokens after the peak of a burst's gain)",
        [
            "block params",
            "half-life",
            "90 % low",
            "90 % high",
            *(f"left at {number(d)}" for d in delays),
        ],
        rows,
    )


def _interference(law: FittedLaw, sizes: list[float]) -> Shown:
    rows = []
    for size in sizes:
        row: list[Any] = [number(size)]
        for quantity in ("abs_cosine", "loss_change"):
            values = interference.value(law, quantity, size)
            row += [float(values[0]), _span(values[1:])]
        rows.append(row)
    return Shown(
        "Interference by size (a common-data step against a rare task; loss change in nats a step)",
        ["block params", "|cosine|", "90 %", "loss change", "90 %"],
        rows,
    )


def _source(law: FittedLaw) -> Shown:
    """Bits per byte of new runs of the longest horizon at three shares, of text that is read once."""
    low, high = law.ranges["share"].low, law.ranges["share"].high
    shares, tokens = [low, (low + high) / 8, high], law.ranges["tokens"].high
    rows: list[list[Any]] = []
    for size in _sizes(law):
        found = predict(law, np.array(shares), size, tokens, 1.0)
        spans = [f"{low:.3f} … {high:.3f}" for low, high in zip(found.low, found.high, strict=True)]
        pairs = zip((f"{bits:.3f}" for bits in found.bits), spans, strict=True)
        rows.append([number(size), *(text for pair in pairs for text in pair)])
    return Shown(
        f"Source {law.subject}: held-out bits per byte of a new run after {number(tokens)} tokens "
        f"({law.law}; {law.runs} runs, {law.rows} rows; text read once)",
        ["block params", *(text for share in shares for text in (f"share {share:.3g}", "90 %"))],
        rows,
    )
