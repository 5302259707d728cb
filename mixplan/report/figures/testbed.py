"""The testbed's own figure: training against the exact theory, and the rarest task between its injections.

Only tables that the testbed wrote have what it takes: first_critical_width and first_feature_signal in
`learning`; skill and gap_tokens in `retention`.

Shape legend: n = rows, T = tasks, W = widths (rising), m = delays (rising).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mixplan.documents.measurements import Measurements
from mixplan.documents.table import Table
from mixplan.report import text
from mixplan.report.cells import Array
from mixplan.report.choice import common_rows, final_rows
from mixplan.report.figures.base import Figure, Sizes, data, grid, key, panel, size_name, table
from mixplan.report.figures.heat import HEAT_STEPS
from mixplan.report.grouping import rungs_of
from mixplan.report.markup import Markup, join
from mixplan.report.plot import Panel, linear_axis, log_axis, log_axis_from_zero

NEEDED = ("first_critical_width", "first_feature_signal", "first_feature_utility")
CAPTURED = 0.5


class Phase(NamedTuple):
    """Final signal of each task's first feature, mean over seeds, by task (T) and width (W)."""

    task: list[str]
    frequency: Array
    utility: Array
    critical: Array
    width: Array
    signal: Array
    """Shape (T, W); NaN where not measured."""

    @property
    def agrees(self) -> np.ndarray:
        """Whether a feature is captured just where the theory says, shape (T, W); unmeasured: meaningless."""
        return (self.signal >= CAPTURED) == (self.width >= self.critical[:, None])


def figure(measured: Measurements, sizes: Sizes) -> Figure | None:
    """Phase diagram, order of learning and retention traces; None for tables that are not a testbed's."""
    rows = common_rows(measured.learning)
    if rows is None or any(name not in rows for name in NEEDED):
        return None
    found = phase(final_rows(rows)[0])
    drawn = [
        panel("Signal by width and utility", _diagram(found)),
        panel("Order by utility", _order(found, found.utility, "Utility of the first feature")),
        panel("Order by frequency", _order(found, found.frequency, "Frequency of the task")),
        *_traces(measured.retention, sizes),
    ]
    keys = [
        key(f"h{HEAT_STEPS}", "captured"),
        key("h0", "not captured"),
        key("boundary", "theory: critical width"),
    ]
    agreeing, cells = (
        int((found.agrees & np.isfinite(found.signal)).sum()),
        int(np.isfinite(found.signal).sum()),
    )
    return Figure(
        "testbed",
        "Training against theory",
        f"In {agreeing} of {cells} cells training captures a task's first feature (signal ≥ {CAPTURED:g})"
        " exactly where its critical width says so.",
        join([sizes.legend(keys), grid(drawn)]),
        "Signal is 0 for a random encoder and 1 for a captured feature; means over seeds at the end of"
        " training. Utility is frequency times the feature's share of its task's energy. Order: mean signal"
        " over all widths, higher is learned at smaller widths. Traces: the rarest task's signal after an"
        " injection, until just before the next, mean over seeds and injections.",
        data(_numbers(found)),
    )


def phase(final: Table) -> Phase:
    """The grid of final cells, tasks in order of utility, highest first."""
    tasks, at = np.unique(final["task"].astype(str), return_inverse=True)
    widths, column = np.unique(final["block_params"], return_inverse=True)
    shape = (len(tasks), len(widths))
    cell = at * shape[1] + column
    count = np.bincount(cell, minlength=shape[0] * shape[1])
    total = np.bincount(cell, weights=final["first_feature_signal"], minlength=len(count))
    with np.errstate(invalid="ignore"):
        signal = (total / count).reshape(shape)
    first = np.array([np.flatnonzero(at == t)[0] for t in range(len(tasks))])
    frequency, utility, critical = (
        final[name][first] for name in ("frequency", "first_feature_utility", "first_critical_width")
    )
    turn = np.argsort(-utility, kind="stable")
    return Phase(
        [str(tasks[t]) for t in turn], frequency[turn], utility[turn], critical[turn], widths, signal[turn]
    )


def traces(retention: Table) -> dict[float, dict[tuple[str, float], Array]]:
    """Mean skill by delay, shape (m, 2), by gap in tokens and rung."""
    named, at = rungs_of(retention)
    out: dict[float, dict[tuple[str, float], Array]] = {}
    for gap in np.unique(retention["gap_tokens"]):
        for r, rung in enumerate(named):
            own = retention.where((retention["gap_tokens"] == gap) & (at == r))
            delays = np.unique(own["delay_tokens"])
            means = [own["skill"][own["delay_tokens"] == delay].mean() for delay in delays]
            if len(delays):
                out.setdefault(float(gap), {})[rung] = np.column_stack([delays, means])
    return out


def _diagram(found: Phase) -> Markup:
    axes = Panel(log_axis(found.width, "Width (neurons)", words=True), log_axis(found.utility, "Utility"))
    marks = [axes.line(found.critical, found.utility, "plain")]
    for t, w in np.argwhere(np.isfinite(found.signal)):
        signal = float(found.signal[t, w])
        tip = (
            f"{found.task[t]} at width {found.width[w]:g}\nsignal {text.fixed(signal)}\n"
            f"critical width {found.critical[t]:g}"
        )
        shade = f"h{round(float(np.clip(signal, 0, 1)) * HEAT_STEPS)}"
        marks.append(axes.dots([found.width[w]], [found.utility[t]], shade, [tip], radius=4))
    return axes.drawn("Signal of first features by width and utility, with the theory's boundary.", *marks)


def _order(found: Phase, by: Array, label: str) -> Markup:
    learned = np.nanmean(found.signal, axis=1)
    axes = Panel(log_axis(by, label), linear_axis(learned, "Mean signal over widths", include=[0.0, 1.0]))
    tips = [f"{name}\nmean signal {text.fixed(s)}" for name, s in zip(found.task, learned, strict=True)]
    return axes.drawn(
        f"Mean signal over widths against {label.lower()}.", axes.dots(by, learned, f"h{HEAT_STEPS}", tips)
    )


def _traces(retention: Table | None, sizes: Sizes) -> list[Markup]:
    if retention is None or "skill" not in retention or "gap_tokens" not in retention:
        return []
    panels = []
    every = traces(retention)
    levels = np.concatenate([curve[:, 1] for own in every.values() for curve in own.values()])
    for gap, curves in every.items():
        delays = np.concatenate([curve[:, 0] for curve in curves.values()])
        x, zero = log_axis_from_zero(delays, "Delay after the injection (samples)")
        axes = Panel(x, linear_axis(levels, "Signal of the rarest task", include=[0.0]))
        marks = [axes.level(0.0, "zero")]
        for rung, curve in curves.items():
            at, css = np.where(curve[:, 0] > 0, curve[:, 0], zero), sizes.css(rung)
            tips = [f"{size_name(rung)}\nsignal {text.fixed(value)}" for value in curve[:, 1]]
            marks += [axes.line(at, curve[:, 1], css), axes.dots(at, curve[:, 1], css, tips, radius=2.4)]
        name = f"Injected every {text.count(gap)} samples"
        panels.append(panel(name, axes.drawn(f"{name}: signal by delay, one line per width.", *marks)))
    return panels


def _numbers(found: Phase) -> Markup:
    columns = ["Task", "Frequency", "Utility", "Critical width", *(f"{width:g}" for width in found.width)]
    rows = [
        [
            name,
            text.power(found.frequency[t], 3),
            text.power(found.utility[t], 3),
            f"{found.critical[t]:g}",
            *(text.fixed(value) for value in found.signal[t]),
        ]
        for t, name in enumerate(found.task)
    ]
    return table(columns, rows, "Final signal of each task's first feature, by width")
