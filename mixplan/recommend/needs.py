"""The frequency that each task needs to meet its target, at any size and token count.

Laws with many parameter draws are slow to ask, so exact answers are kept and interpolated between; the
solver asks for exact ones only where its answer lies.

Shape legend: n = cells, B = token counts, T = tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mixplan.documents.forecast import FloatArray, Forecast, Goal
from mixplan.recommend.evaluate import at_confidence
from mixplan.recommend.problem import FAR, Problem

_NEAR_ANCHORS, _FAR_ANCHORS = 17, 9
_ABOVE = 1e3  # beyond the densest source, so that needs stay smooth up to what shares can give
_DECADES = 24.0  # frequencies are looked for from there down to this many decades below
_CLOSE = 1e-10  # of log-odds
_CHUNK = 20_000  # cells whose draws are held at a time
_WINDOW = 1e-3  # of log10 frequency, on either side of a guess
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
        fresh = [key for key in dict.fromkeys(_keys(problem, size)) if key not in self._anchors]
        if fresh:
            self._ask(problem, fresh, anchors)
        columns = [_interpolated(*self._anchors[key], np.log(tokens)) for key in _keys(problem, size)]
        return np.stack(columns, axis=1) if columns else np.empty((len(tokens), 0))

    def exact(self, problem: Problem, size: int, tokens: FloatArray) -> FloatArray:
        """Needed frequencies, exact to about 1e-10, shape (B, T); kept as anchors for `at`."""
        self.at(problem, size, tokens[:1])
        keys = list(dict.fromkeys(_keys(problem, size)))
        known = [self._anchors[key][0] for key in keys]
        held = [np.isin(np.log(tokens), one) for one in known]
        missing = tokens[~np.all(held, axis=0)] if keys else tokens[:0]
        if len(missing):
            guess = [_interpolated(*self._anchors[key], np.log(missing)) for key in keys]
            self._ask(problem, keys, missing, np.concatenate(guess))
        return self.at(problem, size, tokens)

    def _ask(
        self, problem: Problem, keys: list[_Key], tokens: FloatArray, guess: FloatArray | None = None
    ) -> None:
        count = len(tokens)
        task = np.repeat([key[1] for key in keys], count)
        found = least_frequency(
            self._forecast,
            problem.goals,
            task,
            problem.confidence[task],
            np.repeat([problem.block_params[key[0]] for key in keys], count),
            np.tile(tokens, len(keys)),
            np.repeat([key[2] for key in keys], count),
            np.full(len(task), _ABOVE * problem.density.max()),
            guess,
        ).reshape(len(keys), count)
        for key, values in zip(keys, found, strict=True):
            x, y = self._anchors.get(key, (np.empty(0), np.empty(0)))
            x, y = np.concatenate([x, np.log(tokens)]), np.concatenate([y, values])
            order = np.unique(x, return_index=True)[1]
            self._anchors[key] = x[order], y[order]


def least_frequency(
    forecast: Forecast,
    goals: Sequence[Goal],
    goal: np.ndarray,
    confidence: FloatArray,
    block_params: FloatArray,
    tokens: FloatArray,
    target: FloatArray,
    highest: FloatArray,
    guess: FloatArray | None = None,
) -> FloatArray:
    """Least frequency at which a goal's probability meets `target`, for n cells; it must rise with frequency.

    Chandrupatla's root finder (Adv. Eng. Software 28, 1997, 145) on log-odds against log10 frequency.

    Args:
        goal: which of the goals, shape (n,).
        confidence: at which the probability is taken, NaN for its mean over draws, shape (n,).
        highest: highest frequency to consider, shape (n,).
        guess: where the answer is expected, to within 0.2 %, shape (n,); a wrong guess only costs time.

    Returns:
        Shape (n,); infinite where even `highest` does not do, 0 where the target is dropped or where 24
        decades below `highest` still do.
    """
    asked = np.where(target > 0, target, 0.5)  # a dropped target is not looked for
    wished = np.log(asked) - np.log1p(-asked)

    def gap(cells: np.ndarray, exponent: FloatArray) -> FloatArray:
        columns = goal[cells], block_params[cells], tokens[cells], np.power(10.0, exponent)
        parts = [
            at_confidence(
                forecast.reached(goals, *(column[at : at + _CHUNK] for column in columns)),
                confidence[cells[at : at + _CHUNK]],
            )
            for at in range(0, len(cells), _CHUNK)
        ]
        p = np.clip(np.concatenate(parts), 1e-300, 1 - 1e-16)
        return np.log(p) - np.log1p(-p) - wished[cells]

    answer = np.zeros(len(tokens))
    top = np.log10(highest)
    low, high = top - _DECADES, top.copy()
    at_low, at_high = np.full(len(tokens), np.nan), np.full(len(tokens), np.nan)
    wanted = target > 0
    if guess is not None:
        near = wanted & np.isfinite(guess) & (guess > 0)
        near[near] &= np.log10(guess[near]) + _WINDOW < top[near]
        cells = np.flatnonzero(near)
        if len(cells):
            centre = np.log10(guess[cells])
            below, above = gap(cells, centre - _WINDOW), gap(cells, centre + _WINDOW)
            good = (below < 0) & (above >= 0)
            hit = cells[good]
            low[hit], high[hit] = centre[good] - _WINDOW, centre[good] + _WINDOW
            at_low[hit], at_high[hit] = below[good], above[good]
    cells = np.flatnonzero(wanted & np.isnan(at_low))
    if len(cells):
        at_low[cells], at_high[cells] = gap(cells, low[cells]), gap(cells, high[cells])
        answer[cells[at_high[cells] < -_CLOSE]] = np.inf
    cells = np.flatnonzero(wanted & (at_high >= -_CLOSE) & (at_low < 0))
    if len(cells):
        bracket = low[cells], high[cells], at_low[cells], at_high[cells]
        root = _chandrupatla(lambda some, x: gap(cells[some], x), *bracket)
        answer[cells] = np.power(10.0, root)
    return answer


def _chandrupatla(
    gap: Callable[[np.ndarray, FloatArray], FloatArray],
    low: FloatArray,
    high: FloatArray,
    at_low: FloatArray,
    at_high: FloatArray,
) -> FloatArray:
    """Roots of n rising functions: where |gap| ≤ _CLOSE, or the upper end of a closed bracket.

    Args:
        gap: (indices, points) to values, all of one length.
        low, high: brackets, shape (n,).
        at_low, at_high: values there, at_low < 0.
    """
    a, b, c = high.copy(), low.copy(), low.copy()
    fa, fb, fc = at_high.copy(), at_low.copy(), at_low.copy()
    step = np.full(len(a), 0.5)
    answer = high.copy()
    todo = np.flatnonzero(np.abs(fa) > _CLOSE)
    for _ in range(100):
        if not len(todo):
            break
        x = a[todo] + step[todo] * (b[todo] - a[todo])
        fx = gap(todo, x)
        same = (fx >= 0) == (fa[todo] >= 0)
        c[todo], fc[todo] = np.where(same, a[todo], b[todo]), np.where(same, fa[todo], fb[todo])
        b[todo], fb[todo] = np.where(same, b[todo], a[todo]), np.where(same, fb[todo], fa[todo])
        a[todo], fa[todo] = x, fx
        upper = np.where(fa[todo] >= 0, a[todo], b[todo])
        answer[todo] = np.where(np.abs(fx) <= _CLOSE, x, upper)
        xi = (a[todo] - b[todo]) / (c[todo] - b[todo])
        phi = (fa[todo] - fb[todo]) / (fc[todo] - fb[todo])
        inverse = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = fa[todo] / (fb[todo] - fa[todo]) * fc[todo] / (fb[todo] - fc[todo])
            t += (
                (c[todo] - a[todo])
                / (b[todo] - a[todo])
                * fa[todo]
                / (fc[todo] - fa[todo])
                * fb[todo]
                / (fc[todo] - fb[todo])
            )
        step[todo] = np.clip(np.where(inverse & np.isfinite(t), t, 0.5), 1e-6, 1 - 1e-6)
        todo = todo[(np.abs(fx) > _CLOSE) & (np.abs(b[todo] - a[todo]) > 1e-13)]
    return answer


def _keys(problem: Problem, size: int) -> list[_Key]:
    """One key a task; tasks of the same goal, confidence and target share the first one's."""
    asked = [(goal, str(at)) for goal, at in zip(problem.goals, problem.confidence, strict=True)]
    first = {one: at for at, one in reversed(list(enumerate(asked)))}
    return [(size, first[one], float(target)) for one, target in zip(asked, problem.target, strict=True)]


def _interpolated(x: FloatArray, y: FloatArray, at: FloatArray) -> FloatArray:
    """Log-linear between anchors; next to infinite or zero ones, the value of the shorter training."""
    right = np.clip(np.searchsorted(x, at, side="left"), 1, len(x) - 1)
    y0, y1 = y[right - 1], y[right]
    smooth = np.isfinite(y0) & np.isfinite(y1) & (y0 > 0) & (y1 > 0)
    share = np.clip((at - x[right - 1]) / (x[right] - x[right - 1]), 0.0, 1.0)
    safe0, safe1 = np.where(smooth, y0, 1.0), np.where(smooth, y1, 1.0)
    between = np.exp((1 - share) * np.log(safe0) + share * np.log(safe1))
    stepped = np.where(share >= 1.0, y1, y0)
    return np.where(smooth, between, stepped)
