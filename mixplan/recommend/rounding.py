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

_STEPS, _GROWTH = 48, 0.05


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
    """The whole-sample mixture next to a candidate that holds every limit, with the fewest samples.

    Rounding can cost a task its target or the loss bound by a hair; then a few more samples (up to 5 %) are
    tried. An infeasible candidate, or one that no rounding keeps feasible, comes back rounded and infeasible.
    """
    length = problem.sequence_length
    exact = candidate.tokens / length
    least = max(int(np.ceil(problem.min_tokens / length - TOLERANCE)), 1)
    nearest = max(int(np.floor(exact * (1 + 1e-9))), least)  # down: what the budget allows stays allowed
    if not candidate.feasible:
        return _rounded(solver, problem, candidate, np.array([nearest]), refit=False)
    if not problem.targets_are_limits:
        # What the tasks have reached is what rounding must not lose.
        reached = np.where(met(problem, candidate.outcome)[0], problem.wanted, -np.inf)
        limit = np.concatenate([problem.limit[: len(problem.limit) - len(reached)], reached])
        held = replace(problem, limit=limit)
        kept = _grown(solver, held, candidate, exact, least, refit=problem.objective == "most_tasks")
        return Whole(
            Candidate(
                evaluate(
                    problem,
                    solver.forecast,
                    kept.candidate.outcome.size,
                    kept.candidate.outcome.tokens,
                    kept.candidate.outcome.shares,
                )
            ),
            kept.choose,
        )
    return _grown(solver, problem, candidate, exact, least, refit=True)


def _grown(
    solver: Solver, problem: Problem, candidate: Candidate, exact: float, least: int, refit: bool
) -> Whole:
    """The fewest samples, from the exact count onwards, at which a rounded mixture holds every limit."""
    first = max(int(np.floor(exact * (1 - 1e-5))), least)
    growing = first + np.unique(np.geomspace(1, max(_GROWTH * first, _STEPS), _STEPS).astype(np.int64))
    found = _rounded(solver, problem, candidate, np.concatenate([[first], growing]), refit)
    if not found.candidate.feasible:
        return found
    before = [n for n in (first, *growing) if n < found.samples]
    between = np.unique(np.linspace(before[-1] + 1, found.samples, _STEPS).astype(np.int64)) if before else []
    return _rounded(solver, problem, candidate, np.asarray(between), refit) if len(between) > 1 else found


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
        for shares, idle_down in product(mixtures, (False, True)):
            choose = _choose(problem, int(count), shares[row], idle_down)
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


def _choose(problem: Problem, samples: int, shares: FloatArray, idle_down: bool) -> np.ndarray | None:
    """Whole samples within every cap and bound; None where they do not fit.

    Rare sources are rounded up (with `idle_down`, those at their natural share down), common ones by largest
    remainder.
    """
    by_epochs = problem.max_epochs * problem.unique_tokens / problem.sequence_length
    high = np.floor(np.minimum(problem.max_share * samples, np.minimum(by_epochs, samples)) + 1e-9).astype(
        np.int64
    )
    low = np.ceil(problem.min_share * samples - 1e-9).astype(np.int64)
    rare = problem.rare
    choose = np.zeros(len(shares), dtype=np.int64)
    exact = shares[rare] * samples
    down = idle_down & (shares[rare] <= problem.natural[rare] * (1 + 1e-9))
    whole = np.where(down, np.floor(exact + 1e-9), np.ceil(exact - 1e-9))
    choose[rare] = np.clip(whole, low[rare], high[rare]).astype(np.int64)
    for source in np.flatnonzero(rare):  # what the common sources at their caps cannot take
        left = samples - int(choose[rare].sum()) - int(high[~rare].sum())
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
    return choose


def _by_largest_remainder(shares: FloatArray, samples: int) -> np.ndarray:
    """Shares as whole samples without any bounds, for mixtures that hold no limits anyway."""
    count = len(shares)
    bounds = np.zeros(count, dtype=np.int64), np.full(count, samples, dtype=np.int64)
    found = largest_remainder(shares * samples, *bounds, samples)
    assert found is not None  # 0 … samples always holds `samples`
    return found
