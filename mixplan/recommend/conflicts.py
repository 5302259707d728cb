"""Why a plan has no answer: which limits cannot hold together, and which tasks nothing reaches.

Whether a set of limits leaves a solution is asked on interpolated needs; what is offered as a way out is
solved exactly (`remedies.py`).

Shape legend: G = grid of token counts, S = sources, T = tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixplan.recommend.alternatives import best_of
from mixplan.recommend.mixture import effective_tokens
from mixplan.recommend.problem import Problem
from mixplan.recommend.remedies import Remedy, best_probability, lowered_targets, remedy, solved, target_of
from mixplan.recommend.solve import Solver

_SHOWN = 4
_SLACK = 0.3
"""A limit with so much room left in the nearest mixture is tried first when limits are dropped."""


@dataclass(frozen=True)
class Diagnosis:
    """Why there is no answer."""

    unreachable: dict[str, float]
    """Tasks that no size reaches even with every other limit dropped; the best probability they reach."""
    clash: list[str]
    """Limits that cannot hold together, each of them needed for the contradiction."""
    remedies: list[Remedy]
    """Smallest sets of limits to move, one remedy a set."""


class Existence:
    """Says whether a problem has a solution; the size that had one last is asked first."""

    def __init__(self, solver: Solver) -> None:
        self.solver = solver
        self._first = 0

    def __call__(self, problem: Problem) -> bool:
        sizes = range(len(problem.shapes))
        for size in sorted(sizes, key=lambda at: at != self._first):
            if bool(self.solver.screen(problem, size).feasible.any()):
                self._first = size
                return True
        return False


def diagnose(solver: Solver, problem: Problem) -> Diagnosis:
    """Find what clashes in an infeasible problem and what would help."""
    exists = Existence(solver)
    unreachable = _unreachable(solver, exists, problem)
    lost = [target_of(task) for task in unreachable]
    rest = problem.without(lost)
    if lost and solved(solver, rest) is not None:
        found = remedy(solver, problem, lost, lost)
        return Diagnosis(unreachable, lost, [found] if found else [])
    clash = _clash(solver, exists, rest)
    tried = [
        remedy(solver, problem, [*names, *lost], lost) for names in _corrections(solver, exists, rest, clash)
    ]
    remedies = [one for one in tried if one][:_SHOWN]
    if not remedies:  # what was smallest would have left every task out: keep the targets, whatever it takes
        loose = [name for name in rest.active_names() if not name.startswith("tasks.")]
        one = remedy(solver, problem, [*_reduced(exists, rest, loose), *lost], lost)
        remedies = [one] if one else []
    lowered = lowered_targets(solver, problem) if problem.targets_are_limits else None
    if lowered and all(set(lowered.changes) != set(one.changes) for one in remedies):
        remedies.append(lowered)
    return Diagnosis(unreachable, lost + clash, remedies)


def _unreachable(solver: Solver, exists: Existence, problem: Problem) -> dict[str, float]:
    """Tasks whose target nothing reaches; where one source alone reaches it there is nothing to search."""
    within = np.zeros(len(problem.tasks), dtype=bool)
    for size in range(len(problem.shapes)):
        tokens = solver.grid(problem, size)  # (G,)
        drawn = np.broadcast_to(tokens[:, None], (len(tokens), len(problem.sources)))
        worth = effective_tokens(drawn, problem.unique_tokens, problem.half_life) / tokens[:, None]  # (G, S)
        most = (worth[:, None, :] * problem.density[None]).max(axis=2)  # (G, T)
        within |= (most >= solver.needs.at(problem, size, tokens)).any(axis=0)
    found = {}
    for index in np.flatnonzero(~within):
        task = problem.tasks[index]
        alone = problem.without([name for name in problem.active_names() if name != target_of(task)])
        if not exists(alone):
            best = best_probability(solver, alone.without([target_of(task)]), int(index))
            if best < problem.target[index]:  # a law that falls with frequency may reach it after all
                found[task] = best
    return found


def _clash(solver: Solver, exists: Existence, problem: Problem) -> list[str]:
    """An irreducible set of limits without a solution: what can be dropped while none appears, is dropped.

    Many at a time, and in halves where that will not do. What has room left in the nearest mixture goes
    first, then share bounds, budgets last, so that the set names what costs money where it can.
    """
    if exists(problem):  # they hold by a hair, but not with whole samples
        return _touched(solver, problem)
    nearest = best_of(solver, problem).outcome
    room = dict(zip(problem.names, nearest.excess[0] < -_SLACK, strict=True))
    order = sorted(reversed(problem.active_names()), key=lambda name: not name.endswith("_share"))
    dropped: list[str] = []

    def drop(names: list[str]) -> None:
        if not names:
            return
        if not exists(problem.without([*dropped, *names])):
            dropped.extend(names)
        elif len(names) > 1:
            drop(names[: len(names) // 2])
            drop(names[len(names) // 2 :])

    drop([name for name in order if room[name]])
    drop([name for name in order if not room[name]])
    return [name for name in problem.active_names() if name not in dropped]


def _touched(solver: Solver, problem: Problem) -> list[str]:
    close = best_of(solver, problem).outcome.excess[0] > -0.02
    active = set(problem.active_names())
    return [name for name, near in zip(problem.names, close, strict=True) if near and name in active]


def _corrections(solver: Solver, exists: Existence, problem: Problem, clash: list[str]) -> list[list[str]]:
    """The smallest sets of limits whose removal leaves a solution: single ones, else pairs, else one more.

    A pair must break the clash that is known and the one that is left when its first limit is dropped.
    """
    single = [[name] for name in clash if exists(problem.without([name]))]
    if single:
        return single
    pairs: list[list[str]] = []
    for first in clash:
        without = problem.without([first])
        for second in _clash(solver, exists, without):
            pair = sorted([first, second])
            if pair not in pairs and exists(without.without([second])):
                pairs.append(pair)
    return pairs or [_reduced(exists, problem, problem.active_names())]


def _reduced(exists: Existence, problem: Problem, names: list[str]) -> list[str]:
    """Of limits whose joint removal leaves a solution, a set of which none can be put back."""
    needed = list(names)

    def put_back(some: list[str]) -> None:
        left = [name for name in needed if name not in some]
        if not some:
            return
        if exists(problem.without(left)):
            needed[:] = left
        elif len(some) > 1:
            put_back(some[: len(some) // 2])
            put_back(some[len(some) // 2 :])

    put_back(list(names))
    return needed
