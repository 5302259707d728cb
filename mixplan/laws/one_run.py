"""The courses that one run may take towards one skill: `RunForecast` of mixplan.documents.forecast.

A new run's skill at a point is, as in mixplan.laws.hierarchy and mixplan.laws.beta_noise,

    skill = cut(F⁻¹(Φ(z); μ, φ)),   μ = ceiling·link(η(x) − difficulty + u + v − finished·[not yet finished])

with F the widened Beta distribution, u ~ N(0, task_spread²) and v ~ N(0, run_spread²), which stay with a task
and a run. The scatter z ~ N(0, 1) stays for a while: on two measured ladders residuals of one task in one run
correlate by 0.75·e^(−d/1.6), d the distance of the points in η, whatever lies between them in tokens (fit of
all pairs: 0.76 and 1.66, 0.90 and 1.25; benchmarks/tracking.md). So

    z = √STAYS·a + √(1 − STAYS)·e,   a an Ornstein-Uhlenbeck process in η of reach REACH, e new every time.

At every single point this is the law's own distribution. What is measured says in which interval z lay; the
state of a given that is kept as a normal distribution, with the mean and the variance that it has exactly
after one interval (assumed density filtering; Minka, Expectation Propagation, UAI 2001).

A run may be one that the laws do not describe: tokens that never reached the model, a task that is no
equivalent. A part STRAYS of the prior is shifted by N(0, STRAY²) in η besides, so that measurements which
contradict the laws are followed and not explained away. Both numbers are choices, not measurements;
benchmarks/tracking.py shows what they do on measured runs.

Shape legend: m = measurements, n = cells, D = draws, P = courses.
"""

from __future__ import annotations

import copy
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
STAYS, REACH = 0.75, 1.6
"""Part of the scatter's variance that stays, and how far in η until 1/e of it is left."""
NO_OFFSET = 0.01
"""An offset between unfinished and finished runs up to this was not measured: its prior is then 0 ± 0.001."""
_LEAST = 1e-300
_FAR = 38.0  # standard deviations beyond which a normal distribution has nothing


@dataclass(frozen=True)
class Courses:
    """What courses differ by; arrays of shape (P,)."""

    draw: IntArray
    own: FloatArray
    """Standard normal: how far this task in this run lies from the mean of all."""
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
        stray=np.concatenate([np.zeros(lawful), normals(strays)]),
        law_weight=np.where(is_stray, 0.0, 1.0 / lawful),
        weight=np.where(is_stray, STRAYS / strays, (1.0 - STRAYS) / lawful),
    )


@dataclass(frozen=True)
class Scatter:
    """What is known of a in every course: normal, at the last measurement; arrays of shape (P,)."""

    mean: FloatArray
    variance: FloatArray
    eta: FloatArray
    """Where that measurement was."""

    def at(self, eta: FloatArray) -> Scatter:
        """Further on, at η of shape (P,)."""
        left = np.exp(-np.abs(eta - self.eta) / REACH)
        return Scatter(left * self.mean, left**2 * self.variance + 1.0 - left**2, eta)

    def z(self) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of z there."""
        return np.sqrt(STAYS) * self.mean, np.sqrt(STAYS * self.variance + 1.0 - STAYS)

    def within(self, low: FloatArray, high: FloatArray) -> tuple[Scatter, FloatArray]:
        """Given that z lies in an interval; and the probability of that."""
        mean, deviation = self.z()
        a, b = np.clip((low - mean) / deviation, -_FAR, _FAR), np.clip((high - mean) / deviation, -_FAR, _FAR)
        # In the tail where numbers near 0 can be told apart.
        turned = a > 0
        p = np.where(turned, ndtr(-a) - ndtr(-b), ndtr(b) - ndtr(a))
        safe = np.maximum(p, _LEAST)
        at_a, at_b = (np.exp(-0.5 * x**2) / np.sqrt(2.0 * np.pi) for x in (a, b))
        # Moments of a normal cut to an interval; within it whatever rounding says.
        moved = np.clip((at_a - at_b) / safe, a, b)
        squeezed = np.clip(1.0 + (a * at_a - b * at_b) / safe - moved**2, 0.0, 1.0)
        gain = np.sqrt(STAYS) * self.variance / deviation
        variance = self.variance - gain**2 * (1.0 - squeezed)
        return Scatter(self.mean + gain * moved, variance, self.eta), p


def uniform_reach(error: FloatArray) -> FloatArray:
    """Half the width of the uniform distribution that stands for an evaluation's own error, of its standard
    deviation."""
    return np.sqrt(3.0) * error


class OfCourses:
    """What the courses of a run say of themselves, whatever is measured in it."""

    def __init__(self, courses: Courses) -> None:
        self._courses, self._weight = courses, courses.weight

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
        return self._weight


class SkillRun(OfCourses):
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
        self._ends = np.cumsum([0, *(len(surface.run_spread) for surface in surfaces)])
        super().__init__(courses(int(self._ends[-1]), seed))
        precision = np.concatenate([one.precision[0] for one in self._kinds])
        self._precision = precision[self.draw]
        count = len(self.draw)
        self._scatter = Scatter(np.zeros(count), np.ones(count), np.zeros(count))

    @property
    def in_skill(self) -> bool:
        """As of `RunForecast`."""
        return True

    @property
    def unfinished(self) -> bool:
        """As of `RunForecast`: whether the ladder was measured before the ends of its runs."""
        return any(bool((np.abs(surface.finished) > NO_OFFSET).any()) for surface in self._surfaces)

    def measured(self, at: RunPoints, generator: np.random.Generator) -> FloatArray:
        """As of `RunForecast`: skills, cut to [0, 1] before the evaluation's error is added."""
        z = generator.standard_normal((len(at.tokens), len(self.draw)))
        mean, _ = self._mean(at.tokens, at.frequency, at.finished)
        centre = to_unit(mean)
        unit = betaincinv(centre * self._precision, (1.0 - centre) * self._precision, ndtr(z))
        reach = uniform_reach(at.error)[:, None]
        return np.clip(unit * UNIT_WIDTH - BELOW, 0.0, 1.0) + generator.uniform(-1.0, 1.0, z.shape) * reach

    def after(self, at: RunPoints, value: FloatArray) -> SkillRun:
        """As of `RunForecast`.

        Skills are counts of right answers: each is taken to within half of RESOLUTION, or within a uniform
        error with the standard deviation of the evaluation, if that is more. What is that near to 0 or 1
        counts as cut there.
        """
        mean, eta = self._mean(at.tokens, at.frequency, at.finished)
        reach = np.maximum(uniform_reach(at.error), RESOLUTION / 2.0)
        cut = np.clip(value, 0.0, 1.0)  # guesses below chance are as good as a skill of 0
        low, high = (self._z(cut + side * reach, mean) for side in (-1.0, 1.0))
        scatter, log_weight = self._scatter, np.log(self._weight)
        for index in range(len(value)):
            scatter, p = scatter.at(eta[index]).within(low[index], high[index])
            log_weight = log_weight + np.log(np.maximum(p, _LEAST))
        weight = np.exp(log_weight - log_weight.max())
        found = copy.copy(self)
        found._scatter, found._weight = scatter, weight / weight.sum()
        return found

    def reached(self, tokens: FloatArray, frequency: FloatArray) -> FloatArray:
        """As of `RunForecast`."""
        mean, eta = self._mean(tokens, frequency, np.ones(len(tokens), dtype=bool))
        wanted = self._z(np.full(len(tokens), self._skill), mean)
        found = np.empty_like(mean)
        for index in range(len(tokens)):
            expected, deviation = self._scatter.at(eta[index]).z()
            found[index] = ndtr((expected - wanted[index]) / deviation)
        return np.clip(found, CERTAIN, 1.0 - CERTAIN)

    def _z(self, skill: FloatArray, mean: FloatArray) -> FloatArray:
        """z below which a measured skill is less than that, (m, P); infinite from 0 down and from 1 up."""
        centre = to_unit(mean)
        level = to_unit(np.clip(skill, 0.0, 1.0))[:, None]
        found = ndtri(betainc(centre * self._precision, (1.0 - centre) * self._precision, level))
        return np.where(skill[:, None] <= 0.0, -np.inf, np.where(skill[:, None] >= 1.0, np.inf, found))

    def _mean(
        self, tokens: FloatArray, frequency: FloatArray, finished: NDArray[np.bool_]
    ) -> tuple[FloatArray, FloatArray]:
        """μ, and η, in every course, each of shape (m, P)."""
        axes = log_axes(len(tokens), self._block_params, tokens, frequency)
        mean, every = (np.empty((len(tokens), len(self.draw))) for _ in range(2))
        for surface, kind, some, own in self._parts():
            eta = surface.eta(np.repeat(kind.family, len(tokens)), axes) - kind.difficulty
            eta = eta - ~finished[:, None] * surface.finished
            spread = np.hypot(surface.task_spread, surface.run_spread)[own]
            shift = spread * self._courses.own[some] + STRAY * self._courses.stray[some]
            every[:, some] = eta[:, own] + shift
            mean[:, some] = kind.ceiling[:, own] * surface.form.link.share(every[:, some])
        return mean, every

    def _parts(self) -> Iterator[tuple[Surface, KindDraws, IntArray, IntArray]]:
        """Every law with what it says of the kind, its courses, and which of its draws each of these has."""
        for at, (surface, kind) in enumerate(zip(self._surfaces, self._kinds, strict=True)):
            some = np.flatnonzero((self.draw >= self._ends[at]) & (self.draw < self._ends[at + 1]))
            yield surface, kind, some, self.draw[some] - self._ends[at]
