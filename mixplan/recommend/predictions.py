"""What the laws say of one mixture, with intervals over their draws.

Shape legend: S = sources, T = tasks, D = draws, D' = draws of the loss law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.documents.recipe import TaskPrediction
from mixplan.recommend.evaluate import at_confidence, common_tokens, reached
from mixplan.recommend.problem import Problem

INTERVAL = (0.05, 0.95)
"""Ends of the 90 % intervals over draws."""
_RAREST = 1e-300  # stands for a frequency of 0, whose logarithm no law can take


@dataclass(frozen=True)
class Spread:
    """Probability of each task's goal over the draws: mean and ends of the 90 % interval, each shape (T,)."""

    mean: FloatArray
    low: FloatArray
    high: FloatArray


def drawn_at(
    problem: Problem, forecast: Forecast, size: int, tokens: float, frequency: FloatArray
) -> FloatArray:
    """Probability that each task's goal is reached at one size and length, given each draw, shape (T, D).

    Args:
        frequency: instances per training token, shape (T,).
    """
    return reached(problem, forecast, np.array([size]), np.array([tokens]), frequency[None, :])[0]


def spread_of(drawn: FloatArray) -> Spread:
    """Mean and interval over draws, shape (T, D)."""
    low, high = np.quantile(drawn, INTERVAL, axis=1)
    return Spread(*(np.clip(part, 0.0, 1.0) for part in (drawn.mean(axis=1), low, high)))


def predictions(
    problem: Problem, forecast: Forecast, size: int, tokens: float, frequency: FloatArray, drawn: FloatArray
) -> list[TaskPrediction]:
    """One a task.

    Args:
        frequency: instances per training token, shape (T,).
        drawn: probabilities there, given each draw, shape (T, D).
    """
    count = len(problem.tasks)
    told = forecast.told(
        problem.goals,
        np.arange(count),
        np.full(count, problem.block_params[size]),
        np.full(count, tokens),
        np.maximum(frequency, _RAREST),
    )
    spread, sure = spread_of(drawn), at_confidence(drawn, problem.confidence)
    found = []
    for t, goal in enumerate(problem.goals):
        unit = "skill" if goal.bits_per_byte is None else "bits_per_byte"
        measured = {unit: told.value[t], f"{unit}_low": told.low[t], f"{unit}_high": told.high[t]}
        found.append(
            TaskPrediction(
                frequency=float(frequency[t]),
                p_learned=float(spread.mean[t]),
                p_learned_low=float(spread.low[t]),
                p_learned_high=float(spread.high[t]),
                p_at_confidence=float(np.clip(sure[t], 0, 1)) if np.isfinite(problem.confidence[t]) else None,
                extrapolated=bool(told.extrapolated[t]),
                why_extrapolated=list(told.extrapolated[t]),
                **{name: float(value) for name, value in measured.items()},
            )
        )
    return found


def loss_interval(
    problem: Problem, forecast: Forecast, size: int, tokens: float, shares: FloatArray
) -> tuple[float, float] | None:
    """90 % interval of the common-loss increase over the loss law's draws, nats per token.

    The difference is taken draw by draw: what mixture and reference have in common cancels. None without
    draws or without common data.

    Args:
        shares: shape (S,).
    """
    here, natural = common_tokens(problem, np.array([tokens]), shares[None, :])
    if here[0] < 1.0:
        return None
    lengths = np.maximum(np.array([here[0], natural[0]]), 1.0)
    losses = forecast.lm_loss_draws(np.full(2, problem.block_params[size]), lengths)  # (2, D')
    if losses is None:
        return None
    low, high = np.quantile(losses[0] - losses[1], INTERVAL)
    return float(low), float(high)
