"""Arithmetic of mixtures: repetition, caps, and who gives way to whom. Pure functions over arrays.

Shape legend: B = candidate mixtures, S = sources, R = rare sources, C = common sources. A share is a
fraction of the mixture's tokens; all shares of a mixture sum to 1.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents.forecast import FloatArray


def effective_tokens(
    tokens: FloatArray, unique_tokens: FloatArray, half_life_epochs: FloatArray
) -> FloatArray:
    """What repeated tokens are worth in fresh ones (arXiv 2305.16264, eq. 5).

    D' = D up to one epoch; beyond, D' = U + U·R*·(1 − e^(−R/R*)) with R = D/U − 1 repeats.

    Args:
        tokens: tokens drawn from each source, shape (B, S).
        unique_tokens: U, shape (S,).
        half_life_epochs: R*, repeats, shape (S,).
    """
    repeats = np.maximum(tokens / unique_tokens - 1.0, 0.0)
    repeated = unique_tokens * half_life_epochs * -np.expm1(-repeats / half_life_epochs)
    return np.minimum(tokens, unique_tokens) + repeated


def tokens_for_effective(
    effective: FloatArray, unique_tokens: FloatArray, half_life_epochs: FloatArray
) -> FloatArray:
    """Inverse of `effective_tokens`; infinite where no repetition is worth that much. Shapes broadcast."""
    worth = np.maximum(effective / unique_tokens - 1.0, 0.0) / half_life_epochs
    with np.errstate(divide="ignore", invalid="ignore"):
        repeats = np.where(worth < 1.0, -half_life_epochs * np.log1p(-np.minimum(worth, 1.0)), np.inf)
    return np.minimum(effective, unique_tokens) + unique_tokens * repeats


def fill(weights: FloatArray, low: FloatArray, high: FloatArray, total: FloatArray) -> FloatArray:
    """Divide `total` in proportion to `weights` within bounds: what one source cannot take, the others share.

    The answer is clip(λ·w, low, high) with the λ that makes it sum to `total`, found exactly on the
    breakpoints of that piecewise linear sum. Where the bounds do not let it reach `total`, every part
    stands at its bound.

    Args:
        weights: positive, shape (C,).
        low: lower bounds, shape (B, C).
        high: upper bounds, at least `low`, shape (B, C).
        total: shape (B,).

    Returns:
        Parts, shape (B, C).
    """
    breaks = np.sort(np.concatenate([low / weights, high / weights], axis=1), axis=1)  # (B, 2C)
    parts = np.clip(breaks[:, :, None] * weights, low[:, None, :], high[:, None, :])  # (B, 2C, C)
    sums = parts.sum(axis=2)  # (B, 2C), rising
    after = np.clip((sums < total[:, None]).sum(axis=1), 1, breaks.shape[1] - 1)
    rows = np.arange(len(total))
    s0, s1 = sums[rows, after - 1], sums[rows, after]
    b0, b1 = breaks[rows, after - 1], breaks[rows, after]
    step = np.where(s1 > s0, (np.clip(total, s0, s1) - s0) / np.where(s1 > s0, s1 - s0, 1.0), 0.0)
    level = b0 + step * (b1 - b0)
    return np.clip(level[:, None] * weights, low, high)


def largest_remainder(exact: FloatArray, low: np.ndarray, high: np.ndarray, total: int) -> np.ndarray | None:
    """Integers near `exact` that sum to `total` within bounds; the largest remainders are rounded up first.

    Args:
        exact: shape (C,), summing to `total`.
        low: integer lower bounds, shape (C,).
        high: integer upper bounds, shape (C,).
        total: what they must sum to.

    Returns:
        Integers, shape (C,); None where the bounds cannot hold `total`.
    """
    if low.sum() > total or high.sum() < total or bool((low > high).any()):
        return None
    whole = np.clip(np.floor(exact + 1e-9).astype(np.int64), low, high)
    order = np.argsort(-(exact - whole), kind="stable")
    while whole.sum() < total:
        for index in order:
            if whole.sum() < total and whole[index] < high[index]:
                whole[index] += 1
    while whole.sum() > total:
        for index in order[::-1]:
            if whole.sum() > total and whole[index] > low[index]:
                whole[index] -= 1
    return whole
