"""Uncertainty over runs: Bayesian bootstrap weights, and the weighted line that the simple laws are.

Shape legend: R = runs, D = draws, n = observations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


MIN_CONCENTRATION = 0.5
"""Below this Dirichlet parameter a draw hangs on one or two runs, whatever the variance wants."""


def run_weights(runs: int, draws: int, generator: np.random.Generator) -> FloatArray:
    """Weights of runs for each draw, mean 1 per draw, shape (D, R).

    The Bayesian bootstrap (Rubin 1981) with Dirichlet(α, …, α) weights. A run is the unit that was drawn at
    random (its cells and checkpoints share one model), so whole runs are weighted. Weights are never zero,
    so no draw loses a rung, as drawing runs with replacement does on a ladder with one run a rung.

    Rubin's α = 1 gives a weighted mean the variance σ̂²/(R + 1) around R runs, where a line through them,
    with its two fitted numbers, has σ̂²/(R − 2): on short ladders its intervals are far too narrow. Hence α
    = (R − 3)/R, which makes Rα + 1 = R − 2, but not below MIN_CONCENTRATION.
    """
    concentration = max(MIN_CONCENTRATION, (runs - 3) / runs)
    raw = np.maximum(generator.gamma(concentration, size=(draws, runs)), 1e-12)
    return raw / raw.mean(axis=1, keepdims=True)


def line(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted least squares y ≈ at_zero + slope·x for every draw.

    Args:
        x, y: shape (n,).
        weights: shape (D, n).

    Returns:
        at_zero and slope, shape (D, 2). With a single value of x the slope is 0 and at_zero the weighted
        mean.
    """
    share = weights / weights.sum(axis=1, keepdims=True)
    mean_x, mean_y = share @ x, share @ y
    spread = (share * (x[None, :] - mean_x[:, None]) ** 2).sum(axis=1)
    joint = (share * (x[None, :] - mean_x[:, None]) * (y[None, :] - mean_y[:, None])).sum(axis=1)
    single = np.ptp(x) < 1e-12
    slope = np.zeros(len(weights)) if single else joint / np.maximum(spread, 1e-300)
    return np.column_stack([mean_y - slope * mean_x, slope])


def line_draws(runs: int, draws: int) -> int:
    """Draws that can be taken of a line through runs: none below three, where every one would be the same."""
    return draws if runs >= 3 else 0


def interval_90(draws: FloatArray) -> tuple[float, float]:
    """5 % and 95 % quantiles of draws, shape (D,)."""
    low, high = np.quantile(draws, [0.05, 0.95])
    return float(low), float(high)


def rounded(draws: FloatArray) -> list[list[float]]:
    """Draws as lists with 7 significant digits: far below their own spread, and a file of half the size."""
    return [[float(f"{value:.7g}") for value in draw] for draw in draws]
