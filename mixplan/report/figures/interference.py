"""What a step on common data does to a rare task, by size.

Shape legend: n = rows, R = rungs (smallest first).
"""

from __future__ import annotations

import numpy as np

from mixplan.documents.table import Table
from mixplan.report import text
from mixplan.report.figures.base import Figure, Sizes, data, grid, panel, size_name, table
from mixplan.report.grouping import codes, rungs_of
from mixplan.report.markup import Markup, join
from mixplan.report.plot import Panel, linear_axis, log_axis

COLUMNS = {
    "cosine": ("Common against task gradient", "Gradient cosine"),
    "loss_change": ("Effect of one real step", "Change of the task's loss (nats)"),
    "loss_change_gradient_only": ("What its gradient alone brings", "Change of the task's loss (nats)"),
    "cosine_own": ("The task's own tokens against its gradient", "Gradient cosine"),
}
"""Columns, each with the panel's title and the axis' label. All but the first two may be missing."""
_MEANING = {
    "loss_change_gradient_only": " Its gradient alone: without the momentum of earlier batches, with all that"
    " its own momentum brings later.",
    "cosine_own": " The task's own tokens: the part of the same batch's gradient that comes from them.",
}


def figure(interference: Table, sizes: Sizes) -> Figure:
    """Cosines and loss changes by size, over all tasks and measuring points of a run.

    Args:
        interference: rows of one protocol.
        sizes: all sizes on the page.
    """
    named, at = rungs_of(interference)
    have = [c for c in COLUMNS if c in interference and np.isfinite(interference[c]).any()]
    panels = [panel(COLUMNS[column][0], _by_size(interference, column, sizes), wide=True) for column in have]
    rows = []
    for r, rung in enumerate(named):
        own = [interference[column][at == r] for column in ("cosine", "loss_change")]
        spans = [np.quantile(values, [0.05, 0.95]) for values in own]
        size = text.general(float(np.abs(own[0]).mean()))
        cells = [[text.general(float(v.mean())), _span(span)] for v, span in zip(own, spans, strict=True)]
        rows.append([size_name(rung), size, *cells[0], *cells[1], f"{int((at == r).sum()):,}"])
    columns = [
        "Block parameters (rung)",
        "|Cosine|",
        "Cosine",
        "Middle 90 %",
        "Loss change (nats)",
        "Middle 90 %",
        "Measurements",
    ]
    return Figure(
        "interference",
        "Interference",
        _finding(interference),
        join([sizes.legend(), grid(panels)]),
        "Points are means over all tasks, frequencies and measuring points; whiskers hold the middle 90 % of"
        " the single measurements; faint points are the means of single runs. Common data is all that a batch"
        " holds besides the task's own tokens. The loss change is the first-order change of the task's loss"
        " by one real optimizer step on it: above zero, the task is undone. Such a step carries the momentum"
        " of earlier batches too, the task's own instances among them, which may pull it below zero."
        + "".join(_MEANING.get(column, "") for column in have),
        data(table(columns, rows, "Interference by size")),
    )


def _by_size(interference: Table, column: str, sizes: Sizes) -> Markup:
    known = interference.where(np.isfinite(interference[column]))
    named, at = rungs_of(known)
    values = known[column]
    spans = np.array([np.quantile(values[at == r], [0.05, 0.95]) for r in range(len(named))])  # (R, 2)
    means = np.array([values[at == r].mean() for r in range(len(named))])
    params = np.array([size for _, size in named])
    title, label = COLUMNS[column]
    x = log_axis(params, "Block parameters", words=True, pad=0.07)
    axes = Panel(
        x,
        linear_axis(np.concatenate([spans.ravel(), means]), label, include=[0.0]),
        width=520,
        height=280,
        left=58,
    )
    marks = [axes.level(0.0, "zero"), axes.line(params, means, "plain")]
    for r, rung in enumerate(named):
        css = sizes.css(rung)
        run = codes(known["run_id"][at == r])
        by_run = np.bincount(run, weights=values[at == r]) / np.bincount(run)
        marks.append(axes.whiskers(params[r : r + 1], spans[r : r + 1, 0], spans[r : r + 1, 1], css))
        if len(by_run) > 1:
            marks.append(axes.dots(np.full(len(by_run), rung[1]), by_run, f"{css} faint", radius=2, shift=6))
        tip = f"{size_name(rung)}\nmean {text.general(float(means[r]))}\nmiddle 90 % {_span(spans[r])}"
        marks.append(axes.dots(params[r : r + 1], means[r : r + 1], css, [tip], radius=4))
    return axes.drawn(f"{title} by size. {_finding(interference)}", *marks)


def _span(ends: np.ndarray) -> str:
    return f"{text.general(float(ends[0]))} to {text.general(float(ends[1]))}"


def _finding(interference: Table) -> str:
    named, at = rungs_of(interference)

    def change(r: int) -> str:
        return text.general(float(interference["loss_change"][at == r].mean()), 2)

    def cosine(r: int) -> str:
        return text.general(float(np.abs(interference["cosine"][at == r]).mean()), 2)

    last = len(named) - 1
    large = f"{text.count(named[last][1])} block parameters"
    if not last:
        return (
            f"At the one size measured ({large}) an optimizer step on everything else changes a rare"
            f" task's loss by {change(0)} nats on average (mean size of the gradient cosine {cosine(0)})."
        )
    small = text.count(named[0][1])
    return (
        "An optimizer step on everything else changes a rare task's loss by"
        f" {change(last)} nats on average at {large} and by {change(0)} at {small} (mean size of"
        f" the gradient cosine {cosine(last)} and {cosine(0)})."
    )
