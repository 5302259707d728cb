"""Which law, or which mixture of laws, forecasts: the one that gave left-out rungs the highest probability.

A mixture's weights maximise the same log score (stacking of distributions, Yao et al. 2018,
arXiv 1704.02030), and it is judged on rungs that its weights have not seen. The combined law, which alone
has both limits right, stays unless another wins by more than one standard error over at least two left-out
rungs: one small rung would as soon choose the wrong law as the right one.

Shape legend: m = left-out cells over all folds used, L = laws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixplan.laws.evidence import FloatArray, IntArray
from mixplan.laws.forms import COMBINED
from mixplan.laws.rolling import Fold

ENOUGH_FITTED, FAR = 3, 2
"""Folds that the choice looks at: at least so many fitted rungs, where there are such, and at most so many
rungs ahead. Two sizes fix no curve in size, and nobody should choose by what is said of far rungs."""
LEAST_RUNGS = 2
LEAST_WEIGHT = 0.05
"""A law with less of the mixture is left out of it."""
_STEPS, _TOLERANCE = 500, 1e-10


@dataclass(frozen=True)
class Choice:
    """Share of each law in the forecasts, and why."""

    weights: dict[str, float]
    reason: str


def choose(folds: list[Fold]) -> Choice:
    """The default forecast."""
    used = relevant(folds)
    if not used:
        return Choice(
            {COMBINED.name: 1.0}, f"no rung could be left out, so the {COMBINED.name} law by default"
        )
    names = laws(used)
    scores = _scores(used, names)
    total = scores.mean(axis=0)
    table = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, total, strict=True))
    reason = f"mean log score of {len(scores)} left-out cells (nats): {table}"
    home, best = names.index(COMBINED.name), int(np.argmax(total))
    rungs = np.concatenate([np.full(len(fold.observed), _rung(fold)) for fold in used])
    if len(np.unique(rungs)) < LEAST_RUNGS:
        return Choice(
            {names[home]: 1.0}, f"{reason}; one left-out rung is too few to leave {names[home]} for"
        )
    block = _blocks(used)
    chosen = best if wins(scores[:, best], scores[:, home], block) else home
    if chosen != best:
        reason += f"; {names[best]} wins by less than one standard error"
    unseen = np.empty(len(scores))
    for rung in np.unique(rungs):
        away = rungs == rung
        unseen[away] = np.log(np.exp(scores[away]) @ stack(scores[~away]))
    reason += f"; a mixture {unseen.mean():.3f} on rungs that its weights had not seen"
    kept = stack(scores)
    kept = np.where(kept >= LEAST_WEIGHT, kept, 0.0) / kept[kept >= LEAST_WEIGHT].sum()
    if (kept > 0).sum() > 1 and wins(unseen, scores[:, chosen], block):
        weights = {name: float(weight) for name, weight in zip(names, kept, strict=True) if weight > 0}
        return Choice(weights, reason)
    return Choice({names[chosen]: 1.0}, reason)


def wins(one: FloatArray, other: FloatArray, block: IntArray) -> bool:
    """Whether log scores, shape (m,), are higher by more than one standard error of their mean difference.

    Cells of one block (a task kind in one fold) share what a law gets wrong: blocks are the sample.
    """
    count = np.bincount(block)
    blocks = len(count)
    if blocks < 2:
        return False
    gain = np.bincount(block, one - other) / count
    mean = float(gain @ count / count.sum())
    spread = (count**2 * (gain - mean) ** 2).sum() * blocks / (blocks - 1)
    return mean > float(np.sqrt(spread)) / count.sum()


def _blocks(folds: list[Fold]) -> IntArray:
    """Number of each left-out cell's fold and task kind, shape (m,)."""
    pairs = np.concatenate([
        np.column_stack([np.full(len(fold.observed), index), fold.left_out.kind])
        for index, fold in enumerate(folds)
    ])  # fmt: skip
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)


def relevant(folds: list[Fold]) -> list[Fold]:
    """The folds that the choice looks at."""
    enough = [fold for fold in folds if len(fold.fitted) >= ENOUGH_FITTED]
    return [fold for fold in (enough or folds) if fold.rungs_ahead <= FAR]


def laws(folds: list[Fold]) -> list[str]:
    """Names of the candidates that are no baselines, in their order."""
    return [said.name for said in folds[0].said if not said.baseline]


def stack(scores: FloatArray) -> FloatArray:
    """Weights, shape (L,), ≥ 0 with sum 1, that maximise the mean log of the mixed probabilities; by
    expectation and maximisation from equal weights.

    Args:
        scores: log probabilities, shape (m, L).
    """
    probability = np.exp(scores)
    weights = np.full(scores.shape[1], 1.0 / scores.shape[1])
    for _ in range(_STEPS):
        parts = probability * weights
        updated = (parts / parts.sum(axis=1, keepdims=True)).mean(axis=0)
        moved = float(np.abs(updated - weights).max())
        weights = updated
        if moved < _TOLERANCE:
            break
    return weights


def _scores(folds: list[Fold], names: list[str]) -> FloatArray:
    """Log scores of all cells, shape (m, L)."""
    columns = []
    for name in names:
        said = [next(one for one in fold.said if one.name == name) for fold in folds]
        columns.append(
            np.concatenate([one.log_scores(fold.observed) for one, fold in zip(said, folds, strict=True)])
        )
    return np.column_stack(columns)


def _rung(fold: Fold) -> float:
    return float(fold.left_out.table["block_params"][0])
