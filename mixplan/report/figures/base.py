"""What every figure is made of: finding, panels, caption, data as a table; and the colours of sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mixplan.report.markup import Markup, join, tag
from mixplan.report.text import count

MOST_ROWS = 400  # of a data table on the page; the files hold the rest


@dataclass(frozen=True)
class Figure:
    """One question, answered."""

    anchor: str
    topic: str
    """What is shown, for the contents line."""
    finding: str
    """One sentence with numbers."""
    body: Markup
    caption: str
    """How to read it."""
    data: Markup | None = None


@dataclass(frozen=True)
class Sizes:
    """All sizes on the page, smallest first; each has one colour throughout."""

    rungs: Sequence[tuple[str, float]]
    """(name, block parameters)."""

    def css(self, rung: tuple[str, float]) -> str:
        """The class that carries the size's colour."""
        return f"s{self.rungs.index(rung)}"

    def legend(self, extra: Iterable[Markup] = ()) -> Markup:
        """Colour key, in order of size; block parameters are the names."""
        keys = [
            tag(
                "span",
                tag("i", class_=f"key {self.css(rung)}"),
                size_name(rung),
                class_="entry",
                data_size=self.css(rung),
            )
            for rung in self.rungs
        ]
        return tag("div", tag("span", "Block parameters", class_="what"), *keys, *extra, class_="legend")


def size_name(rung: tuple[str, float]) -> str:
    """`74.2 K (cpu_74k)`."""
    return f"{count(rung[1])} ({rung[0]})"


def panel(title: str, drawing: Markup, kind: str | None = None, wide: bool = False) -> Markup:
    """One titled drawing in the grid; `kind` lets the reader pick a task kind."""
    heading = tag("h4", title) if title else None
    return tag("div", heading, drawing, class_="panel wide" if wide else "panel", data_kind=kind)


def grid(panels: Iterable[Markup]) -> Markup:
    """Panels side by side, as many as fit."""
    return tag("div", *panels, class_="panels")


def key(class_: str, name: str) -> Markup:
    """An entry of a legend."""
    return tag("span", tag("i", class_=f"key {class_}"), name, class_="entry")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "", words: int = 1) -> Markup:
    """A data table; the first `words` columns are text, the others numbers (right-aligned)."""

    def css(i: int) -> str | None:
        return None if i < words else "number"

    head = tag("tr", *(tag("th", name, scope="col", class_=css(i)) for i, name in enumerate(columns)))
    body = [
        tag("tr", *(tag("td", cell, class_=css(i)) for i, cell in enumerate(row))) for row in rows[:MOST_ROWS]
    ]
    cut = f" First {MOST_ROWS} of {len(rows):,} rows." if len(rows) > MOST_ROWS else ""
    said = tag("caption", caption + cut) if caption + cut else None
    return tag("div", tag("table", said, tag("thead", head), tag("tbody", *body)), class_="scroll")


def data(*tables: Markup) -> Markup:
    """The numbers behind a figure, folded away."""
    return tag("details", tag("summary", "The numbers"), join(tables), class_="data")
