"""Forecasts of a fitted source law, with intervals for the mean over seeds and for a new run.

Beyond a fitted range of size, tokens or share, the distance (in logarithms) is multiplied in every draw by
1 + ε, ε ~ N(0, 0.5²) cut at −1: a slope is known there only to within half of itself. So intervals widen
with the distance, and no draw ever rises with share, size or tokens. Where the size term is used up that no
longer widens anything, so the misfit grows too: by itself for every time that the fitted range fits into
the distance. Both are choices, not measurements.

Shape legend: n = cells, D = draws, Q = nodes of a normal distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from mixplan.documents.calibration import FittedLaw
from mixplan.errors import InputError
from mixplan.laws.evidence import FloatArray
from mixplan.laws.source_forms import FORMS, NOISE, Inputs, log_bits
from mixplan.units import number

DOUBT = 0.5
"""Standard deviation of ε."""
TOLERANCE = 0.01
"""A value within this relative distance of a fitted range counts as inside."""
LEAST_SPAN = float(np.log(2))
"""What a range counts as at least, in logarithms, where distances beyond it are measured."""
NODES = norm.ppf((np.arange(30) + 0.5) / 30)
"""Middles of 30 parts of equal probability: with one draw alone the 5 % quantile is exact; with draws that
are spread like the scatter it is 1 % too near."""
CHUNK = 4_000_000
"""Numbers in one array; more cells are taken in turn."""
AXES = ("block_params", "tokens", "share", "epochs")


@dataclass(frozen=True)
class SourceForecast:
    """Bits per byte of n cells; arrays of shape (n,)."""

    bits: FloatArray
    """Median over draws of the mean over seeds."""
    mean_low: FloatArray
    """90 % interval of the mean over seeds: parameters, and where the form does not fit."""
    mean_high: FloatArray
    low: FloatArray
    """90 % interval of one new run: also what seeds differ by."""
    high: FloatArray
    extrapolated: list[list[str]]
    """Per cell, why it lies outside what was measured; empty list: inside."""


def predict(
    law: FittedLaw,
    share: FloatArray | float,
    block_params: FloatArray | float,
    tokens: FloatArray | float,
    epochs: FloatArray | float,
) -> SourceForecast:
    """Bits per byte at the end of a run; arguments of shape (n,) or scalars.

    Args:
        law: one of `Calibration.sources`.
        share: tokens of the source per training token, 0 … 1.
        block_params: parameters without input embedding and unembedding.
        tokens: training tokens of the run.
        epochs: how often the run reads the source: share × tokens ÷ its tokens.

    Raises:
        InputError: the law is of an unknown form, or an argument is out of its range.
    """
    check_form(law)
    given = [np.atleast_1d(np.asarray(value, dtype=float)) for value in (block_params, tokens, share, epochs)]
    at = Inputs(*np.broadcast_arrays(*given))
    _check(at)
    table = np.array(law.draws if law.draws else [law.values])
    named = {name: table[:, index] for index, name in enumerate(law.parameters)}
    curve = log_bits(FORMS[law.law], named, doubted(at, law, doubts(law)))  # (D, n)
    misfit, run, row = (named[name][:, None] for name in NOISE)
    misfit = misfit * distance(law, at, AXES[:3])
    mean_low, mean_high = _interval(curve, misfit)
    low, high = _interval(curve, np.sqrt(misfit**2 + run**2 + row**2))
    return SourceForecast(
        bits=np.exp(np.median(curve, axis=0)),
        mean_low=mean_low,
        mean_high=mean_high,
        low=low,
        high=high,
        extrapolated=[
            _reasons(law, dict(zip(AXES, cell, strict=True))) for cell in zip(*_columns(at), strict=True)
        ],
    )


def check_form(law: FittedLaw) -> None:
    """Raises:
    InputError: the law is of an unknown form.
    """
    if law.law not in FORMS:
        raise InputError(
            f"source {law.subject}: its law is {law.law!r}; known: {', '.join(sorted(FORMS))}; write the "
            "calibration anew with `mixplan fit`"
        )


def _interval(curve: FloatArray, spread: FloatArray) -> tuple[FloatArray, FloatArray]:
    """90 % of exp(curve + spread·normal), each of shape (n,); curve and spread of shape (D, n)."""
    per_cell = len(NODES) * len(curve)
    step = max(1, CHUNK // per_cell)
    ends = []
    for start in range(0, curve.shape[1], step):
        part = slice(start, start + step)
        around = curve[None, :, part] + NODES[:, None, None] * spread[None, :, part]  # (Q, D, cells)
        ends.append(np.quantile(around.reshape(per_cell, -1), [0.05, 0.95], axis=0))
    low, high = np.exp(np.concatenate(ends, axis=1))
    return low, high


def distance(law: FittedLaw, at: Inputs, axes: Sequence[str]) -> FloatArray:
    """1 inside the fitted ranges; beyond, 1 more for every time that a range fits into the distance, (n,).

    Args:
        axes: those of AXES along which distances count.
    """
    found = np.ones(len(at.tokens))
    for axis, values in zip(AXES, _columns(at), strict=True):
        if axis not in axes:
            continue
        low, high = law.ranges[axis].low, law.ranges[axis].high
        inside = np.clip(values, low, high)
        ratio = np.divide(values, inside, out=np.ones_like(values), where=(inside > 0) & (values > 0))
        span = max(np.log(high / low), LEAST_SPAN) if low > 0 else LEAST_SPAN
        # A share of 0 that was not measured is taken to be one range away.
        found += np.abs(np.log(ratio)) / span + ((values <= 0) & (low > 0))
    return found


def doubts(law: FittedLaw) -> FloatArray:
    """1 + ε of every draw for block_params, tokens and share, shape (3, D); 1 where there are no draws."""
    draws = len(law.draws)
    if not draws:
        return np.ones((3, 1))
    return np.maximum(1.0 + np.random.default_rng(0).normal(0.0, DOUBT, size=(3, draws)), 0.0)


def doubted(at: Inputs, law: FittedLaw, factor: FloatArray) -> Inputs:
    """The cells as each draw sees them beyond the fitted ranges; arrays of shape (D, n).

    Args:
        factor: of `doubts`, shape (3, D).
    """
    seen = [
        _stretched(values, law.ranges[axis].low, law.ranges[axis].high, factor[index][:, None])
        for index, (axis, values) in enumerate(zip(AXES[:3], _columns(at), strict=False))
    ]
    return Inputs(seen[0], seen[1], np.minimum(seen[2], 1.0), np.broadcast_to(at.epochs, seen[0].shape))


def _stretched(values: FloatArray, low: float, high: float, factor: FloatArray) -> FloatArray:
    """Values, shape (n,), with the logarithmic distance from a range multiplied by each factor, (D, 1)."""
    inside = np.clip(values, low, high)
    beyond = np.divide(values, inside, out=np.ones_like(values), where=inside > 0)
    with np.errstate(divide="ignore"):
        return (
            inside * np.exp(np.log(beyond) * factor)
            if (beyond > 0).all()
            else _to_zero(inside, beyond, factor)
        )


def _to_zero(inside: FloatArray, beyond: FloatArray, factor: FloatArray) -> FloatArray:
    """As `_stretched` where a share is 0 and was never measured there: 0 stays 0 for every draw."""
    safe = np.where(beyond > 0, beyond, 1.0)
    return np.where(beyond > 0, inside * np.exp(np.log(safe) * factor), 0.0)


def _columns(at: Inputs) -> tuple[FloatArray, ...]:
    return at.block_params, at.tokens, at.share, at.epochs


def _check(at: Inputs) -> None:
    problems = []
    for axis, values, low in zip(AXES, _columns(at), (1.0, 1.0, 0.0, 0.0), strict=True):
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= low)))
        if len(bad):
            problems.append(f"{axis} must be a number from {low:g}; cell {bad[0] + 1} has {values[bad[0]]:g}")
    if (at.share > 1).any():
        problems.append(f"share is a part of the training tokens, at most 1; given {at.share.max():g}")
    if problems:
        raise InputError(problems)


def _reasons(law: FittedLaw, cell: dict[str, float]) -> list[str]:
    found = []
    for axis, value in cell.items():
        low, high = law.ranges[axis].low, law.ranges[axis].high
        if value > high * (1 + TOLERANCE):
            far = f"{_ratio(value / high)} above the largest" if high > 0 else "above the largest"
            found.append(f"{axis} {number(value)} is {far} fitted {number(high)}")
        elif value < low * (1 - TOLERANCE) and axis != "epochs":
            far = f"{_ratio(low / value)} below the smallest" if value > 0 else "below the smallest"
            found.append(f"{axis} {number(value)} is {far} fitted {number(low)}")
    return found


def _ratio(value: float) -> str:
    return f"{value:.2f}×" if value < 1e6 else f"{value:.1e}×"
