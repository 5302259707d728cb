"""The frequency that each task needs to meet its target, at any size and token count.

Laws with many parameter draws are slow to ask, so exact answers are kept and interpolated between; the
solver asks for exact ones only where its answer lies.

Shape legend: n = cells, B = token counts, T = tasks.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.recommend.problem import FAR, Problem

_NEAR_ANCHORS, _FAR_ANCHORS = 17, 9
_DECADES = 9.0  # frequencies are looked for from the densest possible down to this many decades below
_CLOSE = 1e-10  # of log-odds
_Key = tuple[int, int, float]


def horizon_of(problem: Problem, size: int) -> float:
    """Most tokens that the plan's own budget allows at a size, and no less than the shortest training."""
    return max(float(problem.horizon[size]), problem.min_tokens * (1 + 1e-9))


class Needs:
    """Needed frequencies by (size, task, target): exact at anchors, log-linear in tokens between them."""

    def __init__(self, forecast: Forecast) -> None:
        self._forecast = forecast
        self._anchors: dict[_Key, tuple[FloatArray, FloatArray]] = {}

    def at(self, problem: Problem, size: int, tokens: FloatArray) -> FloatArray:
        """Needed frequencies, interpolated, shape (B, T). Infinite where none suffices, 0 where any does."""
        horizon = horizon_of(problem, size)
        near = np.geomspace(problem.min_tokens, horizon, _NEAR_ANCHORS)
        anchors = np.concatenate([near, np.geomspace(horizon, horizon * FAR, _FAR_ANCHORS)[1:]])
        fresh = [key for key in _keys(problem, size) if key not in self._anchors]
        if fresh:
            self._ask(problem, fresh, anchors)
        columns = [_interpolated(*self._anchors[key], np.log(tokens)) for key in _keys(problem, size)]
        return np.stack(columns, axis=1) if columns else np.empty((len(tokens), 0))

    def exact(self, problem: Problem, size: int, tokens: FloatArray) -> FloatArray:
        """Needed frequencies, exact to about 1e-10, shape (B, T); kept as anchors for `at`."""
        self.at(problem, size, tokens[:1])
        for key in _keys(problem, size):
            known = self._anchors[key][0]
            missing = tokens[~np.isin(np.log(tokens), known)]
            if len(missing):
                self._ask(problem, [key], missing)
        return self.at(problem, size, tokens)

    def _ask(self, problem: Problem, keys: list[_Key], tokens: FloatArray) -> None:
        count = len(tokens)
        task = np.repeat([key[1] for key in keys], count)
        found = least_frequency(
            self._forecast,
            [problem.family[t] for t in task],
            problem.complexity[task],
            np.repeat([problem.block_params[key[0]] for key in keys], count),
            np.tile(tokens, len(keys)),
            np.repeat([key[2] for key in keys], count),
            problem.density.max(axis=1)[task],
        ).reshape(len(keys), count)
        for key, values in zip(keys, found, strict=True):
            x, y = self._anchors.get(key, (np.empty(0), np.empty(0)))
            x, y = np.concatenate([x, np.log(tokens)]), np.concatenate([y, values])
            order = np.unique(x, return_index=True)[1]
            self._anchors[key] = x[order], y[order]


def least_frequency(
    forecast: Forecast,
    family: list[str],
    complexity: FloatArray,
    block_params: FloatArray,
    tokens: FloatArray,
    target: FloatArray,
    highest: FloatArray,
) -> FloatArray:
    """Least frequency at which p_learned meets `target`, for n cells, shape (n,); p_learned must rise with
    it.

    Regula falsi on log-odds against log frequency (Illinois variant), with bisection where that is slow.
    Infinite where even `highest` does not do, 0 where nine decades below it still does.
    """
    asked = np.where(target > 0, target, 0.5)  # a dropped target is not looked for
    goal = np.log(asked) - np.log1p(-asked)

    def gap(cells: np.ndarray, exponent: FloatArray) -> FloatArray:
        names = [family[cell] for cell in cells]
        p = forecast.p_learned(
            names, complexity[cells], block_params[cells], tokens[cells], np.power(10.0, exponent)
        )
        p = np.clip(np.asarray(p, dtype=np.float64), 1e-300, 1 - 1e-16)
        return np.log(p) - np.log1p(-p) - goal[cells]

    answer = np.zeros(len(tokens))
    everyone = np.flatnonzero(target > 0)
    high = np.log10(highest)
    low = high - _DECADES
    at_high, at_low = np.full(len(tokens), np.inf), np.full(len(tokens), -np.inf)
    at_high[everyone] = gap(everyone, high[everyone])
    answer[at_high < -_CLOSE] = np.inf
    at_low[everyone] = gap(everyone, low[everyone])
    open_ = np.flatnonzero((at_high >= -_CLOSE) & (at_low < 0) & (target > 0))
    answer[open_] = 10.0 ** high[open_]
    halve = np.zeros(len(tokens), dtype=bool)
    for _ in range(120):
        if not len(open_):
            break
        width = high[open_] - low[open_]
        secant = high[open_] - at_high[open_] * width / np.maximum(at_high[open_] - at_low[open_], 1e-300)
        middle = (low[open_] + high[open_]) / 2
        x = np.where(halve[open_], middle, np.clip(secant, low[open_], high[open_]))
        y = gap(open_, x)
        enough = y >= 0
        up, down = open_[enough], open_[~enough]
        high[up], at_high[up], at_low[up] = x[enough], y[enough], at_low[up] / 2
        low[down], at_low[down], at_high[down] = x[~enough], y[~enough], at_high[down] / 2
        halve[open_] = (high[open_] - low[open_] > width / 2) & ~halve[open_]
        answer[open_] = 10.0 ** np.where(np.abs(y) <= _CLOSE, x, high[open_])
        open_ = open_[(np.abs(y) > _CLOSE) & (high[open_] - low[open_] > 1e-13)]
    return answer


def _keys(problem: Problem, size: int) -> list[_Key]:
    """One key a task; tasks of the same kind and target share the first one's."""
    kinds = list(zip(problem.family, problem.complexity, problem.density.max(axis=1), strict=True))
    return [
        (size, kinds.index(kind), float(target)) for kind, target in zip(kinds, problem.target, strict=True)
    ]


def _interpolated(x: FloatArray, y: FloatArray, at: FloatArray) -> FloatArray:
    """Linear in logarithms between anchors; next to infinite or zero ones, the value of the shorter
    training."""
    right = np.clip(np.searchsorted(x, at, side="left"), 1, len(x) - 1)
    y0, y1 = y[right - 1], y[right]
    smooth = np.isfinite(y0) & np.isfinite(y1) & (y0 > 0) & (y1 > 0)
    share = np.clip((at - x[right - 1]) / (x[right] - x[right - 1]), 0.0, 1.0)
    safe0, safe1 = np.where(smooth, y0, 1.0), np.where(smooth, y1, 1.0)
    between = np.exp((1 - share) * np.log(safe0) + share * np.log(safe1))
    stepped = np.where(share >= 1.0, y1, y0)
    return np.where(smooth, between, stepped)
