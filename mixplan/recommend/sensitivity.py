"""How sure the answer is: which uncertain parameters move each task, and how often everything holds at once.

Shape legend: T = tasks, D = draws, K = parameters, Z = sizes, G = training lengths.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.documents.recipe import Sensitivity
from mixplan.recommend.evaluate import TOLERANCE, frequencies, reached
from mixplan.recommend.problem import Problem
from mixplan.recommend.solve import Candidate

_TOP = 3
_LEAST = 0.05
"""Squared rank correlations below this are not told, nor those that chance gives often (4 ÷ draws)."""
_VISIBLE = 0.01
"""A parameter that moves the probability by less is not told: ranks tell it apart, a reader does not."""
_LENGTHS = np.geomspace(1 / 16, 64, 61)
"""Training lengths that are looked at for each draw, relative to a size's own."""


def sensitivities(problem: Problem, forecast: Forecast, drawn: FloatArray) -> list[Sensitivity]:
    """The parameters that matter most for each task, up to three.

    Args:
        drawn: probabilities given each draw, shape (T, D).
    """
    found = []
    known: dict[object, tuple[list[str], FloatArray]] = {}
    for t, task in enumerate(problem.tasks):
        goal = problem.goals[t]
        if goal not in known:
            known[goal] = forecast.parameters([goal])
        names, values = known[goal]
        found += _of_task(task, names, values, drawn[t])
    return found


def _of_task(task: str, names: list[str], values: FloatArray, p: FloatArray) -> list[Sensitivity]:
    """Args: values: shape (D, K), NaN in draws that have no such parameter; p: shape (D,)."""
    told = []
    for k, name in enumerate(names):
        held = np.isfinite(values[:, k])
        count = int(held.sum())
        if count < 5:
            continue
        x, y = values[held, k], np.clip(p[held], 0.0, 1.0)
        share = _squared_rank_correlation(x, y)
        if share < max(_LEAST, 4.0 / count):
            continue
        order, fifth = np.argsort(x, kind="stable"), max(round(count / 5), 1)
        low, high = y[order[:fifth]].mean(), y[order[-fifth:]].mean()
        if abs(high - low) < _VISIBLE:
            continue
        told.append(
            Sensitivity(
                task=task, parameter=name, variance_share=share, p_at_low=float(low), p_at_high=float(high)
            )
        )
    return sorted(told, key=lambda one: (-one.variance_share, one.parameter))[:_TOP]


def _squared_rank_correlation(x: FloatArray, y: FloatArray) -> float:
    """Spearman's, squared; 0 where one of them does not vary."""
    from scipy.stats import rankdata

    a, b = rankdata(x) - (len(x) + 1) / 2, rankdata(y) - (len(y) + 1) / 2
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return min(float((a @ b) / spread) ** 2, 1.0) if spread > 0 else 0.0


def all_targets(problem: Problem, drawn: FloatArray) -> float:
    """Part of the draws in which every task's probability is at least its target, all at once.

    Args:
        drawn: shape (T, D).
    """
    return float((drawn >= problem.wanted[:, None] - TOLERANCE).all(axis=0).mean())


def size_holds(problem: Problem, forecast: Forecast, best: list[Candidate], chosen: int) -> float | None:
    """Part of the draws in which the chosen size stays the cheapest.

    Each size keeps the shares of its own best mixture and trains as long as that draw asks for until every
    target is reached; budget and caps do not count here. Draws in which no size gets there do not speak for
    the choice. None with one size, and where the objective is not the cheapest training.

    Args:
        best: the best candidate of every size.
    """
    if problem.objective != "cheapest" or len(best) < 2:
        return None
    costs = np.stack([_cost_of_draws(problem, forecast, one) for one in best])  # (Z, D)
    least = costs.min(axis=0)
    own = costs[[one.size for one in best].index(chosen)]
    return float((np.isfinite(own) & (own <= least * (1 + 1e-9))).mean())


def _cost_of_draws(problem: Problem, forecast: Forecast, candidate: Candidate) -> FloatArray:
    """FLOPs until every target is reached in each draw, log-linear between lengths, shape (D,)."""
    tokens = candidate.tokens * _LENGTHS
    size = np.full(len(tokens), candidate.size)
    shares = np.broadcast_to(candidate.shares, (len(tokens), len(candidate.shares)))
    drawn = reached(problem, forecast, size, tokens, frequencies(problem, tokens, shares))  # (G, T, D)
    margin = (_log_odds(drawn) - _log_odds(problem.wanted)[None, :, None]).min(axis=1)  # (G, D)
    met = margin >= 0
    first = np.argmax(met, axis=0)  # (D,)
    draws = np.arange(margin.shape[1])
    before = np.maximum(first - 1, 0)
    under, over = margin[before, draws], margin[first, draws]
    part = np.where(first > 0, -under / np.where(over > under, over - under, 1.0), 1.0)
    length = np.exp((1 - part) * np.log(tokens[before]) + part * np.log(tokens[first]))
    return np.where(met.any(axis=0), problem.cost(candidate.size, length), np.inf)


def _log_odds(p: FloatArray) -> FloatArray:
    clipped = np.clip(p, 1e-15, 1 - 1e-15)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))
