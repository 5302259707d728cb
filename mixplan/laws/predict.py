"""The fitted laws, ready to answer: satisfies the `Forecast` protocol of mixplan.documents.forecast.

Where several learning laws share the forecast, each gives as many of the draws as its weight says.

Shape legend: n = cells, D = draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from mixplan.documents import Calibration
from mixplan.documents.forecast import Goal, GoalForecast, SkillForecast
from mixplan.errors import InputError
from mixplan.laws import lm_loss
from mixplan.laws.beta_noise import interval, probability_at_least, to_unit
from mixplan.laws.evidence import AXES
from mixplan.laws.protocol import Cells, Scattered, mixed
from mixplan.laws.surface import Surface, measured_complexities
from mixplan.units import number

FloatArray = NDArray[np.float64]

EDGE_TOLERANCE = 0.01
"""A value within this relative distance of a fitted range counts as inside."""


class LawForecast:
    """Forecasts from a calibration document; deterministic."""

    def __init__(self, calibration: Calibration) -> None:
        """Args: calibration: as written by `mixplan fit`.

        Raises:
            InputError: a law of the document is of an unknown form or lacks parameters.
        """
        if calibration.lm_loss is not None and calibration.lm_loss.law != lm_loss.NAME:
            raise InputError(
                f"calibration: the LM-loss law is {calibration.lm_loss.law!r}; known: {lm_loss.NAME!r}; "
                "write it anew with `mixplan fit`"
            )
        self._calibration = calibration
        weights = calibration.weights or {calibration.learning.law: 1.0}
        laws = [law for law in (calibration.learning, *calibration.other_learning) if law.law in weights]
        if len(laws) != len(weights):
            raise InputError(
                f"calibration: weights name {', '.join(map(repr, weights))}, of which there are "
                f"{', '.join(repr(law.law) for law in laws) or 'none'}; write it anew with `mixplan fit`"
            )
        self._parts = [(Surface(law), weights[law.law]) for law in laws]
        self._draws = max(len(law.draws) for law in laws)
        self._first = self._parts[0][0]
        self._censored = {
            (task.family, float(task.complexity)): task.status
            for task in calibration.tasks
            if task.status != "bracketed"
        }

    def families(self) -> dict[str, list[float]]:
        """Calibrated families and their complexities, ascending."""
        return measured_complexities(self._first.kinds)

    def p_learned(
        self,
        family: list[str],
        complexity: FloatArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> FloatArray:
        """Probability that a new run's skill reaches the threshold, shape (n,), averaged over draws.

        Raises:
            InputError: with every cell that cannot be forecast.
        """
        found = self._new_run(Cells.of(family, complexity, block_params, tokens, frequency))
        return probability_at_least(self._calibration.learned_skill, found.mean, found.precision)

    def skill(
        self,
        family: list[str],
        complexity: FloatArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> SkillForecast:
        """Everything about n cells; arguments of shape (n,) or scalars, instances per token, block
        parameters, tokens.

        Raises:
            InputError: with every cell that cannot be forecast.
        """
        cells = Cells.of(family, complexity, block_params, tokens, frequency)
        found = self._new_run(cells)
        low, high = interval(found.mean, found.precision)
        mean = mixed(
            [(Scattered(one := part.mean(cells), one), weight) for part, weight in self._parts], self._draws
        ).mean
        centre = found.mean.mean(axis=1)
        mean_low, mean_high = np.quantile(mean, [0.05, 0.95], axis=1)
        return SkillForecast(
            skill=centre,
            skill_low=low,
            skill_high=high,
            # A mean over runs lies within what single runs do, and around the mean of all draws.
            mean_low=np.clip(np.minimum(mean_low, centre), low, high),
            mean_high=np.clip(np.maximum(mean_high, centre), low, high),
            p_learned=probability_at_least(self._calibration.learned_skill, found.mean, found.precision),
            extrapolated=self._reasons(cells),
        )

    def lm_loss(
        self, block_params: FloatArray, tokens: FloatArray, common_share: FloatArray | None = None
    ) -> FloatArray | None:
        """LM loss of finished runs on common data, nats per token, shape (n,); None without such a law.

        Repeated tokens count as given: discount them first. Intervals: mixplan.laws.lm_loss.forecast.
        """
        law = self._calibration.lm_loss
        if law is None:
            return None
        share = 1.0 if common_share is None else common_share
        sizes, lengths = np.broadcast_arrays(block_params, np.asarray(tokens, dtype=float) * share)
        return lm_loss.predict(np.array(law.values), np.atleast_1d(sizes), np.atleast_1d(lengths))

    def sources(self) -> list[str]:
        """Sources with a law of bits per byte."""
        return [law.subject for law in self._calibration.sources]

    def reached(
        self,
        goals: Sequence[Goal],
        goal: NDArray[np.int64],
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> FloatArray:
        """Probability that a new run reaches its goal, given each draw, shape (n, D)."""
        names = [goals[at].family for at in goal]
        levels = np.array([goals[at].complexity for at in goal])
        found = self._new_run(Cells.of(names, levels, block_params, tokens, frequency))
        centre, precision = to_unit(found.mean), np.broadcast_to(found.precision, found.mean.shape)
        asked = np.array([goals[at].skill or self._calibration.learned_skill for at in goal])
        return 1.0 - betainc(centre * precision, (1.0 - centre) * precision, to_unit(asked)[:, None])

    def told(
        self,
        goals: Sequence[Goal],
        goal: NDArray[np.int64],
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> GoalForecast:
        """What a new run measures, with intervals and extrapolation flags."""
        names = [goals[at].family for at in goal]
        levels = np.array([goals[at].complexity for at in goal])
        found = self.skill(names, levels, block_params, tokens, frequency)
        return GoalForecast(found.skill, found.skill_low, found.skill_high, found.extrapolated)

    def parameters(self, goals: Sequence[Goal]) -> tuple[list[str], FloatArray]:
        """What is uncertain behind these goals, and its value in every draw, shape (D, K)."""
        law = self._calibration.learning
        return list(law.parameters), np.array(law.draws)

    def lm_loss_draws(self, block_params: FloatArray, tokens: FloatArray) -> FloatArray | None:
        """As `lm_loss`, in every draw, shape (n, D'); None without a law or without draws."""
        law = self._calibration.lm_loss
        if law is None or not law.draws:
            return None
        sizes, lengths = np.broadcast_arrays(block_params, np.asarray(tokens, dtype=float))
        drawn = lm_loss.predict(np.array(law.draws), np.atleast_1d(sizes), np.atleast_1d(lengths))
        return np.asarray(drawn.T)

    def problems(self, family: list[str], complexity: FloatArray) -> list[tuple[int, str]]:
        """Cells of kinds that nothing can be said about: index and reason."""
        return self._first.problems(family, complexity)

    def _new_run(self, cells: Cells) -> Scattered:
        return mixed([(part.new_run(cells), weight) for part, weight in self._parts], self._draws)

    def _reasons(self, cells: Cells) -> list[list[str]]:
        known = self.families()
        found = []
        low, high = self._first.low, self._first.high
        for row, name, level in zip(cells.log_axes, cells.family, cells.complexity.tolist(), strict=True):
            reasons = [
                reason
                for axis, value, least, most in zip(AXES, row, low, high, strict=True)
                if (reason := _outside(axis, np.exp(value), np.exp(least), np.exp(most), "fitted"))
            ]
            beyond = _outside(f"complexity of {name}", level, known[name][0], known[name][-1], "measured")
            reasons += [beyond] if beyond else []
            status = self._censored.get((name, level))
            if status == "never finished":
                reasons.append(f"{name} of complexity {level:g} was measured before the ends of runs only")
            elif reasons and status:
                reasons.append(
                    f"{name} of complexity {level:g} was {status} on the ladder, so its threshold is unknown"
                )
            found.append(reasons)
        return found


def _outside(what: str, value: float, low: float, high: float, how: str) -> str | None:
    """Why a value lies outside a range, in words, or None."""
    shown = f"{what} {number(value)}"
    if value > high * (1.0 + EDGE_TOLERANCE):
        return f"{shown} is {_ratio(value / high)} above the largest {how} {number(high)}"
    if value < low * (1.0 - EDGE_TOLERANCE):
        return f"{shown} is {_ratio(low / value)} below the smallest {how} {number(low)}"
    return None


def _ratio(value: float) -> str:
    return f"{value:.2f}×" if value < 10 else f"{value:,.0f}×"
