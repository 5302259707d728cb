"""Shares become whole samples: exact sums, and every limit checked again on the integers.

Shape legend: S = sources, R = rare sources, n = samples of the whole run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from mixplan.documents.forecast import FloatArray
from mixplan.recommend.evaluate import TOLERANCE, evaluate
from mixplan.recommend.mixture import fill, largest_remainder
from mixplan.recommend.objective import met
from mixplan.recommend.problem import Problem
from mixplan.recommend.shares import fit_shares
from mixplan.recommend.solve import Candidate, Solver

_STEPS, _GROWTH, _SHRINKING = 48, 0.05, 0.6
_DOWN = (0.0, 1.0, np.inf)  # which rare sources are rounded down: none, those not upsampled, all


@dataclass(frozen=True)
class Whole:
    """A mixture of whole samples."""

    candidate: Candidate
    """Evaluated at shares = choose ÷ samples and tokens = samples × sequence_length."""
    choose: np.ndarray
    """Samples of each source, shape (S,)."""

    @property
    def samples(self) -> int:
        return int(self.choose.sum())


def round_samples(solver: Solver, problem: Problem, candidate: Candidate) -> Whole:
    """The whole-sample mixture next to a candidate that holds every limit.

    Rounding can cost a task its target or a bound by a hair; then a few more samples (up to 5 %) are tried,
    or fewer. A candidate that is infeasible, or that no rounding keeps feasible, comes back infeasible.
    """
    length = problem.sequence_length
    exact = candidate.tokens / length
    least = max(int(np.ceil(problem.min_tokens / length - TOLERANCE)), 1)
    nearest = max(int(np.floor(exact * (1 + 1e-9))), least)  # down: what the budget allows stays allowed
    if not candidate.feasible:
        return _rounded(solver, problem, candidate, np.array([nearest]), refit=False)
    if problem.targets_are_limits:
        return _nearest(solver, problem, candidate, exact, least)
    # What the tasks have reached is what rounding must not lose, if it can be kept.
    reached = np.where(met(problem, candidate.outcome)[0], problem.wanted, -np.inf)
    limit = np.concatenate([problem.limit[: len(problem.limit) - len(reached)], reached])
    kept = _nearest(solver, replace(problem, limit=limit), candidate, exact, least)
    if not kept.candidate.feasible:
        return _nearest(solver, problem, candidate, exact, least)
    return _evaluated(solver, problem, candidate.size, kept.choose)


def _nearest(solver: Solver, problem: Problem, candidate: Candidate, exact: float, least: int) -> Whole:
    """The first count at which a rounded mixture holds every limit: upwards from the exact one where the
    shortest training is wanted, else downwards; then the other way."""
    first = max(int(np.floor(exact * (1 - 1e-5))), least)
    up = first + np.unique(np.geomspace(1, max(_GROWTH * first, _STEPS), _STEPS).astype(np.int64))
    down = first - np.unique(np.geomspace(1, max(_SHRINKING * first, _STEPS), _STEPS).astype(np.int64))
    ways = [np.concatenate([[first], up]), down[down >= least]]
    if problem.objective in ("common_loss", "value"):
        ways = [np.concatenate([[int(np.floor(exact * (1 + 1e-9)))], ways[1]]), up]
    # The value of a mixture lies in all its shares, not only in those that targets ask for.
    refit = problem.objective != "value"
    found: Whole | None = None
    for counts in ways:
        if len(counts) == 0:
            continue
        found = _rounded(solver, problem, candidate, counts, refit)
        if found.candidate.feasible:
            at = int(np.flatnonzero(counts == found.samples)[0])
            near = np.linspace(counts[max(at - 1, 0)], counts[at], _STEPS).astype(np.int64)
            between = near[np.sort(np.unique(near, return_index=True)[1])][1:]
            return _rounded(solver, problem, candidate, between, refit) if len(between) > 1 else found
    assert found is not None  # the first way has a count
    return found


def _rounded(
    solver: Solver, problem: Problem, candidate: Candidate, counts: np.ndarray, refit: bool
) -> Whole:
    """The first of these sample counts at which a rounded mixture holds every limit, or else the last tried.

    Tried are the least upsampling that the needs at that count ask for (with `refit`), then the candidate's
    own shares: needs are no guide where a law does not rise with frequency.
    """
    tokens = counts.astype(np.float64) * problem.sequence_length
    own = np.broadcast_to(candidate.shares, (len(counts), len(candidate.shares)))
    mixtures = [own]
    if refit:
        needed = solver.needs.at(problem, candidate.size, tokens)
        mixtures.insert(0, fit_shares(problem, tokens, needed))
    last: Whole | None = None
    for row, count in enumerate(counts):
        for shares, down in product(mixtures, _DOWN):
            choose = _choose(problem, int(count), shares[row], down)
            if choose is None:
                continue
            last = _evaluated(solver, problem, candidate.size, choose)
            if last.candidate.feasible:
                return last
    if last is None:
        last = _evaluated(solver, problem, candidate.size, _by_largest_remainder(own[0], int(counts[0])))
    return last


def _evaluated(solver: Solver, problem: Problem, size: int, choose: np.ndarray) -> Whole:
    samples = int(choose.sum())
    tokens = np.array([float(samples) * problem.sequence_length])
    outcome = evaluate(problem, solver.forecast, np.array([size]), tokens, choose[None, :] / samples)
    return Whole(Candidate(outcome), choose)


def _choose(problem: Problem, samples: int, shares: FloatArray, down: float) -> np.ndarray | None:
    """Whole samples within every cap and bound; None where they do not fit.

    Rare sources are rounded up (those at up to `down` times their natural share down), common ones by largest
    remainder.
    """
    with np.errstate(over="ignore"):
        by_epochs = problem.max_epochs * problem.unique_tokens / problem.sequence_length
    high = np.floor(np.minimum(problem.max_share * samples, np.minimum(by_epochs, samples)) + 1e-9).astype(
        np.int64
    )
    low = np.ceil(problem.min_share * samples - 1e-9).astype(np.int64)
    rare = problem.rare
    choose = np.zeros(len(shares), dtype=np.int64)
    exact = shares[rare] * samples
    idle = shares[rare] <= problem.natural[rare] * down * (1 + 1e-9)
    whole = np.where(idle, np.floor(exact + 1e-9), np.ceil(exact - 1e-9))
    choose[rare] = np.clip(whole, low[rare], high[rare]).astype(np.int64)
    for source in np.flatnonzero(rare):  # what the common sources at their caps cannot take
        left = samples - int(choose[rare].sum()) - _most_common(problem, samples, choose, high)
        choose[source] += np.clip(left, 0, high[source] - choose[source])
    rest = samples - int(choose[rare].sum())
    if rest < 0 or bool((low > high).any()):
        return None
    parts = fill(
        problem.natural[~rare],
        low[None, ~rare].astype(np.float64),
        high[None, ~rare].astype(np.float64),
        np.array([float(rest)]),
    )[0]
    common = largest_remainder(parts, low[~rare], high[~rare], rest)
    if common is None:
        return None
    choose[~rare] = common
    return choose if _groups_kept(problem, samples, choose, low, high) else None


def _most_common(problem: Problem, samples: int, choose: np.ndarray, high: np.ndarray) -> int:
    """Samples that the common sources can take at most beside the rare ones of `choose`."""
    most = int(high[~problem.rare & ~problem.member.any(axis=0)].sum())
    for at, inside in enumerate(problem.member):
        left = int(np.floor(problem.group_max[at] * samples + 1e-9)) - int(
            choose[inside & problem.rare].sum()
        )
        most += min(int(high[inside & ~problem.rare].sum()), max(left, 0))
    return most


def _groups_kept(
    problem: Problem, samples: int, choose: np.ndarray, low: np.ndarray, high: np.ndarray
) -> bool:
    """Moves samples between common sources, in place, until every group is within its bounds; False where
    they cannot bring it there."""
    common = ~problem.rare
    for at, inside in enumerate(problem.member):
        most = int(np.floor(problem.group_max[at] * samples + 1e-9))
        least = int(np.ceil(problem.group_min[at] * samples - 1e-9))
        held = int(choose[inside].sum())
        excess = held - most if held > most else min(held - least, 0)
        givers, takers = (inside, ~inside) if excess > 0 else (~inside, inside)
        for giver in np.flatnonzero(givers & common):
            for taker in np.flatnonzero(takers & common):
                moved = min(abs(excess), choose[giver] - low[giver], high[taker] - choose[taker])
                choose[giver] -= moved
                choose[taker] += moved
                excess -= int(np.sign(excess)) * int(moved)
        if excess:
            return False
    totals = problem.member @ choose
    over = totals > problem.group_max * samples + 1e-9
    return not bool((over | (totals < problem.group_min * samples - 1e-9)).any())


def _by_largest_remainder(shares: FloatArray, samples: int) -> np.ndarray:
    """Shares as whole samples without any bounds, for mixtures that hold no limits anyway."""
    count = len(shares)
    bounds = np.zeros(count, dtype=np.int64), np.full(count, samples, dtype=np.int64)
    found = largest_remainder(shares * samples, *bounds, samples)
    assert found is not None  # 0 … samples always holds `samples`
    return found
