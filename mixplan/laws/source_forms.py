"""Forms of the source law: held-out bits per byte against a source's share, size, tokens and epochs.

All forms (E, S, A, B, K > 0 bits per byte; N block parameters; D training tokens; h share of the source in
them; e epochs, how often its text was read; own tokens h·D):

    worth of a pass    g(e) = 1 up to one epoch, then (1 + R·(1 − exp(−(e − 1)/R)))/e   arXiv 2305.16264
    additive, power    E + S/(1 + (h·g/H)^γ) + A/N^α + B/D^β                             arXiv 2507.09404
    additive, exp.     E + S·exp(−h·g/H) + A/N^α + B/D^β                                   arXiv 2403.16952
    joint, own tokens  E + S/(1 + (h·D·g/H)^γ) + A/N^α + B/D^β
    joint, sum         E + A/N^α + B/(h·D·g + τ·D)^β
    joint, product     E + K/(N^α·(h·D·g + τ·D)^β)

In the additive forms share, size and tokens act apart from one another. In the joint ones the share acts
through the source's own tokens: beside what all tokens do to any text, or beside a transfer of τ own tokens
from every token. None of them ever rises with share, size or tokens at given epochs; the joint ones do not
with tokens at a given amount of text either. 2507.09404 has a term for every domain; here all that is not
the source counts as one, and its part is in S.

Shape legend: C = parameter vectors, P = coordinates of the search, n = rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from mixplan.laws.evidence import FloatArray

R_STAR = 15.39
"""Epochs of repetition on whose scale a further pass loses its worth, as fitted in arXiv 2305.16264."""
NOISE = ("misfit_sd", "run_sd", "row_sd")
"""Standard deviations of ln(bits per byte), see nested_noise.py."""
EXPONENT = (np.log(0.3), 0.7)
"""Mean and standard deviation of ln of an exponent; published ones of loss laws run from 0.10 to 0.46."""
REPEATS = (np.log(R_STAR), 0.7)
"""R between 5 and 49 with 90 %: 2605.12715 finds 15 to 20 repetitions of scarce data tolerated."""
STEEPNESS = (0.0, 0.7)
WIDE = 2.0
"""Standard deviation of the logarithm of an amount: a factor of 27 either way with 90 %."""
MOST_EXPONENT = 8.0
NOISE_PRIOR = (np.log(0.01), 1.5)
"""Of row_sd: between 0.1 % and 12 % with 90 %."""
NOISE_SCALE = 0.02
"""Of half a Student t with 3 degrees of freedom, the prior of misfit_sd and run_sd. A normal prior of their
logarithms lets one of two that the rows hardly tell apart shrink to nothing (Gelman 2006), and the intervals
for the mean over seeds with it."""


@dataclass(frozen=True)
class Centre:
    """What coordinates are measured from, so that they are near 0 and hardly correlated."""

    block_params: float
    tokens: float
    share: float
    least_bits: float
    """The smallest bits per byte that was measured; E lies below."""


@dataclass(frozen=True)
class Inputs:
    """Where the law is evaluated; arrays of shape (n,), or (C, n) where parameter vectors differ in it."""

    block_params: FloatArray
    tokens: FloatArray
    share: FloatArray
    epochs: FloatArray


@dataclass(frozen=True)
class Form:
    """One form, with the names of its parameters in the order of a fitted law."""

    name: str
    formula: str
    source: str
    parameters: tuple[str, ...]


_TERMS = ("E", "A", "alpha", "B", "beta")
ADDITIVE_POWER = Form(
    "additive, power of share",
    "bits_per_byte = E + S/(1 + (share·g/H)^gamma) + A/block_params^alpha + B/tokens^beta",
    "arXiv 2507.09404 (additive law)",
    (*_TERMS, "S", "H", "gamma", "R"),
)
ADDITIVE_EXPONENTIAL = Form(
    "additive, exponential in share",
    "bits_per_byte = E + S·exp(−share·g/H) + A/block_params^alpha + B/tokens^beta",
    "arXiv 2403.16952, with size and tokens as in arXiv 2507.09404",
    (*_TERMS, "S", "H", "R"),
)
JOINT_OWN = Form(
    "joint, own tokens beside all tokens",
    "bits_per_byte = E + S/(1 + (share·tokens·g/H)^gamma) + A/block_params^alpha + B/tokens^beta",
    "arXiv 2507.09404 with tokens of the source, repetition discounted as in arXiv 2305.16264, for its share",
    (*_TERMS, "S", "H", "gamma", "R"),
)
JOINT_SUM = Form(
    "joint, size beside tokens",
    "bits_per_byte = E + A/block_params^alpha + B/(share·tokens·g + tau·tokens)^beta",
    "arXiv 2203.15556, eq. 2, in tokens of the source with the repetition discount of arXiv 2305.16264",
    (*_TERMS, "tau", "R"),
)
JOINT_PRODUCT = Form(
    "joint, size times tokens",
    "bits_per_byte = E + K/(block_params^alpha·(share·tokens·g + tau·tokens)^beta)",
    "a product of powers in tokens of the source with the repetition discount of arXiv 2305.16264",
    ("E", "K", "alpha", "beta", "tau", "R"),
)
FORMS = {
    form.name: form for form in (ADDITIVE_POWER, ADDITIVE_EXPONENTIAL, JOINT_OWN, JOINT_SUM, JOINT_PRODUCT)
}
TRANSFER = (JOINT_SUM.name, JOINT_PRODUCT.name)
"""Forms with tau."""


def worth(epochs: FloatArray, repeats: FloatArray) -> FloatArray:
    """g: what a token of a text read `epochs` times is worth, against a fresh one; in (0, 1]."""
    more = np.maximum(epochs - 1.0, 0.0)
    return (1.0 + repeats * -np.expm1(-more / repeats)) / (1.0 + more)


def log_bits(form: Form, named: Mapping[str, FloatArray], at: Inputs) -> FloatArray:
    """ln(bits per byte) of every parameter vector at every row, shape (C, n).

    Args:
        form: the form.
        named: parameters by name, each of shape (C,).
        at: where.
    """
    one = {name: values[:, None] for name, values in named.items()}
    own = at.share * worth(at.epochs, one["R"])  # (C, n), as a share
    if form.name in TRANSFER:
        enough = ((own + one["tau"]) * at.tokens) ** -one["beta"]
        if form.name == JOINT_PRODUCT.name:
            return np.log(one["E"] + one["K"] * at.block_params ** -one["alpha"] * enough)
        return np.log(one["E"] + one["A"] * at.block_params ** -one["alpha"] + one["B"] * enough)
    if form.name == JOINT_OWN.name:
        own = own * at.tokens
    if form.name in (ADDITIVE_POWER.name, JOINT_OWN.name):
        mixed = one["S"] / (1.0 + (own / one["H"]) ** one["gamma"])
    else:
        mixed = one["S"] * np.exp(-own / one["H"])
    size, length = at.block_params ** -one["alpha"], at.tokens ** -one["beta"]
    return np.log(one["E"] + mixed + one["A"] * size + one["B"] * length)


def prior(form: Form, centre: Centre) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of every coordinate, those of NOISE last; shapes (P,).

    Those of misfit_sd and run_sd only say where a search begins: see `log_prior`.

    Coordinates are logarithms: of a term at the centre (A, B, S, K), of an exponent, of H and tau against the
    centre's share; E is the log-odds of its part of the least bits.
    """
    small, large = np.log(0.1 * centre.least_bits), np.log(0.3 * centre.least_bits)
    of = {
        "E": (0.0, 1.5),
        "A": (small, WIDE),
        "B": (large if form.name in TRANSFER else small, WIDE),
        "K": (large, WIDE),
        "S": (large, WIDE),
        "H": (0.0, WIDE),
        "tau": (np.log(0.1), WIDE),
        "alpha": EXPONENT,
        "beta": EXPONENT,
        "gamma": STEEPNESS,
        "R": REPEATS,
    }
    rows = [*(of[name] for name in form.parameters), *[NOISE_PRIOR] * len(NOISE)]
    return np.array([mean for mean, _ in rows]), np.array([spread for _, spread in rows])


def log_prior(form: Form, z: FloatArray, centre: Centre) -> FloatArray:
    """Log density of coordinates up to a constant, (C, P) → (C,)."""
    mean, spread = prior(form, centre)
    normal = np.ones(len(mean), dtype=bool)
    normal[[-3, -2]] = False
    levels = z[:, ~normal]
    half_t = levels - 2.0 * np.logaddexp(0.0, 2.0 * levels - np.log(3.0 * NOISE_SCALE**2))
    away = (z[:, normal] - mean[normal]) / spread[normal]
    return np.asarray(-0.5 * (away**2).sum(axis=1) + half_t.sum(axis=1))


def named(form: Form, coordinates: FloatArray, centre: Centre) -> dict[str, FloatArray]:
    """Parameters by name, each of shape (C,), from coordinates of shape (C, P)."""
    names = (*form.parameters, *NOISE)
    # Far-off steps of the search would overflow; no measured ladder ends out there.
    positive = np.exp(np.clip(coordinates, -30.0, 30.0))
    found = {name: positive[:, index] for index, name in enumerate(names)}
    found["E"] = centre.least_bits * expit(coordinates[:, 0])
    for exponent in ("alpha", "beta", "gamma"):
        if exponent in found:
            found[exponent] = np.minimum(found[exponent], MOST_EXPONENT)
    for share in ("H", "tau"):
        if share in found:
            unit = centre.tokens if form.name == JOINT_OWN.name else 1.0
            found[share] = found[share] * centre.share * unit
    size = centre.block_params ** found["alpha"]
    tokens = (centre.tokens * centre.share if form.name in TRANSFER else centre.tokens) ** found["beta"]
    for name, factor in (("A", size), ("B", tokens), ("K", size * tokens)):
        if name in found:
            found[name] = found[name] * factor
    return found
