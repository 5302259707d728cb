"""What is left of an injection after a delay, by size.

Shape legend: n = rows, M = runs of one rung, D = delays of one rung (tokens, rising).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixplan.documents.table import Table
from mixplan.report import text
from mixplan.report.cells import codes, groups, rungs_of
from mixplan.report.figures.base import Figure, Sizes, data, grid, panel, size_name, table
from mixplan.report.markup import Markup, join
from mixplan.report.plot import Panel, linear_axis, log_axis

Array = NDArray[np.float64]


NOISE_ERRORS = 2.0  # standard errors from which a mean gain is taken for more than noise


@dataclass(frozen=True)
class Decay:
    """One rung's gain after one kind of injection."""

    rung: tuple[str, float]
    delay: Array
    """Shape (D,), tokens."""
    runs: Array
    """Mean over the probes of each run, shape (M, D), nats; NaN where not measured."""
    error: Array
    """Standard error of the mean over all probes, shape (D,), nats; NaN where there is one probe."""

    @property
    def gain(self) -> Array:
        """Mean over runs, shape (D,), nats."""
        return mean_rows(self.runs)

    def gained(self) -> bool:
        """Whether the peak of the mean gain stands out of the noise."""
        peak = int(np.nanargmax(self.gain))
        return bool(self.gain[peak] > np.nan_to_num(NOISE_ERRORS * self.error[peak]))

    def kept(self, delay: float) -> Array:
        """Share of the peak gain left at `delay`: the mean curve first, then every run, shape (1 + M,).

        Linear between measured delays in log tokens; NaN where nothing was gained.
        """
        if not self.gained():
            return np.full(1 + len(self.runs), np.nan)
        return np.array([_share_left(self.delay, row, delay) for row in [self.gain, *self.runs]])

    def worse(self, delay: float) -> bool:
        """Whether the mean gain at `delay` lies below zero by more than the noise."""
        at = np.log1p(delay)
        gain, error = (float(np.interp(at, np.log1p(self.delay), v)) for v in (self.gain, self.error))
        return bool(gain < -NOISE_ERRORS * error)  # False where the error is unknown


def mean_rows(values: Array) -> Array:
    """Column means that skip NaN, shape (columns,); NaN where a column has none."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=0) / known.sum(axis=0))


def figure(retention: Table, sizes: Sizes) -> Figure:
    """Gain against delay, and the share of the peak that is left at the longest common delay."""
    kind = codes(retention["family"], retention["complexity"])
    parts = [decays(retention.where(kind == k)) for k in range(kind.max() + 1)]
    first = [int(np.flatnonzero(kind == k)[0]) for k in range(kind.max() + 1)]
    names = [text.kind_name(str(retention["family"][i]), float(retention["complexity"][i])) for i in first]
    ordered = sorted(zip(names, parts, strict=True), key=lambda pair: pair[0])
    panels = []
    for name, curves in ordered:
        panels.append(panel(f"{name}: gain", _gains(name, curves, sizes), kind=name, wide=True))
        panels.append(
            panel(f"{name}: share of the peak left", _kept(name, curves, sizes), kind=name, wide=True)
        )
    return Figure(
        "retention",
        "Retention",
        _finding(ordered),
        join([sizes.legend(), grid(panels)]),
        "A burst of a never-seen task, then ordinary training. Gain is the fall of the answer's NLL among the"
        " task's own answers against just before the burst; below zero the model is worse than before. Lines"
        " are means over runs, faint points single runs. The gain may still grow right after the burst"
        " (optimizer momentum), so shares refer to its peak; a peak within two standard errors of zero over"
        " the probes counts as noise and has no share.",
        data(*(_numbers(name, curves) for name, curves in ordered)),
    )


def decays(rows: Table) -> list[Decay]:
    """One `Decay` per rung, smallest first, from the retention rows of one task kind."""
    named, at = rungs_of(rows)
    out = []
    for r, rung in enumerate(named):
        own = rows.where(at == r)
        delay, which = groups(own["delay_tokens"])
        run = codes(own["run_id"])
        shape = (int(run.max()) + 1, len(delay))
        cell = run * len(delay) + which
        seen = np.bincount(cell, minlength=shape[0] * shape[1])
        with np.errstate(invalid="ignore"):
            mean = np.bincount(cell, weights=own["gain"], minlength=shape[0] * shape[1]) / seen
        out.append(Decay(rung, delay, mean.reshape(shape), _standard_error(own["gain"], which, len(delay))))
    return out


def _standard_error(gain: Array, which: NDArray[np.int64], delays: int) -> Array:
    """Of the mean gain at each delay, shape (D,)."""
    count = np.bincount(which, minlength=delays)
    mean = np.bincount(which, weights=gain, minlength=delays) / count
    squares = np.bincount(which, weights=(gain - mean[which]) ** 2, minlength=delays)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 1, np.sqrt(squares / (count - 1) / count), np.nan))


def common_delay(curves: list[Decay]) -> float:
    """Longest delay that every rung was measured at or beyond, tokens."""
    return float(min(curve.delay[-1] for curve in curves))


def _share_left(delay: Array, gain: Array, at: float) -> float:
    known = np.isfinite(gain)
    if not known.any() or np.max(gain[known]) <= 0 or at < delay[known][0] or at > delay[known][-1]:
        return float("nan")
    return float(np.interp(np.log1p(at), np.log1p(delay[known]), gain[known]) / np.max(gain[known]))


def _gains(name: str, curves: list[Decay], sizes: Sizes) -> Markup:
    delays = np.concatenate([curve.delay for curve in curves])
    positive = delays[delays > 0]
    x = log_axis(positive, "Delay after the burst (tokens)", words=True)
    zero = x.low  # a delay of zero has no place on a log axis: it stands at the left edge, named
    if (delays == 0).any() and len(positive):
        x = log_axis(np.append(positive, positive.min() / 2.5), x.label, words=True)
        zero = float(positive.min() / 2.5)
        x = type(x)(x.low, x.high, x.label, True, ((zero, "0"), *(t for t in x.ticks if t[0] > zero * 1.6)))
    y = linear_axis(np.concatenate([curve.runs.ravel() for curve in curves]), "Gain (nats)", include=[0.0])
    axes = Panel(x, y, width=520, height=280)
    marks = [axes.level(0.0, "zero")]
    for i, curve in enumerate(curves):
        css, at = sizes.css(curve.rung), np.where(curve.delay > 0, curve.delay, zero)
        shift = (i - (len(curves) - 1) / 2) * 1.6
        marks += [
            axes.dots(at, row, f"{css} faint", radius=1.7, shift=shift)
            for row in curve.runs
            if len(curve.runs) > 1
        ]
        marks.append(axes.line(at, curve.gain, css))
        tips = [
            f"{size_name(curve.rung)}\nafter {text.count(d)} tokens\ngain {text.fixed(g, 3)} nats"
            for d, g in zip(curve.delay, curve.gain, strict=True)
        ]
        marks.append(axes.dots(at, curve.gain, css, tips, radius=2.6))
    return axes.drawn(
        f"Gain in nats against delay in tokens for {name}, one line per size. {_words(curves)}", *marks
    )


def _kept(name: str, curves: list[Decay], sizes: Sizes) -> Markup:
    delay = common_delay(curves)
    shares = [curve.kept(delay) for curve in curves]
    x = log_axis([curve.rung[1] for curve in curves], "Block parameters", words=True, pad=0.07)
    y = linear_axis(
        np.concatenate(shares), f"Share left after {text.count(delay)} tokens", include=[0.0, 1.0]
    )
    axes = Panel(x, y, width=520, height=280)
    marks = [axes.level(0.0, "zero"), axes.level(1.0)]
    marks.append(axes.line([c.rung[1] for c in curves], [s[0] for s in shares], "plain"))
    for curve, share in zip(curves, shares, strict=True):
        css = sizes.css(curve.rung)
        if len(share) > 2:
            marks.append(
                axes.dots(np.full(len(share) - 1, curve.rung[1]), share[1:], f"{css} faint", radius=2)
            )
        tip = (
            f"{size_name(curve.rung)}\n{text.percent(float(share[0]))} of the peak left after"
            f" {text.count(delay)} tokens"
        )
        marks.append(axes.dots([curve.rung[1]], share[:1], css, [tip], radius=4))
    return axes.drawn(f"Share of the peak gain left, by size, for {name}. {_words(curves)}", *marks)


def _words(curves: list[Decay]) -> str:
    """Largest against smallest at the longest common delay."""
    delay = common_delay(curves)

    def left(curve: Decay) -> str:
        share, size = float(curve.kept(delay)[0]), text.count(curve.rung[1])
        if not np.isfinite(share):
            return f"the {size} size had gained nothing beyond noise"
        if share <= 0:
            worse = " and is worse than before the burst" if curve.worse(delay) else ""
            return f"the {size} size keeps none{worse}"
        return f"the {size} size keeps {text.percent(share)} of its peak gain"

    both = ", ".join(left(curve) for curve in _ends(curves))
    return f"{text.count(delay)} tokens after a burst {both}."


def _ends(curves: list[Decay]) -> list[Decay]:
    return [curves[-1], curves[0]] if len(curves) > 1 else curves


def _finding(ordered: list[tuple[str, list[Decay]]]) -> str:
    name, curves = ordered[0]
    said = _words(curves)
    return (
        said
        if len(ordered) == 1
        else f"{said[:-1]} ({name}; {text.plural(len(ordered) - 1, 'other kind')} below)."
    )


def _numbers(name: str, curves: list[Decay]) -> Markup:
    rows = [
        [
            size_name(curve.rung),
            text.count(d),
            text.fixed(g, 3),
            text.percent(float(curve.kept(float(d))[0])),
            len(curve.runs),
        ]
        for curve in curves
        for d, g in zip(curve.delay, curve.gain, strict=True)
    ]
    columns = ["Block parameters (rung)", "Delay (tokens)", "Gain (nats)", "Share of peak", "Runs"]
    return table(columns, rows, f"Retention of {name}")
