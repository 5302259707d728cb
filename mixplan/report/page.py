"""Puts the page together: one file, nothing fetched, the same bytes for the same input."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from mixplan.documents.forecast import CellForecast
from mixplan.documents.measurements import ROWS, Measurements
from mixplan.documents.table import Table
from mixplan.report import palette, summary
from mixplan.report.cells import Ladder, ladder_of
from mixplan.report.choice import common_rows, ended, protocol_notes
from mixplan.report.doubts import fit_warnings, mismatches
from mixplan.report.figures import (
    backtest,
    cost,
    dependence,
    features,
    heat,
    interference,
    learning,
    loss,
    mixture,
    peel_off,
    protocols,
    retention,
    skills,
    sources,
    testbed,
    verification,
)
from mixplan.report.figures.base import Figure, Sizes
from mixplan.report.figures.heat import HEAT_STEPS
from mixplan.report.grouping import rungs_of
from mixplan.report.inputs import Inputs
from mixplan.report.laws import Threshold, thresholds
from mixplan.report.markup import Markup, tag

DEFAULT_THRESHOLD = 0.8  # skill from which a task counts as learned, unless the calibration says otherwise


def render(inputs: Inputs, forecast: CellForecast | None) -> str:
    """The whole page as HTML text.

    Args:
        inputs: the documents of the working folder.
        forecast: the laws of its calibration, or None.
    """
    threshold = inputs.calibration.learned_skill if inputs.calibration else DEFAULT_THRESHOLD
    ladder = _ladder(inputs.measurements, threshold) if inputs.measurements else None
    limits = thresholds(forecast, ladder) if ladder else {}
    figures = _figures(inputs, ladder, forecast, limits)
    kinds = [kind.name for kind in ladder.kinds] if ladder else []
    sizes = len(_sizes(inputs).rungs)
    style = _file("page.css") + palette.rules(max(sizes, 1), HEAT_STEPS)
    script = _file("page.js")
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content="mixplan report"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"mixplan report: {inputs.name}"),
        tag("style", Markup(style)),
    ]
    body = [
        _header(inputs, figures),
        tag(
            "main",
            _summary(inputs, ladder, limits if forecast else None),
            _picker(kinds) if len(kinds) > 1 else None,
            *(_section(number, figure) for number, figure in enumerate(figures, 1)),
        ),
        _footer(inputs),
        tag("script", Markup(script)),
    ]
    page = tag("html", tag("head", *head), tag("body", *body), lang="en")
    return f"<!doctype html>\n{page}\n"


def _ladder(measured: Measurements, threshold: float) -> Ladder | None:
    """The final cells of the protocol that all share; None without one, or where no horizon has ended."""
    common = common_rows(measured.learning)
    if common is None or not ended(common).any():
        return None
    own = frozenset(map(str, measured.sources["source"])) if measured.sources is not None else frozenset()
    return ladder_of(common, threshold, own)


def _figures(
    inputs: Inputs, ladder: Ladder | None, forecast: CellForecast | None, limits: dict[str, list[Threshold]]
) -> list[Figure]:
    sizes = _sizes(inputs)
    measured, calibration = inputs.measurements, inputs.calibration
    found: list[Figure | None] = []
    if measured:
        if ladder:
            found += [learning.figure(ladder, sizes, forecast), heat.figure(ladder, limits)]
            found.append(protocols.figure(measured.learning, sizes))
        found.append(testbed.figure(measured, sizes))
        found += [
            draw(rows, sizes)
            for rows, draw in (
                (measured.retention, retention.figure),
                (_common(measured.interference), interference.figure),
                (_common(measured.features), features.figure),
                (measured.peel_off, peel_off.figure),
                (measured.dependence, dependence.figure),
            )
            if rows is not None
        ]
    if measured and measured.sources is not None:
        found.append(sources.figure(measured.sources, sizes, calibration))
    if calibration and calibration.backtest:
        found.append(backtest.figure(calibration.backtest, calibration.weights))
    if inputs.recipe:
        found.append(mixture.figure(inputs.recipe))
        found.append(skills.figure(inputs.recipe) if inputs.recipe.tasks else None)
        found.append(cost.figure(inputs.recipe))
    if inputs.verified:
        found.append(verification.figure(inputs.verified))
    if measured and ladder:
        found.append(loss.figure(measured.learning, ladder, sizes, forecast))
    return [figure for figure in found if figure is not None]


def _common(table: Table | None) -> Table | None:
    return None if table is None else common_rows(table)


def _sizes(inputs: Inputs) -> Sizes:
    measured = inputs.measurements
    tables = [getattr(measured, name) for name in ROWS] if measured else []
    rungs = {rung for table in tables if table is not None for rung in rungs_of(table)[0]}
    return Sizes(sorted(rungs, key=lambda rung: (rung[1], rung[0])))


def _header(inputs: Inputs, figures: list[Figure]) -> Markup:
    links = [tag("a", figure.topic, href=f"#{figure.anchor}") for figure in figures]
    subtitle = (
        "Which rare skills a model of a given size learns from a given mixture, and what it takes to bring in"
        " the rest."
    )
    return tag(
        "header",
        tag("p", "mixplan report", class_="topic"),
        tag("h1", inputs.name),
        tag("p", subtitle, class_="subtitle"),
        tag("nav", *links, tag("a", "Provenance", href="#provenance"), aria_label="Figures"),
    )


def _summary(inputs: Inputs, ladder: Ladder | None, limits: dict[str, list[Threshold]] | None) -> Markup:
    said = summary.sentences(ladder, inputs.calibration, limits, inputs.recipe)
    said += protocol_notes(inputs.measurements.learning) if inputs.measurements else []
    parts: list[Markup | None] = [
        summary.lead(ladder, inputs.calibration, inputs.recipe),
        tag("ul", *(tag("li", sentence) for sentence in said)),
    ]
    for title, lines in (
        ("These files do not belong together", mismatches(inputs, ladder)),
        ("Not in this folder", inputs.missing),
        ("The fit warns", fit_warnings(inputs.calibration)),
        ("The recommendation warns", inputs.recipe.warnings if inputs.recipe else []),
    ):
        if lines:
            items = tag("ul", *(tag("li", line) for line in lines))
            parts.append(tag("div", tag("strong", title), items, class_="warning"))
    return tag("section", *parts, class_="summary", id="summary")


def _picker(kinds: list[str]) -> Markup:
    options = [tag("option", "all", value=""), *(tag("option", kind, value=kind) for kind in kinds)]
    return tag("p", tag("label", "Task kind", tag("select", *options, id="pick")), class_="pick", hidden=True)


def _section(number: int, figure: Figure) -> Markup:
    return tag(
        "section",
        tag("p", f"{number}. {figure.topic}", class_="topic"),
        tag("h2", figure.finding),
        figure.body,
        tag("p", figure.caption, class_="caption") if figure.caption else None,
        figure.data,
        id=figure.anchor,
        class_="figure",
    )


def _footer(inputs: Inputs) -> Markup:
    rows = [tag("tr", tag("td", name), tag("td", digest, class_="hash")) for name, digest in inputs.files]
    head = tag("tr", tag("th", "File read", scope="col"), tag("th", "SHA-256", scope="col"))
    origins: list[tuple[str, dict[str, Any]]] = [
        ("measurements", inputs.measurements.provenance if inputs.measurements else {}),
        ("calibration.json", inputs.calibration.provenance if inputs.calibration else {}),
        ("recipe.yaml", inputs.recipe.provenance if inputs.recipe else {}),
    ]
    blocks = [
        tag(
            "details",
            tag("summary", f"Provenance in {name}"),
            tag("pre", json.dumps(origin, indent=2, ensure_ascii=True)),
        )
        for name, origin in origins
        if origin
    ]
    table = tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll")
    return tag("footer", tag("h2", "Provenance"), table, *blocks, id="provenance")


def _file(name: str) -> str:
    return resources.files("mixplan.report").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Only this page's own style and script may run, and nothing may be fetched."""

    def digest(content: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; img-src data:; base-uri"
        " 'none'"
    )
