"""The courses that one run may take in bits per byte on one source: satisfies `RunForecast`.

    ln(bits) = curve(draw) + misfit_sd·distance·ξ + run_sd·v + row_sd·e

as in mixplan.laws.source_goals: ξ stands with the draw, v ~ N(0, 1) stays with a run, e ~ N(0, 1) is new in
every measurement. As there, and for skills (mixplan.laws.one_run), a part STRAYS of the prior lies off by
N(0, STRAY_LOG²) besides. The law was fitted to ends of runs only, so it says nothing of what is measured
before the learning rate has decayed: such measurements must be left out.

Shape legend: m = measurements, n = cells, P = courses.
"""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mixplan.documents.forecast import RunPoints
from mixplan.laws.one_run import OfCourses, courses, uniform_reach
from mixplan.laws.reached_tables import CERTAIN
from mixplan.laws.source_goals import SourceGoals

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

STRAY_LOG = 0.1
"""How far runs that the law does not describe lie off, in ln(bits per byte): a choice."""
_LEAST_SPREAD = 1e-9


class SourceRun(OfCourses):
    """One run and one goal in bits per byte; deterministic."""

    def __init__(self, goals: SourceGoals, bits_per_byte: float, block_params: float, seed: int = 0) -> None:
        """Args:
        goals: the source's law in its draws.
        bits_per_byte: the goal.
        block_params: of the run.
        """
        self._goals, self._wanted, self._block_params = goals, bits_per_byte, block_params
        super().__init__(courses(len(goals.misfit), seed))

    @property
    def in_skill(self) -> bool:
        """As of `RunForecast`."""
        return False

    @property
    def unfinished(self) -> bool:
        """As of `RunForecast`: never."""
        return False

    def measured(self, at: RunPoints, generator: np.random.Generator) -> FloatArray:
        """As of `RunForecast`: bits per byte."""
        mean = self._mean(at.tokens, at.frequency)
        bits = np.exp(mean + self._row() * generator.standard_normal(mean.shape))
        reach = uniform_reach(at.error)[:, None]
        return np.asarray(np.maximum(bits + generator.uniform(-1.0, 1.0, bits.shape) * reach, 0.0))

    def after(self, at: RunPoints, value: FloatArray) -> SourceRun:
        """As of `RunForecast`."""
        spread = np.hypot(self._row(), (at.error / value)[:, None])
        away = (np.log(value)[:, None] - self._mean(at.tokens, at.frequency)) / spread
        log_weight = np.log(self._weight) + (-0.5 * away**2 - np.log(spread)).sum(axis=0)
        weight = np.exp(log_weight - log_weight.max())
        found = copy.copy(self)
        found._weight = weight / weight.sum()
        return found

    def reached(self, tokens: FloatArray, frequency: FloatArray) -> FloatArray:
        """As of `RunForecast`."""
        gap = np.log(self._wanted) - self._mean(tokens, frequency)
        return np.asarray(np.clip(ndtr(gap / self._row()), CERTAIN, 1.0 - CERTAIN))

    def _row(self) -> FloatArray:
        """row_sd in every course, shape (P,)."""
        return np.maximum(self._goals.named["row_sd"][self.draw], _LEAST_SPREAD)

    def _mean(self, tokens: FloatArray, share: FloatArray) -> FloatArray:
        """Mean ln(bits per byte) over measurements, shape (m, P)."""
        size = np.full(len(tokens), self._block_params)
        curve, spread = self._goals.of_run(size, tokens, share)
        found = self._courses
        own = spread[:, found.draw] * found.own + STRAY_LOG * found.stray
        return np.asarray(curve[:, found.draw] + own)
