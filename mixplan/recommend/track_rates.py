"""Which rate for the rest of a run brings a task's probability to its target, and what it takes from others.

The sources in which the task lives (its rare ones, if it lives in any) are read k times as much in what is
left as planned, each up to its cap on epochs; common sources give way in proportion, all others stay. The
least k that does is found by bisection. Exposures so far and exposures to come count alike
(mixplan.recommend.track_exposure).

Shape legend: S = sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mixplan.documents.forecast import FloatArray
from mixplan.documents.recipe import Recipe, RecipeTask
from mixplan.recommend.track_exposure import RAREST, drawn, exposures

MOST = 1e6
"""Largest k that is tried; the least is 1 ÷ MOST, for sources that the rest of the plan leaves out."""
LONGEST = 32.0
"""Longest training that is tried, in lengths of the recipe."""
_HALVINGS = 32
_LENGTHS = 41
Probability = Callable[[float, float], float]
"""(tokens of the whole run, its exposures ÷ tokens) → probability that the goal is reached, given the log."""


@dataclass(frozen=True)
class SourceRate:
    """What is read of one source in the rest of the run."""

    source: str
    planned_rate: float | None
    """Share of the rest ÷ natural share; empty for a source without a natural share."""
    rate: float | None
    planned_share: float
    """Of the tokens that are left."""
    share: float
    epochs: float
    """Of the whole run."""
    max_epochs: float


@dataclass(frozen=True)
class Rates:
    """A change of rates for the rest of the run."""

    p: float
    """Probability that the task reaches its goal with it."""
    frequency: float
    """Exposures of the whole run ÷ its tokens."""
    sources: list[SourceRate]
    others: list[SourceRate]
    """Those that give way."""
    read: FloatArray
    """Tokens of every source in the whole run, shape (S,)."""


@dataclass(frozen=True)
class Remedy:
    """What would bring a task to its target."""

    known: bool
    """Whether the recipe says in which sources the task lives; nothing can be said without that."""
    enough: Rates | None
    """Least change within the caps on epochs; empty where none is enough."""
    most: Rates | None
    """As far as caps and common data allow, where that is not enough; empty where nothing can be raised."""
    beyond_caps: Rates | None
    """Least change when caps on epochs are ignored; empty where none is enough, or where it is not needed."""
    tokens: float | None
    """Least length of the whole run, at the rates planned for the rest and within caps, where no rate is
    enough; empty where none up to LONGEST lengths is."""
    at_caps: bool
    """Whether the plan takes its sources up to their caps."""


def remedy(recipe: Recipe, task: RecipeTask, now: float, p: Probability, target: float) -> Remedy:
    """Look for what brings p to the target.

    Args:
        now: tokens trained so far; less than the recipe's for a rate to matter.
        p: must rise with frequency.
        target: probability to reach.
    """
    if not task.density:
        return Remedy(False, None, None, None, None, False)
    enough = most = beyond = None
    if now < recipe.tokens:
        enough, most = _least(recipe, task, now, p, target, capped=True)
    if enough is None and now < recipe.tokens:
        beyond, _ = _least(recipe, task, now, p, target, capped=False)
    longer = None if enough else _longer(recipe, task, now, p, target)
    raised, whole = _raised(recipe, task), drawn(recipe, np.array([float(recipe.tokens)]))[0]
    at_caps = bool((whole >= _caps(recipe) * (1 - 1e-9))[raised].all())
    return Remedy(True, enough, None if enough else most, beyond, longer, at_caps)


def _least(
    recipe: Recipe, task: RecipeTask, now: float, p: Probability, target: float, capped: bool
) -> tuple[Rates | None, Rates | None]:
    """Least change that is enough, and the largest that can be made."""
    so_far, whole = drawn(recipe, np.array([now, float(recipe.tokens)]))
    plan = whole - so_far
    raised = _raised(recipe, task)
    natural = np.array([source.natural_share for source in recipe.sources])
    # A source that the rest of the plan leaves out is raised from its natural share.
    base = np.where(plan > 0, plan, natural * (recipe.tokens - now))
    room = np.full(len(plan), np.inf)
    if capped:
        room = np.maximum(_caps(recipe) - so_far, plan)
    giving = ~raised & _common(recipe)
    if not giving.any():
        giving = ~raised

    def changed(k: float) -> FloatArray | None:
        """Tokens of every source in the rest; None where the others have no more to give."""
        rest = np.where(raised, np.minimum(np.maximum(base * k, plan), room), plan)
        extra = rest.sum() - plan.sum()
        available = plan[giving].sum()
        if extra > available:
            return None
        return np.where(giving, rest * (1.0 - extra / available), rest) if extra > 0 else rest

    def reached(k: float) -> tuple[float, float]:
        rest = changed(k)
        if rest is None:
            return np.nan, 0.0
        often = frequency_of(recipe, task, so_far + rest, float(recipe.tokens))
        return p(float(recipe.tokens), often), often

    def rates(k: float) -> Rates:
        rest = changed(k)
        assert rest is not None  # only asked for what could be made
        found, often = reached(k)
        rows = [_row(recipe, at, plan, rest, so_far, recipe.tokens - now) for at in range(len(plan))]
        return Rates(
            found,
            often,
            [rows[at] for at in np.flatnonzero(raised)],
            [rows[at] for at in np.flatnonzero(giving)],
            so_far + rest,
        )

    if not raised.any() or not giving.any():
        return None, None
    top = _edge(lambda k: changed(k) is not None, 1 / MOST, MOST, last=True)
    largest = rates(top)
    if largest.p < target:
        planned = p(float(recipe.tokens), frequency_of(recipe, task, whole, float(recipe.tokens)))
        return None, largest if largest.p > planned else None
    return rates(_edge(lambda k: reached(k)[0] >= target, 1 / MOST, top, last=False)), None


def _edge(holds: Callable[[float], bool], low: float, high: float, last: bool) -> float:
    """By bisection of ln k: the last k at which a condition that is true first holds, or the first at which
    one that is false first does."""
    if holds(high if last else low):
        return high if last else low
    a, b = np.log(low), np.log(high)
    for _ in range(_HALVINGS):
        middle = (a + b) / 2.0
        if holds(float(np.exp(middle))) == last:
            a = middle
        else:
            b = middle
    return float(np.exp(a if last else b))


def _longer(recipe: Recipe, task: RecipeTask, now: float, p: Probability, target: float) -> float | None:
    """Least tokens at which the target is met when the rest goes on as planned, sources stopping at their
    caps and the others taking their place."""
    so_far, whole = drawn(recipe, np.array([min(now, float(recipe.tokens)), float(recipe.tokens)]))
    pace = (whole - so_far) / (recipe.tokens - now) if now < recipe.tokens else whole / recipe.tokens
    caps = np.where(pace > 0, np.maximum(_caps(recipe), whole), so_far)

    def reached(tokens: float) -> float:
        if caps.sum() < tokens:
            return 0.0
        left = pace * (tokens - now)
        filled = _edge(lambda k: np.minimum(so_far + k * left, caps).sum() >= tokens, 0.5, MOST, last=False)
        return p(tokens, frequency_of(recipe, task, np.minimum(so_far + filled * left, caps), tokens))

    lengths = recipe.tokens * np.geomspace(1.0, LONGEST, _LENGTHS)
    found = next((at for at, tokens in enumerate(lengths) if reached(float(tokens)) >= target), None)
    if found is None:
        return None
    if found == 0:
        return float(recipe.tokens)
    return _edge(
        lambda tokens: reached(tokens) >= target, float(lengths[found - 1]), float(lengths[found]), last=False
    )


def frequency_of(recipe: Recipe, task: RecipeTask, read: FloatArray, tokens: float) -> float:
    """Exposures ÷ tokens of a whole run.

    Args:
        read: tokens of every source, shape (S,).
        tokens: of the run.
    """
    return max(float(exposures(recipe, task, read[None, :])[0]) / tokens, RAREST)


def _raised(recipe: Recipe, task: RecipeTask) -> np.ndarray:
    """Which sources are read more for a task, bool, shape (S,)."""
    density = np.array([task.density.get(source.name, 0.0) for source in recipe.sources])
    common, natural = _common(recipe), np.array([source.natural_share for source in recipe.sources])
    # A rare source that holds it no more densely than the common data that give way would bring less of it.
    beside = float(density[common] @ natural[common]) / max(float(natural[common].sum()), 1e-300)
    rare = ~common & (density > beside)
    if rare.any():
        return rare
    return (density > 0) & common if beside > 0 else density > 0


def _caps(recipe: Recipe) -> FloatArray:
    """Tokens that the caps on epochs allow, shape (S,)."""
    return np.array([source.max_epochs * source.tokens_available for source in recipe.sources])


def _common(recipe: Recipe) -> np.ndarray:
    return np.array([source.role == "common" for source in recipe.sources])


def _row(
    recipe: Recipe, at: int, plan: FloatArray, rest: FloatArray, so_far: FloatArray, left: float
) -> SourceRate:
    source = recipe.sources[at]
    before, after = float(plan[at] / left), float(rest[at] / left)
    natural = source.natural_share
    return SourceRate(
        source=source.name,
        planned_rate=before / natural if natural > 0 else None,
        rate=after / natural if natural > 0 else None,
        planned_share=before,
        share=after,
        epochs=float((so_far[at] + rest[at]) / source.tokens_available),
        max_epochs=source.max_epochs,
    )
