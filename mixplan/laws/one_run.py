"""The courses that one run may take towards one skill: `RunForecast` of mixplan.documents.forecast.

A new run's skill at a point is, as in mixplan.laws.hierarchy and mixplan.laws.beta_noise,

    skill = cut(F⁻¹(Φ(z); μ, φ)),   μ = ceiling·link(η(x) − difficulty + u + v − finished·[not yet finished])

with F the widened Beta distribution, u ~ N(0, task_spread²) and v ~ N(0, run_spread²), which stay with a task
and a run. Of the scatter z ~ N(0, 1) the part that stays is measured too: residuals of one cell's checkpoints
correlate by r (`checkpoint_correlation`), whatever lies between them. So

    z = √r·a + √(1 − r)·e,   a ~ N(0, 1) once a run and task, e ~ N(0, 1) anew in every measurement.

At every single point this is the law's own distribution; r only says how points hang together. A course is a
draw of the parameters with u + v and a.

A run may be one that the laws do not describe: tokens that never reached the model, a task that is no
equivalent. A part STRAYS of the prior is shifted by N(0, STRAY²) in η besides, so that measurements which
contradict the laws are followed and not explained away. Both numbers are choices, not measurements;
benchmarks/tracking.py shows what they do on measured runs.

Shape legend: m = measurements, n = cells, D = draws, P = courses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv, ndtr, ndtri

from mixplan.documents.forecast import RunPoints
from mixplan.laws.beta_noise import BELOW, RESOLUTION, UNIT_WIDTH, to_unit
from mixplan.laws.protocol import log_axes
from mixplan.laws.reached_tables import CERTAIN
from mixplan.laws.surface import KindDraws, Surface

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

COURSES, STRAY_COURSES = 6400, 1600
"""At least so many that the laws describe, and that they do not: whole multiples of the draws."""
STRAYS, STRAY = 0.02, 2.0
"""Part of runs that the laws do not describe, and how far those lie off, in η."""
UNMEASURED_CORRELATION = 0.5
"""r where the ladder had one checkpoint a cell: what the fit begins with (mixplan.laws.hierarchy)."""
NO_OFFSET = 0.01
"""An offset between unfinished and finished runs up to this was not measured: its prior is then 0 ± 0.001."""
_LEAST = 1e-300


@dataclass(frozen=True)
class Courses:
    """What courses differ by; arrays of shape (P,)."""

    draw: IntArray
    own: FloatArray
    """Standard normal: how far this task in this run lies from the mean of all."""
    kept: FloatArray
    """Standard normal: the part of the scatter that stays."""
    stray: FloatArray
    """Standard normal where the laws do not describe the run, else 0."""
    law_weight: FloatArray
    weight: FloatArray


def courses(draws: int, seed: int) -> Courses:
    """As many of every draw, normals evenly spread over their quantiles."""
    generator = np.random.default_rng(seed)
    copies, stray_copies = (-(-count // draws) for count in (COURSES, STRAY_COURSES))
    lawful, strays = draws * copies, draws * stray_copies

    def normals(count: int) -> FloatArray:
        return np.asarray(ndtri((generator.permutation(count) + 0.5) / count))

    is_stray = np.repeat([False, True], [lawful, strays])
    return Courses(
        draw=np.concatenate([np.tile(np.arange(draws), n) for n in (copies, stray_copies)]),
        own=np.concatenate([normals(lawful), normals(strays)]),
        kept=np.concatenate([normals(lawful), normals(strays)]),
        stray=np.concatenate([np.zeros(lawful), normals(strays)]),
        law_weight=np.where(is_stray, 0.0, 1.0 / lawful),
        weight=np.where(is_stray, STRAYS / strays, (1.0 - STRAYS) / lawful),
    )


def uniform_reach(error: FloatArray) -> FloatArray:
    """Half the width of the uniform distribution that stands for an evaluation's own error, of its standard
    deviation."""
    return np.sqrt(3.0) * error


class SkillRun:
    """One run and one goal in skill; deterministic."""

    def __init__(
        self,
        surfaces: Sequence[Surface],
        kind: tuple[str, float],
        skill: float,
        block_params: float,
        seed: int = 0,
    ) -> None:
        """Args:
        surfaces: the laws that share the forecast, each with its part of the draws.
        kind: family and complexity; must be one that the laws can speak about.
        skill: the goal, in (0, 1).
        block_params: of the run.
        """
        self._skill, self._block_params = skill, block_params
        self._surfaces = surfaces
        self._kinds = [surface.about([kind]) for surface in surfaces]
        counts = [len(surface.run_spread) for surface in surfaces]
        self._ends = np.cumsum([0, *counts])
        self._courses = courses(int(self._ends[-1]), seed)
        precision = np.concatenate([one.precision[0] for one in self._kinds])
        correlation = np.repeat(
            [one.correlation if one.correlation else UNMEASURED_CORRELATION for one in surfaces], counts
        )
        self._precision = precision[self.draw]
        self._stays = np.sqrt(correlation)[self.draw]
        self._new = np.sqrt(1.0 - correlation)[self.draw]

    @property
    def in_skill(self) -> bool:
        """As of `RunForecast`."""
        return True

    @property
    def unfinished(self) -> bool:
        """As of `RunForecast`: whether the ladder was measured before the ends of its runs."""
        return any(bool((np.abs(surface.finished) > NO_OFFSET).any()) for surface in self._surfaces)

    @property
    def draw(self) -> IntArray:
        """As of `RunForecast`."""
        return self._courses.draw

    @property
    def law_weight(self) -> FloatArray:
        """As of `RunForecast`."""
        return self._courses.law_weight

    @property
    def weight(self) -> FloatArray:
        """As of `RunForecast`."""
        return self._courses.weight

    def measured(self, at: RunPoints, generator: np.random.Generator) -> FloatArray:
        """As of `RunForecast`: skills, cut to [0, 1] before the evaluation's error is added."""
        new = generator.standard_normal((len(at.tokens), len(self.draw)))
        z = self._stays * self._courses.kept + self._new * new
        centre = to_unit(self._mean(at.tokens, at.frequency, at.finished))
        unit = betaincinv(centre * self._precision, (1.0 - centre) * self._precision, ndtr(z))
        reach = uniform_reach(at.error)[:, None]
        return np.clip(unit * UNIT_WIDTH - BELOW, 0.0, 1.0) + generator.uniform(-1.0, 1.0, z.shape) * reach

    def log_likelihood(self, at: RunPoints, value: FloatArray) -> FloatArray:
        """As of `RunForecast`.

        Skills are counts of right answers: each is taken to within half of RESOLUTION, or within a uniform
        error with the standard deviation of the evaluation, if that is more. What is that near to 0 or 1
        counts as cut there.
        """
        centre = to_unit(self._mean(at.tokens, at.frequency, at.finished))
        reach = np.maximum(uniform_reach(at.error), RESOLUTION / 2.0)
        cut = np.clip(value, 0.0, 1.0)  # guesses below chance are as good as a skill of 0
        low, high = (self._below(cut + side * reach, centre) for side in (-1.0, 1.0))
        return np.log(np.maximum(high - low, _LEAST)).sum(axis=0)

    def reached(self, tokens: FloatArray, frequency: FloatArray) -> FloatArray:
        """As of `RunForecast`."""
        done = np.ones(len(tokens), dtype=bool)
        centre = to_unit(self._mean(tokens, frequency, done))
        below = self._below(np.full(len(tokens), self._skill), centre)
        return np.asarray(np.clip(1.0 - below, CERTAIN, 1.0 - CERTAIN))

    def _below(self, skill: FloatArray, centre: FloatArray) -> FloatArray:
        """P(measured skill < skill) in every course, (m, P); 0 up to a skill of 0, 1 from a skill of 1."""
        level = to_unit(np.clip(skill, 0.0, 1.0))[:, None]
        shares = betainc(centre * self._precision, (1.0 - centre) * self._precision, level)
        found = ndtr((ndtri(shares) - self._stays * self._courses.kept) / self._new)
        return np.where(skill[:, None] <= 0.0, 0.0, np.where(skill[:, None] >= 1.0, 1.0, found))

    def _mean(self, tokens: FloatArray, frequency: FloatArray, finished: NDArray[np.bool_]) -> FloatArray:
        """μ in every course, shape (m, P)."""
        axes = log_axes(len(tokens), self._block_params, tokens, frequency)
        found = np.empty((len(tokens), len(self.draw)))
        for surface, kind, some, own in self._parts():
            eta = surface.eta(np.repeat(kind.family, len(tokens)), axes) - kind.difficulty
            eta = eta - ~finished[:, None] * surface.finished
            spread = np.hypot(surface.task_spread, surface.run_spread)[own]
            shift = spread * self._courses.own[some] + STRAY * self._courses.stray[some]
            found[:, some] = kind.ceiling[:, own] * surface.form.link.share(eta[:, own] + shift)
        return found

    def _parts(self) -> Iterator[tuple[Surface, KindDraws, IntArray, IntArray]]:
        """Every law with what it says of the kind, its courses, and which of its draws each of these has."""
        for at, (surface, kind) in enumerate(zip(self._surfaces, self._kinds, strict=True)):
            some = np.flatnonzero((self.draw >= self._ends[at]) & (self.draw < self._ends[at + 1]))
            yield surface, kind, some, self.draw[some] - self._ends[at]
