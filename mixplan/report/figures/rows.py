"""Drawings with one named row per source or task over a horizontal axis.

Shape legend: a row is ROW pixels high; positions are pixels of the drawing's viewBox.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixplan.report.markup import Markup, tag
from mixplan.report.plot import Axis, svg

ROW = 30.0
WIDTH, NAMES, RIGHT, TOP, BOTTOM = 520.0, 132.0, 58.0, 10.0, 40.0
LONGEST_NAME = 20


def rows_drawing(
    names: Sequence[tuple[str, str]], axis: Axis, marks: Sequence[Markup], describe: str
) -> Markup:
    """A horizontal axis under named rows; each name has a number at the right end of its row."""
    height = TOP + ROW * len(names) + BOTTOM
    base = height - BOTTOM
    parts = []
    for at, mark in axis.ticks:
        x = on_axis(axis, at)
        parts.append(tag("line", class_="grid", x1=x, x2=x, y1=TOP, y2=base))
        parts.append(tag("text", mark, class_="tick", x=x, y=base + 16, text_anchor="middle"))
    parts.append(tag("line", class_="axis", x1=NAMES, x2=WIDTH - RIGHT, y1=base, y2=base))
    middle = (NAMES + WIDTH - RIGHT) / 2
    parts.append(tag("text", axis.label, class_="label", x=middle, y=height - 6, text_anchor="middle"))
    for i, (name, value) in enumerate(names):
        y = at_row(i) + 4
        short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
        full = tag("title", name) if short != name else None
        parts.append(tag("text", full, short, class_="name", x=NAMES - 8, y=y, text_anchor="end"))
        parts.append(tag("text", value, class_="end", x=WIDTH - RIGHT + 8, y=y))
    return svg(WIDTH, height, describe, *parts, *marks)


def on_axis(axis: Axis, value: float) -> float:
    """Horizontal pixel of a value."""
    return NAMES + float(axis.share(value)) * (WIDTH - RIGHT - NAMES)


def at_row(row: int) -> float:
    """Vertical pixel of a row's middle."""
    return TOP + ROW * (row + 0.5)


def dumbbell(axis: Axis, row: int, start: float, end: float, tips: tuple[str, str]) -> list[Markup]:
    """From the natural to the recommended value; one that a log axis cannot show (0) is left out."""
    shown = [value > 0 or not axis.log for value in (start, end)]
    y = at_row(row)
    parts = []
    if all(shown):
        parts.append(tag("line", class_="bridge", x1=on_axis(axis, start), x2=on_axis(axis, end), y1=y, y2=y))
    for value, seen, css, tip in zip((start, end), shown, ("natural", "recommended"), tips, strict=True):
        if seen:
            parts.append(
                tag("circle", tag("title", tip), class_=f"dot {css}", cx=on_axis(axis, value), cy=y, r=5)
            )
    return parts


def limit(axis: Axis, row: int, value: float, tip: str) -> Markup:
    """A short upright bar: a cap or a target."""
    x, y = on_axis(axis, value), at_row(row)
    return tag("path", tag("title", tip), class_="cap", d=f"M{x:.1f} {y - 9:.1f}V{y + 9:.1f}")
