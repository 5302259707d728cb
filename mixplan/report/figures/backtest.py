"""Can the law be trusted one size up? Predicted against observed on the rung that was left out."""

from __future__ import annotations

import numpy as np

from mixplan.documents.calibration import Backtest, BacktestCell, BacktestScore
from mixplan.report import text
from mixplan.report.figures.base import Figure, data, grid, key, panel, table
from mixplan.report.markup import Markup, join, tag
from mixplan.report.plot import Axis, Panel, linear_axis

NEAR = "1.5"  # as BacktestScore.thresholds_near counts


def figure(backtest: Backtest, weights: dict[str, float] | None = None) -> Figure | None:
    """Scatter of the left-out cells and the tables of scores; None without cells or scores.

    Args:
        backtest: of the calibration.
        weights: share of each law in its forecasts.
    """
    if not backtest.cells and not backtest.scores:
        return None
    parts = []
    if backtest.cells:
        keys = [
            key("inside", "inside the 90 % interval"),
            key("outside", "outside"),
            key("copied", "same cell, copied"),
        ]
        parts.append(tag("div", *(keys if _any_copied(backtest) else keys[:2]), class_="legend"))
    drawn = [panel("Left-out cells", _scatter(backtest.cells), wide=True)] if backtest.cells else []
    if _any_copied(backtest):
        drawn.append(panel(f"Copied from {_largest_fitted(backtest)}", _copies(backtest.cells), wide=True))
    rolling = _rolling(backtest)
    parts += [grid(drawn), _scores(backtest), *([] if rolling is None else [rolling])]
    noise = (
        ""
        if backtest.seed_noise_brier is None
        else (
            f" Seeds differ among themselves by {text.general(backtest.seed_noise_brier)} in the same squared"
            " skill: about as low as a forecast can get."
        )
    )
    return Figure(
        "backtest",
        "Predicted against observed",
        _finding(backtest),
        join(parts),
        f"The law was fitted without {backtest.left_out_rung} ({text.count(backtest.left_out_block_params)}"
        " block parameters) and asked for it at the end of each of its horizons. Whiskers are 90 % intervals"
        " for a new run; on the diagonal the"
        " forecast is right. Lower Brier scores and higher log scores are better; baselines are there to be"
        f" beaten and never forecast.{noise} Verdict of the fit:"
        f" {backtest.verdict.rstrip('.')}.{_default(backtest, weights or {})}",
        data(_numbers(backtest.cells)) if backtest.cells else None,
    )


def inside(cells: list[BacktestCell]) -> int:
    """Cells whose observation lies in the 90 % interval."""
    return sum(cell.low <= cell.observed <= cell.high for cell in cells)


def _any_copied(backtest: Backtest) -> bool:
    return any(cell.copied is not None for cell in backtest.cells)


def _largest_fitted(backtest: Backtest) -> str:
    return backtest.fitted_rungs[-1] if backtest.fitted_rungs else "the largest fitted rung"


def _axes(cells: list[BacktestCell], x_label: str) -> Panel:
    """Equal ranges on both axes, so that the diagonal is one."""
    values = [v for c in cells for v in (c.observed, c.predicted, c.low, c.high, c.copied) if v is not None]
    y = linear_axis(values, "Observed skill", include=[0.0, 1.0])
    return Panel(Axis(y.low, y.high, x_label, ticks=y.ticks), y, width=520, height=380)


def _scatter(cells: list[BacktestCell]) -> Markup:
    axes = _axes(cells, "Predicted skill")
    marks = [_diagonal(axes)]
    for css, wanted in (("inside", True), ("outside", False)):
        own = [cell for cell in cells if (cell.low <= cell.observed <= cell.high) is wanted]
        observed = [cell.observed for cell in own]
        marks.append(
            axes.whiskers(observed, [c.low for c in own], [c.high for c in own], f"{css} thin", across=True)
        )
        marks.append(axes.dots([c.predicted for c in own], observed, css, [_tip(c) for c in own]))
    caught = f"{inside(cells)} of {len(cells)} observations lie inside their 90 % interval."
    return axes.drawn(f"Observed against predicted skill on the left-out rung. {caught}", *marks)


def _copies(cells: list[BacktestCell]) -> Markup:
    own = [cell for cell in cells if cell.copied is not None]
    axes = _axes(cells, "Skill of the same cell at the largest fitted rung")
    tips = [f"{_cell_name(c)}\nobserved {text.fixed(c.observed)}, copied {text.fixed(c.copied)}" for c in own]
    dots = axes.dots(
        [c.copied if c.copied is not None else np.nan for c in own], [c.observed for c in own], "copied", tips
    )
    off = float(np.mean([abs(c.observed - c.copied) for c in own if c.copied is not None]))
    describe = f"Observed skill against the largest fitted rung's. Mean distance {text.fixed(off)}."
    return axes.drawn(describe, _diagonal(axes), dots)


def _diagonal(axes: Panel) -> Markup:
    ends = [axes.y.low, axes.y.high]
    return axes.line(ends, ends, "diagonal")


def _cell_name(cell: BacktestCell) -> str:
    return (
        f"{text.kind_name(cell.family, cell.complexity)}, frequency {text.power(cell.frequency)},"
        f" {text.count(cell.tokens)} tokens, seed {cell.seed}"
    )


def _tip(cell: BacktestCell) -> str:
    return (
        f"{_cell_name(cell)}\nobserved {text.fixed(cell.observed)}\npredicted {text.fixed(cell.predicted)} "
        f"({text.fixed(cell.low)} to {text.fixed(cell.high)})"
    )


def _scores(backtest: Backtest) -> Markup:
    floor = _noise_learned(backtest)
    rows = [
        [
            score.forecast,
            "baseline" if score.baseline else "",
            text.fixed(score.log_score, 3),
            text.fixed(score.skill_brier, 4),
            text.fixed(score.brier, 4),
            text.fixed(score.auroc, 3),
            text.percent(score.coverage_90),
            text.fixed(score.width_90),
            _near(score),
            score.cells,
        ]
        for score in backtest.scores
    ]
    if backtest.seed_noise_brier is not None:
        noise = ["Seeds among themselves", "noise floor", "–", text.fixed(backtest.seed_noise_brier, 4)]
        rows.append([*noise, text.fixed(floor, 4), *["–"] * 5])
    columns = ["Forecast", "", "Log score", "Brier, skill", "Brier, learned", "AUROC", "In 90 % interval"]
    columns += ["Its mean width", f"Threshold within {NEAR}×", "Cells"]
    caption = f"{backtest.left_out_rung} from {text.listing(backtest.fitted_rungs, most=9)}"
    return table(columns, rows, caption, words=2)


def _near(score: BacktestScore) -> str:
    return f"{score.thresholds_near} of {score.thresholds}" if score.thresholds else "–"


def _noise_learned(backtest: Backtest) -> float | None:
    """How much seeds differ in learned or not, at the rung that was left out."""
    same = [one for one in backtest.rolling if one.left_out_rung == backtest.left_out_rung]
    return same[0].seed_noise_learned if same else None


def _rolling(backtest: Backtest) -> Markup | None:
    """Brier on skill of every forecast at every left-out rung; None where there is one split only."""
    if len(backtest.rolling) < 2:
        return None
    names = list(dict.fromkeys(score.forecast for one in backtest.rolling for score in one.scores))
    rows = []
    for one in backtest.rolling:
        by_name = {score.forecast: score for score in one.scores}
        first = by_name.get(names[0])
        rows.append(
            [
                one.left_out_rung,
                f"up to {one.fitted_rungs[-1]}",
                f"{one.rungs_ahead} ({one.size_ratio:.1f}×)",
                text.fixed(one.seed_noise_skill, 4),
                *(text.fixed(by_name[name].skill_brier, 4) if name in by_name else "–" for name in names),
                "–" if first is None else text.percent(first.coverage_90),
                "–" if first is None else _near(first),
            ]
        )
    columns = ["Left out", "Fitted", "Rungs ahead", "Noise floor", *names]
    columns += [f"In 90 % interval, {names[0]}", f"Threshold within {NEAR}×, {names[0]}"]
    return table(columns, rows, "Brier score on skill, every rung from every set of smaller ones", words=2)


def _default(backtest: Backtest, weights: dict[str, float]) -> str:
    """Which law forecasts, and why; empty where the document does not say."""
    if not backtest.choice:
        return ""
    parts = [name if share == 1.0 else f"{name} ({text.percent(share)})" for name, share in weights.items()]
    whose = f"Forecasts come from: {text.listing(parts)}. " if parts else ""
    return f" {whose}Why: {backtest.choice.rstrip('.')}."


def _finding(backtest: Backtest) -> str:
    cells = backtest.cells
    if not cells:
        return f"The left-out rung {backtest.left_out_rung} has scores, but no cells to draw."
    off = float(np.mean([abs(c.observed - c.predicted) for c in cells]))
    said = (
        f"Asked for a size it had not seen, the law was off by {text.fixed(off)} in skill on average, and "
        f"{inside(cells)} of {len(cells)} cells fell inside its 90 % interval"
    )
    copied = [(c.observed, c.copied) for c in cells if c.copied is not None]
    if not copied:
        return f"{said}."
    other = float(np.mean([abs(observed - copy) for observed, copy in copied]))
    return f"{said}; copying the largest fitted size was off by {text.fixed(other)}."


def _numbers(cells: list[BacktestCell]) -> Markup:
    rows = [
        [
            text.kind_name(c.family, c.complexity),
            text.power(c.frequency, 3),
            text.count(c.tokens),
            c.seed,
            text.fixed(c.observed, 3),
            text.fixed(c.predicted, 3),
            f"{text.fixed(c.low, 3)} to {text.fixed(c.high, 3)}",
            text.fixed(c.p_learned, 3),
            text.fixed(c.copied, 3),
        ]
        for c in cells
    ]
    columns = [
        "Task kind",
        "Frequency",
        "Tokens",
        "Seed",
        "Observed",
        "Predicted",
        "90 % interval",
        "P(learned)",
        "Copied",
    ]
    return table(columns, rows, "Left-out cells at the end of each horizon")
