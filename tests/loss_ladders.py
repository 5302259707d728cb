"""Rows of LM loss with known truth, for tests of the law that is fitted to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixplan.laws.lm_loss import predict
from mixplan.laws.loss_posterior import R_STAR, effective_tokens
from mixplan.laws.loss_rows import LossRows

SIZES = (8_336.0, 18_648.0, 33_056.0, 74_160.0, 131_648.0, 295_776.0)
HORIZONS = (0.9216e6, 1.8432e6, 3.6864e6, 7.3728e6)
TRUTH = np.array([1.5, 9.0, 0.28, 200.0, 0.45])
"""E, A, α, B, β."""
NOISES = (0.004, 0.002, 0.003)
"""Of single losses, of runs and of sizes, relative."""


def loss_ladder(
    generator: np.random.Generator,
    truth: np.ndarray = TRUTH,
    sizes: Sequence[float] = SIZES,
    seeds: int = 2,
    horizons: Sequence[float] = HORIZONS,
    noises: tuple[float, float, float] = NOISES,
    shares: Sequence[float] = (1.0,),
    unique_tokens: float = np.inf,
    repetition_constant: float = R_STAR,
) -> LossRows:
    """Finished runs with branches: one run per size, seed and share, with a loss at every horizon."""
    noise, run_noise, size_noise = noises
    rows: list[tuple[int, float, float, float, float]] = []
    run = 0
    for size in sizes:
        of_size = generator.normal(0.0, size_noise)
        for share in [share for share in shares for _ in range(seeds)]:
            of_run = of_size + generator.normal(0.0, run_noise)
            for horizon in horizons:
                seen = effective_tokens(np.array(share * horizon), unique_tokens, repetition_constant)
                loss = float(predict(truth, size, seen)) * np.exp(of_run + generator.normal(0.0, noise))
                rows.append((run, size, horizon, loss, share))
            run += 1
    runs, params, tokens, loss, share = (np.array(column) for column in zip(*rows, strict=True))
    return LossRows(runs, params, tokens, loss, np.ones(len(runs), dtype=bool), share, unique_tokens)
