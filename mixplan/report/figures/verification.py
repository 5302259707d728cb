"""Does the emitted mixture deliver what the recipe says, and evenly?"""

from __future__ import annotations

from mixplan.documents.verification import Verified
from mixplan.report import text
from mixplan.report.figures.base import Figure, grid, key, panel, table
from mixplan.report.figures.rows import at_row, dumbbell, limit, on_axis, rows_drawing
from mixplan.report.markup import Markup, join, tag
from mixplan.report.plot import log_axis

_TITLES = {
    "reading": "The emitted mixture, read back",
    "plan": "The emitted mixture, as its order was computed (not read)",
    "files": "The emitted weights and token files (the order was not looked at)",
    "weights": "The emitted weights (no data was read)",
}


def figure(verified: Verified) -> Figure:
    """Samples read against the recipe's, and the evenness of every source."""
    parts: list[Markup] = []
    if verified.sources:
        keys = [key("natural", "recipe"), key("recommended", _word(verified)), key("cap", "a random order")]
        parts.append(tag("div", *keys, class_="legend"))
        drawn = [panel("Samples per source", _samples(verified), wide=True)]
        if any(source.spread for source in verified.sources):
            drawn.append(panel("Unevenness over the run", _evenness(verified), wide=True))
        parts += [grid(drawn), _table(verified)]
    for title, lines in (("Why the mixture fails", verified.problems), ("Warnings", verified.warnings)):
        if lines:
            parts.append(
                tag(
                    "div",
                    tag("strong", title),
                    tag("ul", *(tag("li", line) for line in lines)),
                    class_="warning",
                )
            )
    return Figure(
        "verification",
        _TITLES[verified.checked],
        _finding(verified),
        join(parts),
        "Unevenness is the variation of a source's share from window to window of the run, divided by what a"
        " random order would show: at 1 it is as even as independent draws, well above 1 it comes in bursts,"
        " which small models forget.",
    )


def _samples(verified: Verified) -> Markup:
    values = [v for s in verified.sources for v in (s.samples, s.samples_expected) if v > 0]
    axis = log_axis(values, "Samples (log)", words=True)
    marks = []
    for i, s in enumerate(verified.sources):
        tips = (
            f"{s.name}\nrecipe {s.samples_expected:,} samples",
            f"{s.name}\n{_word(verified)} {s.samples:,} samples",
        )
        marks += dumbbell(axis, i, s.samples_expected, s.samples, tips)
    names = [(s.name, _difference(s.samples - s.samples_expected)) for s in verified.sources]
    return rows_drawing(
        names,
        axis,
        marks,
        f"Samples {_word(verified)} against the recipe's, per source. {_finding(verified)}",
    )


def _evenness(verified: Verified) -> Markup:
    ratios = [s.spread.cv_ratio for s in verified.sources if s.spread and s.spread.cv_ratio > 0]
    axis = log_axis([*ratios, 0.5, 2.0], "Variation ÷ that of a random order (log)", words=True)
    marks = []
    for i, s in enumerate(verified.sources):
        marks.append(limit(axis, i, 1.0, "a random order"))
        if s.spread and s.spread.cv_ratio > 0:
            tip = tag(
                "title", f"{s.name}\n{text.general(s.spread.cv_ratio)} times a random order's variation"
            )
            marks.append(
                tag(
                    "circle",
                    tip,
                    class_="dot recommended",
                    cx=on_axis(axis, s.spread.cv_ratio),
                    cy=at_row(i),
                    r=5,
                )
            )
    names = [(s.name, text.general(s.spread.cv_ratio) if s.spread else "–") for s in verified.sources]
    return rows_drawing(
        names, axis, marks, "Variation of each source's share over the run against a random order's."
    )


def _table(verified: Verified) -> Markup:
    rows = []
    for s in verified.sources:
        spread = s.spread
        cells = (
            ["–"] * 4
            if spread is None
            else [
                text.general(spread.cv_ratio),
                f"{spread.empty_windows} of {spread.windows}",
                f"{spread.longest_gap_samples:,}",
                f"{spread.longest_gap_iid_samples:,.0f}",
            ]
        )
        rows.append(
            [s.name, s.role, f"{s.samples_expected:,}", f"{s.samples:,}", text.general(s.epochs), *cells]
        )
    columns = [
        "Source",
        "Role",
        "Recipe",
        _word(verified).capitalize(),
        "Epochs",
        "Unevenness",
        "Empty windows",
        "Longest gap",
        "Gap at random",
    ]
    return table(columns, rows, "Samples per source; gaps in samples", words=2)


def _word(verified: Verified) -> str:
    return "planned" if verified.checked == "plan" else "read"


def _difference(samples: int) -> str:
    return f"{samples:+,}".replace("-", "−") if samples else "0"


def _finding(verified: Verified) -> str:
    if verified.checked == "weights":
        return "The weights " + ("add up." if verified.passed else "contradict themselves.")
    if verified.checked == "files":
        return (
            "Weights and token files are as they were emitted."
            if verified.passed
            else f"Weights or token files are not right: {text.plural(len(verified.problems), 'problem')}."
        )
    if not verified.sources:
        return f"The mixture could not be read: {text.plural(len(verified.problems), 'problem')}."
    off = [s for s in verified.sources if s.samples != s.samples_expected]
    said = (
        f"Every source delivers exactly the recipe's samples ({verified.samples:,} in all)"
        if not off
        else (
            f"{text.listing([s.name for s in off])} {'differs' if len(off) == 1 else 'differ'} from the"
            f" recipe: {verified.samples:,} of {verified.samples_expected:,} samples "
            f"were {_word(verified)}"
        )
    )
    spread = [(s.spread.cv_ratio, s.name) for s in verified.sources if s.spread and s.role == "rare"]
    if spread:
        ratio, name = max(spread)
        said += (
            f"; the least even rare source, {name}, varies {text.general(ratio, 2)} times as much as a random"
            " order"
        )
    return said + (
        "."
        if verified.passed
        else f". Verification failed with {text.plural(len(verified.problems), 'problem')}."
    )
