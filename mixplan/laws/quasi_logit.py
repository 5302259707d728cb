"""The search behind the learning law: penalised quasi-likelihood of μ = c·sigmoid(η), by Fisher scoring.

    η = a_kind + Σ_j b_j·z_j,   c = sigmoid(γ_kind),   maximise Σ w·[y'·ln μ' + (1 − y')·ln(1 − μ')] −
    ½·Σ((θ − m)/s)²

with y' and μ' skill and its mean on the scale of beta_noise.to_unit. The binomial form is only a working
likelihood (Papke & Wooldridge 1996): its score asks no more of y than to have mean μ and a variance
proportional to (μ + δ₀)(1 + δ₁ − μ), so y may be any fraction and noise may carry it below 0. Cutting it
off there instead would keep the lucky guesses only and bend every slope down; without δ₀, a task that
guesses below chance would have no optimum.

Shape legend: n = rows, K = task kinds, q = shared columns, P = 2K + q parameters θ, ordered a, γ, b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mixplan.laws.beta_noise import UNIT_WIDTH, to_unit

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_MAX_STEPS, _TOLERANCE, _SMALLEST_STEP = 100, 1e-8, 1e-8


@dataclass(frozen=True)
class Design:
    """The rows, and which parameters must not be negative."""

    kind: NDArray[np.int64]
    """Shape (n,)."""
    columns: FloatArray
    """z, shape (n, q)."""
    skill: FloatArray
    """y, shape (n,)."""
    kinds: int
    """K."""
    bounded: BoolArray
    """Which of the P parameters are kept ≥ 0."""


def mean_skill(design: Design, theta: FloatArray) -> FloatArray:
    """μ of every row, shape (n,)."""
    logistic, ceiling = _parts(design, theta)
    return logistic * ceiling


def maximise(
    design: Design, weights: FloatArray, prior_mean: FloatArray, prior_spread: FloatArray, start: FloatArray
) -> FloatArray:
    """The parameters θ, shape (P,), from `start`, by projected Fisher scoring with step halving (Bertsekas
    1982)."""
    stiffness = prior_spread**-2.0
    observed = to_unit(design.skill)
    at = np.where(design.bounded, np.maximum(start, 0.0), start)

    def cost(theta: FloatArray) -> float:
        mean = to_unit(mean_skill(design, theta))
        misfit = -weights @ (observed * np.log(mean) + (1.0 - observed) * np.log1p(-mean))
        return float(misfit + 0.5 * (stiffness * (theta - prior_mean) ** 2).sum())

    current = cost(at)
    for _ in range(_MAX_STEPS):
        slope, information = _derivatives(design, weights, at)
        slope += stiffness * (at - prior_mean)
        information[np.diag_indices_from(information)] += stiffness
        free = ~(design.bounded & (at <= 0.0) & (slope > 0.0))
        step = np.zeros_like(at)
        step[free] = np.linalg.solve(information[np.ix_(free, free)], slope[free])
        scale, trial, reached = 1.0, at, current
        while scale > _SMALLEST_STEP:
            trial = at - scale * step
            trial = np.where(design.bounded, np.maximum(trial, 0.0), trial)
            reached = cost(trial)
            if reached <= current:
                break
            scale *= 0.5
        if reached > current:
            break
        moved = float(np.abs(trial - at).max())
        at, current = trial, reached
        if moved < _TOLERANCE:
            break
    return at


def _parts(design: Design, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """sigmoid(η) and c of every row, shapes (n,)."""
    kinds = design.kinds
    eta = theta[:kinds][design.kind] + design.columns @ theta[2 * kinds :]
    return expit(eta), expit(theta[kinds : 2 * kinds])[design.kind]


def _derivatives(design: Design, weights: FloatArray, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gradient (P,) and Fisher information (P, P) of the misfit. The blocks of a and γ are diagonal, so
    rows of a kind are summed and never multiplied out."""
    kinds, kind, columns = design.kinds, design.kind, design.columns
    logistic, ceiling = _parts(design, theta)
    mean = to_unit(logistic * ceiling)
    scaled = logistic * ceiling / UNIT_WIDTH
    by_eta, by_gamma = scaled * (1.0 - logistic), scaled * (1.0 - ceiling)  # ∂μ'/∂η, ∂μ'/∂γ
    inverse = weights / (mean * (1.0 - mean))
    score = inverse * (mean - to_unit(design.skill))

    def summed(values: FloatArray) -> FloatArray:
        return np.bincount(kind, values, kinds).astype(np.float64)

    gradient = np.concatenate(
        [summed(score * by_eta), summed(score * by_gamma), columns.T @ (score * by_eta)]
    )
    matrix = np.zeros((len(theta), len(theta)))
    a, gamma = np.arange(kinds), np.arange(kinds, 2 * kinds)
    matrix[a, a] = summed(inverse * by_eta**2)
    matrix[gamma, gamma] = summed(inverse * by_gamma**2)
    matrix[a, gamma] = matrix[gamma, a] = summed(inverse * by_eta * by_gamma)
    for index, column in enumerate(columns.T, start=2 * kinds):
        matrix[:kinds, index] = matrix[index, :kinds] = summed(inverse * by_eta**2 * column)
        matrix[kinds : 2 * kinds, index] = summed(inverse * by_eta * by_gamma * column)
        matrix[index, kinds : 2 * kinds] = matrix[kinds : 2 * kinds, index]
    matrix[2 * kinds :, 2 * kinds :] = (columns * (inverse * by_eta**2)[:, None]).T @ columns
    return gradient, matrix
