"""What keeps a task from more, and what would help: training length, size, rate or data.

Each lever is pulled once, in the laws: the numbers in words are theirs. Shape legend: L = levers, S =
sources, T = tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixplan.documents.forecast import FloatArray, Forecast
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
"""A task is held back by repetition when twice its rate, as far as caps allow, is worth less than so many
times the frequency."""
_DATA_HELPS = 1.02
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
    repeats are worth, would be less than 1.5 times the frequency. capacity-limited: sixteen times the tokens
    at the same frequency would close less than a tenth of what is missing to certainty, while the next size
    or twice the rate closes more. sample-limited: the rest; more of anything helps.
    """
    here, tokens, size = candidate.outcome.frequency[0], candidate.tokens, candidate.size
    more, fresh = _doubled(problem, candidate)
    larger = min(size + 1, len(problem.shapes) - 1)
    sizes = np.array([size, size, size, larger, size, size, size])
    lengths = tokens * np.array([1.0, 2.0, MANY, 1.0, 1.0, 1.0, 2.0])
    frequency = np.stack([here, here, here, here, more, fresh, more / 2])  # (L, T)
    drawn = reached(problem, forecast, sizes, lengths, frequency)
    p = np.clip(at_confidence(drawn, problem.confidence[None, :]), 0.0, 1.0)  # (L, T)
    beyond = _beyond(problem, forecast, sizes, lengths, frequency)
    found = []
    for t in range(len(problem.tasks)):
        now, longer, much_longer, wider, rate, data, thin = (float(value) for value in p[:, t])
        enough = now + CLOSED * (1 - now)
        kind: Kind | None = "sample-limited"
        if more[t] < HELD_BACK * here[t]:
            kind = "repetition-limited"
        elif much_longer < enough:
            kind = "capacity-limited" if max(wider, rate) > max(much_longer, now + 1e-3) else None
        sources = " and ".join(
            name for name, held in zip(problem.sources, problem.density[t] > 0, strict=True) if held
        )
        said = [
            _said("twice the tokens with the data there is", now, thin, beyond[6][t])
            if kind == "repetition-limited"
            else _said("twice the tokens at this frequency", now, longer, beyond[1][t])
        ]
        if larger > size:
            said.append(_said(f"next size, {problem.shapes[larger].name}", now, wider, beyond[3][t]))
        if more[t] > _DATA_HELPS * here[t]:
            said.append(_said(f"twice the share of {sources}, within caps", now, rate, beyond[4][t]))
        else:
            said.append(f"no more of {sources} within caps")
        if fresh[t] > _DATA_HELPS * more[t]:
            said.append(_said(f"twice the data and share of {sources}", now, data, beyond[5][t]))
        found.append(Regime(kind, "; ".join(said)))
    return found


def _doubled(problem: Problem, candidate: Candidate) -> tuple[FloatArray, FloatArray]:
    """Frequencies with twice the tokens of every source within its cap on epochs, and with twice the unique
    tokens too, each shape (T,). A task's own sources count: the others hold none of it."""
    drawn = candidate.shares * candidate.tokens
    found = []
    for unique in (problem.unique_tokens, 2 * problem.unique_tokens):
        with np.errstate(over="ignore"):
            taken = np.maximum(np.minimum(2 * drawn, problem.max_epochs * unique), drawn)
        worth = effective_tokens(taken, unique, problem.half_life)
        found.append(worth / candidate.tokens @ problem.density.T)
    return found[0], found[1]


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
