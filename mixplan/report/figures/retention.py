"""What is left of an injection after a delay, by size.

Every injection of a run is drawn by itself: late ones have fewer delays before the run's end, so that a mean
over several would be of others at each delay.

Shape legend: n = rows, M = runs of one rung, D = delays of one rung (tokens, rising).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixplan.documents.table import Table
from mixplan.report import text
from mixplan.report.figures.base import Figure, Sizes, data, grid, panel, size_name, table
from mixplan.report.grouping import codes, groups, rungs_of
from mixplan.report.markup import Markup, join
from mixplan.report.plot import Panel, linear_axis, log_axis, log_axis_from_zero

Array = NDArray[np.float64]


NOISE_ERRORS = 2.0  # standard errors from which a mean gain is taken for more than noise


@dataclass(frozen=True)
class Decay:
    """One rung's gain after one injection."""

    rung: tuple[str, float]
    delay: Array
    """Shape (D,), tokens."""
    runs: Array
    """Mean over the probes of each run, shape (M, D), nats; all runs were measured at all delays."""
    error: Array
    """Standard error of the mean over all probes, shape (D,), nats; NaN where there is one probe."""

    @property
    def gain(self) -> Array:
        """Mean over runs, shape (D,), nats."""
        return np.asarray(self.runs.mean(axis=0))

    def gained(self) -> bool:
        """Whether the peak of the mean gain stands out of the noise."""
        peak = int(np.argmax(self.gain))
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


def figure(retention: Table, sizes: Sizes) -> Figure | None:
    """Gain against delay after every injection, and the share of the peak left at the longest common delay.

    None where nothing was measured before the learning rate began to decay.
    """
    drawn = [(kind, name, decays(rows)) for kind, name, rows in injections(retention)]
    ordered = [(kind, name, curves) for kind, name, curves in drawn if curves]
    if not ordered:
        return None
    panels = []
    for kind, name, curves in ordered:
        panels.append(panel(f"{name}: gain", _gains(name, curves, sizes), kind=kind, wide=True))
        panels.append(
            panel(f"{name}: share of the peak left", _kept(name, curves, sizes), kind=kind, wide=True)
        )
    return Figure(
        "retention",
        "Retention",
        _finding([(name, curves) for _, name, curves in ordered]),
        join([sizes.legend(), grid(panels)]),
        "A burst of a never-seen task, then ordinary training. Gain is the fall of the answer's NLL among the"
        " task's own answers against just before the burst; below zero the model is worse than before. Lines"
        " are means over runs, faint points single runs, at the delays that all of them were measured at"
        " before the learning rate began to decay. Every injection of a run is shown by itself, the earliest"
        " first. The gain may still grow right after the burst"
        " (optimizer momentum), so shares refer to its peak, and are 100 % where it was"
        " growing still; a peak within two standard errors of zero over"
        " the probes counts as noise and has no share.",
        data(*(_numbers(name, curves) for _, name, curves in ordered)),
    )


def injections(retention: Table) -> list[tuple[str, str, Table]]:
    """Task kind, name and rows of every injection (the runs' first, second …), without decaying rows."""
    if "decaying" in retention:
        retention = retention.where(retention["decaying"] != 1)
    if not len(retention):
        return []
    run, number, many = codes(retention["run_id"]), *np.zeros((2, len(retention)), dtype=np.int64)
    for own in (run == r for r in range(run.max() + 1)):
        times, number[own] = np.unique(retention["injected_at_tokens"][own], return_inverse=True)
        many[own] = len(times)
    part = codes(retention["family"], retention["complexity"], many, number)
    out = []
    for rows in (np.flatnonzero(part == p) for p in range(part.max() + 1)):
        i = rows[0]
        kind = text.kind_name(str(retention["family"][i]), float(retention["complexity"][i]))
        name = f"{kind}, injection {number[i] + 1} of {many[i]}" if many[i] > 1 else kind
        out.append((kind, name, retention.where(rows)))
    return sorted(out, key=lambda one: one[:2])


def decays(rows: Table) -> list[Decay]:
    """One `Decay` per rung, smallest first, from the rows of one injection.

    Delays at which not every probe of every run of the rung was measured are left out, and rungs without any.
    """
    named, at = rungs_of(rows)
    out = []
    for r, rung in enumerate(named):
        own = rows.where(at == r)
        which = groups(own["delay_tokens"])[1]
        probe = codes(own["run_id"], own["task"])
        seen = np.zeros((probe.max() + 1, which.max() + 1), dtype=bool)
        seen[probe, which] = True
        own = own.where(seen.all(axis=0)[which])
        if not len(own):
            continue
        delay, which = groups(own["delay_tokens"])
        run = codes(own["run_id"])
        shape = (int(run.max()) + 1, len(delay))
        cell = run * len(delay) + which
        mean = np.bincount(cell, weights=own["gain"]) / np.bincount(cell)
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
    if np.max(gain) <= 0 or at < delay[0] or at > delay[-1]:
        return float("nan")
    return float(np.interp(np.log1p(at), np.log1p(delay), gain) / np.max(gain))


def _gains(name: str, curves: list[Decay], sizes: Sizes) -> Markup:
    x, zero = log_axis_from_zero(
        np.concatenate([curve.delay for curve in curves]), "Delay after the burst (tokens)"
    )
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
    return said if len(ordered) == 1 else f"{said[:-1]} ({name}; {len(ordered) - 1} more below)."


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
