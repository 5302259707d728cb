"""The fitted laws, ready to answer: satisfies the `Forecast` protocol of mixplan.documents.forecast.

Beyond a fitted range every draw's slope is known only to within half of itself: it is multiplied there by
1 + ε, ε ~ N(0, 0.5²) cut at −1, drawn once per draw and axis. So intervals widen with the logarithm of the
distance, on top of the draws' own spread, and no draw ever falls with size, tokens or frequency. The half is
a choice, not a measurement; `mixplan backtest` shows the coverage it gives one rung further.

Shape legend: n = cells, D = draws, K = measured task kinds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mixplan.documents import Calibration
from mixplan.documents.forecast import SkillForecast
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.laws import lm_loss, logistic
from mixplan.laws.beta_noise import interval, probability_at_least
from mixplan.laws.evidence import AXES
from mixplan.units import number

FloatArray = NDArray[np.float64]

SLOPE_DOUBT = 0.5
"""Standard deviation of ε, the relative error of a slope outside its fitted range."""
EDGE_TOLERANCE = 0.01
"""A value within this relative distance of a fitted range counts as inside."""


class LawForecast:
    """Forecasts from a calibration document; deterministic."""

    def __init__(self, calibration: Calibration) -> None:
        """Args: calibration: as written by `mixplan fit`.

        Raises:
            InputError: a law of the document is of an unknown form or lacks parameters.
        """
        law = calibration.learning
        if law.law != logistic.NAME:
            raise InputError(
                f"calibration: the learning law is {law.law!r}; known: {logistic.NAME!r}; write it anew with "
                "`mixplan fit`"
            )
        if calibration.lm_loss is not None and calibration.lm_loss.law != lm_loss.NAME:
            raise InputError(
                f"calibration: the LM-loss law is {calibration.lm_loss.law!r}; known: {lm_loss.NAME!r}; "
                "write it anew with `mixplan fit`"
            )
        self._calibration = calibration
        self._kinds = [(task.family, float(task.complexity)) for task in calibration.tasks]
        self._never = {
            (task.family, float(task.complexity))
            for task in calibration.tasks
            if task.status == "never learned"
        }
        intercepts = [logistic.intercept_name(kind) for kind in self._kinds]
        ceilings = [logistic.ceiling_name(kind) for kind in self._kinds]
        wanted = [*intercepts, *ceilings, *logistic.SLOPES, logistic.PRECISION]
        settings = [f"centre_log_{axis}" for axis in AXES]
        missing = [name for name in wanted if name not in law.parameters]
        missing += [name for name in settings if name not in law.settings]
        missing += [f"ranges.{axis}" for axis in AXES if axis not in law.ranges]
        if missing:
            raise InputError(
                f"calibration: the learning law lacks {', '.join(missing)}; write it anew with `mixplan fit`"
            )
        table = np.array(law.draws if law.draws else [law.values])
        at = {name: index for index, name in enumerate(law.parameters)}
        self._intercepts = table[:, [at[name] for name in intercepts]]  # (D, K)
        self._ceilings = table[:, [at[name] for name in ceilings]]  # (D, K)
        self._slopes = table[:, [at[name] for name in logistic.SLOPES]]  # (D, 3)
        self._precision = table[:, at[logistic.PRECISION]]  # (D,)
        self._centres = np.array([law.settings[name] for name in settings])  # (3,)
        self._low = np.log([law.ranges[axis].low for axis in AXES])  # (3,)
        self._high = np.log([law.ranges[axis].high for axis in AXES])
        doubt = np.random.default_rng(0).normal(0.0, SLOPE_DOUBT, size=(len(table), len(AXES) + 1))
        # Without draws there is only the point estimate, and its slopes are taken as they are.
        self._doubt = (
            np.maximum(1.0 + doubt, 0.0) if law.draws else np.ones_like(doubt)
        )  # (D, 3 axes + complexity)

    def families(self) -> dict[str, list[float]]:
        """Calibrated families and their complexities, ascending."""
        found: dict[str, list[float]] = {}
        for family, complexity in sorted(self._kinds):
            found.setdefault(family, []).append(complexity)
        return found

    def p_learned(
        self,
        family: list[str],
        complexity: FloatArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> FloatArray:
        """Probability that a new run's skill reaches the threshold, shape (n,).

        Read off the distribution of new runs, averaged over draws. The rival, a second logistic of learned
        or not on the same log-odds, scored no better in 24 simulated settings of 12 ladders each (3 to 5
        rungs, 1 or 2 seeds, precision 0.5 to 15, with and without run effects): mean Brier 0.111 against
        0.109 inside the ladder, 0.114 against 0.112 one rung up. The simulated scatter was Beta; real
        ladders may differ.

        Raises:
            InputError: with every cell that cannot be forecast.
        """
        mean = self._mean(family, complexity, block_params, tokens, frequency)
        return probability_at_least(self._calibration.learned_skill, mean, self._precision)

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
        mean = self._mean(family, complexity, block_params, tokens, frequency)
        low, high = interval(mean, self._precision)
        return SkillForecast(
            skill=mean.mean(axis=1),
            skill_low=low,
            skill_high=high,
            p_learned=probability_at_least(self._calibration.learned_skill, mean, self._precision),
            extrapolated=self._reasons(family, complexity, block_params, tokens, frequency),
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

    def problems(self, family: list[str], complexity: FloatArray) -> list[tuple[int, str]]:
        """Cells of kinds that nothing can be said about: index and reason."""
        known = self.families()
        found = []
        for index, (name, level) in enumerate(
            zip(family, np.broadcast_to(complexity, len(family)), strict=True)
        ):
            if name not in known:
                found.append((index, f"family {name!r} was not measured{did_you_mean(name, known)}"))
            elif float(level) not in known[name] and len(known[name]) < 2:
                found.append((
                    index,
                    f"complexity {level:g} of {name!r} was not measured, and one measured complexity "
                    f"({known[name][0]:g}) says nothing about others; measure a second one",
                ))  # fmt: skip
        return found

    def _log_axes(
        self, family: list[str], block_params: FloatArray, tokens: FloatArray, frequency: FloatArray
    ) -> FloatArray:
        columns = [
            np.broadcast_to(np.asarray(c, float), len(family)) for c in (frequency, block_params, tokens)
        ]
        for axis, column in zip(AXES, columns, strict=True):
            bad = np.flatnonzero(~(np.isfinite(column) & (column > 0)))
            if len(bad):
                raise InputError(f"{axis} must be a number above 0; cell {bad[0] + 1} has {column[bad[0]]:g}")
        return np.log(np.column_stack(columns))

    def _mean(
        self,
        family: list[str],
        complexity: FloatArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> FloatArray:
        """Mean skill per draw, shape (n, D)."""
        problems = self.problems(family, complexity)
        if problems:
            raise InputError(list(dict.fromkeys(reason for _, reason in problems)))
        x = self._log_axes(family, block_params, tokens, frequency)
        inside = np.clip(x, self._low, self._high)
        log_odds = (inside - self._centres) @ self._slopes.T
        log_odds += (x - inside) @ (self._slopes * self._doubt[:, :3]).T
        levels = np.broadcast_to(np.asarray(complexity, float), len(family))
        found: dict[tuple[str, float], tuple[FloatArray, FloatArray]] = {}
        ceilings = np.empty_like(log_odds)
        for index, kind in enumerate(zip(family, levels.tolist(), strict=True)):
            if kind not in found:
                found[kind] = self._kind(*kind)
            intercept, ceilings[index] = found[kind]
            log_odds[index] += intercept
        return ceilings * expit(log_odds)

    def _kind(self, family: str, complexity: float) -> tuple[FloatArray, FloatArray]:
        """A kind's intercept and ceiling per draw, each of shape (D,).

        Measured; or between its neighbours, linear in log complexity; or beyond the hardest or easiest one,
        with its ceiling and an intercept along the family's least-squares line (never easier as complexity
        grows).
        """
        if (family, complexity) in self._kinds:
            at = self._kinds.index((family, complexity))
            return self._intercepts[:, at], self._ceilings[:, at]
        members = sorted((level, k) for k, (name, level) in enumerate(self._kinds) if name == family)
        u, columns = np.log([level for level, _ in members]), [k for _, k in members]
        intercepts, ceilings = self._intercepts[:, columns], self._ceilings[:, columns]
        wanted = np.log(complexity)
        if u[0] < wanted < u[-1]:
            right = int(np.searchsorted(u, wanted))
            share = (wanted - u[right - 1]) / (u[right] - u[right - 1])
            pair, parts = [right - 1, right], np.array([1.0 - share, share])
            return intercepts[:, pair] @ parts, ceilings[:, pair] @ parts
        centred = u - u.mean()
        slope = np.minimum(intercepts @ centred / (centred @ centred), 0.0) * self._doubt[:, 3]
        end = 0 if wanted <= u[0] else -1
        return intercepts[:, end] + slope * (wanted - u[end]), ceilings[:, end]

    def _reasons(
        self,
        family: list[str],
        complexity: FloatArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> list[list[str]]:
        x = self._log_axes(family, block_params, tokens, frequency)
        levels = np.broadcast_to(np.asarray(complexity, float), len(family)).tolist()
        known = self.families()
        found = []
        for row, name, level in zip(x, family, levels, strict=True):
            reasons = [
                reason
                for axis, value, low, high in zip(AXES, row, self._low, self._high, strict=True)
                if (reason := _outside(axis, np.exp(value), np.exp(low), np.exp(high), "fitted"))
            ]
            beyond = _outside(f"complexity of {name}", level, known[name][0], known[name][-1], "measured")
            reasons += [beyond] if beyond else []
            if reasons and (name, level) in self._never:
                reasons.append(
                    f"{name} of complexity {level:g} was never learned on the ladder, so its threshold is "
                    "unknown"
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
