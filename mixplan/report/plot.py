"""Small plotting functions: axes and marks as inline SVG, styled by the page's classes.

Coordinates: data values come in as arrays of shape (n,); one panel is W × H pixels of its own viewBox.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixplan.report import text
from mixplan.report.markup import Markup, join, tag

Array = NDArray[np.float64]


# Ticks within a decade, sparse first: the first set that gives three ticks is taken.
_LOG_MULTIPLES = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))


@dataclass(frozen=True)
class Axis:
    """Maps data to the share 0…1 of the axis. `low` < `high`; both > 0 when `log`."""

    low: float
    high: float
    label: str
    log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()

    def share(self, values: ArrayLike) -> Array:
        """Position of each value between the ends, shape as given; not clipped."""
        given = np.asarray(values, dtype=np.float64)
        if self.log:
            return np.asarray(np.log(given / self.low) / math.log(self.high / self.low))
        return np.asarray((given - self.low) / (self.high - self.low))


def linear_axis(
    values: ArrayLike, label: str, include: Sequence[float] = (), ticks: int = 6, pad: float = 0.03
) -> Axis:
    """A linear axis around all finite values and `include`.

    Args:
        values: data.
        label: name and unit.
        include: values that must be on it, e.g. a baseline.
        ticks: about how many.
        pad: free space at each end, as a share of the axis; none at an end that is 0.
    """
    given = np.concatenate(
        [np.asarray(values, dtype=np.float64).ravel(), np.asarray(include, dtype=np.float64)]
    )
    given = given[np.isfinite(given)]
    low, high = (float(given.min()), float(given.max())) if len(given) else (0.0, 1.0)
    if high - low <= 1e-12 * max(abs(high), abs(low), 1e-300):
        low, high = low - (abs(low) / 10 or 0.5), high + (abs(high) / 10 or 0.5)
    room = pad * (high - low)
    low, high = low - (room if low != 0 else 0), high + (room if high != 0 else 0)
    step = _round_step((high - low) / ticks)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    short = decimals <= 4 and step < 1e5
    places = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    marks = tuple(
        (i * step, text.fixed(i * step, decimals) if short else text.general(round(i * step, decimals), 3))
        for i in places
    )
    return Axis(low, high, label, ticks=marks)


def log_axis(values: ArrayLike, label: str, words: bool = False, pad: float = 0.04) -> Axis:
    """A logarithmic axis around the positive finite values.

    Args:
        values: data.
        label: name and unit.
        words: ticks as 1 K, 10 K, 1 M instead of powers of ten.
        pad: free space at each end, as a share of the axis.
    """
    given = np.asarray(values, dtype=np.float64).ravel()
    given = given[np.isfinite(given) & (given > 0)]
    low, high = (float(given.min()), float(given.max())) if len(given) else (1.0, 10.0)
    if high / low < 5 / 3:  # the widest step between ticks, from 3 to 5: narrower axes may have none
        low, high = low / 1.5, high * 1.5
    room = (high / low) ** pad
    low, high = low / room, high * room
    every = max(1, math.ceil(math.log10(high / low) / 6))
    name = text.count if words else text.power
    exponents = [
        e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) if e % every == 0
    ]
    marks: list[float] = []
    for multiples in _LOG_MULTIPLES:
        marks = [m * 10.0**e for e in exponents for m in multiples if low <= m * 10.0**e <= high]
        if len(marks) >= 3:
            break
    return Axis(low, high, label, True, tuple((m, name(m)) for m in marks))


def log_axis_from_zero(values: ArrayLike, label: str) -> tuple[Axis, float]:
    """A logarithmic axis, and where a value of 0 stands on it: at the left edge, named."""
    given = np.asarray(values, dtype=np.float64)
    positive = given[given > 0]
    if (given > 0).all() or not len(positive):
        axis = log_axis(positive, label, words=True)
        return axis, axis.low
    zero = float(positive.min() / 2.5)
    axis = log_axis(np.append(positive, zero), label, words=True)
    ticks = ((zero, "0"), *(tick for tick in axis.ticks if tick[0] > zero * 1.6))
    return Axis(axis.low, axis.high, axis.label, True, ticks), zero


@dataclass(frozen=True)
class Panel:
    """One set of axes. Marks are returned as markup, in drawing order, and put together by `drawn`."""

    x: Axis
    y: Axis
    width: float = 340.0
    height: float = 236.0
    left: float = 46.0
    right: float = 12.0
    top: float = 12.0
    bottom: float = 40.0

    def px(self, values: ArrayLike) -> Array:
        """Horizontal pixel of each x, shape as given."""
        return np.asarray(self.left + self.x.share(values) * (self.width - self.left - self.right))

    def py(self, values: ArrayLike) -> Array:
        """Vertical pixel of each y, shape as given."""
        return np.asarray(
            self.height - self.bottom - self.y.share(values) * (self.height - self.top - self.bottom)
        )

    def frame(self) -> Markup:
        """Grid lines, tick labels and axis labels."""
        right, base = self.width - self.right, self.height - self.bottom
        parts = []
        for value, name in self.y.ticks:
            at = float(self.py(value))
            parts.append(tag("line", class_="grid", x1=self.left, x2=right, y1=at, y2=at))
            parts.append(tag("text", name, class_="tick", x=self.left - 6, y=at + 3.6, text_anchor="end"))
        for value, name in self.x.ticks:
            at = float(self.px(value))
            parts.append(tag("line", class_="ticks", x1=at, x2=at, y1=base, y2=base + 4))
            parts.append(tag("text", name, class_="tick", x=at, y=base + 16, text_anchor="middle"))
        parts.append(tag("line", class_="axis", x1=self.left, x2=right, y1=base, y2=base))
        middle = (self.left + right) / 2
        parts.append(
            tag("text", self.x.label, class_="label", x=middle, y=self.height - 6, text_anchor="middle")
        )
        upright = (self.top + base) / 2
        parts.append(
            tag(
                "text",
                self.y.label,
                class_="label",
                text_anchor="middle",
                transform=f"translate(11 {upright:.1f}) rotate(-90)",
            )
        )
        return join(parts)

    def line(self, x: ArrayLike, y: ArrayLike, class_: str) -> Markup:
        """A polyline through the finite points, broken at gaps and where it leaves the panel's y range."""
        values = np.asarray(y, dtype=np.float64)
        slack = 1e-9 * (self.y.high - self.y.low)
        inside = (values >= self.y.low - slack) & (values <= self.y.high + slack)
        xs, ys = self.px(x), self.py(np.where(inside, values, np.nan))
        return (
            tag("path", class_=f"line {class_}", d=_path(xs, ys))
            if np.isfinite(xs + ys).any()
            else Markup("")
        )

    def band(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, class_: str) -> Markup:
        """The area between two curves, where all are finite."""
        x, low, high = (np.asarray(v, dtype=np.float64) for v in (x, low, high))
        keep = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
        if keep.sum() < 2:
            return Markup("")
        low, high = (np.clip(v[keep], self.y.low, self.y.high) for v in (low, high))
        xs = np.concatenate([self.px(x[keep]), self.px(x[keep])[::-1]])
        ys = np.concatenate([self.py(low), self.py(high)[::-1]])
        return tag("path", class_=f"band {class_}", d=f"{_path(xs, ys)}Z")

    def dots(
        self,
        x: ArrayLike,
        y: ArrayLike,
        class_: str,
        tips: Sequence[str] = (),
        radius: float = 3.2,
        shift: float = 0.0,
    ) -> Markup:
        """A circle per finite point with its values as a tooltip; `shift` moves it sideways, in pixels."""
        xs, ys = self.px(x) + shift, self.py(y)
        parts = []
        for i in np.flatnonzero(np.isfinite(xs) & np.isfinite(ys)):
            tip = tag("title", tips[i]) if len(tips) else None
            parts.append(
                tag("circle", tip, class_=f"dot {class_}", cx=float(xs[i]), cy=float(ys[i]), r=radius)
            )
        return join(parts)

    def whiskers(
        self,
        x: ArrayLike,
        low: ArrayLike,
        high: ArrayLike,
        class_: str,
        shift: float = 0.0,
        across: bool = False,
    ) -> Markup:
        """A bar from `low` to `high` per point: upright at x, or `across` at height x."""
        if across:
            ys, lows, highs = self.py(x) + shift, self.px(low), self.px(high)
        else:
            ys, lows, highs = self.px(x) + shift, self.py(low), self.py(high)
        d = [
            (
                f"M{lows[i]:.1f} {ys[i]:.1f}H{highs[i]:.1f}"
                if across
                else f"M{ys[i]:.1f} {lows[i]:.1f}V{highs[i]:.1f}"
            )
            for i in np.flatnonzero(np.isfinite(ys) & np.isfinite(lows) & np.isfinite(highs))
        ]
        return tag("path", class_=f"whisker {class_}", d="".join(d)) if d else Markup("")

    def level(self, value: float, class_: str = "reference") -> Markup:
        """A horizontal line across the panel."""
        at = float(self.py(value))
        return tag("line", class_=class_, x1=self.left, x2=self.width - self.right, y1=at, y2=at)

    def drawn(self, describe: str, *marks: Markup) -> Markup:
        """The finished SVG; `describe` is what a screen reader says."""
        return svg(self.width, self.height, describe, self.frame(), *marks)


def svg(width: float, height: float, describe: str, *marks: Markup) -> Markup:
    """An accessible inline SVG that scales with its column."""
    return tag("svg", *marks, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=describe)


def _path(xs: Array, ys: Array) -> str:
    out, pen = [], "M"
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(x) and math.isfinite(y):
            out.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(out)


def _round_step(raw: float) -> float:
    """The smallest of 1, 2, 5 × 10^k that is at least `raw`: one significant digit shows ticks exactly."""
    base = 10.0 ** math.floor(math.log10(raw))
    return next(step * base for step in (1, 2, 5, 10) if step * base >= raw * (1 - 1e-9))
