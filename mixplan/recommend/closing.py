"""The answer without caps and bounds, and the data that would have to be collected to come near it.

Shape legend: S = sources.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mixplan.documents.forecast import FloatArray
from mixplan.documents.plan import Plan
from mixplan.documents.recipe import Alternative, MissingData
from mixplan.recommend.alternatives import alternative, best_of, broken_limits, least_at_sizes, unbounded
from mixplan.recommend.evaluate import evaluate
from mixplan.recommend.mixture import effective_tokens
from mixplan.recommend.objective import primary
from mixplan.recommend.problem import Problem
from mixplan.recommend.solve import Candidate, Solver, rank

WITHOUT_BOUNDS, WITH_DATA = "without caps and bounds", "with the data collected"
_WORTHWHILE = 0.01
"""Data is asked for where it saves at least this part of the cost."""
_SLACK = 1e-6
_CLOSE = 0.01


@dataclass(frozen=True)
class Closing:
    """What the limits other than budget and targets keep the plan from, and what would change that."""

    unconstrained: Alternative
    missing: list[MissingData]
    with_data: Alternative | None


def closing(plan: Plan, problem: Problem, solver: Solver, chosen: Candidate) -> Closing:
    """The unconstrained answer, the missing data, and the plan solved anew with that data."""
    loose, bounds = unbounded(problem), least_at_sizes(solver, problem)
    free = best_of(solver, loose, bounds)
    shown = alternative(plan, loose, solver.forecast, free, WITHOUT_BOUNDS)
    broken = broken_limits(plan, problem, under(problem, solver, free))
    if not shown.note and broken:
        shown = shown.model_copy(update={"note": "breaks " + "; ".join(broken)})
    missing, answer = _missing(problem, solver, chosen, bounds)
    with_data = None
    if answer is not None:
        more = with_tokens(problem, missing)
        with_data = alternative(plan, more, solver.forecast, answer, WITH_DATA)
    return Closing(shown, missing, with_data)


def under(problem: Problem, solver: Solver, candidate: Candidate) -> Candidate:
    """The same mixture, judged by other limits."""
    tokens, shares = np.array([candidate.tokens]), candidate.shares[None, :]
    return Candidate(evaluate(problem, solver.forecast, np.array([candidate.size]), tokens, shares))


def with_tokens(problem: Problem, missing: list[MissingData]) -> Problem:
    """The problem with that data collected; natural shares stay as they are."""
    unique = problem.unique_tokens.copy()
    for one in missing:
        unique[problem.sources.index(one.source)] = one.tokens_needed
    return replace(problem, unique_tokens=unique)


def _missing(
    problem: Problem, solver: Solver, chosen: Candidate, bounds: FloatArray
) -> tuple[list[MissingData], Candidate | None]:
    """What each source whose cap on epochs is in the way lacks, and the answer with it."""
    caps = [f"sources.{name}.max_epochs" for name in problem.sources]
    goal = best_of(solver, problem.without(caps), bounds)
    over = goal.outcome.epochs[0] > problem.max_epochs * (1 + 1e-9)  # (S,)
    if not goal.feasible or not over.any() or not _better(problem, goal, chosen, _WORTHWHILE):
        return [], None
    for needed in _needed_tokens(problem, goal):
        unique = np.where(over, np.ceil(needed * (1 + _SLACK)), problem.unique_tokens)
        missing = [
            MissingData(
                source=problem.sources[s],
                tokens_available=float(problem.unique_tokens[s]),
                tokens_needed=float(unique[s]),
                tokens_missing=float(unique[s] - problem.unique_tokens[s]),
            )
            for s in np.flatnonzero(over)
            if unique[s] > problem.unique_tokens[s]
        ]
        answer = best_of(solver, with_tokens(problem, missing), bounds)
        if answer.feasible and not _better(problem, goal, answer, _CLOSE):
            break
    return (missing, answer) if answer.feasible else ([], None)


def _needed_tokens(problem: Problem, goal: Candidate) -> list[FloatArray]:
    """Unique tokens with which each source gives, at its cap, what it gives in `goal`; each shape (S,).

    First as few as do: a source at its cap is worth U·g epochs' worth, g that of its cap for one token, so a
    rare one needs (what it is worth in `goal`) ÷ g; fresher data is drawn less, and the common sources must
    fill the rest. Where they cannot, the same tokens are drawn: drawn ÷ cap.
    """
    drawn = goal.shares * goal.tokens
    worth = effective_tokens(drawn, problem.unique_tokens, problem.half_life)
    with np.errstate(over="ignore"):
        at_cap = effective_tokens(problem.max_epochs, np.ones_like(drawn), problem.half_life)
    by_draws = drawn / problem.max_epochs
    return [np.where(problem.rare, worth / at_cap, by_draws), by_draws]


def _better(problem: Problem, one: Candidate, than: Candidate, part: float) -> bool:
    """Whether a candidate is better by a part of the objective."""
    if one.feasible != than.feasible:
        return one.feasible
    mine, other = (float(primary(problem, candidate.outcome)[0]) for candidate in (one, than))
    return rank(problem, one) < rank(problem, than) and other - mine > part * abs(other)
