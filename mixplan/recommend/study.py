"""An Optuna study that gives the same answer however often it was interrupted and by how many it was done.

Trials come in batches. What a trial tries depends on the seed, its number and the trials of earlier batches
alone, never on those beside it. So processes can divide the proposals of a batch, which is what takes time
(its mixtures are evaluated at once), and a study that was killed goes on as if it had not been. Storages only
keep what was found: nothing is sampled from them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from mixplan.errors import InputError, MixplanError
from mixplan.recommend.evaluate import Outcome
from mixplan.recommend.storage import Store

BATCH = 20
"""Trials that do not see one another. A constant, so that any number of workers gives the same answer."""


@dataclass(frozen=True)
class Settings:
    """How a study is run."""

    sampler: str
    """tpe, nsga2, gp or random."""
    trials: int
    """Beyond the starts."""
    seed: int
    store: Store | None = None
    """Where trials are kept; None: in memory."""
    workers: int = 1
    """Processes; the answer does not depend on it."""
    population: int = BATCH
    """Of NSGA-II: a generation is a batch."""


@dataclass(frozen=True)
class Scored:
    """What one trial gave."""

    values: tuple[float, ...]
    """What is minimised, one a direction."""
    constraints: Mapping[str, float]
    """At most 0 where a limit holds."""
    attrs: Mapping[str, Any]
    """For readers of the study."""
    outcome: Outcome
    """Of a single row."""


Params = dict[str, Any]
Score = Callable[[Sequence[Mapping[str, Any]]], list[Scored]]


@dataclass
class Sampling:
    """One process's copy of the study; all copies hold the same trials and so propose the same."""

    distributions: dict[str, BaseDistribution]
    directions: list[str]
    settings: Settings
    study: optuna.Study = field(init=False)

    def __post_init__(self) -> None:
        self.study = optuna.create_study(directions=self.directions)

    def propose(self, past: list[FrozenTrial], numbers: list[int], starts: list[Params]) -> list[FrozenTrial]:
        """Learn `past`, then propose the trials of these numbers; the first numbers are the starts."""
        with quiet():
            self.study.add_trials(past)
            return [self._propose(number, starts) for number in numbers]

    def _propose(self, number: int, starts: list[Params]) -> FrozenTrial:
        self.study.sampler = make_sampler(self.settings, number, self.distributions)
        if number < len(starts):
            self.study.enqueue_trial(starts[number])
        trial = self.study.ask(self.distributions)
        # A trial under way would be seen by the next one; one that failed is not.
        return self.study.tell(trial, state=TrialState.FAIL)


def frozen(proposed: FrozenTrial, scored: Scored) -> FrozenTrial:
    """A proposal with what it gave, as the study keeps it. What samplers note of a trial stays with it."""
    return optuna.trial.create_trial(
        values=list(scored.values),
        params=proposed.params,
        distributions=proposed.distributions,
        user_attrs=dict(scored.attrs),
        system_attrs=proposed.system_attrs,
        constraints=dict(scored.constraints),
    )


def run_study(
    score: Score,
    distributions: dict[str, BaseDistribution],
    directions: list[str],
    starts: list[Params],
    settings: Settings,
) -> list[Scored]:
    """Every trial of the study in order: the starts, then `settings.trials` more.

    Args:
        directions: Optuna's, one a value.

    Raises:
        InputError: the storage is unusable, or holds another study.
        MixplanError: a worker died.
    """
    total = len(starts) + settings.trials
    with ExitStack() as stack:
        stack.enter_context(quiet())
        store = settings.store
        kept = [] if store is None else store.open(directions)[:total]
        team = stack.enter_context(_team((distributions, directions, replace(settings, store=None))))
        found: list[Scored] = []
        unseen: list[FrozenTrial] = []  # by the team
        for numbers in _batches(len(starts), total):
            have = kept[numbers[0] : numbers[-1] + 1]
            if len(have) < len(numbers):
                proposed, unseen = team(unseen, numbers, starts), []
            else:
                proposed = have
            scored = score([trial.params for trial in proposed])
            _same(numbers, have, scored)
            fresh = [frozen(*pair) for pair in list(zip(proposed, scored, strict=True))[len(have) :]]
            if store is not None and fresh:
                store.add(fresh)
            unseen = unseen + have + fresh
            found += scored
    return found


Team = Callable[[list[FrozenTrial], list[int], list[Params]], list[FrozenTrial]]
"""Learns the trials it has not seen, then proposes the ones of these numbers, in their order."""


@contextmanager
def _team(arguments: tuple[dict[str, BaseDistribution], list[str], Settings]) -> Iterator[Team]:
    """This process alone, or `workers` others, each with its copy of the study."""
    workers = min(arguments[-1].workers, BATCH)
    if workers == 1:
        yield Sampling(*arguments).propose
        return
    with ExitStack() as stack:
        # One pool a worker: each must hear of every trial, and a pool gives work to whoever is free.
        pools = [
            stack.enter_context(
                ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=arguments)
            )
            for _ in range(workers)
        ]

        def divided(past: list[FrozenTrial], numbers: list[int], starts: list[Params]) -> list[FrozenTrial]:
            try:
                waiting = [
                    pool.submit(_work, past, numbers[at::workers], starts) for at, pool in enumerate(pools)
                ]
                done = [future.result() for future in waiting]
            except BrokenProcessPool:
                raise MixplanError(
                    "a worker of the search died (out of memory?); run again with fewer --workers, or with "
                    "--storage, which keeps what is done"
                ) from None
            return [done[at % workers][at // workers] for at in range(len(numbers))]

        yield divided


_own: Sampling | None = None
"""A worker process's copy of the study."""


def _begin(*arguments: Any) -> None:
    global _own
    with quiet():
        _own = Sampling(*arguments)


def _work(past: list[FrozenTrial], numbers: list[int], starts: list[Params]) -> list[FrozenTrial]:
    assert _own is not None  # by the initializer
    return _own.propose(past, numbers, starts)


def make_sampler(
    settings: Settings, number: int, distributions: Mapping[str, BaseDistribution]
) -> optuna.samplers.BaseSampler:
    """The sampler of one trial; what it draws depends on the seed and the trial's number."""
    own, kind = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0]), settings.sampler
    if kind == "tpe":
        sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(seed=own, multivariate=True)
    elif kind == "nsga2":
        sampler = optuna.samplers.NSGAIISampler(seed=own, population_size=settings.population)
    elif kind == "gp":
        sampler = optuna.samplers.GPSampler(seed=own, deterministic_objective=True)
    else:
        return optuna.samplers.RandomSampler(seed=own)
    space = {name: one for name, one in distributions.items() if not one.single()}
    # It is known, and in an order that names do not change; to infer it takes a look at every trial.
    sampler.infer_relative_search_space = lambda study, trial: space  # type: ignore[method-assign]
    return sampler


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's log of every trial and its notes on what is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _batches(starts: int, total: int) -> Iterator[list[int]]:
    """Numbers of the trials, batch by batch: the starts, then `BATCH` at a time."""
    edges = [0, *range(starts, total, BATCH), total]
    for first, end in pairwise(edges):
        if end > first:
            yield list(range(first, end))


def _same(numbers: list[int], kept: list[FrozenTrial], again: list[Scored]) -> None:
    """Refuse kept trials that would not come out as they did: laws or code have changed since.

    Raises:
        InputError: says which trial.
    """
    for number, trial, one in zip(numbers, kept, again, strict=False):
        if not np.allclose(trial.values, one.values, rtol=1e-6, atol=0.0):
            raise InputError(
                f"trial {number} of the storage gave {trial.values}, and now gives {list(one.values)}: the "
                "laws, the data or mixplan have changed since; give another --storage to start anew"
            )
