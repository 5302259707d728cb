"""Skill over the grid of size and frequency, with the learned boundary.

Shape legend: F = frequencies of a kind, R = rungs (smallest first).
"""

from __future__ import annotations

import numpy as np

from mixplan.report import text
from mixplan.report.cells import Kind, Ladder
from mixplan.report.figures.base import Figure, grid, key, panel, table
from mixplan.report.figures.learning import learned_words, tips
from mixplan.report.laws import Threshold
from mixplan.report.markup import Markup, join, tag
from mixplan.report.plot import svg

HEAT_STEPS = 10  # colour classes h0 … h10


def figure(ladder: Ladder, known: dict[str, list[Threshold]]) -> Figure:
    """Mean skill over frequency and size, with the learned boundary and the law's thresholds by kind name."""
    panels = [
        panel(kind.name, _heat(kind, ladder, known.get(kind.name)), kind=kind.name) for kind in ladder.kinds
    ]
    ramp = tag("span", *(tag("i", class_=f"swatch h{i}") for i in range(HEAT_STEPS + 1)), class_="ramp")
    keys = [tag("span", "Skill", class_="what"), tag("span", "≤ 0 ", ramp, " 1", class_="entry")]
    keys.append(key("boundary", f"learned from here (mean skill ≥ {ladder.threshold:g})"))
    if known:
        keys.append(key("even", "law: even chance to be learned"))
    parts = [tag("div", *keys, class_="legend"), grid(panels)]
    if known:
        parts.append(_threshold_table(ladder, known))
    return Figure(
        "size",
        "Skill against size and frequency",
        _counts(ladder),
        join(parts),
        "Each cell is the mean skill over runs at the end of each size's longest training; a dash was not"
        " measured. Only cells injected by one and the same protocol are here. The heavy line parts learned"
        " cells from the others. Where the law's even chance lies outside the measured frequencies,"
        " only its side is given.",
    )


def _heat(kind: Kind, ladder: Ladder, limits: list[Threshold] | None) -> Markup:
    rows, columns = kind.skill.shape
    left, top, width = 76.0, 8.0, 340.0
    step_x = (width - left - 8) / columns
    step_y = max(17.0, min(26.0, 200 / rows), 60 / rows)  # the axis needs 60 pixels for its name
    base = top + rows * step_y
    learned = kind.learned(ladder.threshold)
    middle = [base - (i + 0.5) * step_y for i in range(rows)]
    parts = []
    values = []
    for i, r in np.ndindex(rows, columns):
        skill = float(kind.skill[i, r])
        x, y = left + r * step_x, base - (i + 1) * step_y
        tip = tag("title", tips(kind, r, ladder.rungs[r])[i] if np.isfinite(skill) else "not measured")
        shade = f"h{round(float(np.clip(skill, 0, 1)) * HEAT_STEPS)}" if np.isfinite(skill) else "unmeasured"
        parts.append(tag("rect", tip, class_=f"cell {shade}", x=x, y=y, width=step_x - 1, height=step_y - 1))
        if step_x >= 30:
            said = text.fixed(skill) if np.isfinite(skill) else "–"
            values.append(
                tag("text", said, class_=f"value {shade} on-{shade}", x=x + step_x / 2, y=middle[i] + 3.5)
            )
    for i, frequency in enumerate(kind.frequency):
        parts.append(
            tag(
                "text", text.power(frequency), class_="tick", x=left - 6, y=middle[i] + 3.5, text_anchor="end"
            )
        )
    every = max(1, int(np.ceil(34 / step_x)))
    for r, rung in enumerate(ladder.rungs):
        if (columns - 1 - r) % every == 0:
            name = text.count(rung.block_params)
            parts.append(
                tag(
                    "text",
                    name,
                    class_="tick",
                    x=left + (r + 0.5) * step_x,
                    y=base + 14,
                    text_anchor="middle",
                )
            )
    parts.append(tag("path", class_="boundary", d=_boundary(kind, learned, left, base, step_x, step_y)))
    inside = [(r, limit) for r, limit in enumerate(limits or []) if limit.where == "inside"]
    ys = [float(np.interp(np.log(limit.frequency), np.log(kind.frequency), middle)) for _, limit in inside]
    dashes = [
        f"M{left + (r + 0.1) * step_x:.1f} {y:.1f}h{0.8 * step_x:.1f}"
        for (r, _), y in zip(inside, ys, strict=True)
    ]
    if dashes:
        parts.append(tag("path", class_="even", d="".join(dashes)))
    parts += values  # on top, so that no line crosses a number
    centre = (left + width - 8) / 2
    parts.append(tag("text", "Block parameters", class_="label", x=centre, y=base + 30, text_anchor="middle"))
    upright = f"translate(11 {(top + base) / 2:.1f}) rotate(-90)"
    parts.append(
        tag(
            "text",
            "Share" if kind.source else "Frequency (per token)" if rows * step_y > 125 else "Frequency",
            class_="label",
            text_anchor="middle",
            transform=upright,
        )
    )
    return svg(
        width,
        base + 36,
        f"Mean skill of {kind.name} by size and frequency. {learned_words(kind, ladder)}",
        *parts,
    )


def _boundary(kind: Kind, learned: np.ndarray, left: float, base: float, step_x: float, step_y: float) -> str:
    """The edges between learned and unlearned neighbours that were both measured."""
    known = kind.measured > 0
    out = []
    for i, r in np.ndindex(learned.shape):
        x, y = left + r * step_x - 0.5, base - i * step_y - 0.5
        if i and known[i, r] and known[i - 1, r] and learned[i, r] != learned[i - 1, r]:
            out.append(f"M{x:.1f} {y:.1f}h{step_x:.1f}")
        if r and known[i, r] and known[i, r - 1] and learned[i, r] != learned[i, r - 1]:
            out.append(f"M{x:.1f} {y:.1f}v{-step_y:.1f}")
    return "".join(out) or "M0 0"


def _threshold_table(ladder: Ladder, known: dict[str, list[Threshold]]) -> Markup:
    columns = ["Task kind", *(text.count(rung.block_params) for rung in ladder.rungs)]
    rows = [[name, *(limit.words() for limit in limits)] for name, limits in known.items()]
    return table(
        columns,
        rows,
        "Frequency at which the law gives an even chance to be learned",
    )


def _counts(ladder: Ladder) -> str:
    learned, measured = ladder.counts()
    names = [text.count(rung.block_params) for rung in ladder.rungs]
    if len(ladder.rungs) == 1:
        return (
            f"The one size measured ({names[0]} block parameters) learned {learned[0]} of {measured[0]}"
            " cells."
        )
    return (
        f"At {names[-1]} block parameters {learned[-1]} of {measured[-1]} cells were learned, "
        f"at {names[0]} {learned[0]} of {measured[0]}."
    )
