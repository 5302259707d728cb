"""Least upsampling when tasks live in several rare sources at once: a linear program.

Shape legend: R = rare sources, T = tasks, K = segments a source.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents.forecast import FloatArray
from mixplan.recommend.evaluate import rare_bounds
from mixplan.recommend.mixture import effective_tokens
from mixplan.recommend.problem import Problem

_SEGMENTS = 64


def is_spread(problem: Problem) -> bool:
    """Whether any task has a density in more than one rare source."""
    return bool(((problem.density[:, problem.rare] > 0).sum(axis=1) > 1).any())


def least_rare_shares(problem: Problem, tokens: float, needed: FloatArray) -> FloatArray | None:
    """Rare shares with the smallest sum that give every task the frequency it needs, at one token count.

    Effective tokens are concave in the share, so they are cut into K linear segments of falling slope,
    which a minimum uses in order. Instances from common sources are left out: what they add is lowered away
    afterwards by `fit_shares`.

    Args:
        needed: frequencies, shape (T,).

    Returns:
        Shape (R,), or None where no shares within the bounds do it.
    """
    if not np.isfinite(needed).all():
        return None
    from scipy.optimize import linprog

    lows, highs, _ = rare_bounds(problem, np.array([tokens]))
    low, high = lows[0], highs[0]
    unique, half_life = problem.unique_tokens[problem.rare], problem.half_life[problem.rare]
    edges = low + (high - low) * np.linspace(0.0, 1.0, _SEGMENTS + 1)[:, None]  # (K+1, R)
    worth = effective_tokens(edges * tokens, unique, half_life) / tokens  # (K+1, R)
    width, gain = np.diff(edges, axis=0), np.diff(worth, axis=0)  # (K, R)
    slope = gain / np.where(width > 0, width, 1.0)
    density = problem.density[:, problem.rare]  # (T, R)
    asked = needed > 0
    if not asked.any():
        return low
    scale = needed[asked][:, None]
    per_segment = (density[asked][:, None, :] * slope[None]).reshape(int(asked.sum()), -1) / scale  # (T, K·R)
    missing = 1.0 - (density[asked] @ worth[0]) / needed[asked]
    bounds = np.stack([np.zeros(width.size), width.ravel()], axis=1)
    answer = linprog(np.ones(width.size), A_ub=-per_segment, b_ub=-missing, bounds=bounds, method="highs")
    if answer.status != 0:
        return None
    return low + answer.x.reshape(width.shape).sum(axis=0)
