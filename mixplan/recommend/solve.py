"""The cheapest training at one size, by bisection: p_learned rises with frequency, so each task has a
frequency it needs, each source a share that gives it, and the least tokens at which those shares fit are
the answer.

With one rare source a task this is exact. Where a task lives in several, sources are raised greedily, and the
search of `search.py` goes on from there.

Shape legend: B = candidates, S = sources, R = rare sources, T = tasks, G = grid of token counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.recommend.evaluate import (
    TOLERANCE,
    Outcome,
    complete,
    evaluate,
    frequencies,
    rare_bounds,
    within_room,
)
from mixplan.recommend.mixture import effective_tokens, tokens_for_effective
from mixplan.recommend.needs import Needs, horizon_of
from mixplan.recommend.objective import primary
from mixplan.recommend.problem import FAR, Problem
from mixplan.recommend.spread import is_spread, least_rare_shares

_NEAR_POINTS, _FAR_POINTS, _ZOOM_POINTS = 129, 49, 65
_ZOOMS, _EXACT_POINTS, _ROUNDS = 3, 4, 8
_ENOUGH = 1e-11
_NUDGES = np.array([0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3])  # what interpolation may have cost


@dataclass(frozen=True)
class Candidate:
    """One mixture at one size, as an Outcome of a single row."""

    outcome: Outcome

    @property
    def size(self) -> int:
        return int(self.outcome.size[0])

    @property
    def tokens(self) -> float:
        return float(self.outcome.tokens[0])

    @property
    def shares(self) -> FloatArray:
        """Shape (S,)."""
        return self.outcome.shares[0]

    @property
    def feasible(self) -> bool:
        return bool(self.outcome.feasible[0])

    @property
    def violation(self) -> float:
        return float(self.outcome.violation[0])


class Solver:
    """Answers "the least tokens at this size"; remembers the frequencies that tasks need."""

    def __init__(self, forecast: Forecast) -> None:
        self.forecast = forecast
        self.needs = Needs(forecast)

    def may_exist(self, problem: Problem) -> bool:
        """Whether any size and token count of the grids holds every limit, on interpolated needs."""
        return any(bool(self.screen(problem, size).feasible.any()) for size in range(len(problem.shapes)))

    def screen(self, problem: Problem, size: int) -> Outcome:
        """The least upsampling at every token count of a size's grid, on interpolated needs."""
        return self._fit(problem, size, self.grid(problem, size), None)

    def at_size(self, problem: Problem, size: int) -> Candidate:
        """The feasible mixture with the least tokens at one size, or else the least violation."""
        return self._least(problem, size, self.grid(problem, size), None)

    def best_at(self, problem: Problem, size: int) -> Candidate:
        """As `at_size`, with the upsampling divided at its best where tasks live in several rare sources."""
        candidate = self.at_size(problem, size)
        return self.improve(problem, candidate) if is_spread(problem) else candidate

    def best_effort(self, problem: Problem, size: int) -> Candidate | None:
        """What the whole budget gives within every limit but the targets: each task the same fraction of the
        frequency it needs, as large as possible. None where even the natural rates do not fit."""
        length = problem.sequence_length
        longest = max(float(problem.horizon[size]) // length * length, problem.min_tokens)
        needed = self.needs.exact(problem, size, np.array([longest]))
        fraction = np.concatenate([np.geomspace(1.0, 1e-3, 121), [0.0]])
        asked = fraction[:, None] * np.where(np.isfinite(needed), needed, 0.0)
        tokens, index = np.full(len(fraction), longest), np.full(len(fraction), size)
        shares = fit_shares(problem, tokens, asked)
        held = evaluate(problem, self.forecast, index, tokens, shares, asked).feasible
        if not held.any():
            return None
        at = [int(np.argmax(held))]
        return Candidate(evaluate(problem, self.forecast, index[at], tokens[at], shares[at]))

    def improve(self, problem: Problem, candidate: Candidate) -> Candidate:
        """The least tokens from the same mixture downwards; where tasks live in several rare sources, the
        upsampling is divided among them anew by a linear program, again and again while that saves tokens."""
        for _ in range(_ROUNDS):
            start = candidate.shares[problem.rare]
            if is_spread(problem):
                needed = self.needs.exact(problem, candidate.size, np.array([candidate.tokens]))[0]
                divided = least_rare_shares(problem, candidate.tokens, needed)
                start = start if divided is None else divided
            grid = self.grid(problem, candidate.size)
            if candidate.feasible:
                top = max(candidate.tokens, problem.min_tokens * (1 + 1e-9))
                grid = np.geomspace(problem.min_tokens, top, _NEAR_POINTS)
            found = self._least(problem, candidate.size, grid, start)
            if rank(problem, found) >= rank(problem, candidate):
                break
            saved = 1 - found.tokens / candidate.tokens
            worthwhile = not candidate.feasible or saved > 1e-4
            candidate = found
            if not worthwhile:
                break
        return candidate

    def grid(self, problem: Problem, size: int) -> FloatArray:
        """Token counts to look at: finely within the plan's own budget, coarsely beyond it. Shape (G,)."""
        horizon = horizon_of(problem, size)
        fine = np.geomspace(problem.min_tokens, horizon, _NEAR_POINTS)
        return np.concatenate([fine, np.geomspace(horizon, horizon * FAR, _FAR_POINTS)[1:]])

    def _fit(self, problem: Problem, size: int, tokens: FloatArray, start: FloatArray | None) -> Outcome:
        """The least upsampling at each token count, screened on interpolated needs."""
        needed = self.needs.at(problem, size, tokens)
        shares = fit_shares(problem, tokens, needed, start)
        return evaluate(problem, self.forecast, np.full(len(tokens), size), tokens, shares, needed)

    def _least(self, problem: Problem, size: int, grid: FloatArray, start: FloatArray | None) -> Candidate:
        """Zooms in on the first feasible token count of the grid, or on the least violation if none is."""
        lowest, highest = grid[0], grid[-1]
        for _ in range(_ZOOMS):
            at = _best_row(self._fit(problem, size, grid, start))
            below, above = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
            grid = np.geomspace(below, above, _ZOOM_POINTS) if above > below else grid[[at]]
            self.needs.exact(problem, size, grid[:: max(len(grid) // _EXACT_POINTS, 1)])
        at = _best_row(self._fit(problem, size, grid, start))
        tokens = np.unique(np.clip(grid[at] * (1 + _NUDGES), lowest, highest))
        needed = self.needs.exact(problem, size, tokens)
        shares = fit_shares(problem, tokens, needed, start)
        exact = evaluate(problem, self.forecast, np.full(len(tokens), size), tokens, shares)
        return Candidate(exact.row(_best_row(exact)))


def _best_row(outcome: Outcome) -> int:
    feasible = outcome.feasible
    return int(np.argmax(feasible)) if feasible.any() else int(np.argmin(outcome.violation))


def rank(problem: Problem, candidate: Candidate) -> tuple[bool, float, float, float, float]:
    """Sort key: feasible, then the objective (or the least violation), then FLOPs, common loss, upsampling."""
    outcome = candidate.outcome
    best = float(primary(problem, outcome)[0]) if candidate.feasible else candidate.violation
    cost = float(problem.cost(outcome.size, outcome.tokens)[0])
    loss = float(np.nan_to_num(outcome.common_loss[0], nan=0.0))
    return not candidate.feasible, best, cost, loss, float(candidate.shares[problem.rare].sum())


def missed_limits(problem: Problem, candidate: Candidate) -> list[str]:
    """Each limit that a candidate violates, with its value and what is allowed."""
    outcome = candidate.outcome
    columns = zip(problem.names, outcome.values[0], problem.limit, outcome.excess[0], strict=True)
    return [
        f"{name}: {value:.4g} against {limit:.4g}" for name, value, limit, over in columns if over > TOLERANCE
    ]


def fit_shares(
    problem: Problem,
    tokens: FloatArray,
    needed: FloatArray,
    start: FloatArray | None = None,
    most_rare: FloatArray | None = None,
) -> FloatArray:
    """Least upsampling that gives every task the frequency it needs, as far as caps and room allow.

    The task furthest below its need has its source raised (of several, the one that gains most a share); what
    is above every need is lowered again.

    Args:
        tokens: shape (B,).
        needed: shape (B, T).
        start: rare shares to start from, shape (R,); the lowest allowed if none.
        most_rare: upper bound on the sum of the rare shares, shape (B,).

    Returns:
        Shares of all sources, shape (B, S).
    """
    low, high, room = rare_bounds(problem, tokens)
    room = room if most_rare is None else np.minimum(room, most_rare)
    rare = np.flatnonzero(problem.rare)
    if not len(rare):
        return complete(problem, tokens, low)
    x = low.copy() if start is None else within_room(np.clip(start, low, high), low, room)
    given_up = np.zeros(needed.shape, dtype=bool)
    unique, half_life = problem.unique_tokens[rare], problem.half_life[rare]
    todo = np.arange(len(tokens))
    for _ in range(8 * len(problem.tasks) + 4 * len(rare) + 16):
        count = tokens[todo]
        shares = complete(problem, count, x[todo])
        x[todo] = shares[:, rare]
        have = frequencies(problem, count, shares)
        with np.errstate(divide="ignore", invalid="ignore"):
            short = np.where(
                given_up[todo] | (needed[todo] <= have * (1 + _ENOUGH)), 0.0, needed[todo] / have
            )
        active = short.max(axis=1) > 0
        if not active.any():
            break
        todo, count, shares, have, short = (v[active] for v in (todo, count, shares, have, short))
        rows, task = np.arange(len(todo)), np.argmax(short, axis=1)
        lack = needed[todo, task] - have[rows, task]
        drawn = x[todo] * count[:, None]
        fresh = np.exp(-np.maximum(drawn / unique - 1.0, 0.0) / half_life)  # worth of one more token, (b, R)
        rest = np.maximum(1.0 - x[todo].sum(axis=1), 1e-12)
        in_rare = frequencies(problem, count, np.where(problem.rare, shares, 0.0))[rows, task]
        # What the task has in a unit of common share, (b,); not below 0 by rounding.
        lost = np.maximum(have[rows, task] - in_rare, 0.0) / rest
        each = problem.density[task][:, rare] * fresh  # what it has in a unit more of each rare one, (b, R)
        spare = np.minimum(high[todo] - x[todo], (room[todo] - x[todo].sum(axis=1))[:, None])
        gain = np.where(spare > 1e-12, each - lost[:, None], 0.0)
        source = np.argmax(gain, axis=1)
        stuck = gain[rows, source] <= 0
        given_up[todo[stuck], task[stuck]] = True
        go, s = rows[~stuck], source[~stuck]
        asked = lack[go] * each[go, s] / gain[go, s] * count[go] / problem.density[task[go], rare[s]]
        worth = effective_tokens(drawn[go, s], unique[s], half_life[s]) + asked
        wanted = tokens_for_effective(worth, unique[s], half_life[s]) / count[go]
        x[todo[go], s] = np.minimum(wanted, x[todo[go], s] + spare[go, s])
    x = _lowered(problem, tokens, x, low, needed)
    return complete(problem, tokens, x)


def _lowered(
    problem: Problem, tokens: FloatArray, x: FloatArray, low: FloatArray, needed: FloatArray
) -> FloatArray:
    """Rare shares, one after the other brought down to what their tasks still need of them, shape (B, R)."""
    for column, s in enumerate(np.flatnonzero(problem.rare)):
        shares = complete(problem, tokens, x)
        spare = np.maximum(frequencies(problem, tokens, shares) - needed, 0.0)  # (B, T)
        unique, half_life = problem.unique_tokens[s], problem.half_life[s]
        worth = effective_tokens(x[:, column] * tokens, unique, half_life)  # (B,)
        held = problem.density[:, s] > 0
        give = (spare[:, held] / problem.density[held, s]).min(axis=1, initial=np.inf) * tokens
        kept = tokens_for_effective(np.maximum(worth - give, 0.0), unique, half_life) / tokens
        x[:, column] = np.clip(kept, low[:, column], x[:, column])
    return x
