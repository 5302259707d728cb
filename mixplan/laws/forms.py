"""Forms of the learning law: mean skill as a function of frequency, size and tokens.

    mean skill = ceiling_kind · link(η − difficulty_kind),   η = form(x; ψ_family)

x = (ln f, ln N, ln T), each less its mean over the table (f instances per training token, N block parameters,
T training tokens), so that scales are at the middle of the ladder. Every slope is an exponential: η never
falls with frequency, size or tokens.

The link is 1 − e^(−e^η) (complementary log-log): a skill made of many facts, each caught at the rate e^η.
It rises slowly and arrives fast; on measured ladders it forecasts left-out rungs better than the symmetric
1 ÷ (1 + e^(−η)), which only the form of that name has (docs/decisions.md).

Each form also is a threshold surface: at fixed skill, ln f_crit(N, T) = what the form subtracts from ln f.

Shape legend: n = cells (any broadcast shape), p = parameters ψ of a form, ordered as `parameters`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Array = NDArray[Any]
"""Real, or complex while a derivative is taken by complex steps."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a form: unbounded in the search, exp of that where it must be positive."""

    name: str
    positive: bool
    mean: float
    """Of the Gaussian prior of the average family, on the unbounded scale."""
    spread: float
    """Standard deviation of that prior: weak, it decides what the runs leave open."""
    between: float
    """Standard deviation between families, on the unbounded scale, before the table has said its own."""

    def shown(self, unbounded: Array) -> Array:
        """The parameter as formulas have it."""
        return np.exp(unbounded) if self.positive else unbounded

    def searched(self, shown: Array) -> Array:
        """The inverse of `shown`."""
        return np.log(shown) if self.positive else shown


@dataclass(frozen=True)
class Link:
    """From η to a share in (0, 1)."""

    formula: str
    share: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    """Derivative of `share`."""
    inverse: Callable[[Array], Array]
    """η of a share; infinite at 0 and 1."""


def _caught(eta: Array) -> Array:
    return -np.expm1(-np.exp(np.minimum(eta, _ALL)))


def _caught_slope(eta: Array) -> Array:
    rate = np.exp(np.minimum(eta, _ALL))
    return rate * np.exp(-rate)


def _caught_inverse(share: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(-np.log1p(-share))


def _logistic_slope(eta: Array) -> Array:
    share = expit(eta)
    return share * (1.0 - share)


_ALL = 5.0
"""From here on nothing is missing to the last digit."""
LOG_LOG = Link("1 − e^(−e^η)", _caught, _caught_slope, _caught_inverse)
LOGIT = Link("1 ÷ (1 + e^(−η))", expit, _logistic_slope, logit)


@dataclass(frozen=True)
class Form:
    """One candidate law."""

    name: str
    link: Link
    formula: str
    source: str
    parameters: tuple[Parameter, ...]
    levels_off: tuple[str, ...]
    """Axes along which η comes to an end."""
    eta: Callable[[Array, Array, Array, Array], Array]
    """η from ψ as shown, shape (p, …), and ln f, ln N, ln T, centred; broadcast shape."""


FREQUENCY_SLOPE, TOKENS_SLOPE, SIZE_SLOPE = "frequency_slope", "tokens_slope", "size_slope"
LOG_TIME, TIME_EXPONENT = "log_time_constant", "time_constant_exponent"
LOG_SIZE = "log_enough_size"
ALPHA, LOG_BALANCE = "capacity_alpha", "log_capacity_to_exposures"


def _frequency_slope() -> Parameter:
    return Parameter(FREQUENCY_SLOPE, True, 0.0, 0.7, 0.5)


def _tokens_slope() -> Parameter:
    return Parameter(TOKENS_SLOPE, True, 0.3, 0.7, 0.5)


def _time(mean: float) -> tuple[Parameter, Parameter]:
    """The time constant at the middle of the ladder in units of its training length, and how it grows."""
    return (
        Parameter(LOG_TIME, False, mean, 1.5, 1.0),
        Parameter(TIME_EXPONENT, True, float(np.log(0.6)), 0.6, 0.5),
    )


def _logistic(psi: Array, f: Array, n: Array, t: Array) -> Array:
    frequency, size, tokens = psi
    return frequency * f + size * n + tokens * t


def _threshold(psi: Array, f: Array, n: Array, t: Array) -> Array:
    steepness, alpha, balance = psi
    return steepness * (f - log_sum(balance - (1.0 + alpha) * n, -t - balance))


def _accumulator(psi: Array, f: Array, n: Array, t: Array) -> Array:
    frequency, tokens, time, exponent = psi
    log_time = time + exponent * n
    lived = t - log_time
    # From e^5 time constants on, the end is reached to the last digit, and larger ones would overflow.
    ratio = np.exp(np.where(lived.real > 5.0, 5.0, lived))
    return frequency * f + tokens * (log_time + np.log(-np.expm1(-ratio)))


def _combined(psi: Array, f: Array, n: Array, t: Array) -> Array:
    frequency, tokens, time, exponent, size, enough = psi
    return frequency * f - tokens * log_sum(-t, -time - exponent * n) - size * log_sum(-n, -enough)


def log_sum(one: Array, other: Array) -> Array:
    """ln(e^one + e^other), for real and complex arguments (np.logaddexp takes real ones only)."""
    top = np.where(one.real > other.real, one, other)
    return top + np.log(np.exp(one - top) + np.exp(other - top))


LOGISTIC = Form(
    "logistic",
    LOGIT,
    "η = frequency_slope·ln f + size_slope·ln N + tokens_slope·ln T",
    "fractional logit; threshold in frequency, complexity and size after arXiv 2605.29548",
    (_frequency_slope(), Parameter(SIZE_SLOPE, True, -0.7, 0.8, 0.5), _tokens_slope()),
    (),
    _logistic,
)
THRESHOLD = Form(
    "capacity threshold",
    LOG_LOG,
    "η = frequency_slope·(ln f − ln f_crit), f_crit = κ·N^-(1 + capacity_alpha) + X/T, "
    "log_capacity_to_exposures = ½·ln(κN^-(1 + capacity_alpha) ÷ (X/T)) at the middle of the ladder",
    "f_crit ∝ N^-(1+α): arXiv 2505.18091; the floor: exposures f·T",
    (
        _frequency_slope(),
        Parameter(ALPHA, True, float(np.log(0.3)), 0.6, 0.3),
        Parameter(LOG_BALANCE, False, 0.0, 2.0, 1.0),
    ),
    ("block_params", "tokens"),
    _threshold,
)
ACCUMULATOR = Form(
    "retention accumulator",
    LOG_LOG,
    "η = frequency_slope·ln f + tokens_slope·ln(τ·(1 − e^(−T/τ))), ln τ = log_time_constant + "
    "time_constant_exponent·ln N",
    "exposures that decay as arXiv 2406.11813 measures it; τ grows with size as the measured half-life does",
    (_frequency_slope(), _tokens_slope(), *_time(0.5)),
    ("tokens",),
    _accumulator,
)
COMBINED = Form(
    "combined",
    LOG_LOG,
    "η = frequency_slope·ln f + tokens_slope·ln T_eff + size_slope·ln N_eff, 1/T_eff = 1/T + 1/τ, ln τ = "
    "log_time_constant + time_constant_exponent·ln N, 1/N_eff = 1/N + e^-log_enough_size",
    "both limits: without end of tokens a threshold that only size or frequency moves (arXiv 2505.18091, "
    "2605.29548), without end of size one that only exposures move",
    (
        _frequency_slope(),
        _tokens_slope(),
        *_time(0.5),
        Parameter(SIZE_SLOPE, True, -1.5, 0.7, 0.5),
        Parameter(LOG_SIZE, False, 2.5, 1.5, 0.5),
    ),
    ("block_params", "tokens"),
    _combined,
)
FORMS = {form.name: form for form in (LOGISTIC, THRESHOLD, ACCUMULATOR, COMBINED)}
