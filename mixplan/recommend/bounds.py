"""Which shares the plan allows at a token count, and how the common sources divide what the rare ones leave.

Shape legend: B = candidate mixtures, S = sources, R = rare sources, G = groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixplan.documents.forecast import FloatArray
from mixplan.recommend.mixture import fill, fill_grouped
from mixplan.recommend.problem import Problem


@dataclass(frozen=True)
class RareBounds:
    """Between which shares the rare sources may be."""

    low: FloatArray
    """Natural, or what the plan's limits force it down to, shape (B, R)."""
    high: FloatArray
    """What max_share and max_epochs allow, shape (B, R)."""
    room: FloatArray
    """1 minus the least of the common sources: for all rare ones together, shape (B,)."""
    group_room: FloatArray
    """The same within each group, shape (B, G)."""


def rare_bounds(problem: Problem, tokens: FloatArray) -> RareBounds:
    """Bounds on the rare shares at each token count, shape (B,).

    From natural up to what max_share and max_epochs allow; below natural only where the plan's limits force
    it (those of the plan: with limits dropped, no mixture is lost that was allowed before).
    """
    plan = problem.as_given()
    usual = np.broadcast_to(problem.natural[problem.rare], (len(tokens), int(problem.rare.sum())))
    usual = _allowed(plan, tokens, usual)
    cap, floor = caps_and_floors(problem, tokens)
    low = _allowed(problem, tokens, usual)
    return RareBounds(low, cap[:, problem.rare], *_rooms(problem, cap, floor))


def caps_and_floors(problem: Problem, tokens: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Largest share of each source that max_share and max_epochs allow, and the smallest; shapes (B, S)."""
    with np.errstate(over="ignore"):
        by_epochs = problem.max_epochs * problem.unique_tokens / tokens[:, None]
    cap = np.minimum(problem.max_share, by_epochs)
    return cap, np.minimum(problem.min_share, cap)


def _allowed(problem: Problem, tokens: FloatArray, shares: FloatArray) -> FloatArray:
    """Rare shares moved into every bound as far as that is possible, shape (B, R)."""
    cap, floor = caps_and_floors(problem, tokens)
    high, least = cap[:, problem.rare], floor[:, problem.rare]
    found = np.clip(shares, least, high)
    room, group_room = _rooms(problem, cap, floor)
    found = within_groups(problem, found, least, group_room)
    for at, inside in enumerate(problem.member[:, problem.rare]):
        # What the common members of a group cannot give of its minimum, the rare ones must.
        asked = problem.group_min[at] - cap[:, problem.member[at] & ~problem.rare].sum(axis=1)
        if inside.any() and (asked > found[:, inside].sum(axis=1)).any():
            total = np.maximum(asked, found[:, inside].sum(axis=1))
            weights = problem.natural[problem.rare][inside]
            found[:, inside] = fill(weights, found[:, inside], high[:, inside], total)
    return within_room(found, least, room)


def _rooms(problem: Problem, cap: FloatArray, floor: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How much the rare sources may have: all together (B,), and in each group (B, G)."""
    single = ~problem.rare & ~problem.member.any(axis=0)
    least = floor[:, single].sum(axis=1)
    group_room = np.empty((len(cap), len(problem.groups)))
    for at, inside in enumerate(problem.member):
        common = floor[:, inside & ~problem.rare].sum(axis=1)
        group_room[:, at] = problem.group_max[at] - common
        least = least + np.maximum(
            common, np.minimum(problem.group_min[at], 1.0) - cap[:, inside & problem.rare].sum(axis=1)
        )
    return 1.0 - least, group_room


def within_room(shares: FloatArray, least: FloatArray, room: FloatArray) -> FloatArray:
    """Rare shares pulled towards `least`, all by one fraction, until they fit into `room`, shape (B, R)."""
    base, total = least.sum(axis=1), shares.sum(axis=1)
    spread = total - base
    pull = np.where(total > room, np.clip((room - base) / np.where(spread > 0, spread, 1.0), 0.0, 1.0), 1.0)
    return least + (shares - least) * pull[:, None]


def within_groups(
    problem: Problem, shares: FloatArray, least: FloatArray, group_room: FloatArray
) -> FloatArray:
    """The same group by group, shape (B, R)."""
    found = shares.copy()
    for at, inside in enumerate(problem.member[:, problem.rare]):
        if inside.any():
            found[:, inside] = within_room(found[:, inside], least[:, inside], group_room[:, at])
    return found


def complete(problem: Problem, tokens: FloatArray, rare_shares: FloatArray) -> FloatArray:
    """All shares from the rare ones: common sources divide the rest in natural proportion, within their
    bounds.

    Where the common sources at their caps cannot take the rest, the rare ones take it up to theirs; where
    nobody can, it is divided in natural proportion and the caps are exceeded, which `evaluate` then reports.

    Args:
        tokens: shape (B,).
        rare_shares: shape (B, R), summing to at most 1.

    Returns:
        Shares, shape (B, S), summing to 1.
    """
    rare = problem.rare
    cap, floor = caps_and_floors(problem, tokens)
    rest = 1.0 - rare_shares.sum(axis=1)
    common = _common(problem, cap[:, ~rare], floor[:, ~rare], rest, rare_shares)
    left = rest - common.sum(axis=1)
    slack = np.maximum(cap[:, rare] - rare_shares, 0.0)
    for at, inside in enumerate(problem.member):
        held = rare_shares[:, inside[rare]].sum(axis=1) + common[:, inside[~rare]].sum(axis=1)
        free, wish = np.maximum(problem.group_max[at] - held, 0.0), slack[:, inside[rare]].sum(axis=1)
        slack[:, inside[rare]] *= np.minimum(free / np.where(wish > 0, wish, 1.0), 1.0)[:, None]
    total_slack = slack.sum(axis=1)
    taken = np.clip(left, 0.0, total_slack)
    shares = np.empty((len(tokens), len(problem.sources)))
    shares[:, rare] = rare_shares + slack * (taken / np.where(total_slack > 0, total_slack, 1.0))[:, None]
    shares[:, ~rare] = common
    left = left - taken
    shares += np.maximum(left, 0.0)[:, None] * problem.natural
    # Lower bounds that do not fit beside the rare shares: everyone gives way alike.
    return shares / shares.sum(axis=1, keepdims=True)


def _common(
    problem: Problem, cap: FloatArray, floor: FloatArray, rest: FloatArray, rare_shares: FloatArray
) -> FloatArray:
    """Shares of the common sources, shape (B, C); caps and floors are theirs."""
    weights, member = problem.natural[~problem.rare], problem.member[:, ~problem.rare]
    held = rare_shares @ problem.member[:, problem.rare].T  # (B, G)
    some = member.any(axis=1)
    if not some.any():
        return fill(weights, floor, cap, rest)
    low = np.maximum(problem.group_min - held, 0.0)[:, some]
    high = np.maximum(problem.group_max - held, 0.0)[:, some]
    return fill_grouped(weights, floor, cap, rest, member[some], low, high)
