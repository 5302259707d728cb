"""Forms of forgetting: the share of a gain that is kept after a delay, by its half-life h.

    exponential   kept = 2^(−(d − d₀)/h)
    log-linear    kept = 1 − ½·ln((d + s)/(d₀ + s)) ÷ ln((h + d₀ + s)/(d₀ + s))      (after arXiv 2406.11813)
    power law     kept = (1 + (2^(1/k) − 1)·(d − d₀)/h)^−k
    stretched     kept = 2^(−((d − d₀)/h)^k)

All are 1 at d₀, where gains peak, ½ at d₀ + h, and never rise. s keeps the logarithm finite: the shortest
delay above 0 where d₀ is 0, else 0. The power law has a heavier tail the smaller k is, and the exponential
for a limit; the stretched exponential falls early and then slowly below k = 1, late and then fast above it.
Only log-linear forgetting goes below 0, as it must: a run may end up worse than before the burst.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

EXPONENTIAL, LOG_LINEAR = "exponential forgetting", "log-linear forgetting"
POWER, STRETCHED = "power-law forgetting", "stretched-exponential forgetting"
SHAPES: dict[str, tuple[float, ...]] = {
    EXPONENTIAL: (1.0,),
    LOG_LINEAR: (1.0,),
    POWER: (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0),
    STRETCHED: (0.25, 0.35, 0.5, 0.7, 1.4, 2.0, 2.8, 4.0),
}
"""Values that k is chosen among; forms without a shape ignore theirs. Stretched is exponential at k = 1."""
FORMULAS = {
    EXPONENTIAL: "kept = 2^(−(delay − start)/half_life)",
    LOG_LINEAR: "kept = 1 − 0.5·ln((delay + step)/(start + step)) ÷ "
    "ln((half_life + start + step)/(start + step))",
    POWER: "kept = (1 + (2^(1/shape) − 1)·(delay − start)/half_life)^(−shape)",
    STRETCHED: "kept = 2^(−((delay − start)/half_life)^shape)",
}
SOURCES = {
    EXPONENTIAL: "memoryless decay, one time constant per size",
    LOG_LINEAR: "arXiv 2406.11813: R(t2) − R(t1) = −a·log(t2/t1)",
    POWER: "a mixture of exponentials with Gamma-distributed rates",
    STRETCHED: "Kohlrausch's relaxation function",
}


def kept_share(
    form: str, half_life: ArrayLike, shape: ArrayLike, delay: ArrayLike, start: float, step: float
) -> FloatArray:
    """Share of the peak gain left, at most 1; arguments broadcast.

    Args:
        form: one of SHAPES.
        half_life: tokens from the peak on, above 0.
        shape: k; ignored by forms without one.
        delay: tokens since the burst. Before the peak the answer is 1: the gain is still growing.
        start, step: d₀ and s in tokens.
    """
    half, k = np.asarray(half_life, dtype=np.float64), np.asarray(shape, dtype=np.float64)
    since = np.maximum(np.asarray(delay, dtype=np.float64) - start, 0.0)
    if form == LOG_LINEAR:
        origin = start + step
        return np.asarray(1.0 - 0.5 * np.log1p(since / origin) / np.log1p(half / origin))
    if form == POWER:
        return np.asarray((1.0 + np.expm1(np.log(2.0) / k) * since / half) ** -k)
    return np.asarray(2.0 ** -((since / half) ** (k if form == STRETCHED else 1.0)))


def relative_share(
    form: str, half_life: ArrayLike, shape: ArrayLike, delay: FloatArray, start: float, step: float
) -> FloatArray:
    """kept_share over the largest of the shares at these delays (by size), where that is below 1.

    Measured from the peak on this is kept_share. A curve that begins later is told by its course alone: what
    it has lost before cannot be known from it, and shares too small for a float have a course too.

    Args:
        form, half_life, shape, start, step: as of kept_share.
        delay: those of one curve, at least two and all different, along the last axis.
    """
    if form in (EXPONENTIAL, STRETCHED):
        half, k = np.asarray(half_life, dtype=np.float64), np.asarray(shape if form == STRETCHED else 1.0)
        fall: FloatArray = (np.maximum(delay - start, 0.0) / half) ** k
        return np.asarray(2.0 ** -(fall - fall.min(axis=-1, keepdims=True)))
    share = kept_share(form, half_life, shape, delay, start, step)
    return np.asarray(share / np.minimum(np.abs(share).max(axis=-1, keepdims=True), 1.0))
