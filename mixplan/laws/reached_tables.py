"""P(a new run measures at least a skill) as a table over η, for every draw of a learning law.

    P(η) = ∫ P₀(η + τξ + σz) N(z; 0, 1) dz,   P₀(η) = 1 − I_t(μ'φ, (1 − μ')φ),   μ = ceiling·link(η)

with the Beta scatter of mixplan.laws.beta_noise around the mean (t and μ' are the asked skill and μ in its
units), the draw's shift τξ of a new task, and σ, by which runs differ in η. The incomplete Beta function
takes half a microsecond, a search asks for millions of probabilities: so P₀ is tabulated once per family and
skill over the mean, P once per kind, on an even grid over where it changes, and looked up between its points.
The integral over z is a convolution on that grid, by Fourier transform. What is looked up is within 1e-4 of
P (tests/test_laws_goals.py), and never falls with η.

Shape legend: D = draws, G = tables, M = steps of a grid over η, B = steps of a grid over the mean, n = cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from mixplan.laws.beta_noise import to_unit
from mixplan.laws.forms import Link

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

STEPS = 768
"""M and B."""
REST = 1e-6
"""Part of the whole rise of P₀ that may lie beyond either end of the grid."""
REACH = 6.0
"""How far a run may lie from the mean of all runs, in σ; beyond are 2e-9 of them."""
FURTHEST = 40.0
"""No link changes further out than this in η."""
CERTAIN = 1e-12
"""No probability is nearer to 0 or 1, so that log-odds are finite."""
_HALVINGS = 40


@dataclass(frozen=True)
class MeanTable:
    """P₀ of every draw over the mean skill, on grids that are even in asinh((μ' − t)/spread)."""

    asked: float
    """t: the asked skill, in units of the Beta distribution."""
    spread: FloatArray
    """Standard deviation of measured skill at that mean, in the same units, shape (D,)."""
    start: FloatArray
    """Where the grid begins, shape (D,)."""
    per_step: FloatArray
    """Steps per unit, shape (D,)."""
    values: FloatArray
    """P₀, shape (D, B + 1)."""

    def at(self, mean: FloatArray) -> FloatArray:
        """P₀ at mean skills in [0, 1], shape (D, …) as given."""
        own = (len(self.spread), *(1,) * (mean.ndim - 1))
        place = np.arcsinh((to_unit(mean) - self.asked) / self.spread.reshape(own))
        place = (place - self.start.reshape(own)) * self.per_step.reshape(own)
        return _between(self.values, np.arange(len(self.spread)).reshape(own), place)


def over_mean(skill: float, precision: FloatArray) -> MeanTable:
    """P₀ of a family.

    Args:
        skill: asked for, in (0, 1).
        precision: φ of every draw, shape (D,).
    """
    asked = float(to_unit(np.array(skill)))
    spread = np.sqrt(asked * (1.0 - asked) / (1.0 + precision))
    ends = [np.arcsinh((float(to_unit(np.array(end))) - asked) / spread) for end in (0.0, 1.0)]
    width = (ends[1] - ends[0]) / STEPS
    places = ends[0][:, None] + width[:, None] * np.arange(STEPS + 1)
    mean = asked + spread[:, None] * np.sinh(places)  # (D, B + 1)
    at_least = 1.0 - betainc(mean * precision[:, None], (1.0 - mean) * precision[:, None], asked)
    return MeanTable(asked, spread, ends[0], 1.0 / width, np.maximum.accumulate(at_least, axis=1))


@dataclass(frozen=True)
class Tables:
    """P of G goals in every draw, on even grids over η."""

    start: FloatArray
    """Where each grid begins, shape (G, D)."""
    per_step: FloatArray
    """Steps per unit of η, shape (G, D)."""
    values: FloatArray
    """P, shape (G·D, M + 1)."""

    def at(self, which: IntArray, eta: FloatArray) -> FloatArray:
        """P of n cells, shape (n, D), from which table to ask, (n,), and η less the difficulty, (n, D)."""
        draws = eta.shape[1]
        place = (eta - self.start[which]) * self.per_step[which]
        return _between(self.values, which[:, None] * draws + np.arange(draws), place)


def over_eta(
    base: MeanTable, link: Link, ceiling: FloatArray, shift: FloatArray, spread: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A kind's start and per_step, shapes (D,), and values, shape (D, M + 1), for `Tables`.

    Args:
        base: P₀ of the kind's family.
        link: of the law's form.
        ceiling, shift, spread: of every draw: the kind's ceiling, τξ and σ, shapes (D,).
    """

    def alone(eta: FloatArray) -> FloatArray:
        return base.at((ceiling * link.share(eta.T)).T)

    least, most = (alone(np.full(len(ceiling), end)) for end in (-FURTHEST, FURTHEST))
    low = _where(alone, least + REST * (most - least)) - REACH * spread
    high = _where(alone, most - REST * (most - least)) + REACH * spread
    # Where the ceiling leaves nothing to rise to, any grid will do.
    width = np.maximum(high - low, 1e-6) / STEPS
    rise = np.diff(alone(low[:, None] + width[:, None] * np.arange(STEPS + 1)), axis=1)
    waves = 2.0 * np.pi * np.fft.rfftfreq(STEPS)  # per step
    damped = np.fft.rfft(rise, axis=1) * np.exp(-0.5 * (waves * (spread / width)[:, None]) ** 2)
    smooth = np.maximum(np.fft.irfft(damped, STEPS, axis=1), 0.0)
    risen = np.concatenate([np.zeros((len(width), 1)), np.cumsum(smooth, axis=1)], axis=1)
    # Rounding, and what was cut at the ends, must not make the whole rise larger than it is.
    whole = (most - least)[:, None] / np.maximum(risen[:, -1:], 1e-300)
    values = np.clip(least[:, None] + risen * np.minimum(whole, 1.0), CERTAIN, 1.0 - CERTAIN)
    return low - shift, 1.0 / width, values


def _where(rising: Callable[[FloatArray], FloatArray], level: FloatArray) -> FloatArray:
    """η of every draw at which a rising function of η, (D,) → (D,), passes `level`, by bisection."""
    low, high = np.full(len(level), -FURTHEST), np.full(len(level), FURTHEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        below = rising(middle) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2.0


def _between(values: FloatArray, row: IntArray, place: FloatArray) -> FloatArray:
    """Linear between the columns of a table; beyond its ends, the ends."""
    last = values.shape[1] - 1
    place = np.clip(place, 0.0, last)
    left = np.minimum(place.astype(np.int64), last - 1)
    at = row * values.shape[1] + left
    flat = values.reshape(-1)
    below = flat.take(at)
    return below + (place - left) * (flat.take(at + 1) - below)
