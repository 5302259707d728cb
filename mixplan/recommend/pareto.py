"""The front of three wishes: few FLOPs, many tasks learned, a low loss on common data.

Coverage is the share of the tasks, weighed by their values, whose target is met: the targets are what the
plan asks for, and a mean of probabilities would let one task pay for another. Every other limit of the plan
holds in every row. The analytic answers to "these tasks, at this size and token count" come first; NSGA-II
(Optuna's) looks for more between them.

Shape legend: B = mixtures, S = sources, T = tasks, G = token counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.calibration import Calibration
from mixplan.documents.forecast import FloatArray, Forecast
from mixplan.documents.plan import Plan
from mixplan.documents.table import Table
from mixplan.errors import NoAnswer
from mixplan.recommend.checks import build_problem
from mixplan.recommend.evaluate import Outcome, evaluate
from mixplan.recommend.linear import is_spread
from mixplan.recommend.needs import horizon_of
from mixplan.recommend.objective import met
from mixplan.recommend.problem import Problem
from mixplan.recommend.search import Scored, Space, scored
from mixplan.recommend.shares import fit_shares
from mixplan.recommend.solve import Candidate, Solver
from mixplan.recommend.storage import store_of
from mixplan.recommend.study import Settings, run_study

_GRID = {False: (25, 16), True: (9, 6)}
"""Token counts and numbers of tasks to start from, without and with tasks that live in several rare sources:
there every mixture takes a linear program."""
_SOLVED = 6
"""For so many numbers of tasks the cheapest mixture is solved for, at every size."""
_POPULATION = 50
"""Of NSGA-II, and starts that it is given at most."""
_APART = 0.01
"""Rows with the same tasks are at least so far apart in FLOPs."""
_LOSSLESS = 1e6
"""Nats that stand for the loss of a mixture without common data."""


def pareto_front(
    plan: Plan,
    forecast: Forecast,
    folder: Path,
    *,
    calibration: Calibration | None = None,
    seed: int | None = None,
    storage: str | None = None,
    workers: int = 1,
) -> Table:
    """All mixtures found of which none is better in one wish and no worse in the others, cheapest first.

    Args:
        plan: its objective is not asked for; its targets say what learned means, its other limits hold.
        forecast, folder, calibration, seed, storage, workers: as of `mixplan.recommend.recommend`.

    Returns:
        Columns size, block_params, tokens, flops (training), lifetime_flops (training and inference),
        coverage, tasks_learned, expected_tasks (sum of
        probabilities, of a task with `confidence` at that), common_loss_nats,
        common_loss_increase_nats (empty without a loss law, and where the loss would be above that of
        guessing), share.SOURCE and p.TASK.

    Raises:
        InputError: as of `recommend`.
        NoAnswer: no mixture holds the limits even without the targets.
    """
    problem = build_problem(plan, forecast, folder)
    used_seed = plan.search.seed if seed is None else seed
    store = store_of(storage, plan, problem, calibration, used_seed, "front") if storage else None
    settings = Settings("nsga2", plan.search.trials, used_seed, store, workers, _POPULATION)
    return as_table(plan, problem, find_front(Solver(forecast), problem, settings))


def find_front(solver: Solver, problem: Problem, settings: Settings) -> Outcome:
    """The rows of the front as mixtures, cheapest first.

    Raises:
        NoAnswer: no mixture holds the limits even without the targets.
    """
    free = with_targets(problem, np.zeros(len(problem.tasks), dtype=bool))
    best = [solver.best_at(problem, size) for size in range(len(problem.shapes))]
    parts = [_as_rows(one) for one in best]
    for size in range(len(problem.shapes)):
        parts += _analytic(solver, problem, size)
    rows = (np.concatenate(column) for column in zip(*parts, strict=True))
    analytic = best_rows(free, evaluate(free, solver.forecast, *rows))
    space = Space.around(free, best)
    step = max(-(-len(analytic.tokens) // _POPULATION), 1)
    starts = [space.encode(Candidate(analytic.row(at))) for at in range(0, len(analytic.tokens), step)]
    scorer = FrontScorer(space, solver.forecast)
    directions = ["minimize"] * (3 if has_loss(free, solver.forecast) else 2)
    trials = run_study(scorer, space.distributions(), directions, starts, settings)
    found = best_rows(free, joined([analytic, *(one.outcome for one in trials)]))
    if not len(found.tokens):
        raise NoAnswer(
            "no mixture at any size holds the plan's limits even without the targets; `mixplan recommend` "
            "without --pareto says which of them clash"
        )
    return found


@dataclass(frozen=True)
class FrontScorer:
    """Parameters become mixtures, with the wishes as values; a Score of study.py."""

    space: Space
    forecast: Forecast

    def __call__(self, params: Sequence[Mapping[str, Any]]) -> list[Scored]:
        """One a trial, in order."""
        free = self.space.problem
        outcome = evaluate(free, self.forecast, *self.space.decode(params))
        count = 3 if has_loss(free, self.forecast) else 2
        return scored(free, outcome, wishes(free, outcome)[:, :count])


def with_targets(problem: Problem, asked: np.ndarray) -> Problem:
    """The cheapest mixture wanted, with the targets of these tasks as limits, bool (T,), and no others."""
    limit = problem.limit.copy()
    limit[len(limit) - len(asked) :] = np.where(asked, problem.wanted, -np.inf)
    return replace(problem, limit=limit, objective="cheapest")


def has_loss(problem: Problem, forecast: Forecast) -> bool:
    """Whether the laws speak of the loss on common data; else there are two wishes."""
    return forecast.lm_loss(problem.block_params[:1], np.array([1e6])) is not None


def coverage(problem: Problem, outcome: Outcome) -> FloatArray:
    """Share of the tasks, weighed by value, whose target is met, shape (B,)."""
    return (met(problem, outcome) @ problem.value) / problem.value.sum()


def wishes(problem: Problem, outcome: Outcome) -> FloatArray:
    """What is to be low: FLOPs of training and inference, 1 − coverage, loss in nats; shape (B, 3)."""
    loss = np.nan_to_num(outcome.common_loss, nan=_LOSSLESS)
    return np.stack(
        [problem.cost(outcome.size, outcome.tokens), 1 - coverage(problem, outcome), loss], axis=1
    )


def best_rows(problem: Problem, outcome: Outcome) -> Outcome:
    """Those that hold every limit and that no other one beats, cheapest first; of rows with the same tasks
    and almost the same FLOPs only one."""
    outcome = _picked(outcome, np.flatnonzero(outcome.feasible))
    value = wishes(problem, outcome)
    order = np.lexsort((np.arange(len(value)), value[:, 2], value[:, 1], value[:, 0]))
    kept: list[int] = []
    for at in order:
        rivals = value[kept]
        beaten = (rivals <= value[at]).all(axis=1)
        close = (rivals[:, 1] == value[at, 1]) & (value[at, 0] < rivals[:, 0] * (1 + _APART))
        if not (beaten | close).any():
            kept.append(int(at))
    return _picked(outcome, np.array(kept, dtype=np.int64))


def _picked(outcome: Outcome, rows: np.ndarray) -> Outcome:
    return Outcome(*(getattr(outcome, part.name)[rows] for part in fields(Outcome)))


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Several as one."""
    return Outcome(
        *(np.concatenate([getattr(one, part.name) for one in outcomes]) for part in fields(Outcome))
    )


Rows = tuple[np.ndarray, FloatArray, FloatArray]
"""Sizes (B,), tokens (B,), shares (B, S)."""


def _as_rows(candidate: Candidate) -> Rows:
    return candidate.outcome.size, candidate.outcome.tokens, candidate.outcome.shares


def _analytic(solver: Solver, problem: Problem, size: int) -> list[Rows]:
    """Least upsampling for the easiest tasks, few to all, at token counts up to the budget; and for some
    numbers of tasks the fewest tokens."""
    points, most = _GRID[is_spread(problem)]
    count = len(problem.tasks)
    everything = with_targets(problem, np.ones(count, dtype=bool))
    tokens = np.geomspace(problem.min_tokens, horizon_of(problem, size), points)
    needed = solver.needs.exact(everything, size, tokens)  # (G, T)
    # Share that a task takes in its densest source, a unit of value: the cheapest tasks are asked for first.
    price = needed / (problem.density.max(axis=1) * problem.value)
    place = np.argsort(np.argsort(price, axis=1, kind="stable"), axis=1)  # (G, T)
    numbers = np.unique(np.linspace(0, count, min(count, most) + 1).round().astype(int))
    asked = (place[None] < numbers[:, None, None]) & np.isfinite(needed)  # (numbers, G, T)
    wanted = np.where(asked, needed, 0.0).reshape(-1, count)
    every = np.tile(tokens, len(numbers))
    found = [(np.full(len(every), size), every, fit_shares(problem, every, wanted))]
    solved = numbers[1:][:: max(-(-len(numbers[1:]) // _SOLVED), 1)]
    for number in solved:
        found.append(_as_rows(solver.best_at(with_targets(problem, place[-1] < number), size)))
    return found


def as_table(plan: Plan, problem: Problem, front: Outcome) -> Table:
    """The front as columns; see `pareto_front`."""
    known = front.common_loss <= np.log(plan.vocabulary)  # more than guessing no model has
    columns: dict[str, np.ndarray] = {
        "size": np.array([problem.shapes[size].name for size in front.size], dtype=object),
        "block_params": problem.block_params[front.size],
        "tokens": front.tokens,
        "flops": front.tokens * problem.flops_per_token[front.size],
        "lifetime_flops": problem.cost(front.size, front.tokens),
        "coverage": coverage(problem, front),
        "tasks_learned": met(problem, front).sum(axis=1).astype(np.float64),
        "expected_tasks": front.p_learned.sum(axis=1),
        "common_loss_nats": np.where(known, front.common_loss, np.nan),
        "common_loss_increase_nats": np.where(known, front.loss_increase, np.nan),
    }
    columns |= {f"share.{name}": front.shares[:, at] for at, name in enumerate(problem.sources)}
    columns |= {f"p.{name}": front.p_learned[:, at] for at, name in enumerate(problem.tasks)}
    return Table(columns)


def front_table(front: Table) -> tuple[str, list[str], list[list[Any]]]:
    """Title, columns and rows for people: of every coverage the cheapest row and the one with the least
    loss."""
    rows = []
    for level in np.unique(front["coverage"]):
        at = np.flatnonzero(front["coverage"] == level)
        ends = {int(at[np.argmin(front["lifetime_flops"][at])])}
        if np.isfinite(front["common_loss_nats"][at]).any():
            ends.add(int(at[np.nanargmin(front["common_loss_nats"][at])]))
        for row in sorted(ends):
            loss = front["common_loss_nats"][row]
            rows.append(
                [
                    str(front["size"][row]),
                    f"{front['tokens'][row]:,.0f}",
                    f"{front['lifetime_flops'][row]:.3g}",
                    f"{100 * level:.3g}%",
                    f"{front['tasks_learned'][row]:.0f}",
                    f"{front['expected_tasks'][row]:.2f}",
                    None if np.isnan(loss) else f"{loss:.3f}",
                ]
            )
    title = "Front of FLOPs, coverage and common loss: the cheapest and the least loss at each coverage"
    return title, ["size", "tokens", "FLOPs", "coverage", "learned", "expected", "loss (nats)"], rows
