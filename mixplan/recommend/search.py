"""Optuna over size, tokens and the rates of rare sources, from the analytic answers onwards.

The analytic answer of each size starts the study. It is exact when each task has one rare source; the
search is for what it does not cover (tasks spread over several sources, laws that are not monotone, values
that trade tasks off), and can only improve on it.

Shape legend: B = candidates, S = sources, R = rare sources, K = searched ones of them, Z = sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.recommend.bounds import complete, rare_bounds, within_groups, within_room
from mixplan.recommend.evaluate import TOLERANCE, Outcome, evaluate
from mixplan.recommend.objective import primary
from mixplan.recommend.problem import Problem
from mixplan.recommend.solve import Candidate, Solver, rank
from mixplan.recommend.study import Scored, Settings, run_study

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MOST_SEARCHED = 12
"""Rates that are searched at most: more cost time and, at a few hundred trials, find nothing."""
_WORST = 1e6
"""Stands for an infinite excess: storages keep finite numbers."""


def search(solver: Solver, problem: Problem, settings: Settings) -> list[Candidate]:
    """The best mixture found at every size, in the order of `problem.shapes`.

    Args:
        settings: sampler, trials beyond the analytic answers, seed, storage, workers.

    Raises:
        InputError: the storage is unusable, or holds another study.
    """
    best = [solver.best_at(problem, size) for size in range(len(problem.shapes))]
    found = list(best)
    for trial in trials_from(Space.around(problem, best), solver.forecast, settings):
        if rank(problem, trial) < rank(problem, found[trial.size]):
            found[trial.size] = trial
    return [
        start if candidate is start else solver.improve(problem, candidate)
        for start, candidate in zip(best, found, strict=True)
    ]


def trials_from(space: Space, forecast: Forecast, settings: Settings) -> list[Candidate]:
    """Every mixture that the study evaluated, the starts first."""
    scorer = Scorer(space, forecast)
    starts = [space.encode(start) for start in space.starts]
    scored = run_study(scorer, space.distributions(), ["minimize"], starts, settings)
    return [Candidate(one.outcome) for one in scored]


@dataclass(frozen=True)
class Space:
    """What is searched: size, tokens, and the rates of the rare sources that the analytic answers raise."""

    problem: Problem
    starts: tuple[Candidate, ...]
    """One a size, in order. Rates that are not searched stay as they are there."""
    searched: np.ndarray
    """Which of the rare sources, indices among them, raised most first, shape (K,)."""
    longest: float
    """Tokens."""
    low: FloatArray
    """Lowest rate, shape (K,)."""
    high: FloatArray
    """Highest rate, shape (K,)."""

    @classmethod
    def around(cls, problem: Problem, starts: Sequence[Candidate]) -> Space:
        """The rare sources that hold tasks, and of many the `MOST_SEARCHED` that the starts raise most."""
        longest = max(float(problem.horizon.max()), problem.min_tokens)
        natural = problem.natural[problem.rare]
        bounds = rare_bounds(problem, np.geomspace(problem.min_tokens, longest, 65))
        held = (problem.density[:, problem.rare] > 0).any(axis=0)
        raised = np.max([start.shares[problem.rare] - natural for start in starts], axis=0)
        order = np.argsort(np.where(held, -raised, np.inf), kind="stable")
        # Raised most first, not as the plan lists them: samplers draw parameters in their order.
        searched = order[: min(int(held.sum()), MOST_SEARCHED)]
        lowest = np.maximum((bounds.low.min(axis=0) / natural)[searched], 1e-6)
        highest = np.maximum((bounds.high.max(axis=0) / natural)[searched], lowest)
        return cls(problem, tuple(starts), searched, longest, lowest, highest)

    @property
    def _rates(self) -> list[str]:
        rare = np.flatnonzero(self.problem.rare)
        return [f"rate.{self.problem.sources[s]}" for s in rare[self.searched]]

    @property
    def _sizes(self) -> list[str]:
        return [shape.name for shape in self.problem.shapes]

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's, by parameter."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        rates = zip(self._rates, self.low, self.high, strict=True)
        return {
            "size": CategoricalDistribution(self._sizes),
            "tokens": FloatDistribution(self.problem.min_tokens, self.longest, log=True),
            **{name: FloatDistribution(float(low), float(high), log=True) for name, low, high in rates},
        }

    def encode(self, candidate: Candidate) -> dict[str, Any]:
        """A mixture as parameters, moved into their ranges."""
        rare = self.problem.rare
        rates = (candidate.shares[rare] / self.problem.natural[rare])[self.searched]
        inside = np.clip(rates, self.low, self.high)
        return {
            "size": self._sizes[candidate.size],
            "tokens": float(np.clip(candidate.tokens, self.problem.min_tokens, self.longest)),
            **{name: float(rate) for name, rate in zip(self._rates, inside, strict=True)},
        }

    def decode(self, params: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, FloatArray, FloatArray]:
        """Sizes (B,), tokens (B,) and shares (B, S), within every bound on a rare source."""
        problem = self.problem
        size = np.array([self._sizes.index(one["size"]) for one in params])
        tokens = np.array([one["tokens"] for one in params])
        rare_shares = np.array([start.shares[problem.rare] for start in self.starts])[size]
        rates = np.array([[one[name] for name in self._rates] for one in params])
        rare_shares[:, self.searched] = rates * problem.natural[problem.rare][self.searched]
        bounds = rare_bounds(problem, tokens)
        fitting = np.clip(rare_shares, bounds.low, bounds.high)
        fitting = within_groups(problem, fitting, bounds.low, bounds.group_room)
        fitting = within_room(fitting, bounds.low, bounds.room)
        return size, tokens, complete(problem, tokens, fitting)


@dataclass(frozen=True)
class Scorer:
    """Parameters become mixtures, evaluated all at once, with the plan's objective as the one value."""

    space: Space
    forecast: Forecast

    def __call__(self, params: Sequence[Mapping[str, Any]]) -> list[Scored]:
        """One a trial, in order."""
        outcome = evaluate(self.space.problem, self.forecast, *self.space.decode(params))
        return scored(self.space.problem, outcome, self.values(outcome))

    def values(self, outcome: Outcome) -> FloatArray:
        """What is minimised, shape (B, 1)."""
        return primary(self.space.problem, outcome)[:, None]


def scored(problem: Problem, outcome: Outcome, values: FloatArray) -> list[Scored]:
    """Each mixture with its values (B, objectives) and every limit as a constraint."""
    constraints = native_constraints(problem, outcome)
    return [
        Scored(
            tuple(float(value) for value in values[row]),
            {name: float(excess[row]) for name, excess in constraints.items()},
            {
                "shares": dict(zip(problem.sources, outcome.shares[row].tolist(), strict=True)),
                "p_learned": dict(zip(problem.tasks, outcome.p_learned[row].tolist(), strict=True)),
            },
            outcome.row(row),
        )
        for row in range(len(outcome.tokens))
    ]


def native_constraints(problem: Problem, outcome: Outcome) -> dict[str, FloatArray]:
    """The plan's limits as Optuna wants them: at most 0 where it holds, shapes (B,).

    Budgets, the loss bound and targets stand one by one; of sources and of groups the worst stands for all
    limits of a kind, as `sources.max_epochs`: there may be hundreds, and samplers read every constraint of
    every trial before each new one.
    """
    columns: dict[str, list[int]] = {}
    active = set(problem.active_names())
    for index, name in enumerate(problem.names):
        if name in active:
            part = name.split(".")
            of_many = part[0] in ("sources", "groups")
            columns.setdefault(f"{part[0]}.{part[-1]}" if of_many else name, []).append(index)
    # Optuna knows no tolerance: what only rounding exceeds stands at 0.
    excess = np.where(outcome.excess <= TOLERANCE, np.minimum(outcome.excess, 0.0), outcome.excess)
    excess = np.minimum(excess, _WORST)
    return {name: excess[:, indices].max(axis=1) for name, indices in columns.items()}
