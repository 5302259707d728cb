"""Shares as linear programs: upsampling divided among sources at its best, at many token counts at once; and,
with whole numbers in it, which tasks to reach at all.

Effective tokens are concave in the share (arXiv 2305.16264, eq. 5), so a share is cut into linear segments of
falling slope, which an optimum uses in order; chords lie below the curve, so a task gets what the program
says or a little more. Solved twice, the second time with fine segments around the first answer. Token counts
do not touch each other, but one program with a block for each is solved in a fraction of the time.

Shape legend: B = token counts, R = rare sources, T = tasks, L = levels, K = segments, V = all segments.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_matrix, hstack, identity, vstack

from mixplan.documents.forecast import FloatArray
from mixplan.errors import MixplanError
from mixplan.recommend.bounds import RareBounds
from mixplan.recommend.mixture import effective_tokens
from mixplan.recommend.problem import Problem

_SEGMENTS = 12
_FINE = np.array([-1.0, -0.25, -0.06, -0.01, 0.0, 0.01, 0.06, 0.25, 1.0])
_SHORT = 1e3  # price of a task's relative shortfall, in shares: nothing is left short to save upsampling
_MARGIN = 1.0 + 3e-7  # more than the solver's tolerance
_GAPS = {False: 1e-2, True: 1e-4}
_NODES = 300  # of branch and bound: a bound that is the same on every machine, as a time is not


@dataclass(frozen=True)
class Ground:
    """What mixtures with the lowest rare shares give, and what a unit more of them takes away."""

    tokens: FloatArray
    """Shape (B,)."""
    bounds: RareBounds
    base: FloatArray
    """Frequencies with the lowest rare shares, shape (B, T)."""
    lost: FloatArray
    """Frequency that a task loses in common sources for a unit of rare share, shape (B, T)."""


def is_spread(problem: Problem) -> bool:
    """Whether any task lives in more than one rare source."""
    return bool(((problem.density[:, problem.rare] > 0).sum(axis=1) > 1).any())


def least_rare_shares(problem: Problem, ground: Ground, needed: FloatArray, fine: bool) -> FloatArray:
    """Rare shares with the smallest sum that give every task the frequency it needs, shape (B, R).

    Where that is impossible, with the smallest sum of relative shortfalls.

    Args:
        needed: frequencies, finite, shape (B, T).
        fine: with fine segments around a first answer.

    Raises:
        MixplanError: the solver gave up; every such program has an answer.
    """
    row, task = np.nonzero(needed * _MARGIN > ground.base)
    if not len(row):
        return ground.bounds.low
    scale = 1.0 / needed[row, task]
    lack = _MARGIN - ground.base[row, task] * scale

    def solve(edges: FloatArray) -> FloatArray:
        pieces = _Pieces(problem, ground, edges)
        gain = pieces.gain(row, task, scale)  # (asked, V)
        short = identity(len(row), format="csr")
        # A shortfall has no bound: one token count that cannot be served must not spoil all others.
        upper = np.concatenate([pieces.width, np.full(len(row), np.inf)])
        answer = linprog(
            np.concatenate([np.ones(len(pieces.width)), np.full(len(row), _SHORT)]),
            A_ub=vstack(
                [
                    -hstack([gain, short]),
                    hstack([pieces.rooms, csr_matrix((pieces.rooms.shape[0], len(row)))]),
                ],
                format="csr",
            ),
            b_ub=np.concatenate([-lack, pieces.left]),
            bounds=np.stack([np.zeros(len(upper)), upper], axis=1),
            method="highs",
        )
        if answer.status != 0:  # natural rates in its place would look like an answer
            raise MixplanError(
                f"the linear program of the least upsampling, which always has an answer, got none "
                f"({answer.message}); this is a fault of mixplan's: please report it with the plan"
            )
        return pieces.shares(answer.x[: len(pieces.width)])

    return _refined(problem, ground, solve, fine)


def best_levels(
    problem: Problem, ground: Ground, levels: FloatArray, worth: FloatArray, fine: bool
) -> tuple[FloatArray, np.ndarray]:
    """Rare shares (R,) and the level that each task is brought to (−1: none), shape (T,), with the largest
    sum of worth; at equal worth with the least upsampling.

    A multiple-choice knapsack over concave costs, as a mixed-integer linear program.

    Args:
        ground: of one token count.
        levels: frequencies that could be aimed at, rising, infinite where unreachable, shape (T, L).
        worth: of each, shape (T, L).
        fine: to a ten-thousandth of the worth; else to a hundredth, on coarse segments.
    """
    tasks, count = levels.shape
    usable = np.isfinite(levels)
    rise = np.where(usable, np.maximum(levels * _MARGIN - ground.base[0][:, None], 0.0), 0.0)
    scale = 1.0 / np.maximum(rise.max(axis=1), 1e-300)
    chosen = np.full(tasks, -1)
    variables = tasks * count
    row, column = np.repeat(np.arange(tasks), count), np.arange(variables)
    aims = csr_matrix(((rise * scale[:, None]).ravel(), (row, column)), shape=(tasks, variables))
    one = csr_matrix((np.ones(variables), (row, column)), shape=(tasks, variables))

    def solve(edges: FloatArray) -> FloatArray:
        pieces = _Pieces(problem, ground, edges)
        gain = pieces.gain(np.zeros(tasks, dtype=np.int64), np.arange(tasks), scale)
        matrix = vstack(
            [
                hstack([gain, -aims]),
                hstack([-pieces.rooms, csr_matrix((pieces.rooms.shape[0], variables))]),
                hstack([csr_matrix((tasks, len(pieces.width))), -one]),
            ],
            format="csr",
        )
        least = np.concatenate([np.zeros(tasks), -pieces.left, -np.ones(tasks)])
        upper = np.concatenate([pieces.width, usable.ravel().astype(float)])
        # A share costs so little that it only decides between equals.
        cost = np.concatenate([np.full(len(pieces.width), 1e-6 * worth.max()), -worth.ravel()])
        whole = np.concatenate([np.zeros(len(pieces.width)), np.ones(variables)])
        rows, columns = _ordered(matrix, least, upper, cost)
        with _quiet():
            answer = milp(
                cost[columns],
                constraints=LinearConstraint(matrix[rows][:, columns], least[rows], np.inf),
                integrality=whole[columns],
                bounds=Bounds(np.zeros(len(upper)), upper[columns]),
                options={"mip_rel_gap": _GAPS[fine], "node_limit": _NODES},
            )
        if answer.x is None:
            chosen[:] = -1
            return ground.bounds.low
        used = answer.x[np.argsort(columns)]
        picked = used[len(pieces.width) :].reshape(tasks, count) > 0.5
        chosen[:] = np.where(picked.any(axis=1), picked.argmax(axis=1), -1)
        return pieces.shares(used[: len(pieces.width)])

    return _refined(problem, ground, solve, fine)[0], chosen


def _ordered(
    matrix: csr_matrix, least: FloatArray, upper: FloatArray, cost: FloatArray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a program in an order of their numbers alone: within its gap branch and bound ends
    where the order leads it, and the plan's order of sources and tasks is none of an answer's reasons."""
    size = abs(matrix)
    with np.errstate(over="ignore"):  # rounding a task that needs next to nothing
        columns = np.lexsort((upper.round(9), np.asarray(size.sum(axis=0)).ravel().round(9), cost.round(12)))
        by_row = size[:, columns] @ np.arange(
            1.0, len(columns) + 1
        )  # rows of equal sums stand on other columns
        return np.lexsort((by_row.round(6), least.round(9))), columns


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on standard output: HiGHS writes a line there now and then, whatever it is told, and a line
    too many is no JSON."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class _Pieces:
    """The segments of all rare sources at all token counts, as columns of a program."""

    def __init__(self, problem: Problem, ground: Ground, edges: FloatArray) -> None:
        """Args: edges: rising shares, the first the lowest one, shape (B, R, K + 1)."""
        unique, half_life = problem.unique_tokens[problem.rare], problem.half_life[problem.rare]
        tokens = ground.tokens[:, None, None]
        worth = effective_tokens(np.moveaxis(edges * tokens, 1, 2), unique, half_life)  # (B, K + 1, R)
        gained = np.diff(np.moveaxis(worth, 1, 2), axis=2) / tokens
        width = np.diff(edges, axis=2)
        self._row, self._source, at = np.nonzero(width > 0)
        self.width: FloatArray = width[self._row, self._source, at]
        self._slope = gained[self._row, self._source, at] / self.width
        self._ground = ground
        self._density = problem.density[:, problem.rare]
        low, member = ground.bounds.low, problem.member[:, problem.rare]
        count = len(low) * (1 + len(member))
        rows = [self._row, *(np.flatnonzero(one[self._source]) for one in member)]
        entry = [self._row] + [len(low) * (1 + at) + self._row[inside] for at, inside in enumerate(rows[1:])]
        column = [np.arange(len(self.width)), *rows[1:]]
        index = np.concatenate(entry), np.concatenate(column)
        self.rooms = csr_matrix((np.ones(len(index[0])), index), shape=(count, len(self.width)))
        """Sums of the segments of each token count, and of each group in it."""
        left = [ground.bounds.room - low.sum(axis=1)]
        left += [ground.bounds.group_room[:, at] - low[:, one].sum(axis=1) for at, one in enumerate(member)]
        self.left = np.maximum(np.concatenate(left), 0.0)

    def gain(self, row: np.ndarray, task: np.ndarray, scale: FloatArray) -> csr_matrix:
        """Scaled frequency that a task at a token count gains by a unit of each segment, shape (n, V).

        Args:
            row, task: which, shape (n,).
            scale: shape (n,).
        """
        starts = np.searchsorted(self._row, np.arange(len(self._ground.tokens) + 1))
        count = np.diff(starts)[row]  # segments of each one's token count
        entry = np.repeat(np.arange(len(row)), count)
        within = np.arange(len(entry)) - np.repeat(np.cumsum(count) - count, count)
        column = starts[row][entry] + within
        each = self._density[task[entry], self._source[column]] * self._slope[column]
        gained = (each - self._ground.lost[row, task][entry]) * scale[entry]
        some = np.flatnonzero(gained)
        index = entry[some], column[some]
        return csr_matrix((gained[some], index), shape=(len(row), len(self.width)))

    def shares(self, used: FloatArray) -> FloatArray:
        """Shape (B, R)."""
        found = self._ground.bounds.low.copy()
        np.add.at(found, (self._row, self._source), np.maximum(used, 0.0))
        return found


def _refined(
    problem: Problem, ground: Ground, solve: Callable[[FloatArray], FloatArray], fine: bool
) -> FloatArray:
    """The answer of `solve` on coarse segments; if `fine`, again on fine ones around it where any curve."""
    low = ground.bounds.low
    useful = (problem.density[:, problem.rare] > 0).any(axis=0)
    high = np.where(useful, np.maximum(ground.bounds.high, low), low)
    epoch = problem.unique_tokens[problem.rare] / ground.tokens[:, None]
    bend = np.clip(epoch, low, high)  # up to here the curve is a line
    steps = np.linspace(0.0, 1.0, _SEGMENTS + 1)
    curved = bend[:, :, None] + (high - bend)[:, :, None] * steps
    found = solve(np.concatenate([low[:, :, None], curved], axis=2))
    if not fine or not (found > bend * (1 + 1e-9)).any():
        return found
    around = found[:, :, None] + _FINE * ((high - bend) / _SEGMENTS)[:, :, None]
    around = np.clip(around, bend[:, :, None], high[:, :, None])
    edges = np.concatenate([low[:, :, None], bend[:, :, None], around, high[:, :, None]], axis=2)
    return solve(np.sort(edges, axis=2))
