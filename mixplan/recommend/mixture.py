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
    breaks = np.concatenate([low / weights, high / weights], axis=1)  # (B, 2C)
    order = np.argsort(breaks, axis=1, kind="stable")
    breaks = np.take_along_axis(breaks, order, axis=1)
    turns = np.concatenate([weights, -weights])[order]  # how the slope changes at each
    slope = np.cumsum(turns, axis=1)
    steps = np.diff(breaks, axis=1) * slope[:, :-1]
    sums = low.sum(axis=1)[:, None] + np.concatenate(
        [np.zeros((len(total), 1)), np.cumsum(steps, axis=1)], axis=1
    )
    after = np.clip((sums < total[:, None]).sum(axis=1), 1, breaks.shape[1] - 1)
    rows = np.arange(len(total))
    s0, s1 = sums[rows, after - 1], sums[rows, after]
    b0, b1 = breaks[rows, after - 1], breaks[rows, after]
    step = np.where(s1 > s0, (np.clip(total, s0, s1) - s0) / np.where(s1 > s0, s1 - s0, 1.0), 0.0)
    level = b0 + step * (b1 - b0)
    return np.clip(level[:, None] * weights, low, high)


def fill_grouped(
    weights: FloatArray,
    low: FloatArray,
    high: FloatArray,
    total: FloatArray,
    member: np.ndarray,
    group_low: FloatArray,
    group_high: FloatArray,
) -> FloatArray:
    """As `fill`, where the parts of some groups together are bounded too: λ is one number for all sources
    but those of a group at its bound, which divide that bound by a λ of their own.

    Args:
        weights, low, high, total: as of `fill`.
        member: which parts are in each group, bool, shape (G, C); a part is in one at most.
        group_low, group_high: bounds on the sums, shape (B, G).

    Returns:
        Parts, shape (B, C).
    """
    bounds = []
    for at, inside in enumerate(member):
        least, most = low[:, inside].sum(axis=1), high[:, inside].sum(axis=1)
        bounds.append((np.clip(group_low[:, at], least, most), np.clip(group_high[:, at], least, most)))
    single = ~member.any(axis=0)

    def at_level(level: FloatArray) -> FloatArray:
        parts = np.clip(level[:, None] * weights, low, high)
        found = parts[:, single].sum(axis=1)
        for inside, (least, most) in zip(member, bounds, strict=True):
            found = found + np.clip(parts[:, inside].sum(axis=1), least, most)
        return found

    below, above = np.zeros(len(total)), (high / weights).max(axis=1)
    for _ in range(45):
        middle = (below + above) / 2.0
        short = at_level(middle) < total
        below, above = np.where(short, middle, below), np.where(short, above, middle)
    parts = np.clip(above[:, None] * weights, low, high)
    for inside, (least, most) in zip(member, bounds, strict=True):
        held = np.clip(parts[:, inside].sum(axis=1), least, most)
        parts[:, inside] = fill(weights[inside], low[:, inside], high[:, inside], held)
    return parts


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
