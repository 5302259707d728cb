"""Cells injected in other ways than the rest: skill against gap at equal frequency, and every departure.

Shape legend: n = rows, R = rungs (smallest first), G = gaps (tokens, rising).
"""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np

from mixplan.documents.protocols import common_ground, departures, protocols_of
from mixplan.documents.table import Table
from mixplan.report import text
from mixplan.report.cells import Array
from mixplan.report.choice import final_rows
from mixplan.report.figures.base import Figure, Sizes, grid, panel, size_name, table
from mixplan.report.grouping import groups, rungs_of
from mixplan.report.markup import Markup, join
from mixplan.report.plot import Panel, linear_axis, log_axis_from_zero

GAP = re.compile(r"gap \d+ steps")
Key = tuple[str, int, int]
"""Task kind, number of the nominal frequency among the kind's, rung."""
Skills = dict[str, dict[Key, tuple[float, float]]]
"""By protocol and cell: mean skill over runs, and mean gap in tokens (0 where the table says none)."""


def figure(learning: Table, sizes: Sizes) -> Figure | None:
    """Skill of cells with a gap, fewer instances … against the same cells without.

    None where no cell was measured by two protocols of which one departs from the other.

    Args:
        learning: rows of all protocols, some at the end of a horizon.
        sizes: all sizes on the page.
    """
    final, _ = final_rows(learning)
    named, at = rungs_of(final)
    skills, base = cell_skills(final, at), common_ground(protocols_of(final))
    if base is None:
        return None
    changes = {one: change(skills[base], own, len(named)) for one, own in skills.items() if one != base}
    changes = {one: row for one, row in sorted(changes.items()) if np.isfinite(row).any()}
    if not changes:
        return None
    gaps = {one: own for one, own in skills.items() if one == base or _is_gap(one, base)}
    kinds = sorted({key[0] for one, own in gaps.items() if one in changes for key in own})
    curves = {kind: gap_curves(kind, gaps, len(named)) for kind in kinds}
    panels = [panel(kind, _curves(kind, own, named, sizes), kind=kind) for kind, own in curves.items() if own]
    rows = [[one, *(text.signed(value) for value in row)] for one, row in changes.items()]
    columns = ["Protocol", *(size_name(rung) for rung in named)]
    caption = f"Change of mean skill against {base} cells of the same task kind and frequency, by size"
    return Figure(
        "protocols",
        "Other ways of injecting",
        _finding(changes, base, named),
        join([sizes.legend(), grid(panels) if panels else None, table(columns, rows, caption)]),
        "A gap withholds a task for so many tokens and then brings all its instances of that time in one"
        " burst: its frequency over the run stays the same. Every point is a mean over runs and over those"
        " frequencies that the size was measured at with every gap shown, at the end of each size's longest"
        " training. With fewer unique instances the questions stay those of the whole task: what only memory"
        " gives (tables, associative recall) then cannot be known in full, and the loss is not that of"
        " repetition alone.",
    )


def cell_skills(final: Table, at: np.ndarray) -> Skills:
    """Mean skill of every cell by protocol; `at` is the rung of each row, shape (n,)."""
    pairs = zip(final["family"], final["complexity"], strict=True)
    kind = np.array([text.kind_name(str(family), complexity) for family, complexity in pairs], dtype=object)
    frequency = final["frequency"].copy()
    if "frequency_requested" in final:  # bursts and rounding make realised frequencies differ
        asked = final["frequency_requested"]
        frequency = np.where(np.isfinite(asked), asked, frequency)
    number = np.zeros(len(final), dtype=np.int64)
    for own in (kind == one for one in np.unique(kind)):
        number[own] = groups(frequency[own])[1]
    gap = final["gap_tokens"] if "gap_tokens" in final else np.zeros(len(final))
    found: dict[str, dict[Key, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    cells = zip(protocols_of(final), kind, number, at, final["skill"], np.nan_to_num(gap), strict=True)
    for protocol, name, which, rung, skill, tokens in cells:
        found[protocol][name, int(which), int(rung)].append((skill, tokens))
    return {
        protocol: {key: (float(s), float(g)) for key, v in own.items() for s, g in [np.mean(v, axis=0)]}
        for protocol, own in found.items()
    }


def change(base: dict[Key, tuple[float, float]], other: dict[Key, tuple[float, float]], width: int) -> Array:
    """Mean over the cells that both have of other − base, shape (R,); NaN where there are none."""
    pairs = [(key[2], other[key][0] - base[key][0]) for key in other if key in base]
    means = [[value for r, value in pairs if r == rung] for rung in range(width)]
    return np.array([np.mean(values) if values else np.nan for values in means])


def gap_curves(kind: str, gaps: Skills, width: int) -> dict[int, Array]:
    """By rung: gap in tokens and mean skill, shape (G, 2), over the frequencies measured at every gap."""
    curves = {}
    for rung in range(width):
        of_gap = {
            one: {k[1]: v for k, v in own.items() if k[0] == kind and k[2] == rung}
            for one, own in gaps.items()
        }
        of_gap = {one: own for one, own in of_gap.items() if own}
        common = set.intersection(*(set(own) for own in of_gap.values())) if len(of_gap) > 1 else set()
        if common:
            points = [np.mean([own[which] for which in common], axis=0)[::-1] for own in of_gap.values()]
            curves[rung] = np.array(sorted(points, key=lambda point: float(point[0])))
    return curves


def _is_gap(protocol: str, base: str) -> bool:
    more = departures(protocol) - departures(base)
    return len(more) == 1 and bool(GAP.fullmatch(next(iter(more))))


def _curves(kind: str, curves: dict[int, Array], named: list[tuple[str, float]], sizes: Sizes) -> Markup:
    points = np.concatenate(list(curves.values()))
    x, zero = log_axis_from_zero(points[:, 0], "Gap (tokens)")
    axes = Panel(x, linear_axis(points[:, 1], "Mean skill", include=[0.0, 1.0], ticks=8))
    marks = []
    for rung, curve in curves.items():
        css, at = sizes.css(named[rung]), np.where(curve[:, 0] > 0, curve[:, 0], zero)
        name = size_name(named[rung])
        tips = [f"{name}\ngap {text.count(g)} tokens\nmean skill {text.fixed(s)}" for g, s in curve]
        marks += [axes.line(at, curve[:, 1], css), axes.dots(at, curve[:, 1], css, tips)]
    return axes.drawn(f"Mean skill of {kind} against the gap at equal frequency, one line per size.", *marks)


def _finding(changes: dict[str, Array], base: str, named: list[tuple[str, float]]) -> str:
    """The departure that changes skill most, smallest size against largest among those that have it."""
    name, row = max(changes.items(), key=lambda one: float(np.nanmax(np.abs(one[1]))))
    have = np.flatnonzero(np.isfinite(row))
    said = [
        f"{text.signed(row[r], 2)} at {text.count(named[r][1])}" for r in dict.fromkeys((have[0], have[-1]))
    ]
    return (
        f"At equal frequency, {name} instead of {base} changes mean skill by {' and '.join(said)} block"
        f" parameters{f' (the largest of {len(changes)} changes)' if len(changes) > 1 else ''}."
    )
