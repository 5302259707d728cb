"""How many instances of each cell come by which step: a function of (seed, step) alone.

Shape legend: C = cells, n = steps asked for.

even      by step s a cell has had floor(s·total/steps + phase) instances, phase random in [0, 1): the gaps
          between encounters differ by at most one step.
poisson   each step's number is drawn from a Poisson distribution of mean frequency × tokens a step.
gap of G  the matched-frequency gap protocol of arXiv 2605.29548: nothing for G − 1 steps, then all that even
          spacing would have given since the last burst, in one step. After every burst a cell has had exactly
          as many instances as with even spacing. The first burst comes after 1 to G steps (random by seed and
          cell, so that the bursts of many cells do not meet), and holds what those steps are owed; what the
          steps after the last burst are owed is never injected.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

Spacing = Literal["even", "poisson"]
_STEPS_AT_ONCE = 4096


def named(seed: int, purpose: int, name: str, *more: int) -> np.random.Generator:
    """A generator of a run for one purpose and one cell or source."""
    return np.random.default_rng([seed, purpose, zlib.crc32(name.encode()), *more])


class Schedule:
    """The numbers of one run."""

    def __init__(
        self,
        frequencies: Sequence[float],
        gaps: Sequence[int],
        spacing: Spacing,
        step_tokens: int,
        steps: int,
        seed: int,
        names: Sequence[str],
    ) -> None:
        """
        Args:
            frequencies: instances per training token of each cell, shape (C,).
            gaps: steps between the bursts of each cell, shape (C,); 1: as `spacing` says.
            step_tokens: training tokens a step.
            steps: of the run, to its longest horizon.
            names: of the cells: what chance does to a cell does not depend on which others there are.
        """
        self.steps = steps
        self.tokens = steps * step_tokens
        self.totals = np.array([round(f * self.tokens) for f in frequencies], dtype=np.int64)
        self.phases = np.array([named(seed, 1, name).random() for name in names])
        self.gaps = np.array(gaps, dtype=np.int64)
        offsets = np.array([named(seed, 6, name).random() for name in names])
        self.offsets = np.floor(offsets * self.gaps).astype(np.int64)
        self._drawn: dict[int, np.ndarray] = {}
        if spacing == "poisson":
            for cell in np.flatnonzero(self.gaps == 1):
                generator = named(seed, 5, names[cell])
                counts = generator.poisson(frequencies[cell] * step_tokens, size=steps)
                self._drawn[int(cell)] = np.concatenate([[0], np.cumsum(counts)])

    def seen(self, step: int | np.ndarray) -> np.ndarray:
        """Instances injected before `step`: shape (C,), or (n, C) for an array of n steps."""
        at = np.asarray(step)[..., None]
        since_first = at - 1 - self.offsets
        burst_end = np.where(since_first < 0, 0, self.offsets + since_first // self.gaps * self.gaps + 1)
        found = np.floor(self.totals * (burst_end / self.steps) + self.phases).astype(np.int64)
        for cell, drawn in self._drawn.items():
            found[..., cell] = drawn[step]
        return found

    @property
    def realised_frequencies(self) -> np.ndarray:
        """Instances per training token over the whole run, exactly, shape (C,)."""
        return self.seen(self.steps) / self.tokens

    def counts(self) -> Iterator[tuple[int, np.ndarray]]:
        """First step and instances of each step, shape (n, C), for the whole run in pieces."""
        for first in range(0, self.steps, _STEPS_AT_ONCE):
            last = min(first + _STEPS_AT_ONCE, self.steps)
            yield first, np.diff(self.seen(np.arange(first, last + 1)), axis=0)
