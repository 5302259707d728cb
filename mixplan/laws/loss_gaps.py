"""Which LM-loss gaps between two sizes more data can close, and which only size (arXiv 2605.29548, sec. 2).

With L(N, D) = E + A/N^α + B/D^β and 6·N·D FLOPs of compute (arXiv 2001.08361, sec. 2.1):

    tokens of a compute-optimal N     D_C(N) = (β·B/(α·A))^(1/β)·N^(α/β)     from ∂L/∂ln N = ∂L/∂ln D
    its loss                          L_C(N) = E + (1 + α/β)·A/N^α
    with unlimited data               L_∞(N) = E + A/N^α
    above E, by compute               (L_C − E) ∝ C^-γ,  γ = α·β/(α + β)

Data can take a small model S to a compute-optimal large one's loss iff L_∞(S) < L_C(large), that is iff
large/S < (1 + α/β)^(1/α), whatever E, A and B are. So the answer hangs on the exponents alone, and is only as
good as they are known: all numbers come with intervals over the law's draws.

Shape legend: D = draws, S = sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from mixplan.documents import Calibration
from mixplan.documents.calibration import FittedLaw
from mixplan.errors import InputError, NoAnswer
from mixplan.laws.drawn import interval_90
from mixplan.laws.evidence import FloatArray
from mixplan.laws.lm_loss import (
    EDGE_TOLERANCE,
    NAME,
    PARAMETERS,
    measured_sizes,
    outside,
    unmeasured_exponents,
)
from mixplan.units import number

Interval = tuple[float | None, float | None, float | None]
"""Estimate and 90 % interval; none where it is infinite, or, of the interval, where the law has no draws."""


@dataclass(frozen=True)
class Gap:
    """Two sizes, each trained compute-optimally, and what closes the gap in loss between them."""

    small_block_params: float
    large_block_params: float
    gap_nats: Interval
    """L_C(small) − L_C(large)."""
    by_data_nats: Interval
    """Of that, what more data for the small size closes."""
    by_size_nats: Interval
    """Of that, what no amount of data closes."""
    tokens_to_match: Interval
    """For the small size to reach L_C(large); none: no amount does."""
    closable_share: float | None
    """Share of the draws in which data can close the whole gap; none without draws."""
    closable: bool
    """Whether it can by the point estimate."""
    extrapolated: list[str]
    """What of this lies outside what was measured."""


@dataclass(frozen=True)
class Size:
    """One size, trained compute-optimally or with unlimited data."""

    block_params: float
    optimal_tokens: Interval
    optimal_loss: Interval
    """L_C, nats per token."""
    unlimited_loss: Interval
    """L_∞, nats per token."""
    only_by_size_below: Interval
    """The largest size that cannot reach this one's L_C with unlimited data."""


@dataclass(frozen=True)
class LossGaps:
    """The argument in numbers."""

    alpha: Interval
    beta: Interval
    gamma: Interval
    """Exponent of the compute-optimal loss above E in compute."""
    irreducible_nats: Interval
    size_ratio_bound: Interval
    """(1 + α/β)^(1/α): the size ratio from which data cannot close the gap."""
    sizes: list[Size]
    gaps: list[Gap]
    warnings: list[str]


def optimal_tokens(parameters: FloatArray, block_params: ArrayLike) -> FloatArray:
    """Tokens at which a size is the best use of 6·N·D FLOPs; parameters of shape (…, 5 or more)."""
    _, a, alpha, b, beta = _parts(parameters)
    log_ratio = np.log(beta * b) - np.log(alpha * a)
    return np.asarray(np.exp((log_ratio + alpha * np.log(block_params)) / beta))


def optimal_loss(parameters: FloatArray, block_params: ArrayLike) -> FloatArray:
    """L_C: loss of a size at its `optimal_tokens`, nats per token."""
    e, a, alpha, _, beta = _parts(parameters)
    return np.asarray(e + (1.0 + alpha / beta) * a * np.asarray(block_params, dtype=float) ** -alpha)


def unlimited_loss(parameters: FloatArray, block_params: ArrayLike) -> FloatArray:
    """L_∞: loss of a size with unlimited data, nats per token."""
    e, a, alpha, _, _ = _parts(parameters)
    return np.asarray(e + a * np.asarray(block_params, dtype=float) ** -alpha)


def tokens_to_reach(parameters: FloatArray, block_params: ArrayLike, loss: ArrayLike) -> FloatArray:
    """Tokens with which a size reaches a loss; infinite where no number does."""
    _, _, _, b, beta = _parts(parameters)
    left = np.asarray(loss, dtype=float) - unlimited_loss(parameters, block_params)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(np.where(left > 0, np.exp((np.log(b) - np.log(left)) / beta), np.inf))


def size_ratio_bound(parameters: FloatArray) -> FloatArray:
    """(1 + α/β)^(1/α): below this ratio of sizes, data can close the gap."""
    _, _, alpha, _, beta = _parts(parameters)
    return np.asarray((1.0 + alpha / beta) ** (1.0 / alpha))


def loss_gaps(calibration: Calibration, small: float | None = None, large: float | None = None) -> LossGaps:
    """The gaps between all pairs of ladder sizes, or those of the sizes given.

    Args:
        calibration: with an LM-loss law.
        small, large: block parameters; one alone is compared with every ladder size on its other side.

    Raises:
        NoAnswer: the calibration has no LM-loss law.
        InputError: sizes that are not positive or not in order, a law of another form.
    """
    law = calibration.lm_loss
    if law is None:
        raise NoAnswer(
            "the calibration has no LM-loss law, so nothing is known of loss gaps; fit measurements whose "
            "learning table has lm_loss at several sizes and training lengths"
        )
    if law.law != NAME or tuple(law.parameters[: len(PARAMETERS)]) != PARAMETERS:
        raise InputError(
            f"calibration: the LM-loss law is {law.law!r} of {', '.join(law.parameters)}; known: {NAME!r} of "
            f"{', '.join(PARAMETERS)}; write it anew with `mixplan fit`"
        )
    ladder = measured_sizes(law)
    pairs = _pairs(ladder, _on_ladder(ladder, small), _on_ladder(ladder, large))
    table = np.array([law.values, *law.draws])[:, : len(PARAMETERS)]  # (1 + D, 5), the estimate first
    sizes = sorted({size for pair in pairs for size in pair})
    alpha, beta = table[:, 2], table[:, 4]
    bound = size_ratio_bound(table)
    shown = [
        Size(
            block_params=size,
            optimal_tokens=_interval(optimal_tokens(table, size)),
            optimal_loss=_interval(optimal_loss(table, size)),
            unlimited_loss=_interval(unlimited_loss(table, size)),
            only_by_size_below=_interval(size / bound),
        )
        for size in sizes
    ]
    return LossGaps(
        alpha=_interval(alpha),
        beta=_interval(beta),
        gamma=_interval(alpha * beta / (alpha + beta)),
        irreducible_nats=_interval(table[:, 0]),
        size_ratio_bound=_interval(bound),
        sizes=shown,
        gaps=[_gap(law, table, *pair) for pair in pairs],
        warnings=_warnings(law, sizes),
    )


def _on_ladder(ladder: list[float], size: float | None) -> float | None:
    """The ladder's size that a size written with fewer digits means, else the size itself."""
    if size is None:
        return None
    return next((one for one in ladder if abs(one - size) <= EDGE_TOLERANCE * one), size)


def _pairs(ladder: list[float], small: float | None, large: float | None) -> list[tuple[float, float]]:
    problems = [
        f"--{name} must be a number of block parameters, in ones, not {size:g}"
        for name, size in (("small", small), ("large", large))
        if size is not None and not 1 <= size < np.inf
    ]
    if not problems and small is not None and large is not None and small >= large:
        problems.append(f"--small ({number(small)}) must lie below --large ({number(large)})")
    if problems:
        raise InputError(problems)
    if small is None and large is None:
        return list(combinations(ladder, 2))
    smaller = (
        [small] if small is not None else [size for size in ladder if large is not None and size < large]
    )
    larger = [large] if large is not None else [size for size in ladder if small is not None and size > small]
    found = [(one, other) for one in smaller for other in larger]
    if not found:
        given, side = (
            (f"--small {number(small)}", "larger") if small else (f"--large {number(large)}", "smaller")
        )
        raise InputError(
            f"no size of the ladder ({', '.join(number(size) for size in ladder)}) is {side} than {given}; "
            "give both --small and --large"
        )
    return found


def _gap(law: FittedLaw, table: FloatArray, small: float, large: float) -> Gap:
    ends = optimal_loss(table, small), optimal_loss(table, large)
    by_size = np.maximum(unlimited_loss(table, small) - ends[1], 0.0)
    gap = ends[0] - ends[1]
    needed = tokens_to_reach(table, small, ends[1])
    closable = np.isfinite(needed)
    reasons = [
        reason for size in (small, large) if (reason := outside(law, "block_params", size, "block_params"))
    ]
    for what, value in (
        (f"optimal tokens of {number(small)}:", float(optimal_tokens(table[0], small))),
        (f"optimal tokens of {number(large)}:", float(optimal_tokens(table[0], large))),
        ("tokens to match:", float(needed[0])),
    ):
        reason = outside(law, "tokens", value, what) if np.isfinite(value) else None
        reasons += [reason] if reason else []
    return Gap(
        small_block_params=small,
        large_block_params=large,
        gap_nats=_interval(gap),
        by_data_nats=_interval(gap - by_size),
        by_size_nats=_interval(by_size),
        tokens_to_match=_interval(needed),
        closable_share=float(closable[1:].mean()) if law.draws else None,
        closable=bool(closable[0]),
        extrapolated=reasons,
    )


def _warnings(law: FittedLaw, sizes: list[float]) -> list[str]:
    found = [
        f"{name} is hardly measured: its interval is mostly the prior's around 0.3, and so is every answer "
        "here; add sizes and training lengths, further apart"
        for name in unmeasured_exponents(law)
    ]
    if not law.draws:
        found.append("the loss law has no draws, so nothing here has an interval")
    beyond = [size for size in sizes if outside(law, "block_params", size, "")]
    if beyond:
        found.append(
            f"{', '.join(number(size) for size in beyond)} block parameters lie outside the fitted sizes: "
            "the argument takes the power law to hold there"
        )
    return [*found, *law.warnings]


def _interval(values: FloatArray) -> Interval:
    """Of values whose first is the estimate; an end that is infinite becomes none."""
    if len(values) < 2:
        return _finite(float(values[0])), None, None
    # Where some are infinite, quantiles are values themselves: half of infinity is no number.
    if np.isfinite(values).all():
        low, high = interval_90(values[1:])
    else:
        low, high = np.quantile(values[1:], [0.05, 0.95], method="inverted_cdf")
    return _finite(float(values[0])), _finite(float(low)), _finite(float(high))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _parts(parameters: FloatArray) -> tuple[FloatArray, ...]:
    return tuple(np.asarray(parameters, dtype=float)[..., at] for at in range(len(PARAMETERS)))
