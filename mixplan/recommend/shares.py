"""The least upsampling that gives every task the frequency it needs, at many token counts at once.

Shape legend: B = token counts, S = sources, R = rare sources, T = tasks.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents.forecast import FloatArray
from mixplan.recommend.bounds import RareBounds, complete, rare_bounds, within_groups, within_room
from mixplan.recommend.evaluate import frequencies
from mixplan.recommend.linear import Ground, best_levels, is_spread, least_rare_shares
from mixplan.recommend.mixture import effective_tokens, tokens_for_effective
from mixplan.recommend.problem import Problem

_ROUNDS, _STILL = 60, 1e-15
_LINEAR_ROUNDS, _SETTLED = 4, 1e-9


def fit_shares(
    problem: Problem,
    tokens: FloatArray,
    needed: FloatArray,
    most_rare: FloatArray | None = None,
    fine: bool = True,
) -> FloatArray:
    """The least upsampling that gives every task the frequency it needs, as far as caps and room allow.

    Exact where each task has one rare source; where one has several, they divide it by a linear program.
    A task that needs infinitely much gets what room the others leave.

    Args:
        tokens: shape (B,).
        needed: shape (B, T).
        most_rare: upper bound on the sum of the rare shares, shape (B,).
        fine: exact; else, where the linear program is used, up to 0.2 % more than needed, in half the time.

    Returns:
        Shares of all sources, shape (B, S).
    """
    bounds = rare_bounds(problem, tokens)
    if most_rare is not None:
        room = np.maximum(np.minimum(bounds.room, most_rare), 0.0)
        bounds = RareBounds(bounds.low, bounds.high, room, bounds.group_room)
    if not problem.rare.any():
        return complete(problem, tokens, bounds.low)
    finite = np.where(np.isfinite(needed), needed, 0.0)
    if is_spread(problem):
        found = _divided(problem, tokens, bounds, finite, fine)
    else:
        found = _raised(problem, tokens, bounds, finite)
    hungry = ~np.isfinite(needed)
    if hungry.any():
        wish = (hungry @ (problem.density[:, problem.rare] > 0)) > 0  # (B, R)
        found = np.where(wish, bounds.high, found)
        found = within_groups(problem, found, np.where(wish, bounds.low, found), bounds.group_room)
        found = within_room(found, np.where(wish, bounds.low, found), bounds.room)
    return complete(problem, tokens, found)


def share_out(
    problem: Problem,
    tokens: float,
    levels: FloatArray,
    worth: FloatArray,
    most_rare: float,
    fine: bool = True,
) -> tuple[FloatArray, np.ndarray]:
    """All shares (S,) with the largest sum of worth, and the level that each task is brought to, −1 for none.

    Args:
        levels: frequencies that could be aimed at, shape (T, L).
        worth: of each, shape (T, L).
        most_rare: upper bound on the sum of the rare shares.
        fine: exact to a ten-thousandth; else to about a hundredth, in a fraction of the time.
    """
    at = np.array([tokens])
    bounds = rare_bounds(problem, at)
    bounds = RareBounds(bounds.low, bounds.high, np.minimum(bounds.room, most_rare), bounds.group_room)
    found, chosen = best_levels(problem, _ground(problem, at, bounds, bounds.low), levels, worth, fine)
    return complete(problem, at, found[None, :])[0], chosen


def _ground(problem: Problem, tokens: FloatArray, bounds: RareBounds, around: FloatArray) -> Ground:
    """What tasks have without upsampling, with common sources as they stand beside the rare shares
    `around`, shape (B, R)."""
    shares = complete(problem, tokens, around)
    in_common = frequencies(problem, tokens, np.where(problem.rare, 0.0, shares))
    lowest = np.zeros_like(shares)
    lowest[:, problem.rare] = bounds.low
    in_rare = frequencies(problem, tokens, lowest)
    held = shares[:, problem.rare].sum(axis=1)
    lost = in_common / np.maximum(1.0 - held, 1e-12)[:, None]
    moved = held - bounds.low.sum(axis=1)  # what the common sources had before these grew
    return Ground(tokens, bounds, in_rare + in_common + lost * moved[:, None], lost)


def _divided(
    problem: Problem, tokens: FloatArray, bounds: RareBounds, needed: FloatArray, fine: bool
) -> FloatArray:
    """Rare shares by the linear program, shape (B, R); again while common sources, which give way, leave a
    task short."""
    found = bounds.low
    for _ in range(_LINEAR_ROUNDS):
        ground = _ground(problem, tokens, bounds, found)
        before, found = found, least_rare_shares(problem, ground, needed, fine)
        if not ground.lost.any() or np.abs(found - before).max() < _SETTLED:
            break
    return found


def _raised(problem: Problem, tokens: FloatArray, bounds: RareBounds, needed: FloatArray) -> FloatArray:
    """Rare shares where each task has one rare source at most, shape (B, R): each source has what the most
    demanding of its tasks needs of it, over and over, as the common sources that give way hold instances
    too."""
    density = problem.density[:, problem.rare]
    tasks = np.flatnonzero(density.any(axis=1))
    home = density[tasks].argmax(axis=1)
    held = density[tasks, home]
    unique, half_life = problem.unique_tokens[problem.rare], problem.half_life[problem.rare]
    count = tokens[:, None]
    found = bounds.low
    for _ in range(_ROUNDS):
        shares = complete(problem, tokens, found)
        drawn = shares[:, problem.rare] * count
        worth = effective_tokens(drawn, unique, half_life)[:, home]  # (B, tasks)
        have = frequencies(problem, tokens, shares)[:, tasks]
        rest = np.maximum(1.0 - shares[:, problem.rare].sum(axis=1), 1e-12)[:, None]
        in_common = np.maximum(have - worth * held / count, 0.0)
        in_common[in_common < 1e-14 * have] = 0.0  # rounding of the difference
        fresh = np.exp(-np.maximum(drawn / unique - 1.0, 0.0) / half_life)[:, home]
        each = held * fresh
        gain = each - in_common / rest
        # A unit of share gives `each` in the source and takes the rest elsewhere.
        asked = np.where(gain > 0, (needed[:, tasks] - have) * each / np.where(gain > 0, gain, 1.0), 0.0)
        wanted = tokens_for_effective(
            np.maximum(worth + asked * count / held, 0.0), unique[home], half_life[home]
        )
        wanted = np.where(gain > 0, wanted / count, 0.0)
        raised = bounds.low.copy()
        for column, source in enumerate(home):
            raised[:, source] = np.maximum(raised[:, source], wanted[:, column])
        raised = np.clip(raised, bounds.low, np.maximum(bounds.high, bounds.low))
        raised = within_groups(problem, raised, bounds.low, bounds.group_room)
        raised = within_room(raised, bounds.low, bounds.room)
        moved, found = float(np.abs(raised - found).max()), raised
        if moved < _STILL:
            break
    return found
