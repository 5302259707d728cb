"""What keeps a task from more, and what would help: training length, size, rate or data.

Each lever is pulled once, in the laws: the numbers in words are theirs. Shape legend: L = levers, S =
sources, T = tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.recommend.bounds import rare_bounds, within_groups, within_room
from mixplan.recommend.evaluate import at_confidence, reached
from mixplan.recommend.mixture import effective_tokens
from mixplan.recommend.problem import Problem
from mixplan.recommend.solve import Candidate

Kind = Literal["sample-limited", "capacity-limited", "repetition-limited"]
MANY = 16.0
"""So many times the tokens, at the same frequency, is "even with much longer training" (arXiv 2505.18091
looked at 4 to 16 times below the threshold, and saw no help)."""
CLOSED = 0.1
"""A lever helps when it closes at least this part of what is missing to certainty."""
HELD_BACK = 1.5
"""A task is held back by repetition when twice the tokens of its sources, as far as their caps on epochs
allow, are worth less than so many times as much,"""
OUTRUN = 0.75
"""unless twice the training with that data closes this part of what is missing to certainty."""
_DATA_HELPS = 1.02
_LITTLE = 0.05  # more of a share is no lever
_RAREST = 1e-300


@dataclass(frozen=True)
class Regime:
    """What limits one task, and the levers in words."""

    kind: Kind | None
    """None where no lever changes anything."""
    lever: str


def regimes(problem: Problem, forecast: Forecast, candidate: Candidate) -> list[Regime]:
    """One a task.

    repetition-limited: its sources are used up: twice their tokens, within their caps on epochs and at what
    repeats are worth, would be less than 1.5 times as much, and twice the training with them closes less than
    three quarters of what is missing to certainty. capacity-limited: sixteen times the tokens
    at the same frequency would close less than a tenth of what is missing to certainty, while the next size
    or twice the rate closes more. sample-limited: the rest; more of anything helps.
    """
    here, tokens, size = candidate.outcome.frequency[0], candidate.tokens, candidate.size
    more = _doubled(problem, candidate, problem.unique_tokens)
    fresh = _doubled(problem, candidate, 2 * problem.unique_tokens)
    thinned = _thinned(problem, candidate)
    larger = min(size + 1, len(problem.shapes) - 1)
    sizes = np.array([size, size, size, larger, size, size, size])
    lengths = tokens * np.array([1.0, 2.0, MANY, 1.0, 1.0, 1.0, 2.0])
    frequency = np.stack([here, here, here, here, more.frequency, fresh.frequency, thinned])  # (L, T)
    drawn = reached(problem, forecast, sizes, lengths, frequency)
    p = np.clip(at_confidence(drawn, problem.confidence[None, :]), 0.0, 1.0)  # (L, T)
    beyond = _beyond(problem, forecast, sizes, lengths, frequency)
    found = []
    for t in range(len(problem.tasks)):
        now, longer, much_longer, wider, rate, data, thin = (float(value) for value in p[:, t])
        enough = now + CLOSED * (1 - now)
        kind: Kind | None = "sample-limited"
        used_up = 2 * thinned[t] < HELD_BACK * here[t]
        if used_up and thin < now + OUTRUN * (1 - now):
            kind = "repetition-limited"
        elif much_longer < enough:
            kind = "capacity-limited" if max(wider, rate) > max(much_longer, now + 1e-3) else None
        sources = " and ".join(
            name for name, held in zip(problem.sources, problem.density[t] > 0, strict=True) if held
        )
        said = [
            _said("twice the tokens with the data there is", now, thin, beyond[6][t])
            if used_up
            else _said("twice the tokens at this frequency", now, longer, beyond[1][t])
        ]
        if larger > size:
            said.append(_said(f"next size, {problem.shapes[larger].name}", now, wider, beyond[3][t]))
        if np.isnan(more.times[t]):
            said.append(f"none of {sources} is in the mixture")
        elif more.times[t] > 1 + _LITTLE:
            share = f"{_times(more.times[t])} the share of {sources}, within caps"
            said.append(_said(share, now, rate, beyond[4][t]))
        else:
            said.append(f"no more of {sources} within caps")
        if fresh.frequency[t] > _DATA_HELPS * more.frequency[t]:
            if fresh.times[t] > 2 - _LITTLE:
                data_too = f"twice the data and share of {sources}"
            elif fresh.times[t] > 1 + _LITTLE:
                data_too = f"twice the data and {_times(fresh.times[t])} the share of {sources}"
            else:
                data_too = f"twice the data of {sources}"
            said.append(_said(data_too, now, data, beyond[5][t]))
        found.append(Regime(kind, "; ".join(said)))
    return found


@dataclass(frozen=True)
class _More:
    """What tasks have with more of their own sources."""

    times: FloatArray
    """How much more of the tokens they take, 1 to 2, NaN where there is none of them, shape (T,)."""
    frequency: FloatArray
    """Shape (T,)."""


def _doubled(problem: Problem, candidate: Candidate, unique_tokens: FloatArray) -> _More:
    """Each task's own sources at twice their share, or as much of it as there is room for: within max_share,
    max_epochs and the bounds of groups, beside what other sources have at least. The others hold none of it.

    Args:
        unique_tokens: shape (S,).
    """
    times, frequency = np.empty((2, len(problem.tasks)))
    at = np.array([candidate.tokens])
    for t, density in enumerate(problem.density):
        own = density > 0
        alone = replace(problem, rare=own, unique_tokens=unique_tokens)
        bounds, now = rare_bounds(alone, at), candidate.shares[None, own]
        wish = np.clip(2.0 * now, now, np.maximum(bounds.high, now))
        wish = within_room(within_groups(alone, wish, now, bounds.group_room), now, bounds.room)
        worth = effective_tokens(wish * at, unique_tokens[own], problem.half_life[own])
        frequency[t] = worth[0] @ density[own] / candidate.tokens
        times[t] = wish.sum() / now.sum() if now.any() else np.nan
    return _More(times, frequency)


def _thinned(problem: Problem, candidate: Candidate) -> FloatArray:
    """Frequencies in twice the tokens, with what `max_epochs` allows of each task's sources, shape (T,)."""
    drawn = candidate.shares * candidate.tokens
    with np.errstate(over="ignore"):
        taken = np.maximum(np.minimum(2 * drawn, problem.max_epochs * problem.unique_tokens), drawn)
    worth = effective_tokens(taken, problem.unique_tokens, problem.half_life)
    return np.asarray(worth @ problem.density.T / (2 * candidate.tokens))


def _times(value: float) -> str:
    return "twice" if value > 2 - _LITTLE else f"{value:.2g} times"


def _beyond(
    problem: Problem, forecast: Forecast, sizes: np.ndarray, lengths: FloatArray, frequency: FloatArray
) -> list[list[bool]]:
    """Whether each cell lies outside what was measured, L lists of T."""
    count = len(problem.tasks)
    told = forecast.told(
        problem.goals,
        np.tile(np.arange(count), len(sizes)),
        np.repeat(problem.block_params[sizes], count),
        np.repeat(lengths, count),
        np.maximum(frequency, _RAREST).ravel(),
    )
    flags = [bool(reasons) for reasons in told.extrapolated]
    return [flags[at * count : (at + 1) * count] for at in range(len(sizes))]


def _said(lever: str, before: float, after: float, beyond: bool) -> str:
    return f"{lever}: {before:.2f} → {after:.2f}" + (" (extrapolated)" if beyond else "")
