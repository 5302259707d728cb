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
from mixplan.laws.bootstrap import interval_90, rounded
from mixplan.laws.evidence import FloatArray
from mixplan.laws.loss_posterior import EXPONENT_PRIOR, NOISES, R_STAR, LossPosterior, effective_tokens
from mixplan.laws.loss_rows import MAX_CORRELATION, LossRows, choose, correlation, loss_rows
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
    "predict",
    "unmeasured_exponents",
]

NAME = "power law in size and tokens"
PARAMETERS = ("E", "A", "alpha", "B", "beta")
BEFORE_DECAY, REPETITION = "before_decay", "repetition_constant"
LARGE_NOISE = 0.05
"""Relative scatter of a loss between runs of the same size and length above which something is wrong."""
LEARNED_SHARE = 0.5
"""Share of the prior's variance of ln exponent that rows must remove for it to count as measured."""
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
    peak = posterior.peak()
    drawn = posterior.draws(peak, draws, generator)
    table = posterior.parameters(drawn)
    values = posterior.parameters(peak[None, :])[0]
    learned = {
        f"{name}_measured": float(np.clip(1.0 - np.var(drawn[:, at]) / EXPONENT_PRIOR[1] ** 2, 0.0, 1.0))
        for name, at in (("alpha", 3), ("beta", 4))
    }
    settings = dict(learned)
    settings |= {f"{_SIZE}{at}": float(size) for at, size in enumerate(np.unique(used.block_params), 1)}
    if not posterior.with_repeats:
        settings[REPETITION] = R_STAR
    if np.isfinite(used.unique_tokens):
        settings["unique_tokens"] = used.unique_tokens
    worth = float(values[posterior.names.index(REPETITION)]) if posterior.with_repeats else R_STAR
    effective = effective_tokens(used.common_tokens, used.unique_tokens, worth)
    law = FittedLaw(
        law=NAME,
        formula="lm_loss = E + A/block_params^alpha + B/common tokens^beta (+ before_decay before the end)",
        source="arXiv 2203.15556, eq. 2; repeats as in arXiv 2305.16264, eq. 5",
        parameters=posterior.names,
        values=values.tolist(),
        draws=rounded(table),
        ranges={
            "block_params": _range(used.block_params),
            "tokens": _range(effective),
            "common_share": _range(used.common_share),
        },
        settings=settings,
        rows=len(used.loss),
        runs=len(np.unique(used.run)),
        residual=posterior.residual(peak) * float(np.mean(used.loss)),
        warnings=_warnings(used, finals_only, posterior, values, table, learned),
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
    return LossForecast(losses[0], low, high, run_low, run_high, reasons)


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
            span = law.ranges.get(axis)
            if span is not None and value > span.high * (1.0 + EDGE_TOLERANCE):
                reasons.append(f"{what} {number(value)} is above the largest fitted {number(span.high)}")
            elif span is not None and value < span.low * (1.0 - EDGE_TOLERANCE):
                reasons.append(f"{what} {number(value)} is below the smallest fitted {number(span.low)}")
        if repeats and REPETITION not in law.parameters:
            reasons.append(
                f"common data is repeated, which no fitted run did: R* = {R_STAR:g} is from arXiv 2305.16264"
            )
        found.append(reasons)
    return found


def _range(values: FloatArray) -> Range:
    return Range(low=float(values.min()), high=float(values.max()))


def _warnings(
    rows: LossRows,
    finals_only: bool,
    posterior: LossPosterior,
    values: FloatArray,
    table: FloatArray,
    learned: dict[str, float],
) -> list[str]:
    found = []
    if not finals_only:
        found.append(
            "LM loss: too few training lengths at the end of runs, so checkpoints before the learning-rate "
            "decay were used too, with a fitted offset; the dependence on tokens is that of one run's own "
            "course"
        )
    elif correlation(rows) >= MAX_CORRELATION:
        found.append(
            "LM loss: tokens grow with size in these runs, so what size does and what tokens do cannot be "
            "told apart; only runs along that same line can be forecast"
        )
    for what, column, exponent in (
        ("sizes", rows.block_params, "alpha"),
        ("training lengths", rows.common_tokens, "beta"),
    ):
        count = len(np.unique(column))
        if count < 3 or learned[f"{exponent}_measured"] < LEARNED_SHARE:
            found.append(
                f"LM loss: {count} {what} do not determine {exponent}, which then rests on a prior around "
                f"0.3; do not extrapolate to other {what}; measure more {what}, further apart"
            )
    low, high = interval_90(table[:, 0])
    if high - low > 0.5 * float(np.median(rows.loss)):
        found.append(
            f"LM loss: the irreducible loss E is not pinned down (90 % interval {low:.3g} to {high:.3g} "
            "nats); far extrapolation in size or tokens is not supported"
        )
    if not posterior.with_repeats:
        known = "no run repeats common data" if np.isfinite(rows.unique_tokens) else (
            "the tables do not say how much common data there is, so it is taken that no run repeats it"
        )  # fmt: skip
        found.append(f"LM loss: {known}; what repeats cost is imported (R* = {R_STAR:g}, arXiv 2305.16264)")
    return found + _contradictions(rows, posterior, values)


def _contradictions(rows: LossRows, posterior: LossPosterior, values: FloatArray) -> list[str]:
    """Losses that do not go together: single ones apart, scatter beyond that of seeds, no fall."""
    found = []
    apart = posterior.outlying
    if len(apart):
        first = apart[np.lexsort((rows.tokens[apart], rows.block_params[apart]))[0]]
        found.append(
            f"LM loss: {len(apart)} of {len(rows.loss)} losses lie far from all others and are left out, "
            f"first {rows.loss[first]:.4g} at {number(rows.block_params[first])} block parameters and "
            f"{number(rows.tokens[first])} tokens; is it in nats per token, on the same text?"
        )
    names = posterior.names
    scatter = float(np.sqrt(sum(values[names.index(name)] ** 2 for name in NOISES)))
    if scatter > LARGE_NOISE:
        found.append(
            f"LM loss: runs scatter by {scatter:.0%} around the law, where seeds usually differ by a percent "
            "or less: the losses contradict each other, or no such law holds for them"
        )
    for what, column in (("size", rows.block_params), ("tokens", rows.common_tokens)):
        log_x, log_loss = np.log(column), np.log(rows.loss)
        if np.polyfit(log_x, log_loss, 1)[0] >= 0:
            found.append(
                f"LM loss: it does not fall with {what} in these rows, which the law cannot follow; its "
                f"forecasts for other {what} are not supported"
            )
    return found
