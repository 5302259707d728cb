"""The fitted laws, ready to answer: satisfies the `Forecast` protocol of mixplan.documents.forecast.

Where several learning laws share the forecast, each gives as many of the draws as its weight says.

Shape legend: n = cells, D = draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixplan.documents import Calibration
from mixplan.documents.calibration import FittedLaw
from mixplan.documents.forecast import Goal, GoalForecast, RunForecast, SkillForecast
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.laws import lm_loss, source_predict
from mixplan.laws.beta_noise import interval
from mixplan.laws.evidence import AXES
from mixplan.laws.goals import Asked, SkillGoals
from mixplan.laws.one_run import SkillRun
from mixplan.laws.one_source_run import SourceRun
from mixplan.laws.protocol import Cells, Scattered, log_axes, mixed
from mixplan.laws.source_goals import SourceGoals
from mixplan.laws.surface import Surface, measured_complexities
from mixplan.laws.uncertain import in_words
from mixplan.units import number

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

EDGE_TOLERANCE = 0.01
"""A value within this relative distance of a fitted range counts as inside."""
NO_SHARE = 1e-15
"""A source with a smaller share of the tokens than this is not in the mixture."""
NONE = 1e-290
"""Positive numbers up to this stand for 0, whose logarithm no law can take."""
_TURN = 32
"""Task kinds whose tables are made together, and"""
_ROWS = 20_000
"""cells whose draws are held at a time."""


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
        self._columns = self._draws or max((len(law.draws) for law in calibration.sources), default=0) or 1
        self._skills = SkillGoals(self._parts, self._columns)
        self._by_source: dict[str, SourceGoals] = {}
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
        cells = Cells.of(family, complexity, block_params, tokens, frequency)
        problems = self.problems(cells.family, cells.complexity)
        if problems:
            raise InputError(list(dict.fromkeys(reason for _, reason in problems)))
        return self._p_learned(cells)

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
            p_learned=self._p_learned(cells),
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
        goal: IntArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> FloatArray:
        """Probability that a new run reaches its goal, given each draw, shape (n, D).

        D is the number of draws of the learning law; column d is the same draw for every goal and cell and in
        every call. What is in a draw, and what in the probability: mixplan.laws.goals and
        mixplan.laws.source_goals.

        Args:
            goals: what runs are asked for.
            goal: which of them each cell is about, shape (n,).
            block_params, tokens: of the run, shape (n,) or scalars.
            frequency: instances per training token; of goals in bits per byte the source's share. Repeated
                text must have been discounted to what it is worth fresh: no law discounts it again.

        Raises:
            InputError: every goal that cannot be forecast, or a number that is not above 0.
        """
        self._check(goals)
        at = np.asarray(goal, dtype=np.int64)
        axes = log_axes(len(at), block_params, tokens, frequency)
        found = np.empty((len(at), self._columns))
        in_bits = np.array([one.bits_per_byte is not None for one in goals], dtype=bool)[at]
        skills = np.flatnonzero(~in_bits)
        if len(skills):
            # All goals in skill, asked about or not, so that their tables are those of the call before.
            among = np.cumsum([one.bits_per_byte is None for one in goals]) - 1
            asked = [self._asked(one) for one in goals if one.bits_per_byte is None]
            found[skills] = self._skills.reached(asked, among[at[skills]], axes[skills])
        for index in np.unique(at[in_bits]):
            rows = np.flatnonzero(at == index)
            share, size, length = np.exp(axes[rows]).T
            wanted = np.full(len(rows), goals[index].bits_per_byte, dtype=np.float64)
            found[rows] = self._source_goals(goals[index].family).reached(wanted, size, length, share)
        return found

    def told(
        self,
        goals: Sequence[Goal],
        goal: IntArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> GoalForecast:
        """What a new run measures, for n cells; arguments as of `reached`.

        Of goals in bits per byte the value is the median over draws of the mean over seeds.

        Raises:
            InputError: every goal that cannot be forecast, or a number that is out of its range.
        """
        self._check(goals)
        at = np.asarray(goal, dtype=np.int64)
        size, length, often = (
            np.broadcast_to(np.asarray(one, dtype=np.float64), len(at))
            for one in (block_params, tokens, frequency)
        )
        value, low, high = (np.empty(len(at)) for _ in range(3))
        extrapolated: list[list[str]] = [[] for _ in at]
        in_bits = np.array([one.bits_per_byte is not None for one in goals], dtype=bool)[at]
        rows = np.flatnonzero(~in_bits)
        if len(rows):
            names = [goals[index].family for index in at[rows]]
            levels = np.array([goals[index].complexity for index in at[rows]])
            cells = Cells.of(names, levels, size[rows], length[rows], often[rows])
            run = self._new_run(cells)
            value[rows], (low[rows], high[rows]) = run.mean.mean(axis=1), interval(run.mean, run.precision)
            for row, reasons in zip(rows, self._reasons(cells), strict=True):
                extrapolated[row] = reasons
        for index in np.unique(at[in_bits]):
            rows = np.flatnonzero(at == index)
            share = np.where(often[rows] < NO_SHARE, 0.0, often[rows])
            # Shares are quotients: what exceeds 1 by rounding is 1.
            share = np.where(share < 1.0 + 1e-9, np.minimum(share, 1.0), share)
            said = source_predict.predict(
                self._law_of(goals[index].family), share, size[rows], length[rows], 0.0
            )
            value[rows], low[rows], high[rows] = said.bits, said.low, said.high
            for row, reasons in zip(rows, said.extrapolated, strict=True):
                extrapolated[row] = reasons
        return GoalForecast(value, low, high, extrapolated)

    def one_run(self, goal: Goal, block_params: float) -> RunForecast:
        """The courses that one run may take towards a goal; the same in every call.

        Raises:
            InputError: the laws cannot speak about the goal.
        """
        self._check([goal])
        if goal.bits_per_byte is not None:
            return SourceRun(self._source_goals(goal.family), goal.bits_per_byte, block_params)
        family, complexity, skill = self._asked(goal)
        return SkillRun(self._skills.surfaces, (family, complexity), skill, block_params)

    def parameters(self, goals: Sequence[Goal]) -> tuple[list[str], FloatArray]:
        """What is uncertain behind these goals, in words, and its value in every draw, shape (D, K).

        In the order of the draws of `reached`; only what differs between draws.

        Raises:
            InputError: every goal that cannot be forecast.
        """
        self._check(goals)
        kinds = [(one.family, float(one.complexity)) for one in goals if one.bits_per_byte is None]
        subjects = {one.family for one in goals if one.bits_per_byte is not None}
        return in_words(self._skills.surfaces, kinds, {name: self._source_goals(name) for name in subjects})

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

    def _asked(self, goal: Goal) -> Asked:
        skill = self._calibration.learned_skill if goal.skill is None else goal.skill
        return goal.family, float(goal.complexity), float(skill)

    def _law_of(self, source: str) -> FittedLaw:
        return next(law for law in self._calibration.sources if law.subject == source)

    def _source_goals(self, source: str) -> SourceGoals:
        if source not in self._by_source:
            self._by_source[source] = SourceGoals(self._law_of(source), self._columns)
        return self._by_source[source]

    def _check(self, goals: Sequence[Goal]) -> None:
        """Raises:
        InputError: every goal that the laws cannot speak about.
        """
        skills = [goal for goal in goals if goal.bits_per_byte is None]
        found = [
            reason
            for _, reason in self.problems(
                [goal.family for goal in skills], np.array([goal.complexity for goal in skills])
            )
        ]
        known = self.sources()
        found += [
            f"bits per byte of {name!r}: the calibration has no law for this source"
            f"{did_you_mean(name, known) or '; it has none for any: measure sources, then `mixplan fit`'}"
            for name in dict.fromkeys(goal.family for goal in goals if goal.bits_per_byte is not None)
            if name not in known
        ]
        if found:
            raise InputError(list(dict.fromkeys(found)))

    def _p_learned(self, cells: Cells) -> FloatArray:
        """Mean of `reached` over draws, shape (n,), for cells that were checked."""
        kinds = list(zip(cells.family, cells.complexity.tolist(), strict=True))
        at = {kind: index for index, kind in enumerate(sorted(set(kinds)))}
        which = np.array([at[kind] for kind in kinds], dtype=np.int64)
        asked = [(*kind, self._calibration.learned_skill) for kind in at]
        found = np.empty(len(kinds))
        # In turns, as tables of hundreds of kinds do not fit into memory together.
        for start in range(0, len(asked), _TURN):
            rows = np.flatnonzero((which >= start) & (which < start + _TURN))
            for part in np.array_split(rows, 1 + len(rows) // _ROWS):
                drawn = self._skills.reached(
                    asked[start : start + _TURN], which[part] - start, cells.log_axes[part]
                )
                found[part] = drawn.mean(axis=1)
        return found

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
    if what == "frequency" and value <= NONE:
        return f"no instance at all; the smallest {what} {how} is {number(low)}"
    shown = f"{what} {number(value)}"
    if value > high * (1.0 + EDGE_TOLERANCE):
        return f"{shown} is {_ratio(value / high)} above the largest {how} {number(high)}"
    if value < low * (1.0 - EDGE_TOLERANCE):
        return f"{shown} is {_ratio(low / value)} below the smallest {how} {number(low)}"
    return None


def _ratio(value: float) -> str:
    return f"{value:.2f}×" if value < 10 else f"{value:,.0f}×" if value < 1e6 else f"{value:.1e}×"
