"""The recommended mixture beside the natural one: shares, rates, epochs against their caps."""

from __future__ import annotations

import math

from mixplan.documents.recipe import Recipe
from mixplan.report import text
from mixplan.report.figures.base import Figure, grid, key, panel, table
from mixplan.report.figures.rows import at_row, dumbbell, limit, on_axis, rows_drawing
from mixplan.report.markup import Markup, join, tag
from mixplan.report.plot import Axis, log_axis


def figure(recipe: Recipe) -> Figure:
    """Shares and epochs of every source, natural and recommended."""
    keys = [key("natural", "natural share"), key("recommended", "recommended"), key("cap", "cap on epochs")]
    drawn = [
        panel("Share of the mixture", _shares(recipe), wide=True),
        panel("Epochs", _epochs(recipe), wide=True),
    ]
    rows = [
        [
            source.name,
            source.role,
            text.percent(source.natural_share),
            text.percent(source.share),
            f"×{text.general(source.rate)}",
            text.general(source.epochs),
            text.general(source.max_epochs),
            text.count(source.tokens),
            text.count(source.tokens_available),
        ]
        for source in recipe.sources
    ]
    columns = ["Source", "Role", "Natural", "Recommended", "Rate", "Epochs", "Cap", "Tokens", "Available"]
    return Figure(
        "mixture",
        "The recommended mixture",
        _finding(recipe),
        join([tag("div", *keys, class_="legend"), grid(drawn), table(columns, rows, words=2)]),
        "A source's share is its fraction of the mixture's tokens; its rate is share ÷ natural share; its"
        " epochs are how often its unique tokens are seen. Both axes of shares and epochs are logarithmic.",
    )


def _shares(recipe: Recipe) -> Markup:
    values = [v for s in recipe.sources for v in (s.share, s.natural_share) if v > 0]
    axis = log_axis([*values, 1.0], "Share of the mixture's tokens (log)")
    axis = Axis(axis.low, axis.high, axis.label, True, tuple((v, text.percent(v)) for v, _ in axis.ticks))
    marks = []
    for i, s in enumerate(recipe.sources):
        tips = (
            f"{s.name}\nnatural {text.percent(s.natural_share)}",
            f"{s.name}\nrecommended {text.percent(s.share)}",
        )
        marks += dumbbell(axis, i, s.natural_share, s.share, tips)
    names = [(s.name, f"×{text.general(s.rate)}") for s in recipe.sources]
    return rows_drawing(
        names, axis, marks, f"Natural and recommended share of every source. {_finding(recipe)}"
    )


def _epochs(recipe: Recipe) -> Markup:
    values = [v for s in recipe.sources for v in (s.epochs, s.max_epochs) if v > 0]
    axis = log_axis([*values, 1.0], "Epochs (log)", words=True)
    marks = []
    for i, s in enumerate(recipe.sources):
        marks.append(limit(axis, i, s.max_epochs, f"{s.name}\nat most {text.general(s.max_epochs)} epochs"))
        if s.epochs > 0:
            tip = tag("title", f"{s.name}\n{text.general(s.epochs)} epochs")
            marks.append(
                tag("circle", tip, class_="dot recommended", cx=on_axis(axis, s.epochs), cy=at_row(i), r=5)
            )
    names = [(s.name, text.general(s.epochs)) for s in recipe.sources]
    worst = max(recipe.sources, key=lambda s: s.epochs / s.max_epochs)
    describe = (
        f"Epochs of every source against its cap; {worst.name} is closest: {text.general(worst.epochs)} of "
    )
    return rows_drawing(names, axis, marks, describe + f"{text.general(worst.max_epochs)}.")


def _finding(recipe: Recipe) -> str:
    rare = [s for s in recipe.sources if s.role == "rare"]
    if not rare:
        return (
            f"{recipe.name} has no rare source: {text.plural(len(recipe.sources), 'common source')} in"
            " natural proportion."
        )
    before, after = math.fsum(s.natural_share for s in rare), math.fsum(s.share for s in rare)
    most = max(rare, key=lambda s: s.rate)
    return (
        f"Rare sources go from {text.percent(before)} to {text.percent(after)} of the tokens; the most"
        f" upsampled, {most.name}, comes ×{text.general(most.rate)} as often and is seen"
        f" {text.general(most.epochs)} times."
    )
