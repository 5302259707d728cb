"""Optuna over size, tokens and the rate of every rare source, from the analytic answers onwards.

The analytic answer of each size starts the study. It is exact when each task has one rare source; the
search is for what it does not cover (tasks spread over several sources, laws that are not monotone), and
can only improve on it.
"""

from __future__ import annotations

import warnings

import numpy as np
import optuna

from mixplan.recommend.evaluate import complete, evaluate, rare_bounds, within_room
from mixplan.recommend.problem import Problem
from mixplan.recommend.solve import Candidate, Solver, rank


def search(solver: Solver, problem: Problem, trials: int, seed: int) -> list[Candidate]:
    """The best mixture found at every size, in the order of `problem.shapes`.

    Args:
        trials: evaluations by Optuna's TPE sampler, the enqueued analytic answers included.
        seed: of the sampler; the same seed gives the same answer.
    """
    best = [solver.best_at(problem, size) for size in range(len(problem.shapes))]
    found = list(best)
    for trial in _run(solver, problem, best, trials, seed):
        if rank(problem, trial) < rank(problem, found[trial.size]):
            found[trial.size] = trial
    return [
        start if candidate is start else solver.improve(problem, candidate)
        for start, candidate in zip(best, found, strict=True)
    ]


def _run(
    solver: Solver, problem: Problem, starts: list[Candidate], trials: int, seed: int
) -> list[Candidate]:
    """Every mixture that the study evaluated."""
    seen: list[Candidate] = []
    names = [shape.name for shape in problem.shapes]
    sources = [name for name, rare in zip(problem.sources, problem.rare, strict=True) if rare]
    active = problem.active_names()
    natural = problem.natural[problem.rare]
    longest = max(float(problem.horizon.max()), problem.min_tokens)
    low_rate, high_rate = _rate_ranges(problem, longest)

    def objective(trial: optuna.Trial) -> float:
        size = names.index(trial.suggest_categorical("size", names))
        tokens = np.array([trial.suggest_float("tokens", problem.min_tokens, longest, log=True)])
        rates = [
            trial.suggest_float(f"rate.{name}", low, high, log=True)
            for name, low, high in zip(sources, low_rate, high_rate, strict=True)
        ]
        low, high, room = rare_bounds(problem, tokens)
        rare_shares = within_room(np.clip(np.array([rates]) * natural, low, high), low, room)
        shares = complete(problem, tokens, rare_shares)
        outcome = evaluate(problem, solver.forecast, np.array([size]), tokens, shares)
        for name in active:
            trial.set_constraint(name, min(float(outcome.excess[0, problem.names.index(name)]), 1e6))
        seen.append(Candidate(outcome))
        return float(tokens[0] * problem.flops_per_token[size])

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
            study = optuna.create_study(direction="minimize", sampler=sampler)
            for start in starts:
                rates = start.shares[problem.rare] / natural
                study.enqueue_trial(
                    {
                        "size": names[start.size],
                        "tokens": float(np.clip(start.tokens, problem.min_tokens, longest)),
                    }
                    | {
                        f"rate.{name}": float(np.clip(rate, low, high))
                        for name, rate, low, high in zip(sources, rates, low_rate, high_rate, strict=True)
                    }
                )
            study.optimize(objective, n_trials=trials)
    finally:
        optuna.logging.set_verbosity(before)
    return seen


def _rate_ranges(problem: Problem, longest: float) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest rate of each rare source at any token count within the budget, shapes (R,)."""
    natural = problem.natural[problem.rare]
    low, high, _ = rare_bounds(problem, np.geomspace(problem.min_tokens, longest, 65))
    lowest = np.maximum(low.min(axis=0) / natural, 1e-6)
    return lowest, np.maximum(high.max(axis=0) / natural, lowest)
