"""Which task frequencies each size learns: curves against frequency.

Shape legend: F = frequencies of a kind, R = rungs (smallest first).
"""

from __future__ import annotations

import numpy as np

from mixplan.documents.forecast import CellForecast
from mixplan.report import text
from mixplan.report.cells import Kind, Ladder, Rung
from mixplan.report.figures.base import Figure, Sizes, data, grid, key, panel, size_name, table
from mixplan.report.laws import covers, curve
from mixplan.report.markup import Markup, join
from mixplan.report.plot import Panel, linear_axis, log_axis

_SOURCES = (
    " The skill of a source of your own is the share of the gap in held-out bits per byte, between none of it"
    " and its saturating share, that is closed."
)
CURVE_POINTS = 21
X_LABELS = {False: "Frequency (instances per training token)", True: "Share of the training tokens"}


def figure(ladder: Ladder, sizes: Sizes, forecast: CellForecast | None) -> Figure:
    """Skill against frequency, one curve a size, one panel a task kind."""
    axes = {
        source: log_axis(
            np.concatenate([kind.frequency for kind in ladder.kinds if kind.source is source]), label
        )
        for source, label in X_LABELS.items()
        if any(kind.source is source for kind in ladder.kinds)
    }
    lows = [kind.low.ravel() for kind in ladder.kinds]
    y = linear_axis(np.concatenate(lows), "Skill (0 = chance, 1 = perfect)", include=[0.0, 1.0], ticks=8)
    panels = [
        panel(kind.name, _curves(kind, ladder, sizes, forecast, Panel(axes[kind.source], y)), kind=kind.name)
        for kind in ladder.kinds
    ]
    drawn = any(covers(forecast, kind) for kind in ladder.kinds)
    law = (
        "Lines are the fitted law's mean; the bands are its 90 % interval for a new run, drawn for the"
        " smallest and the largest size."
        if drawn
        else "Lines join the means: there is no fitted law to draw."
    )
    return Figure(
        "frequency",
        "Skill against frequency",
        _reach(ladder),
        join(
            [
                sizes.legend([key("threshold", f"learned from here (skill {ladder.threshold:g})")]),
                grid(panels),
            ]
        ),
        "Points are the mean over runs at the end of each size's longest training, whiskers the lowest and"
        f" highest run; only cells injected by one and the same protocol. {law} {_tokens(ladder)}"
        + (_SOURCES if True in axes else ""),
        data(*(_numbers(kind, ladder) for kind in ladder.kinds)),
    )


def _curves(kind: Kind, ladder: Ladder, sizes: Sizes, forecast: CellForecast | None, axes: Panel) -> Markup:
    bands, lines, points = [], [], []
    fine = (
        np.geomspace(kind.frequency[0], kind.frequency[-1], CURVE_POINTS)
        if len(kind.frequency) > 1
        else kind.frequency
    )
    for r, rung in enumerate(ladder.rungs):
        css = sizes.css((rung.name, rung.block_params))
        shift = (r - (len(ladder.rungs) - 1) / 2) * 1.6  # keeps equal skills of different sizes apart
        if forecast is not None and covers(forecast, kind):
            law = curve(forecast, kind, rung, fine)
            if r in (0, len(ladder.rungs) - 1):
                bands.append(axes.band(fine, law.skill_low, law.skill_high, css))
            lines.append(axes.line(fine, law.skill, css))
        else:
            lines.append(axes.line(kind.frequency, kind.skill[:, r], css))
        many = kind.measured[:, r] > 1
        bars = [np.where(many, values[:, r], np.nan) for values in (kind.low, kind.high)]
        points.append(axes.whiskers(kind.frequency, bars[0], bars[1], css, shift=shift))
        points.append(axes.dots(kind.frequency, kind.skill[:, r], css, tips(kind, r, rung), shift=shift))
    limit = axes.level(ladder.threshold)
    describe = f"Skill against frequency for {kind.name}, one curve per size. {learned_words(kind, ladder)}"
    return axes.drawn(describe, *bands, limit, *lines, *points)


def tips(kind: Kind, r: int, rung: Rung) -> list[str]:
    """Hover text of every frequency of one kind and size, F strings."""
    return [
        f"{size_name((rung.name, rung.block_params))}\nfrequency {text.power(f)} ({kind.often(float(f))})\n"
        f"skill {text.fixed(kind.skill[i, r])} ({text.plural(int(kind.measured[i, r]), 'measurement')}, "
        f"{text.fixed(kind.low[i, r])} to {text.fixed(kind.high[i, r])})"
        for i, f in enumerate(kind.frequency)
    ]


def _numbers(kind: Kind, ladder: Ladder) -> Markup:
    columns = ["Frequency", *(text.count(rung.block_params) for rung in ladder.rungs)]
    rows = [
        [text.power(f, 3), *(text.fixed(kind.skill[i, r], 3) for r in range(len(ladder.rungs)))]
        for i, f in enumerate(kind.frequency)
    ]
    return table(columns, rows, f"Mean skill of {kind.name} at the end of training, by block parameters")


def learned_words(kind: Kind, ladder: Ladder) -> str:
    """How many frequencies the smallest and the largest size learned."""
    learned, measured = kind.learned(ladder.threshold), kind.measured > 0
    first, last = 0, len(ladder.rungs) - 1
    said = [
        f"{learned[:, r].sum()} of {measured[:, r].sum()} frequencies learned at"
        f" {text.count(ladder.rungs[r].block_params)}"
        for r in dict.fromkeys((first, last))
    ]
    return ", ".join(said) + " block parameters."


def lowest_learned(kind: Kind, ladder: Ladder) -> np.ndarray:
    """Lowest frequency each size learned, shape (R,); NaN where it learned none."""
    learned = kind.learned(ladder.threshold)
    return np.where(learned.any(axis=0), kind.frequency[learned.argmax(axis=0)], np.nan)


def _reach(ladder: Ladder) -> str:
    """How much rarer a task may be at the largest size than at the smallest."""
    lowest = np.array([lowest_learned(kind, ladder) for kind in ladder.kinds])
    small, large = lowest[:, 0], lowest[:, -1]
    both = np.isfinite(small) & np.isfinite(large)
    names = [text.count(rung.block_params) for rung in (ladder.rungs[0], ladder.rungs[-1])]
    kinds = len(ladder.kinds)
    if len(ladder.rungs) == 1:
        return (
            f"One size was measured ({names[0]} block parameters); it learned "
            f"{int(np.isfinite(small).sum())} of {text.plural(kinds, 'task kind')} at some frequency."
        )
    number = [int(np.isfinite(row).sum()) for row in (small, large)]
    said = (
        f"The smallest size ({names[0]}) learned {number[0]} of {text.plural(kinds, 'task kind')}, the"
        f" largest ({names[1]}) {'all ' if number[1] == kinds else ''}{number[1]}"
    )
    if not both.any():
        return said + "."
    ratio = float(np.median(small[both] / large[both]))
    if abs(ratio - 1) < 1e-9:
        return f"{said}; where both did, down to the same frequency (median)."
    if ratio > 1:
        return (
            f"{said}; where both did, the largest makes do with {text.general(ratio, 2)} times lower"
            " frequencies (median)."
        )
    return (
        f"{said}; where both did, the largest needs {text.general(1 / ratio, 2)} times higher frequencies"
        " (median)."
    )


def _tokens(ladder: Ladder) -> str:
    tokens = [rung.tokens for rung in ladder.rungs]
    if max(tokens) <= 1.05 * min(tokens):
        return f"Every size trained on {text.count(max(tokens))} tokens."
    return (
        f"Training lengths differ: {text.count(tokens[0])} tokens at the smallest size,"
        f" {text.count(tokens[-1])} at the largest."
    )
