"""May many cells share a run? Cells trained alone against the same cells beside all others."""

from __future__ import annotations

import numpy as np

from mixplan.documents.table import Table
from mixplan.report import text
from mixplan.report.figures.base import Figure, Sizes, grid, panel, size_name, table
from mixplan.report.markup import Markup, join
from mixplan.report.plot import Axis, Panel, linear_axis

SPREADS = 2.0  # standard deviations from which a difference is more than chance


def figure(dependence: Table, sizes: Sizes) -> Figure:
    """Skill alone against skill together, one point a comparison."""
    return Figure(
        "dependence",
        "Cells alone and together",
        _finding(dependence),
        join([sizes.legend(), grid([panel("", _scatter(dependence, sizes), wide=True)]), _rows(dependence)]),
        "Every point is one cell at the end of one horizon, trained alone and beside all others with the same"
        " seed; on the diagonal, company makes no difference. Bars are two standard deviations between the"
        " seeds of the run with all cells, to either side; few seeds say little about them. What two seeds"
        " differ by is √2 times that standard deviation.",
    )


def _scatter(dependence: Table, sizes: Sizes) -> Markup:
    alone, together = dependence["skill_alone"], dependence["skill_together"]
    spread = SPREADS * np.nan_to_num(_spread(dependence))
    y = linear_axis(
        np.concatenate([alone, together - spread, together + spread]), "Skill alone", include=[0.0, 1.0]
    )
    axes = Panel(Axis(y.low, y.high, "Skill beside all other cells", ticks=y.ticks), y, width=520, height=380)
    marks = [axes.line([y.low, y.high], [y.low, y.high], "diagonal")]
    for i in range(len(dependence)):
        rung = (str(dependence["rung"][i]), float(dependence["block_params"][i]))
        tip = (
            f"{dependence['task'][i]}\n{size_name(rung)}, {text.count(dependence['tokens'][i])} tokens\n"
            f"alone {text.fixed(alone[i])}, together {text.fixed(together[i])}"
        )
        one, css = slice(i, i + 1), sizes.css(rung)
        if spread[i] > 0:
            ends = together[one] - spread[one], together[one] + spread[one]
            marks.append(axes.whiskers(alone[one], *ends, css, across=True))
        marks.append(axes.dots(together[one], alone[one], css, [tip]))
    return axes.drawn(f"Skill of cells alone against together. {_finding(dependence)}", *marks)


def _spread(dependence: Table) -> np.ndarray:
    """Standard deviation between seeds, shape (n,); NaN where there is one seed."""
    if "skill_seed_sd" not in dependence:
        return np.full(len(dependence), np.nan)
    return dependence["skill_seed_sd"]


def _rows(dependence: Table) -> Markup:
    order = np.argsort(-np.abs(dependence["skill_difference"]), kind="stable")
    rows = [
        [
            str(dependence["task"][i]),
            size_name((str(dependence["rung"][i]), float(dependence["block_params"][i]))),
            text.count(dependence["tokens"][i]),
            text.fixed(dependence["skill_alone"][i], 3),
            text.fixed(dependence["skill_together"][i], 3),
            text.signed(dependence["skill_difference"][i]),
            text.fixed(_spread(dependence)[i], 3),
            text.signed(dependence["choice_nll_difference"][i]),
        ]
        for i in order
    ]
    columns = [
        "Cell", "Block parameters (rung)", "Tokens", "Alone", "Together", "Difference", "Between seeds (sd)",
        "Difference of loss (nats)",
    ]  # fmt: skip
    return table(columns, rows, "Alone against together, largest difference in skill first", words=2)


def _finding(dependence: Table) -> str:
    difference, spread = dependence["skill_difference"], _spread(dependence)
    i = int(np.argmax(np.abs(difference)))
    said = (
        f"Trained alone, cells differ in skill by {text.signed(float(difference.mean()))} on average over"
        f" {text.plural(len(dependence), 'comparison')} from the same beside all others, at most by"
        f" {text.signed(float(difference[i]))} ({dependence['task'][i]} at"
        f" {text.count(dependence['block_params'][i])} block parameters)"
    )
    known = np.isfinite(spread)
    if not known.any():
        return f"{said}; with one seed it is not known how much of that is chance."
    # Two runs of different seeds differ with √2 times the standard deviation of one.
    beyond = int((np.abs(difference[known]) > SPREADS * np.sqrt(2) * spread[known]).sum())
    return f"{said}; {beyond} of {int(known.sum())} by more than twice what two seeds differ by."
