"""The best mixture at one size, by reasoning and not by chance: p rises with frequency, so each task has a
frequency it needs, `fit_shares` has the least upsampling that gives it, and only the token count is left to
look through.

Shape legend: B = candidates, S = sources, T = tasks, G = grid of token counts, L = levels of probability.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.recommend.evaluate import (
    TOLERANCE,
    Outcome,
    evaluate,
    frequencies,
    probabilities,
    room_within_loss,
)
from mixplan.recommend.linear import is_spread
from mixplan.recommend.needs import Needs, horizon_of
from mixplan.recommend.objective import met, primary
from mixplan.recommend.problem import FAR, Problem
from mixplan.recommend.shares import fit_shares, share_out

# Token counts to look at: within the budget, beyond it, and between two of them when zooming in; the last is
# how often. A linear program takes more time for a count than the closed form, the more the larger the plan.
_CLOSED = 129, 49, 65, 3
_FAR_POINTS, _ZOOM_POINTS, _ZOOMS = 9, 9, 3
_BLOCKS, _LEAST_POINTS, _MOST_POINTS = 4000, 17, 97
_EXACT_POINTS = 4
_NEARBY = 0.995
_NUDGES = np.array([0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3])  # what interpolation may have cost
_AIMED_AT = 9  # token counts at which tasks are weighed against each other
_LEVELS = 12
_MAY_WIN = 0.95  # of the best size's worth, roughly found
_TIGHTER = (1.0, 0.999, 0.98, 0.9, 0.5, 0.0)


_Key = tuple[bytes, str, int]


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
    """Answers "the best mixture at this size"; remembers its answers and the frequencies that tasks need."""

    def __init__(self, forecast: Forecast) -> None:
        self.forecast = forecast
        self.needs = Needs(forecast)
        self._best: dict[_Key, Candidate] = {}
        self._rough: dict[_Key, Candidate | None] = {}

    def screen(self, problem: Problem, size: int) -> Outcome:
        """The least upsampling at every token count of a size's grid, on interpolated needs."""
        return self._fit(problem, size, self.grid(problem, size), fine=False)

    def best_at(self, problem: Problem, size: int) -> Candidate:
        """The best mixture at one size by the plan's objective, or else the one with the least violation."""
        key = _key(problem, size)
        if key not in self._best:
            found = self.at_size(problem, size)
            if not problem.targets_are_limits and found.feasible:
                found = min(
                    [found, *self._weighed(problem, size)], key=lambda candidate: rank(problem, candidate)
                )
            self._best[key] = found
        return self._best[key]

    def at_size(self, problem: Problem, size: int) -> Candidate:
        """As `best_at` for the objectives whose targets are limits; for others, what their limits alone ask
        for."""
        lowest, highest = (grid := self.grid(problem, size))[[0, -1]]
        near, _, points, zooms = _points(problem)
        longest = horizon_of(problem, size)
        for zoom in range(zooms):
            fine = zoom == zooms - 1
            if fine:  # coarse segments ask for a little too much
                low, high = max(_NEARBY * grid[0], lowest), min(grid[-1] / _NEARBY, highest)
                grid = _between(low, high, points, longest)
            outcome = self._fit(problem, size, grid[:near] if zoom == 0 else grid, fine)
            if zoom == 0 and not outcome.feasible.any():  # what lies beyond the budget is looked at only then
                outcome = self._fit(problem, size, grid, fine)
            at = _best_row(problem, outcome)
            # The first token count that is enough lies right behind the last that is not.
            first = problem.objective != "common_loss" and bool(outcome.feasible[at])
            below, above = grid[max(at - 1, 0)], grid[at if first else min(at + 1, len(grid) - 1)]
            grid = _between(below, above, points, longest) if above > below else grid[[at]]
            self.needs.exact(problem, size, grid[:: max(len(grid) // _EXACT_POINTS, 1)])
        at = _best_row(problem, self._fit(problem, size, grid, fine=True))
        tokens = np.unique(np.clip(grid[at] * (1 + _NUDGES), lowest, highest))
        found = self._exact(problem, size, tokens[:1])
        return found if found.feasible else self._exact(problem, size, tokens)

    def improve(self, problem: Problem, candidate: Candidate) -> Candidate:
        """The same shares at the best token count up to the candidate's: for laws that do not rise with
        frequency, where needs are no guide."""
        grid = np.geomspace(problem.min_tokens, max(candidate.tokens, problem.min_tokens), 65)
        for _ in range(3):
            index = np.full(len(grid), candidate.size)
            shares = np.broadcast_to(candidate.shares, (len(grid), len(candidate.shares)))
            outcome = evaluate(problem, self.forecast, index, grid, shares)
            at = _best_row(problem, outcome)
            found = Candidate(outcome.row(at))
            candidate = min(candidate, found, key=lambda one: rank(problem, one))
            grid = np.geomspace(grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)], 17)
        return candidate

    def nearest(self, problem: Problem, candidate: Candidate) -> Candidate:
        """The best there is at the size of an infeasible candidate: what misses targets alone, and those by
        least."""
        longest = float(problem.horizon[candidate.size])
        own = min(candidate.tokens, longest)  # with data at its cap a longer training may give less
        efforts = [self.best_effort(problem, candidate.size, length) for length in (longest, own)]
        targets = len(problem.tasks)

        def order(one: Candidate) -> tuple[bool, float]:
            others = one.outcome.excess[0, : len(problem.limit) - targets]
            return bool((others > TOLERANCE).any()), one.violation

        return min([candidate, *(one for one in efforts if one is not None)], key=order)

    def best_effort(self, problem: Problem, size: int, length: float | None = None) -> Candidate | None:
        """What a training (default: the whole budget) gives within every limit but the targets: each task the
        same fraction of the frequency it needs, as large as possible. None where even the natural rates do
        not fit."""
        sample = problem.sequence_length
        asked_for = float(problem.horizon[size]) if length is None else length
        longest = max(asked_for // sample * sample, problem.min_tokens)
        at = np.array([longest])
        needed = self.needs.exact(problem, size, at)
        hungry = ~np.isfinite(needed)
        if hungry.any():  # of what no frequency reaches, all that there is room for counts as its need
            most = frequencies(problem, at, fit_shares(problem, at, np.where(hungry, np.inf, 0.0)))
            needed = np.where(hungry, most, needed)
        points = 13 if is_spread(problem) else 121
        fraction = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, points)])
        for _ in range(3):
            tokens, index = np.full(len(fraction), longest), np.full(len(fraction), size)
            asked = fraction[:, None] * needed
            shares = fit_shares(problem, tokens, asked)
            held = evaluate(problem, self.forecast, index, tokens, shares, asked).feasible
            if not held.any():
                return None
            last = int(np.flatnonzero(held)[-1])
            row = [last]
            best = Candidate(evaluate(problem, self.forecast, index[row], tokens[row], shares[row]))
            if last + 1 == len(fraction):
                break
            fraction = np.linspace(fraction[last], fraction[last + 1], points)
        return best

    def grid(self, problem: Problem, size: int) -> FloatArray:
        """Token counts to look at: finely within the plan's own budget, coarsely beyond it. Shape (G,)."""
        near, far, _, _ = _points(problem)
        horizon = horizon_of(problem, size)
        fine = np.geomspace(problem.min_tokens, horizon, near)
        return np.concatenate([fine, np.geomspace(horizon, horizon * FAR, far)[1:]])

    def _fit(self, problem: Problem, size: int, tokens: FloatArray, fine: bool) -> Outcome:
        """The least upsampling at each token count, screened on interpolated needs."""
        needed = self.needs.at(problem, size, tokens)
        shares = fit_shares(problem, tokens, needed, fine=fine)
        return evaluate(problem, self.forecast, np.full(len(tokens), size), tokens, shares, needed)

    def _exact(self, problem: Problem, size: int, tokens: FloatArray) -> Candidate:
        """The best of a few token counts, on exact needs."""
        needed = self.needs.exact(problem, size, tokens)
        shares = fit_shares(problem, tokens, needed)
        exact = evaluate(problem, self.forecast, np.full(len(tokens), size), tokens, shares)
        return Candidate(exact.row(_best_row(problem, exact)))

    def _weighed(self, problem: Problem, size: int) -> list[Candidate]:
        """Mixtures that weigh the tasks against each other, at several token counts within the budget; for
        `most_tasks` also the cheapest one that reaches what the best of them reaches, for `value` finer ones
        around the best, at the sizes that may win."""
        best = self._coarse(problem, size)
        if best is None:
            return []
        if problem.objective == "value":
            others = [self._coarse(problem, other) for other in range(len(problem.shapes))]
            worth = [-float(primary(problem, one.outcome)[0]) for one in others if one is not None]
            if -float(primary(problem, best.outcome)[0]) < _MAY_WIN * max(worth):
                return [best]
            step = (horizon_of(problem, size) / problem.min_tokens) ** (1.0 / (_AIMED_AT - 1))
            around = best.tokens * step ** np.linspace(-0.75, 0.75, 7)
            around = np.unique(np.clip(around, problem.min_tokens, horizon_of(problem, size)))
            finer = (self._aimed(problem, size, float(tokens), rounds=3) for tokens in around)
            return [best, *(one for one in finer if one is not None)]
        reached = met(problem, best.outcome)[0]
        targets = np.where(reached, problem.wanted, -np.inf)
        limit = np.concatenate([problem.limit[: len(problem.limit) - len(targets)], targets])
        cheaper = self.best_at(replace(problem, limit=limit, objective="cheapest"), size)
        index = np.array([size])
        again = evaluate(problem, self.forecast, index, np.array([cheaper.tokens]), cheaper.shares[None, :])
        return [best, Candidate(again)]

    def _coarse(self, problem: Problem, size: int) -> Candidate | None:
        """The best of several token counts, roughly; None where the limits alone do not hold."""
        key = _key(problem, size)
        if key not in self._rough:
            grid = np.geomspace(problem.min_tokens, horizon_of(problem, size), _AIMED_AT)
            found = [one for tokens in grid if (one := self._aimed(problem, size, float(tokens)))]
            self._rough[key] = min(found, key=lambda candidate: rank(problem, candidate), default=None)
        return self._rough[key]

    def _aimed(self, problem: Problem, size: int, tokens: float, rounds: int = 1) -> Candidate | None:
        """The mixture with the largest worth at one token count; None where the limits alone do not hold.

        For `value`, further rounds look more finely around the levels that were chosen.
        """
        at, index = np.array([tokens]), np.array([size])
        room = float(room_within_loss(problem, self.forecast, index, at)[0])
        for part in _TIGHTER:  # the room within the loss bound takes the rare sources to be in proportion
            natural, high = self._reach(problem, tokens)
            low = natural
            for _ in range(rounds):
                levels, worth = self._levels(problem, size, tokens, natural, low, high)
                fine = rounds > 1 or problem.objective == "most_tasks"
                shares, chosen = share_out(problem, tokens, levels, worth, room * part, fine)
                if problem.objective == "most_tasks":
                    break
                padded = np.concatenate([low[:, None], levels, levels[:, -1:]], axis=1)
                task = np.arange(len(chosen))
                low, high = padded[task, np.maximum(chosen, 0)], padded[task, chosen + 2]
            outcome = evaluate(problem, self.forecast, index, at, shares[None, :])
            if outcome.feasible[0]:
                return Candidate(outcome)
        return None

    def _reach(self, problem: Problem, tokens: float) -> tuple[FloatArray, FloatArray]:
        """Frequency of each task in the natural mixture, and of all sources at once, shapes (T,)."""
        at = np.array([tokens])
        base = frequencies(problem, at, problem.natural[None, :])[0]
        most = np.maximum(frequencies(problem, at, np.ones((1, len(problem.sources))))[0], base)
        return np.maximum(base, 1e-6 * most), most

    def _levels(
        self,
        problem: Problem,
        size: int,
        tokens: float,
        natural: FloatArray,
        low: FloatArray,
        high: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Frequencies to aim at between two, and what each is worth beyond the natural, shapes (T, L)."""
        if problem.objective == "most_tasks":
            limit = problem.limit.copy()
            limit[len(limit) - len(problem.tasks) :] = problem.wanted
            needed = self.needs.exact(replace(problem, limit=limit), size, np.array([tokens]))
            return needed.T, problem.value[:, None]
        rows = 4 * _LEVELS
        frequency = low * (high / low) ** np.linspace(0.0, 1.0, rows)[:, None]  # (4L, T)
        asked = np.concatenate([natural[None, :], frequency])
        count = len(asked)
        p0, *rest = probabilities(problem, self.forecast, np.full(count, size), np.full(count, tokens), asked)
        p = np.array(rest)
        # Of the many frequencies, those that part the way from the lowest to the highest p evenly.
        aims = p[0] + np.linspace(0.0, 1.0, _LEVELS + 1)[1:, None] * (p.max(axis=0) - p[0])  # (L, T)
        picked = np.stack(
            [np.minimum(np.searchsorted(p[:, t], aims[:, t] - 1e-12), rows - 1) for t in range(p.shape[1])]
        )  # (T, L)
        column = np.arange(p.shape[1])[:, None]
        gained = np.maximum(p.T[column, picked] - p0[:, None], 0.0)
        return frequency.T[column, picked], problem.value[:, None] * gained


def _points(problem: Problem) -> tuple[int, int, int, int]:
    """Token counts within the budget, beyond it, in a zoom, and zooms. A window of lengths that is narrower
    than the first ones stand apart may be missed."""
    if not is_spread(problem):
        return _CLOSED
    fitting = _BLOCKS // (len(problem.tasks) * len(problem.sources))
    return int(np.clip(fitting, _LEAST_POINTS, _MOST_POINTS)), _FAR_POINTS, _ZOOM_POINTS, _ZOOMS


def _between(low: float, high: float, points: int, longest: float) -> FloatArray:
    """Token counts from one to another, with all that the budget buys among them where it lies between."""
    grid = np.geomspace(low, high, points)
    return np.sort(np.append(grid, longest)) if low < longest < high else grid


def _key(problem: Problem, size: int) -> _Key:
    """What may differ between two problems that one solver is asked about."""
    arrays = (
        *(problem.limit, problem.given, problem.wanted, problem.confidence, problem.value),
        *(problem.unique_tokens, problem.natural, problem.horizon, np.array([problem.min_tokens])),
    )
    return b"".join(one.tobytes() for one in arrays), problem.objective, size


def _best_row(problem: Problem, outcome: Outcome) -> int:
    """The row that the objective likes best; where its targets are weighed, the shortest training."""
    feasible = outcome.feasible
    if not feasible.any():
        return int(np.argmin(outcome.violation))
    if problem.objective != "common_loss":
        return int(np.argmax(feasible))
    return int(np.argmin(np.where(feasible, primary(problem, outcome), np.inf)))


def rank(problem: Problem, candidate: Candidate) -> tuple[bool, float, float, float, float]:
    """Sort key: feasible, the objective (or the least violation), then FLOPs, common loss, upsampling."""
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
        f"{name}: {f'{value:.4g}' if np.isfinite(value) else 'no common data'} against {limit:.10g}"
        for name, value, limit, over in columns
        if over > TOLERANCE
    ]
