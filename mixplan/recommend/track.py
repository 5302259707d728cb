"""A run under way against its forecast: what each task should measure by now, and where it will end.

The forecast at the measured token counts gives the band. Then everything that was measured of a task so far
weighs the courses that its run may take (mixplan.documents.forecast.RunForecast) by Bayes' rule, and the
weighted courses give the probability that the finished run has learned it. Every task is judged by its own
measurements alone.

Shape legend: m = measurements of one task, P = courses, D = draws.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mixplan.documents.forecast import FloatArray, Forecast, Goal, IntArray, RunForecast, RunPoints
from mixplan.documents.recipe import Recipe, RecipeTask
from mixplan.recommend.mixture import effective_tokens
from mixplan.recommend.track_exposure import drawn, frequency, half_lives
from mixplan.recommend.track_log import Log, Observed
from mixplan.recommend.track_rates import Probability, Rates, Remedy, frequency_of, remedy

ON_TRACK, LATE, NOT = "on track", "late", "will not be learned"
EARLY, NOTHING = "too early to tell", "not measured"
LEVELS = (0.05, 0.5, 0.95)
"""Ends and middle of the 90 % band."""
ALARM = 2.0
"""A task is late when it misses its goal so many times as often as its target allows. A recipe that costs the
least meets targets just so, and then half of all good runs are a little below: that alone is no alarm."""
LIKELY = 0.5
"""Below this probability (or below the target, where that is lower) a task will not be learned."""
WIDE, UNMOVED = 0.9, 0.05
"""It is too early to tell where the band spans so much of all skills, and what was measured has moved the
probability by less than this."""
STEP = 0.01
"""Ends of a band in skill are rounded outwards to it: measured skill is a count of right answers."""
HARM = 0.02
"""Another task's probability that falls by more is told, where it becomes an alarm."""
NEAR_END = 0.99
"""Trainers that leave out a last, incomplete batch end a little before the recipe does."""
FEW = 50.0
"""With fewer courses than this behind an answer, it is said."""


@dataclass(frozen=True)
class Point:
    """One measurement and its forecast, in the task's unit."""

    tokens: float
    finished: bool
    observed: float
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class TaskTrack:
    """What is said of one task."""

    name: str
    status: str
    unit: str
    """skill, or bits per byte."""
    points: list[Point]
    """Measurements that the laws can speak about, by tokens."""
    target: float
    """Probability that was asked for."""
    p_recipe: float
    """What the recipe says of it."""
    p_then: float
    """The same before anything was measured, by the laws that are used here."""
    p_now: float
    """Given all that was measured."""
    p_stray: float
    """Probability that the laws do not describe this run and task."""
    courses: float
    """Effective number of courses behind p_now."""
    remedy: Remedy | None
    """What would bring it to its target; only where p_now is an alarm."""
    common_loss_increase_nats: float | None
    """What the remedy's rates cost, against the plan; empty without them, or without a loss law."""
    notes: list[str]
    harmed: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Other tasks that those rates would put at risk: their probability now, and then."""


@dataclass(frozen=True)
class Tracking:
    """track.json."""

    name: str
    tokens: float
    """Trained so far: the furthest measurement."""
    planned_tokens: int
    tasks: list[TaskTrack]
    notes: list[str]

    @property
    def lost(self) -> list[TaskTrack]:
        """Tasks that will not be learned."""
        return [task for task in self.tasks if task.status == NOT]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        found = asdict(self)
        for task in found["tasks"]:
            for rates in (task["remedy"] or {}).values():
                if isinstance(rates, dict):
                    rates["read"] = rates["read"].tolist()
        return found


def track(recipe: Recipe, forecast: Forecast, log: Log) -> Tracking:
    """Judge every task of a recipe by the log of its run.

    Args:
        recipe: what the run was started with.
        forecast: the fitted laws.
        log: of mixplan.recommend.track_log.

    Raises:
        InputError: the laws cannot speak about a task of the recipe.
    """
    judged = [_track(recipe, task, forecast, log) for task in recipe.tasks]
    tasks = [replace(found, harmed=_harmed(recipe, found, judged)) for found, _ in judged]
    notes = list(log.notes)
    if recipe.phases and not all(task.density for task in recipe.tasks):
        notes.append(
            "the recipe has phases but does not say in which sources its tasks live, so each task's "
            "frequency is taken to be the same throughout; write it anew with `mixplan recommend`"
        )
    return Tracking(recipe.name, log.tokens, recipe.tokens, tasks, notes)


def goal_of(task: RecipeTask) -> Goal:
    """What a run is asked for."""
    return Goal(task.family, task.complexity, task.target_skill, task.target_bits_per_byte)


def _harmed(
    recipe: Recipe, found: TaskTrack, judged: list[tuple[TaskTrack, Probability]]
) -> dict[str, tuple[float, float]]:
    """Other tasks that the rates for this one would put at risk: their probability now, and then."""
    rates = found.remedy and (found.remedy.enough or found.remedy.most)
    if not rates:
        return {}
    harmed = {}
    for task, (other, p) in zip(recipe.tasks, judged, strict=True):
        if task.name == found.name or not task.density:
            continue
        then = p(float(recipe.tokens), frequency_of(recipe, task, rates.read, float(recipe.tokens)))
        if then < other.p_now - HARM and _alarm(task, then):
            harmed[task.name] = (other.p_now, then)
    return harmed


def _track(recipe: Recipe, task: RecipeTask, forecast: Forecast, log: Log) -> tuple[TaskTrack, Probability]:
    """What is said of a task, and its probability at other lengths and frequencies of the whole run."""
    goal = goal_of(task)
    run = forecast.one_run(goal, float(recipe.block_params))
    given, notes = _comparable(run, log.observed.get(task.name))
    whole = float(recipe.tokens)
    often = frequency(recipe, task, np.array([whole]))
    at_end = run.reached(np.array([whole]), often)[0]
    now = run if given is None else run.after(_points(recipe, task, given), given.value)
    p_then = probability(at_end, run.law_weight, run.draw, task.confidence)
    p_now = p_then
    if given is not None:
        at_end = now.reached(np.array([whole]), often)[0]
        p_now = probability(at_end, now.weight, run.draw, task.confidence)
    points = [] if given is None else _compared(run, _points(recipe, task, given), given)
    status = _status(task, points, p_then, p_now) if points else NOTHING
    found, cost = None, None

    def p(tokens: float, frequency: float) -> float:
        reached = now.reached(np.array([tokens]), np.array([frequency]))[0]
        return probability(reached, now.weight, run.draw, task.confidence)

    if points and status != EARLY and _alarm(task, p_now):
        found = remedy(recipe, task, log.tokens, p, task.target_probability)
        cost = _loss_increase(recipe, forecast, found.enough or found.most)
    stray = float(now.weight[run.law_weight == 0].sum()) if points else 0.0
    if points and not points[-1].finished and points[-1].tokens >= NEAR_END * whole:
        notes.append(
            "the last measurement is taken for one before the end; if it is of the finished model, log it "
            "with `decayed` 1"
        )
    judged = TaskTrack(
        name=task.name,
        status=status,
        unit="skill" if goal.bits_per_byte is None else "bits per byte",
        points=points,
        target=task.target_probability,
        p_recipe=task.recommended.p_learned
        if task.recommended.p_at_confidence is None
        else task.recommended.p_at_confidence,
        p_then=p_then,
        p_now=p_now,
        p_stray=stray,
        courses=1.0 / float((now.weight**2).sum()),
        remedy=found,
        common_loss_increase_nats=cost,
        notes=[*notes, *_cautions(forecast, recipe, goal, often, found, now.weight, stray)],
    )
    return judged, p


def _comparable(run: RunForecast, given: Observed | None) -> tuple[Observed | None, list[str]]:
    """Measurements that the laws describe, None where there are none; and what was left out."""
    if given is None or run.unfinished or given.finished.all():
        return given, []
    left = int((~given.finished).sum())
    note = (
        f"{left} measurement(s) before the learning rate had decayed are left out: the laws were fitted to "
        "ends of runs only; decay a copy of the run, measure that and log it with `decayed` 1"
    )
    return (given.where(given.finished) if given.finished.any() else None), [note]


def _points(recipe: Recipe, task: RecipeTask, given: Observed) -> RunPoints:
    return RunPoints(given.tokens, frequency(recipe, task, given.tokens), given.finished, given.error)


def probability(reached: FloatArray, weight: FloatArray, draw: IntArray, confidence: float | None) -> float:
    """Probability of the goal: mean over courses, or what it is at least in a part of the draws.

    Args:
        reached: in every course, shape (P,).
        weight: of the courses, shape (P,), summing to 1.
        draw: to which draw each belongs, shape (P,).
        confidence: part of the draws, each by its weight; None for the mean.
    """
    if confidence is None:
        return float(np.clip(weight @ reached, 0.0, 1.0))
    whole = np.bincount(draw, weight)
    some = whole > 0
    each = np.bincount(draw, weight * reached)[some] / whole[some]
    order = np.argsort(-each, kind="stable")
    held = np.cumsum(whole[some][order])
    return float(np.clip(each[order][np.searchsorted(held, confidence * held[-1] - 1e-9)], 0.0, 1.0))


def _compared(run: RunForecast, at: RunPoints, given: Observed) -> list[Point]:
    values = run.measured(at, np.random.default_rng(0))
    low, median, high = _quantiles(values, run.law_weight)
    if run.in_skill:
        low = np.clip(np.floor(low / STEP + 1e-9) * STEP, 0.0, 1.0)
        high = np.clip(np.ceil(high / STEP - 1e-9) * STEP, 0.0, 1.0)
    columns = (given.tokens, given.finished, given.value, median, low, high)
    return [
        Point(float(t), bool(f), float(v), float(m), float(a), float(b))
        for t, f, v, m, a, b in zip(*columns, strict=True)
    ]


def _quantiles(values: FloatArray, weight: FloatArray) -> FloatArray:
    """Weighted quantiles LEVELS of every row of (m, P), shape (3, m)."""
    some = weight > 0
    order = np.argsort(values[:, some], axis=1)
    ordered = np.take_along_axis(values[:, some], order, axis=1)
    held = np.cumsum(weight[some][order], axis=1)
    rows = np.arange(len(values))
    return np.stack([ordered[rows, (held < level * held[:, -1:] - 1e-12).sum(axis=1)] for level in LEVELS])


def _alarm(task: RecipeTask, p_now: float) -> bool:
    return 1.0 - p_now > ALARM * (1.0 - task.target_probability) or p_now < min(
        LIKELY, task.target_probability
    )


def _status(task: RecipeTask, points: list[Point], p_then: float, p_now: float) -> str:
    last = points[-1]
    in_bits = task.target_bits_per_byte is not None
    if not in_bits and last.high - last.low >= WIDE and abs(p_now - p_then) < UNMOVED:
        return EARLY
    if p_now < min(LIKELY, task.target_probability):
        return NOT
    # Guesses below chance are as good as a skill of 0.
    below = last.observed > last.high if in_bits else max(last.observed, 0.0) < last.low
    return LATE if below or _alarm(task, p_now) else ON_TRACK


def _loss_increase(recipe: Recipe, forecast: Forecast, rates: Rates | None) -> float | None:
    """LM loss on common data with these rates less that of the plan, nats per token."""
    if rates is None:
        return None
    common = np.array([source.role == "common" for source in recipe.sources])
    read = np.stack([rates.read, drawn(recipe, np.array([float(recipe.tokens)]))[0]])
    unique = np.array([source.tokens_available for source in recipe.sources])
    worth = effective_tokens(read, unique, half_lives(recipe))[:, common].sum(axis=1)
    if (worth < 1).any():
        return None
    losses = forecast.lm_loss(np.full(2, float(recipe.block_params)), worth)
    return None if losses is None else float(losses[0] - losses[1])


def _cautions(
    forecast: Forecast,
    recipe: Recipe,
    goal: Goal,
    often: FloatArray,
    found: Remedy | None,
    weight: FloatArray,
    stray: float,
) -> list[str]:
    """What to know before believing it."""
    notes = []
    raised = found and (found.enough or found.most)
    asked = np.array([often[0], *([raised.frequency] if raised else [])])
    size, whole = np.full(len(asked), float(recipe.block_params)), np.full(len(asked), float(recipe.tokens))
    told = forecast.told([goal], np.zeros(len(asked), dtype=np.int64), size, whole, asked)
    notes += list(dict.fromkeys(reason for reasons in told.extrapolated for reason in reasons))
    if stray > 0.5:
        notes.append(
            f"the laws do not describe this run (probability {stray:.2f}): check that the task's tokens "
            "reach the model as planned, and that the log measures the calibrated task"
        )
    if 1.0 / float((weight**2).sum()) < FEW:
        notes.append("hardly any course of the laws is like this log: take the probability as rough")
    return notes
