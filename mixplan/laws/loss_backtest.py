"""How the LM-loss law does on sizes it never saw: fitted on the k smallest, it predicts every larger one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mixplan.laws import lm_loss
from mixplan.laws.loss_rows import LossRows


class LossPrediction(NamedTuple):
    """One finished run of a left-out size; losses in nats per token."""

    block_params: float
    tokens: float
    """Training tokens."""
    fitted_sizes: int
    """The k smallest sizes."""
    predicted: float
    low: float
    """Lower end of the 90 % interval for a new run."""
    high: float
    observed: float

    @property
    def inside(self) -> bool:
        """Whether the observed loss lies in the interval."""
        return self.low <= self.observed <= self.high

    @property
    def relative_error(self) -> float:
        """(predicted − observed) ÷ observed."""
        return (self.predicted - self.observed) / self.observed


def backtest_lm_loss(rows: LossRows, draws: int, seed: int, least_sizes: int = 2) -> list[LossPrediction]:
    """Fit on the k smallest sizes, predict the ends of every run of each larger one, for every k that can be.

    Args:
        rows: of `loss_rows`.
        draws: of each fit.
        seed: of each fit.
        least_sizes: smallest k, at least 2.

    Returns:
        By k, size and tokens; empty where too few sizes were measured, or none of the fits can be made.
    """
    sizes = np.unique(rows.block_params)
    found = []
    for k in range(max(least_sizes, 2), len(sizes)):
        law, _ = lm_loss.fit(
            rows.where(rows.block_params <= sizes[k - 1]), draws, np.random.default_rng([seed, k])
        )
        if law is None:
            continue
        left = rows.where(rows.finished & (rows.block_params > sizes[k - 1]))
        told = lm_loss.forecast(law, left.block_params, left.tokens, left.common_share, left.unique_tokens)
        columns = (left.block_params, left.tokens, told.loss, told.run_low, told.run_high, left.loss)
        for size, tokens, *losses in zip(*(column.tolist() for column in columns), strict=True):
            found.append(LossPrediction(size, tokens, k, *losses))
    return sorted(found, key=lambda one: (one.fitted_sizes, one.block_params, one.tokens, one.observed))
