"""What laws do with their draws. Shape legend: D = draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


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
