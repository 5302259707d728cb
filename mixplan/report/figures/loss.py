"""LM loss on common data by size and over training: the fitted law against the points.

Shape legend: n = rows, G = points of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixplan.documents.forecast import CellForecast
from mixplan.documents.table import Table
from mixplan.report import text
from mixplan.report.cells import Ladder
from mixplan.report.choice import ended
from mixplan.report.figures.base import Figure, Sizes, data, grid, panel, size_name, table
from mixplan.report.grouping import SAME, codes, groups
from mixplan.report.markup import Markup, join
from mixplan.report.plot import Panel, linear_axis, log_axis

Array = NDArray[np.float64]
CURVE_POINTS = 60
LABEL = "LM loss (nats per token)"


@dataclass(frozen=True)
class Losses:
    """One measurement per run and evaluation, shape (n,) each; a run's tasks share it."""

    rung: NDArray[np.int64]
    tokens: Array
    loss: Array
    length: NDArray[np.int64]
    """Number of the run's nominal length: runs of another length are at another point of their schedule."""
    ended: NDArray[np.bool_]
    """At the end of a horizon, with a decayed learning rate."""
    final: NDArray[np.bool_]
    """At the end of its rung's longest horizon."""


def losses_of(learning: Table, ladder: Ladder) -> Losses | None:
    """The LM losses of the ladder's rungs; None when the column is missing or empty."""
    if "lm_loss" not in learning:
        return None
    names = {(rung.name, rung.block_params): number for number, rung in enumerate(ladder.rungs)}
    pairs = zip(learning["rung"], learning["block_params"].tolist(), strict=True)
    rung = np.array([names.get((str(name), size), -1) for name, size in pairs], dtype=np.int64)
    run = codes(learning["rung"], learning["block_params"], learning["run_id"])
    last = np.zeros(run.max() + 1)
    np.maximum.at(last, run, learning["tokens"])
    length, at_end = groups(last)[1][run], ended(learning)
    known = np.flatnonzero((rung >= 0) & np.isfinite(learning["lm_loss"]))
    if not len(known):
        return None
    _, first = np.unique(codes(run[known], learning["tokens"][known], at_end[known]), return_index=True)
    once = known[first]
    rung, at_end, tokens = rung[once], at_end[once], learning["tokens"][once]
    whole = np.array([one.tokens for one in ladder.rungs])
    final = at_end & (tokens * SAME >= whole[rung])
    return Losses(rung, tokens, learning["lm_loss"][once], length[once], at_end, final)


def figure(learning: Table, ladder: Ladder, sizes: Sizes, forecast: CellForecast | None) -> Figure | None:
    """Loss at the end of training by size, and over training; None when nothing was measured."""
    losses = losses_of(learning, ladder)
    if losses is None or not losses.final.any():
        return None
    law = (
        forecast is not None
        and forecast.lm_loss(np.array([ladder.rungs[0].block_params]), np.array([1e6])) is not None
    )
    drawn = [
        panel(
            "At the end of training", _by_size(losses, ladder, sizes, forecast if law else None), wide=True
        ),
        panel("During training", _by_tokens(losses, ladder, sizes, forecast if law else None), wide=True),
    ]
    rows = [
        [
            size_name((r.name, r.block_params)),
            text.count(r.tokens),
            text.fixed(_mean(losses, i), 3),
            int(_ends(losses, i).sum()),
        ]
        for i, r in enumerate(ladder.rungs)
    ]
    columns = ["Block parameters (rung)", "Tokens", "Mean final loss (nats/token)", "Runs"]
    said = (
        "Lines are the fitted law of finished runs, on the left at each size's own training length; faint"
        " points may lie above it"
        if law
        else "No loss law was fitted: lines join the means, on the right those before the decay"
    )
    return Figure(
        "loss",
        "LM loss on common data",
        _finding(losses, ladder),
        join([sizes.legend(), grid(drawn)]),
        "Points are single runs at the end of their size's longest training (left) and means over runs of one"
        " length (right): faint while the learning rate had not decayed, full at the end of a horizon."
        f" {said}.",
        data(table(columns, rows, "LM loss at the end of training")),
    )


def _ends(losses: Losses, r: int) -> NDArray[np.bool_]:
    return losses.final & (losses.rung == r)


def _mean(losses: Losses, r: int) -> float:
    own = losses.loss[_ends(losses, r)]
    return float(own.mean()) if len(own) else float("nan")


def _law(forecast: CellForecast, params: Array, tokens: Array) -> Array:
    predicted = forecast.lm_loss(params, tokens)
    return np.full(len(params), np.nan) if predicted is None else predicted


def _by_size(losses: Losses, ladder: Ladder, sizes: Sizes, forecast: CellForecast | None) -> Markup:
    params = np.array([rung.block_params for rung in ladder.rungs])
    tokens = np.array([rung.tokens for rung in ladder.rungs])
    means = np.array([_mean(losses, r) for r in range(len(params))])
    x = log_axis(params, "Block parameters", words=True, pad=0.07)
    fine = np.geomspace(params[0], params[-1], CURVE_POINTS)
    # Between two rungs the training length is interpolated, so that the curve passes the law's value at each.
    lengths = np.exp(np.interp(np.log(fine), np.log(params), np.log(tokens)))
    law = means if forecast is None else _law(forecast, fine, lengths)
    axes = Panel(
        x, linear_axis(np.concatenate([law, losses.loss[losses.final]]), LABEL), width=520, height=280
    )
    marks = [axes.line(params if forecast is None else fine, law, "plain")]
    for r, rung in enumerate(ladder.rungs):
        own = losses.loss[_ends(losses, r)]
        tips = [
            f"{size_name((rung.name, rung.block_params))}\nLM loss {text.fixed(float(v), 3)} nats per token"
            for v in own
        ]
        marks.append(
            axes.dots(
                np.full(len(own), rung.block_params), own, sizes.css((rung.name, rung.block_params)), tips
            )
        )
    return axes.drawn(f"LM loss at the end of training by size. {_finding(losses, ladder)}", *marks)


def _by_tokens(losses: Losses, ladder: Ladder, sizes: Sizes, forecast: CellForecast | None) -> Markup:
    x = log_axis(losses.tokens, "Training tokens", words=True)
    axes = Panel(x, linear_axis(losses.loss, LABEL), width=520, height=280)
    marks = []
    for r, rung in enumerate(ladder.rungs):
        css = sizes.css((rung.name, rung.block_params))
        own = losses.rung == r
        if not own.any():
            continue
        if forecast is not None:
            fine = np.geomspace(losses.tokens[own].min(), losses.tokens[own].max(), CURVE_POINTS)
            marks.append(axes.line(fine, _law(forecast, np.full(CURVE_POINTS, rung.block_params), fine), css))
        name = size_name((rung.name, rung.block_params))
        for length, at_end in np.unique(np.column_stack([losses.length, losses.ended])[own], axis=0):
            part = own & (losses.length == length) & (losses.ended == at_end)
            tokens, which = groups(losses.tokens[part])
            mean = np.bincount(which, weights=losses.loss[part]) / np.bincount(which)
            if forecast is None and not at_end:
                marks.append(axes.line(tokens, mean, css))
            when = "end of a horizon" if at_end else "before the decay"
            tips = [
                f"{name}\n{text.count(t)} tokens, {when}\nLM loss {text.fixed(m, 3)}"
                for t, m in zip(tokens, mean, strict=True)
            ]
            marks.append(
                axes.dots(tokens, mean, css if at_end else f"{css} faint", tips, radius=2.4 + at_end)
            )
    return axes.drawn("LM loss over training, one curve per size.", *marks)


def _finding(losses: Losses, ladder: Ladder) -> str:
    have = [r for r in range(len(ladder.rungs)) if _ends(losses, r).any()]
    small, large = have[0], have[-1]
    end = (
        f"LM loss ends at {text.fixed(_mean(losses, large))} nats per token at"
        f" {text.count(ladder.rungs[large].block_params)}"
    )
    if small == large:
        return f"{end} block parameters, the one size measured."
    return (
        f"{end} block parameters against {text.fixed(_mean(losses, small))} at "
        f"{text.count(ladder.rungs[small].block_params)}."
    )
