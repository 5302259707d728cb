"""Which tasks a step holds: spread by frequency, or the rarest withheld and then injected in one batch.

Matched frequency (arXiv 2605.29548): with a gap of G steps the rarest task is left out of G − 1 batches and
then has m = G·B·ρ samples in one, so that its long-run frequency stays ρ. What rounding leaves is carried.

Shape legend: K = tasks, Q = settings (gaps), B = batch, n = samples drawn (B and those only injected).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixplan.testbed.mixture import FloatArray

SPREAD = 0
"""The gap of a setting without one: every task by its frequency in every batch."""


@dataclass(frozen=True)
class Batch:
    """Samples of one step, sorted by task, and which of them each setting sees."""

    counts: NDArray[np.int64]
    """Samples of each task, shape (K,)."""
    seen: FloatArray
    """1/B or 0, shape (Q, n)."""


def injected(gap: int, step: int, batch: int, frequency: float) -> int:
    """Samples of the rarest task that a step (counted from 1) injects; 0 between the injections."""
    if step % gap:
        return 0
    before, now = (math.floor(steps * batch * frequency + 1e-9) for steps in (step - gap, step))
    return now - before


def draw(
    priors: FloatArray, gaps: tuple[int, ...], batch: int, step: int, generator: np.random.Generator
) -> Batch:
    """Draw a step's tasks; settings share the samples of the common tasks as far as their batches have room.

    Args:
        priors: π, shape (K,); the last task is the rarest.
        gaps: of each setting, in steps; SPREAD for none.
        batch: samples of every setting's batch.
        step: counted from 1.
        generator: of the part's data.
    """
    if gaps == (SPREAD,):
        return Batch(generator.multinomial(batch, priors), np.full((1, batch), 1 / batch))
    common = priors.copy()
    common[-1] = 0.0
    natural = int(generator.binomial(batch, priors[-1]))
    rare = np.array(
        [natural if gap == SPREAD else injected(gap, step, batch, float(priors[-1])) for gap in gaps],
        dtype=np.int64,
    )
    counts = generator.multinomial(batch, common / common.sum())
    # Who makes room for injected samples must not depend on the task.
    turn = generator.permutation(batch)
    kept = turn[None, :] < batch - rare[:, None]
    late = np.arange(rare.max())[None, :] < rare[:, None]
    counts[-1] = rare.max()
    return Batch(counts, np.concatenate([kept, late], axis=1) / batch)


def weights(priors: FloatArray, gaps: tuple[int, ...], batch: int, step: int) -> FloatArray:
    """Expected share of each task in a step's batch, shape (Q, K): what the exact gradient weighs by."""
    out = np.tile(priors, (len(gaps), 1))
    for setting, gap in enumerate(gaps):
        if gap != SPREAD:
            share = injected(gap, step, batch, float(priors[-1])) / batch
            out[setting, :-1] *= (1 - share) / (1 - priors[-1])
            out[setting, -1] = share
    return out
