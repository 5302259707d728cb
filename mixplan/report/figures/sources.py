"""What a share of the mixture buys a source of the team's own: held-out bits per byte, by size.

Shape legend: n = rows, R = rungs (smallest first).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixplan.documents.calibration import Calibration, FittedLaw
from mixplan.documents.table import Table
from mixplan.report import text
from mixplan.report.figures.base import Figure, Sizes, data, grid, panel, size_name, table
from mixplan.report.grouping import SAME, codes, groups, rungs_of
from mixplan.report.markup import Markup
from mixplan.report.plot import Panel, linear_axis, log_axis_from_zero

LABEL = "Held-out bits per byte"


def figure(sources: Table, sizes: Sizes, calibration: Calibration | None) -> Figure:
    """Bits per byte against share at the end of each rung's longest runs, and the fitted laws' numbers.

    Args:
        sources: the table.
        sizes: all sizes on the page.
        calibration: for its laws of these sources.
    """
    final = sources.where(_final(sources))
    names = sorted({str(name) for name in final["source"]})
    panels = [panel(name, _by_share(_of(final, name), name, sizes), wide=True) for name in names]
    laws = [law for law in calibration.sources if law.subject in names] if calibration else []
    tables = [_measured(final, names), *([_fitted(laws)] if laws else [])]
    caption = "One dot is one run at the end of its size's longest training; lower is better."
    if laws:
        caption += " The fitted laws' numbers are below; `mixplan fit` shows what they say at other shares."
    return Figure(
        "sources",
        "Own sources by share",
        _finding(final, names),
        Markup(sizes.legend() + grid(panels)),
        caption,
        data(*tables),
    )


def _final(sources: Table) -> NDArray[np.bool_]:
    """Rows at the end of runs as long as the longest of their rung, shape (n,)."""
    run = codes(sources["rung"], sources["block_params"], sources["run_id"])
    last = np.zeros(run.max() + 1)
    np.maximum.at(last, run, sources["tokens"])
    rung = rungs_of(sources)[1]
    longest = np.zeros(rung.max() + 1)
    np.maximum.at(longest, rung, sources["tokens"])
    return (sources["tokens"] == last[run]) & (sources["tokens"] * SAME >= longest[rung])


def _of(final: Table, name: str) -> Table:
    return final.where(np.array([str(one) == name for one in final["source"]]))


def _by_share(own: Table, name: str, sizes: Sizes) -> Markup:
    x, zero = log_axis_from_zero(own["share"], "Share of the training tokens")
    axes = Panel(x, linear_axis(own["bits_per_byte"], LABEL), width=520)
    marks = []
    named, at = rungs_of(own)
    for r, rung in enumerate(named):
        mine = own.where(at == r)
        tips = [
            f"{size_name(rung)}, run {run}\nshare {text.percent(share)}, {text.general(epochs)} epochs\n"
            f"{text.fixed(bits, 3)} bits per byte"
            for run, share, epochs, bits in zip(
                mine["run_id"], mine["share"], mine["source_epochs"], mine["bits_per_byte"], strict=True
            )
        ]
        shown = np.where(mine["share"] > 0, mine["share"], zero)
        marks.append(axes.dots(shown, mine["bits_per_byte"], sizes.css(rung), tips))
    return axes.drawn(f"{LABEL} of {name} against its share, by size.", *marks)


def _means(own: Table) -> list[tuple[tuple[str, float], float, float, int]]:
    """Rung, nominal share, mean bits per byte, runs; by size, then share."""
    named, at = rungs_of(own)
    found = []
    for r, rung in enumerate(named):
        mine = own.where(at == r)
        shares, which = groups(mine["share"])
        for k, share in enumerate(shares):
            bits = mine["bits_per_byte"][which == k]
            found.append((rung, float(share), float(bits.mean()), len(bits)))
    return found


def _measured(final: Table, names: list[str]) -> Markup:
    rows = [
        [name, size_name(rung), text.percent(share), text.fixed(bits, 3), runs]
        for name in names
        for rung, share, bits, runs in _means(_of(final, name))
    ]
    columns = ["Source", "Block parameters (rung)", "Share", LABEL, "Runs"]
    return table(columns, rows, "Mean over runs at the end of the longest training", words=2)


def _fitted(laws: list[FittedLaw]) -> Markup:
    rows = []
    for law in laws:
        for k, (name, value) in enumerate(zip(law.parameters, law.values, strict=True)):
            drawn = np.array([draw[k] for draw in law.draws])
            span = "–"
            if len(drawn):
                low, high = np.quantile(drawn, [0.05, 0.95])
                span = f"{text.general(float(low))} to {text.general(float(high))}"
            rows.append([law.subject, law.law, name, text.general(value), span, law.rows, law.runs])
    columns = ["Source", "Law", "Parameter", "Estimate", "90 % interval", "Rows", "Runs"]
    return table(columns, rows, "Fitted laws of the sources", words=3)


def _finding(final: Table, names: list[str]) -> str:
    """From the smallest to the largest share at the largest size, for the source that gains most."""
    best: tuple[float, str] | None = None
    for name in names:
        means = _means(_of(final, name))
        top = [one for one in means if one[0] == means[-1][0]]
        (_, low, before, _), (rung, high, after, _) = top[0], top[-1]
        if low == high:
            continue
        said = (
            f"From {text.percent(low)} to {text.percent(high)} of the tokens, {name} went from"
            f" {text.fixed(before, 2)} to {text.fixed(after, 2)} bits per byte at {text.count(rung[1])} block"
            " parameters"
        )
        if best is None or before - after > best[0]:
            best = (before - after, said)
    if best is None:
        return (
            f"Each of {text.listing(names)} was measured at one share only: what its share buys is not known."
        )
    return f"{best[1]}{', the most of any source' if len(names) > 1 else ''}."
