"""Whether a size holds a task's structure: read-outs beside their null, against frequency and size.

Shape legend: F = frequencies of a kind, R = rungs (smallest first).
"""

from __future__ import annotations

import numpy as np

from mixplan.documents.table import Table
from mixplan.report import text
from mixplan.report.cells import Kind, Ladder, ladder_of
from mixplan.report.choice import final_rows
from mixplan.report.figures.base import Figure, Sizes, data, grid, panel, size_name, table
from mixplan.report.markup import Markup, join
from mixplan.report.plot import Panel, linear_axis, log_axis

NAMES = {
    "order_r2": ("R² of the hidden order", "R² on unseen items"),
    "fourier_modes": ("Fourier modes over the residues", "Modes above twice noise"),
}
"""What is read out, and the axis' label."""
Read = dict[str, tuple[Ladder, Ladder]]
"""By feature: its values and its nulls, as grids of cells."""


def figure(features: Table, sizes: Sizes) -> Figure:
    """Mean value and null at the last reading of each run, one panel a task kind.

    Args:
        features: rows of one protocol.
        sizes: all sizes on the page.
    """
    own = {str(name): features.where(features["feature"] == name) for name in np.unique(features["feature"])}
    read: Read = {
        name: (ladder_of(rows, 0.0, column="value"), ladder_of(rows, 0.0, column="null"))
        for name, rows in own.items()
    }
    panels = [
        panel(f"{kind.name}: {_names(name)[1]}", _curves(name, kind, null, values, sizes), kind=kind.name)
        for name, (values, nulls) in read.items()
        for kind, null in zip(values.kinds, nulls.kinds, strict=True)
    ]
    return Figure(
        "features",
        "Structure in the hidden states",
        " ".join(_finding(name, *pair) for name, pair in read.items()),
        join([sizes.legend(), grid(panels)]),
        "What is read out of the hidden states at the last reading of each run (lines), and out of states"
        " without any structure, shuffled orders or random ones (faint points): what does not rise above them"
        " is nothing, and an R² of zero or less neither. Means over runs and all layers, embeddings included,"
        " so that a structure of one layer is diluted and none is picked out; the table has them one by one.",
        data(*(_layers(name, rows) for name, rows in own.items())),
    )


def _names(feature: str) -> tuple[str, str]:
    return NAMES.get(feature, (feature, feature))


def _curves(feature: str, kind: Kind, null: Kind, ladder: Ladder, sizes: Sizes) -> Markup:
    label = _names(feature)[1]
    y = linear_axis(np.concatenate([kind.skill.ravel(), null.skill.ravel()]), label, include=[0.0])
    axes = Panel(log_axis(kind.frequency, "Frequency (instances per training token)"), y)
    marks = [axes.level(0.0, "zero")]
    for r, rung in enumerate(ladder.rungs):
        pair = (rung.name, rung.block_params)
        values, nulls = kind.skill[:, r], null.skill[:, r]
        tips = [
            f"{size_name(pair)}\nfrequency {text.power(f)}\n{label} {text.fixed(v)}, null {text.fixed(n)}"
            for f, v, n in zip(kind.frequency, values, nulls, strict=True)
        ]
        css = sizes.css(pair)
        marks += [
            axes.dots(kind.frequency, nulls, f"{css} faint", radius=2.4),
            axes.line(kind.frequency, values, css),
            axes.dots(kind.frequency, values, css, tips),
        ]
    return axes.drawn(f"{label} against frequency for {kind.name}, one line per size.", *marks)


def _finding(feature: str, values: Ladder, nulls: Ladder) -> str:
    """Largest against smallest size over the cells that both have."""
    found, without = _over_cells(values), _over_cells(nulls)
    what, last = _names(feature)[0], len(values.rungs) - 1
    if not np.isfinite(found).all():
        return f"{what}: no cell was measured at both the smallest and the largest of {last + 1} sizes."
    sizes = [text.count(rung.block_params) for rung in values.rungs]
    said = [
        f"{text.fixed(found[end])} (null {text.fixed(without[end])}) at {sizes[end]}"
        for end in ((-1, 0) if last else (0,))
    ]
    return f"{what}: {', '.join(said)} block parameters."


def _over_cells(ladder: Ladder) -> list[float]:
    """Mean over the cells that the smallest and the largest size both have, for each; NaN without any."""
    ends = np.concatenate([kind.skill[:, [0, -1]] for kind in ladder.kinds])
    both = ends[np.isfinite(ends).all(axis=1)]
    return [float(column.mean()) if len(both) else np.nan for column in both.T]


def _layers(feature: str, own: Table) -> Markup:
    """Mean over cells and runs by layer and size."""
    final, _ = final_rows(own)
    rungs = list(dict.fromkeys(sorted(zip(final["block_params"].tolist(), final["rung"], strict=True))))
    rows = []
    for layer in sorted(set(final["layer"].tolist())):
        cells = []
        for size, name in rungs:
            here = (final["layer"] == layer) & (final["rung"] == name) & (final["block_params"] == size)
            value, null = (final[column][here] for column in ("value", "null"))
            cells.append(
                f"{text.fixed(value.mean(), 3)} ({text.fixed(null.mean(), 3)})" if len(value) else "–"
            )
        rows.append([f"{layer:g}", *cells])
    columns = ["Layer (0: embeddings)", *(size_name((str(name), size)) for size, name in rungs)]
    return table(columns, rows, f"{_names(feature)[0]} (in brackets its null): mean over cells and runs")
