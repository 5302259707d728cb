"""Peel-off: does a size pay more for a task than the largest does at the same LM loss?

Shape legend: n = rows, F = frequencies of a kind.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents.table import Table
from mixplan.report import text
from mixplan.report.figures.base import Figure, Sizes, data, grid, panel, size_name, table
from mixplan.report.grouping import codes, groups, rungs_of
from mixplan.report.markup import Markup, join
from mixplan.report.plot import Panel, linear_axis

Cells = list[tuple[float, Table]]
"""Nominal frequency and rows of a kind's most and least frequent cell; one where it has one frequency."""


def figure(peel_off: Table, sizes: Sizes) -> Figure:
    """Task loss against LM loss for the kind that the largest size learned best, and the excess of all."""
    kinds = ends_of_kinds(peel_off)
    name = max(sorted(kinds), key=lambda one: fallen(kinds[one]))
    panels = [
        panel(f"{name}, frequency {text.power(frequency)}", _paths(rows, sizes), wide=True)
        for frequency, rows in kinds[name]
    ]
    columns = ["Task kind", "Frequency", *(size_name(rung) for rung in sizes.rungs)]
    body = [
        [kind, text.power(frequency), *(text.signed(last_excess(rows).get(rung)) for rung in sizes.rungs)]
        for kind, cells in sorted(kinds.items())
        for frequency, rows in cells
    ]
    return Figure(
        "peel_off",
        "Task loss against LM loss",
        _finding(name, kinds[name]),
        join([sizes.legend(), grid(panels)]),
        "One line a run, training from right to left; drawn for the task kind whose loss the largest size"
        " lowered most, at its highest and lowest frequency. Sizes on one curve only need more training; one"
        " that leaves it upwards has peeled off and will plateau. The excess is the task's loss above the"
        " largest size's at the same LM loss, at the last evaluation of each run where that can be compared.",
        data(table(columns, body, "Mean excess over runs (nats), by size", words=1)),
    )


def ends_of_kinds(peel_off: Table) -> dict[str, Cells]:
    """The most and the least frequent cell of every task kind."""
    kind = codes(peel_off["family"], peel_off["complexity"])
    out = {}
    for rows in (np.flatnonzero(kind == k) for k in range(kind.max() + 1)):
        own = peel_off.where(rows)
        frequency, which = groups(own["frequency"])
        ends = dict.fromkeys((len(frequency) - 1, 0))
        name = text.kind_name(str(own["family"][0]), float(own["complexity"][0]))
        out[name] = [(float(frequency[f]), own.where(which == f)) for f in ends]
    return out


def fallen(cells: Cells) -> float:
    """By how much the largest size's mean loss on the most frequent cell fell, nats."""
    rows = cells[0][1]
    own = rows.where(rows["block_params"] == rows["block_params"].max())
    first, last = (own["tokens"] == end for end in (own["tokens"].min(), own["tokens"].max()))
    return float(own["choice_nll"][first].mean() - own["choice_nll"][last].mean())


def last_excess(rows: Table) -> dict[tuple[str, float], float]:
    """By rung the mean over runs of the excess at each run's last comparable evaluation, nats."""
    known = (
        rows.where(np.isfinite(rows["excess_nll"])) if "excess_nll" in rows else rows.where(np.array([], int))
    )
    if not len(known):
        return {}
    named, at = rungs_of(known)
    run = codes(known["run_id"])
    last = np.zeros(run.max() + 1)
    np.maximum.at(last, run, known["tokens"])
    final = known["tokens"] == last[run]
    return {rung: float(known["excess_nll"][final & (at == r)].mean()) for r, rung in enumerate(named)}


def _paths(rows: Table, sizes: Sizes) -> Markup:
    x = linear_axis(rows["lm_loss"], "LM loss (nats per token)")
    axes = Panel(x, linear_axis(rows["choice_nll"], "Task loss (nats)", include=[0.0]), width=520, height=280)
    named, at = rungs_of(rows)
    run = codes(rows["run_id"], rows["task"])
    marks = []
    for r in range(run.max() + 1):
        own = np.flatnonzero(run == r)
        own = own[np.argsort(rows["tokens"][own])]
        rung = named[at[own[0]]]
        lm_loss, nll = rows["lm_loss"][own], rows["choice_nll"][own]
        tips = [
            f"{size_name(rung)}\n{text.count(t)} tokens\n"
            f"LM loss {text.fixed(a, 3)}\ntask loss {text.fixed(b, 3)}"
            for t, a, b in zip(rows["tokens"][own], lm_loss, nll, strict=True)
        ]
        css = sizes.css(rung)
        marks += [axes.line(lm_loss, nll, css), axes.dots(lm_loss, nll, css, tips, radius=2.2)]
    return axes.drawn("Task loss against LM loss, one line a run.", *marks)


def _finding(name: str, cells: Cells) -> str:
    said = []
    for frequency, rows in cells:
        excess = last_excess(rows)
        if excess:
            rung = min(excess, key=lambda one: one[1])
            said.append(
                f"{text.signed(excess[rung], 2)} nats at frequency {text.power(frequency)}"
                f" ({text.count(rung[1])} block parameters)"
            )
    if not said:
        return (
            f"For {name}, no size went through the LM losses of the largest: 0 evaluations can be compared."
        )
    return (
        f"At the same LM loss, the smallest size's loss on {name} differs from the largest's by"
        f" {' and '.join(said)}."
    )
