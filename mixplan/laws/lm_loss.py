"""The LM-loss law on common data.

    L(N, D') = E + A/N^α + B/D'^β        (arXiv 2203.15556, eq. 2)
    D' = common tokens, repeats discounted (arXiv 2305.16264, eq. 5)

L in nats per token, N block parameters. Common tokens are the share of common data in the training tokens:
1 less what the `sources` table says was mixed in. Exponents are fitted, never imported.

Which rows: final checkpoints where they can tell N from D, else all checkpoints from a fifth of the run on
(before that, warm-up bends the curve), plus `before_decay` nats for those before the end, which were measured
ahead of the learning-rate decay.

Uncertainty: draws from the posterior of mixplan.laws.loss_posterior. How sizes depart from a power law
(`size_noise`), the scatter between runs (`run_noise`, of all of a run's losses together) and that of single
losses (`noise`) are parameters of their own, so the interval for the mean of many runs of a size and the one
for a new run differ.

Shape legend: n = rows or cells, D = draws, K = parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from mixplan.documents.calibration import FittedLaw, Range
from mixplan.errors import InputError
from mixplan.laws.drawn import rounded
from mixplan.laws.evidence import FloatArray
from mixplan.laws.loss_posterior import NOISES, R_STAR, REPETITION, LossPosterior, effective_tokens
from mixplan.laws.loss_rows import LossRows, choose, loss_rows
from mixplan.laws.loss_warnings import LEARNED_SHARE, warnings
from mixplan.units import number

__all__ = [
    "BEFORE_DECAY",
    "NAME",
    "PARAMETERS",
    "LossForecast",
    "fit",
    "forecast",
    "loss_rows",
    "measured_sizes",
    "outside",
    "predict",
    "unmeasured_exponents",
]

NAME = "power law in size and tokens"
PARAMETERS = ("E", "A", "alpha", "B", "beta")
BEFORE_DECAY = "before_decay"
EDGE_TOLERANCE = 0.01
"""A value within this relative distance of a fitted range counts as inside."""
_SIZE = "block_params_"
_NORMAL = ndtri((np.arange(20) + 0.5) / 20)
"""Twenty equally likely values of a standard normal."""


@dataclass(frozen=True)
class LossForecast:
    """Losses of finished runs on common data, nats per token; arrays have shape (n,)."""

    loss: FloatArray
    low: FloatArray
    """Lower end of the 90 % interval for the mean of many runs of the size; NaN for a law without draws."""
    high: FloatArray
    run_low: FloatArray
    """Lower end of the 90 % interval for one new run."""
    run_high: FloatArray
    extrapolated: list[list[str]]
    """Per cell, why it lies outside what was measured; empty list: inside."""


def fit(rows: LossRows, draws: int, generator: np.random.Generator) -> tuple[FittedLaw | None, list[str]]:
    """Fit the law; None, with the reason, when the rows have one size or one token count only."""
    used, finals_only = choose(rows)
    sizes, lengths = len(np.unique(used.block_params)), len(np.unique(used.common_tokens))
    if sizes < 2 or lengths < 2:
        missing = "size" if sizes < 2 else "token count"
        return None, [f"LM loss: measured at one {missing} only, so no law of size and tokens was fitted"]
    posterior = LossPosterior(used, with_offset=not finals_only)
    counted = used.where(np.setdiff1d(np.arange(len(used.loss)), posterior.outlying))
    if len(np.unique(counted.block_params)) < 2 or len(np.unique(counted.common_tokens)) < 2:
        return None, [
            f"LM loss: {len(posterior.outlying)} of {len(used.loss)} losses lie far from all others, and "
            "without them there is one size or one token count only, so no law was fitted; check their units"
        ]
    peak = posterior.peak()
    drawn = posterior.draws(peak, draws, generator)
    table = posterior.parameters(drawn)
    values = posterior.parameters(peak[None, :])[0]
    measured = posterior.measured(drawn)
    settings = {f"{name}_measured": share for name, share in measured.items()}
    settings |= {f"{_SIZE}{at}": float(size) for at, size in enumerate(np.unique(counted.block_params), 1)}
    if not posterior.with_repeats:
        settings[REPETITION] = R_STAR
    if np.isfinite(used.unique_tokens):
        settings["unique_tokens"] = used.unique_tokens
    worth = float(values[posterior.names.index(REPETITION)]) if posterior.with_repeats else R_STAR
    effective = effective_tokens(counted.common_tokens, used.unique_tokens, worth)
    law = FittedLaw(
        law=NAME,
        formula="lm_loss = E + A/block_params^alpha + B/common tokens^beta (+ before_decay before the end)",
        source="arXiv 2203.15556, eq. 2; repeats as in arXiv 2305.16264, eq. 5",
        parameters=posterior.names,
        values=values.tolist(),
        draws=rounded(table),
        ranges={
            "block_params": _range(counted.block_params),
            "tokens": _range(effective),
            "common_share": _range(counted.common_share),
        },
        settings=settings,
        rows=len(counted.loss),
        runs=len(np.unique(counted.run)),
        residual=posterior.residual(peak) * float(np.mean(counted.loss)),
        warnings=warnings(used, finals_only, posterior, values, table, measured),
    )
    return law, []


def measured_sizes(law: FittedLaw) -> list[float]:
    """Block parameters that the law was fitted on, ascending; in laws that do not list them, both ends."""
    found = sorted(value for name, value in law.settings.items() if name.startswith(_SIZE))
    return found or sorted({law.ranges["block_params"].low, law.ranges["block_params"].high})


def unmeasured_exponents(law: FittedLaw) -> list[str]:
    """Exponents that the rows hardly moved from the prior; none in laws that do not say."""
    return [name for name in ("alpha", "beta") if law.settings.get(f"{name}_measured", 1.0) < LEARNED_SHARE]


def predict(parameters: FloatArray, block_params: ArrayLike, tokens: ArrayLike) -> FloatArray:
    """LM loss of finished runs in nats per token, by (common, effective) tokens; everything broadcasts.

    Args:
        parameters: begins with E, A, α, B, β along the last axis; the axes before it are added in front.
    """
    e, a, alpha, b, beta = (np.asarray(parameters)[..., at] for at in range(5))
    sizes, lengths = np.asarray(block_params, dtype=float), np.asarray(tokens, dtype=float)
    shape = (*e.shape, *(1,) * np.broadcast(sizes, lengths).ndim)
    e, a, alpha, b, beta = (one.reshape(shape) for one in (e, a, alpha, b, beta))
    return np.asarray(e + a * sizes**-alpha + b * lengths**-beta)


def forecast(
    law: FittedLaw,
    block_params: ArrayLike,
    tokens: ArrayLike,
    common_share: ArrayLike = 1.0,
    unique_tokens: ArrayLike = np.inf,
) -> LossForecast:
    """Losses with intervals and reasons for doubt; arguments broadcast to shape (n,).

    Args:
        law: of `fit`.
        block_params: N.
        tokens: training tokens.
        common_share: share of common data in them, in (0, 1].
        unique_tokens: tokens of common data that there are; what exceeds them is repeated.

    Raises:
        InputError: a share outside (0, 1], or a law without noises (of an older mixplan).
    """
    missing = [name for name in (*PARAMETERS, *NOISES) if name not in law.parameters]
    if missing:
        raise InputError(
            f"calibration: the LM-loss law lacks {', '.join(missing)}; write it anew with `mixplan fit`"
        )
    sizes, lengths, shares, unique = (
        np.atleast_1d(one).astype(float)
        for one in np.broadcast_arrays(block_params, tokens, common_share, unique_tokens)
    )
    if ((shares <= 0) | (shares > 1)).any():
        worst = shares[(shares <= 0) | (shares > 1)][0]
        raise InputError(f"common_share must lie above 0 and at most at 1, not at {worst:g}")
    table = np.array([law.values, *law.draws])  # (1 + D, K)
    constant = table[:, [law.parameters.index(REPETITION)]] if REPETITION in law.parameters else R_STAR
    effective = effective_tokens((shares * lengths)[None, :], unique[None, :], constant)
    losses = np.stack([
        predict(row, sizes, seen)
        for row, seen in zip(table, np.broadcast_to(effective, (len(table), len(sizes))), strict=True)
    ])  # fmt: skip
    reasons = _reasons(
        law, sizes, np.broadcast_to(effective, losses.shape)[0], shares, shares * lengths > unique
    )
    if not law.draws:
        nothing = np.full(len(sizes), np.nan)
        return LossForecast(losses[0], nothing, nothing, nothing, nothing, reasons)
    noise, run_noise, size_noise = (table[1:, law.parameters.index(name)] for name in NOISES)  # (D,) each
    low, high = _quantiles(losses[1:], size_noise)
    run_low, run_high = _quantiles(losses[1:], np.sqrt(size_noise**2 + run_noise**2 + noise**2))
    # A new run is never known better than the mean; with few draws their quantiles could say so.
    run_low, run_high = np.minimum(run_low, low), np.maximum(run_high, high)
    return LossForecast(losses[0], low, high, run_low, run_high, reasons)


def outside(law: FittedLaw, axis: str, value: float, what: str) -> str | None:
    """Why a value lies outside the law's range of an axis, in words; None where it does not."""
    span = law.ranges.get(axis)
    if span is not None and value > span.high * (1.0 + EDGE_TOLERANCE):
        return f"{what} {number(value)} is above the largest fitted {number(span.high)}"
    if span is not None and value < span.low * (1.0 - EDGE_TOLERANCE):
        return f"{what} {number(value)} is below the smallest fitted {number(span.low)}"
    return None


def _quantiles(losses: FloatArray, scatter: FloatArray) -> tuple[FloatArray, FloatArray]:
    """90 % interval, shape (n,) each, of draws (D, n) that scatter by relative amounts (D,)."""
    there = losses[:, None, :] * np.exp(scatter[:, None] * _NORMAL)[:, :, None]
    low, high = np.quantile(there.reshape(-1, losses.shape[1]), [0.05, 0.95], axis=0)
    return low, high


def _reasons(
    law: FittedLaw, sizes: FloatArray, tokens: FloatArray, shares: FloatArray, repeated: FloatArray
) -> list[list[str]]:
    """Per cell, why it lies outside what was measured."""
    found = []
    for size, length, share, repeats in zip(sizes, tokens, shares, repeated, strict=True):
        reasons = []
        for axis, what, value in (
            ("block_params", "block_params", size),
            ("tokens", "common tokens", length),
            ("common_share", "common_share", share),
        ):
            reason = outside(law, axis, float(value), what)
            reasons += [reason] if reason else []
        if repeats and REPETITION not in law.parameters:
            reasons.append(
                f"common data is repeated, which no fitted run did: R* = {R_STAR:g} is from arXiv 2305.16264"
            )
        found.append(reasons)
    return found


def _range(values: FloatArray) -> Range:
    return Range(low=float(values.min()), high=float(values.max()))
