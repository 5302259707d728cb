"""What recommend asks of the laws: a protocol, so that neither stage imports the other.

Shape legend: n = cells (broadcast together), D = draws of the laws' parameters, G = goals, K = parameters,
m = measurements of one run, P = courses that one run may take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class SkillForecast:
    """Predictions for n cells."""

    skill: FloatArray
    """Mean predicted skill, shape (n,)."""
    skill_low: FloatArray
    """Lower end of the 90 % interval for a new run, shape (n,)."""
    skill_high: FloatArray
    """Upper end of the 90 % interval for a new run, shape (n,)."""
    mean_low: FloatArray
    """Lower end of the 90 % interval for the mean over runs: what more measurements would narrow, shape
    (n,)."""
    mean_high: FloatArray
    """Its upper end, shape (n,)."""
    p_learned: FloatArray
    """Probability that a new run reaches the threshold skill, parameter uncertainty included, shape (n,)."""
    extrapolated: list[list[str]]
    """Per cell, why it lies outside what was measured; empty list: inside."""


@dataclass(frozen=True)
class Goal:
    """What a run is asked for: a skill in a measured kind of task, or bits per byte on a measured source."""

    family: str
    """Kind of task; with `bits_per_byte`, the source that the law speaks about."""
    complexity: float = 1.0
    skill: float | None = None
    """At least this skill; None: the calibration's threshold of "learned"."""
    bits_per_byte: float | None = None
    """In place of a skill: at most so many bits per byte on the source's held-out text."""


@dataclass(frozen=True)
class GoalForecast:
    """What a new run is expected to measure, for n cells: skill, or bits per byte of goals in those."""

    value: FloatArray
    """Mean, shape (n,)."""
    low: FloatArray
    """Lower end of the 90 % interval for a new run, shape (n,)."""
    high: FloatArray
    """Its upper end, shape (n,)."""
    extrapolated: list[list[str]]
    """Per cell, why it lies outside what was measured; empty list: inside."""


@dataclass(frozen=True)
class RunPoints:
    """Points of one run at which one goal is, or may be, measured; arrays of shape (m,)."""

    tokens: FloatArray
    """Training tokens so far."""
    frequency: FloatArray
    """Instances per training token so far: exposures ÷ tokens (of a source as a whole: its share)."""
    finished: NDArray[np.bool_]
    """Whether the learning rate had decayed, as at the end of a run."""
    error: FloatArray
    """Standard error of the evaluation alone, in skill or bits per byte; 0: as in the ladder."""


class RunForecast(Protocol):
    """One run and one goal, as P courses that it may take from its first to its last token.

    A course is a draw of the laws' parameters and how far this run and this task lie from the laws' mean.
    Beside that, a part of what a measurement is off by stays for a while. So measurements early in a run say
    something about its end.
    """

    @property
    def in_skill(self) -> bool:
        """Whether the goal is a skill; else it is bits per byte."""
        ...

    @property
    def unfinished(self) -> bool:
        """Whether the laws describe measurements before the learning rate has decayed."""
        ...

    @property
    def draw(self) -> IntArray:
        """Which draw of the laws' parameters each course belongs to, shape (P,)."""
        ...

    @property
    def law_weight(self) -> FloatArray:
        """Probability of each course as the laws alone have it before anything was measured, shape (P,)."""
        ...

    @property
    def weight(self) -> FloatArray:
        """The same given what was measured, and with a small part for runs that the laws do not describe, so
        that measurements which contradict the laws are followed, shape (P,)."""
        ...

    def measured(self, at: RunPoints, generator: np.random.Generator) -> FloatArray:
        """One measurement in every course at every point alone, shape (m, P): skill, or bits per byte; before
        anything was measured."""
        ...

    def after(self, at: RunPoints, value: FloatArray) -> RunForecast:
        """The same run given what was measured, shape (m,), in the order of tokens: other weights."""
        ...

    def reached(self, tokens: FloatArray, frequency: FloatArray) -> FloatArray:
        """Probability that the goal is reached by the finished run, in every course, shape (n, P).

        Args:
            tokens: of the whole run, shape (n,).
            frequency: exposures of the whole run ÷ its tokens, shape (n,).
        """
        ...


class CellForecast(Protocol):
    """The learning law, ready to answer for cells by family and complexity: what the report asks."""

    def families(self) -> dict[str, list[float]]:
        """Calibrated families and their complexities."""
        ...

    def p_learned(
        self,
        family: list[str],
        complexity: FloatArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> FloatArray:
        """Probability learned, shape (n,). `family` is a list of n names."""
        ...

    def skill(
        self,
        family: list[str],
        complexity: FloatArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> SkillForecast:
        """Everything about n cells, with intervals and extrapolation flags."""
        ...

    def lm_loss(
        self, block_params: FloatArray, tokens: FloatArray, common_share: FloatArray | None = None
    ) -> FloatArray | None:
        """As `Forecast.lm_loss`."""
        ...


class Forecast(Protocol):
    """The fitted laws, ready to answer.

    Cells are columns of one length n: which of the goals (int), block parameters, training tokens, instances
    per training token (of a source as a whole: its share). Draws are common: draw d means the same parameters
    for every goal and cell, and in every call.
    """

    def families(self) -> dict[str, list[float]]:
        """Calibrated families and their complexities."""
        ...

    def sources(self) -> list[str]:
        """Sources with a law of bits per byte."""
        ...

    def reached(
        self,
        goals: Sequence[Goal],
        goal: IntArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> FloatArray:
        """Probability that a new run reaches its goal, given each draw, shape (n, D).

        Rises with frequency. What differs from run to run is inside the probability; what is not known about
        the parameters is the spread over D. Fast: for use inside a search.
        """
        ...

    def told(
        self,
        goals: Sequence[Goal],
        goal: IntArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> GoalForecast:
        """What a new run measures, with intervals and extrapolation flags."""
        ...

    def parameters(self, goals: Sequence[Goal]) -> tuple[list[str], FloatArray]:
        """What is uncertain behind these goals, in words, and its value in every draw: K names, shape (D, K).

        In the same order of draws as `reached`.
        """
        ...

    def one_run(self, goal: Goal, block_params: float) -> RunForecast:
        """The courses that one run of a size may take towards a goal."""
        ...

    def lm_loss(
        self, block_params: FloatArray, tokens: FloatArray, common_share: FloatArray | None = None
    ) -> FloatArray | None:
        """Predicted LM loss (nats per token) on common data, shape (n,); None when no such law was fitted.

        `common_share` is the share of common data in the tokens; without it they are all common data.
        """
        ...

    def lm_loss_draws(self, block_params: FloatArray, tokens: FloatArray) -> FloatArray | None:
        """The same, all common data, in every draw of that law, shape (n, D'); None when there is no law or
        it has no draws."""
        ...
