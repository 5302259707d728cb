"""What a mixture gives and costs: frequencies, epochs, probabilities, common loss, and every limit's excess.

Shape legend: B = candidate mixtures, S = sources, R = rare sources, T = tasks, C = limits.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.recommend.bounds import caps_and_floors
from mixplan.recommend.mixture import effective_tokens, fill
from mixplan.recommend.problem import Problem

TOLERANCE = 1e-9
"""An excess up to this is rounding, not a violation."""
_CHUNK = 20_000  # cells whose draws are held at a time
_RAREST = 1e-300  # stands for a frequency of 0, whose logarithm no law can take


@dataclass(frozen=True)
class Outcome:
    """B evaluated mixtures."""

    size: np.ndarray
    """Index of the size, shape (B,)."""
    tokens: FloatArray
    """Shape (B,)."""
    shares: FloatArray
    """Shape (B, S)."""
    epochs: FloatArray
    """Shape (B, S)."""
    frequency: FloatArray
    """Instances per training token, discounted for repetition, shape (B, T)."""
    p_learned: FloatArray
    """Probability that the goal is reached: mean over draws, or at the task's confidence, shape (B, T)."""
    common_loss: FloatArray
    """Nats per token; NaN without a loss law or without common data, shape (B,)."""
    loss_increase: FloatArray
    """Nats per token against the natural mixture of the same size and tokens, NaN as above, shape (B,)."""
    values: FloatArray
    """What each limit limits, shape (B, C)."""
    excess: FloatArray
    """How far beyond each limit; positive is violated, shape (B, C)."""

    @property
    def feasible(self) -> np.ndarray:
        """Whether every limit holds, bool, shape (B,)."""
        return (self.excess <= TOLERANCE).all(axis=1)

    @property
    def violation(self) -> FloatArray:
        """Sum of what is beyond the limits, shape (B,)."""
        return np.maximum(self.excess, 0.0).sum(axis=1)

    def row(self, index: int) -> Outcome:
        """One of the mixtures alone."""
        return Outcome(*(getattr(self, field.name)[[index]] for field in fields(self)))


def frequencies(problem: Problem, tokens: FloatArray, shares: FloatArray) -> FloatArray:
    """Instances of each task per training token, shape (B, T).

    f = Σ_s density_s·D'_s ÷ D: repeats count for what they are worth in fresh tokens,
    D' of arXiv 2305.16264, eq. 5.
    """
    drawn = shares * tokens[:, None]
    worth = effective_tokens(drawn, problem.unique_tokens, problem.half_life)
    return (worth / tokens[:, None]) @ problem.density.T


def evaluate(
    problem: Problem,
    forecast: Forecast,
    size: np.ndarray,
    tokens: FloatArray,
    shares: FloatArray,
    needed: FloatArray | None = None,
) -> Outcome:
    """Everything about B mixtures.

    Args:
        size: index of the size, shape (B,).
        tokens: training tokens, shape (B,).
        shares: shape (B, S).
        needed: the frequency at which each task meets its target there, shape (B, T). When given, the laws
            are not asked for probabilities: they stand as the target where the frequency suffices, else in
            proportion below it. Feasibility is the same, at a fraction of the time.
    """
    frequency = frequencies(problem, tokens, shares)
    if needed is None:
        p_learned = probabilities(problem, forecast, size, tokens, frequency)
    else:
        # A dropped target needs frequency 0 and is met by any probability.
        with np.errstate(divide="ignore", invalid="ignore"):
            met = np.where(needed > 0, frequency / needed, 1.0)
        p_learned = np.where(np.isfinite(problem.target), problem.target, 1.0) * np.minimum(met, 1.0)
    epochs = shares * tokens[:, None] / problem.unique_tokens
    loss, increase = common_loss(problem, forecast, size, tokens, shares)
    budget = tokens[:, None] * problem.budget_per_token[size]
    grouped = shares @ problem.member.T  # (B, G)
    values = np.concatenate(
        [budget, increase[:, None], epochs, shares, grouped, shares, grouped, p_learned], axis=1
    )
    # Without common data there is no common loss to state; it counts as an unbounded increase.
    bounded = np.where(np.isnan(values), np.inf, values)
    excess = problem.excess(bounded)
    return Outcome(size, tokens, shares, epochs, frequency, p_learned, loss, increase, values, excess)


def probabilities(
    problem: Problem, forecast: Forecast, size: np.ndarray, tokens: FloatArray, frequency: FloatArray
) -> FloatArray:
    """Probability that each task's goal is reached, mean or at its confidence, shape (B, T).

    Args:
        frequency: shape (B, T).
    """
    rows, tasks = frequency.shape
    found = np.empty((rows, tasks))
    step = max(_CHUNK // tasks, 1)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        drawn = reached(problem, forecast, size[part], tokens[part], frequency[part])
        found[part] = at_confidence(drawn, problem.confidence[None, :])
    return found


def reached(
    problem: Problem, forecast: Forecast, size: np.ndarray, tokens: FloatArray, frequency: FloatArray
) -> FloatArray:
    """Probability that each task's goal is reached, given each draw, shape (B, T, D)."""
    rows, tasks = frequency.shape
    drawn = forecast.reached(
        problem.goals,
        np.tile(np.arange(tasks), rows),
        np.repeat(problem.block_params[size], tasks),
        np.repeat(tokens, tasks),
        np.maximum(frequency, _RAREST).ravel(),
    )
    return np.asarray(drawn, dtype=np.float64).reshape(rows, tasks, -1)


def at_confidence(drawn: FloatArray, confidence: FloatArray) -> FloatArray:
    """The probability that at least a part `confidence` of the draws reaches; their mean where that is NaN.

    Args:
        drawn: probabilities given each draw, shape (…, D).
        confidence: broadcasts against the axes before the last.
    """
    asked = np.broadcast_to(confidence, drawn.shape[:-1])
    found = drawn.mean(axis=-1)
    sure = np.isfinite(asked)
    if sure.any():
        count = drawn.shape[-1]
        held = np.ceil(asked[sure] * count - 1e-9).astype(np.int64)  # draws that must reach it
        ordered = np.sort(drawn[sure], axis=-1)
        found[sure] = np.take_along_axis(ordered, (count - np.maximum(held, 1))[:, None], axis=-1)[:, 0]
    return found


def common_tokens(problem: Problem, tokens: FloatArray, shares: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Effective tokens of all common sources, in this mixture and in the natural one, each shape (B,)."""
    common = ~problem.rare
    unique, half_life = problem.unique_tokens[common], problem.half_life[common]
    here = effective_tokens(shares[:, common] * tokens[:, None], unique, half_life).sum(axis=1)
    natural = effective_tokens(problem.natural[common] * tokens[:, None], unique, half_life).sum(axis=1)
    return here, natural


def common_loss(
    problem: Problem, forecast: Forecast, size: np.ndarray, tokens: FloatArray, shares: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """LM loss on common data and its increase over the natural mixture, nats per token, each shape (B,).

    increase = L(N, D'_common(mixture)) − L(N, D'_common(natural)), with D'_common the effective tokens of all
    common sources at the same N and training tokens. NaN without a loss law or without common data.
    """
    here, natural = common_tokens(problem, tokens, shares)
    params = problem.block_params[size]
    losses = forecast.lm_loss(
        np.concatenate([params, params]), np.maximum(np.concatenate([here, natural]), 1.0)
    )
    if losses is None:
        nothing = np.full(len(tokens), np.nan)
        return nothing, nothing
    loss, reference = np.split(np.asarray(losses, dtype=np.float64), 2)
    loss = np.where(here >= 1.0, loss, np.nan)
    return loss, loss - reference


def room_within_loss(
    problem: Problem, forecast: Forecast, size: np.ndarray, tokens: FloatArray
) -> FloatArray:
    """Largest sum of rare shares that the bound on the common loss allows, by bisection, shape (B,)."""
    high = np.ones(len(tokens))
    low = np.zeros(len(tokens))
    if not np.isfinite(problem.max_loss_increase):
        return high
    spread = problem.natural[problem.rare]
    for _ in range(40):
        middle = (low + high) / 2
        shares = np.empty((len(tokens), len(problem.sources)))
        if len(spread):
            shares[:, problem.rare] = middle[:, None] * spread / spread.sum()
        cap = caps_and_floors(problem, tokens)[0][:, ~problem.rare]
        shares[:, ~problem.rare] = fill(problem.natural[~problem.rare], np.zeros_like(cap), cap, 1.0 - middle)
        _, increase = common_loss(problem, forecast, size, tokens, shares)
        allowed = np.nan_to_num(increase, nan=np.inf) <= problem.max_loss_increase
        low, high = np.where(allowed, middle, low), np.where(allowed, high, middle)
    return low
