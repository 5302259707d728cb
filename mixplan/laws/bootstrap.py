"""Uncertainty over runs: Bayesian bootstrap weights, and what laws do with their draws.

Shape legend: R = runs, D = draws.
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
