"""Verdicts about runs under way, on the laws of a shipped reference."""

from __future__ import annotations

import numpy as np
import pytest
from test_track_run import forecast, points
from tracking import TOKENS, recipe, recipe_dict, task

from mixplan.documents.forecast import Goal
from mixplan.recommend.evaluate import at_confidence
from mixplan.recommend.track import (
    EARLY,
    LATE,
    NOT,
    NOTHING,
    ON_TRACK,
    Tracking,
    goal_of,
    probability,
    track,
)
from mixplan.recommend.track_exposure import frequency
from mixplan.recommend.track_log import Log, Observed
from mixplan.recommend.track_shown import advice

LIVES = {"r2": 0.25}


def log(**skills: list[float] | dict[float, float]) -> Log:
    """Values at 20 %, 40 %, … of the run, by task; or at the given parts of it."""
    observed = {}
    for name, given in skills.items():
        parts = given if isinstance(given, dict) else {0.2 * (i + 1): v for i, v in enumerate(given)}
        tokens = np.array(list(parts)) * TOKENS
        nothing = np.zeros(len(parts))
        observed[name] = Observed(tokens, np.array(list(parts.values())), nothing, tokens >= TOKENS)
    return Log(max(one.tokens.max() for one in observed.values()), observed, [])


def tracked(skills, lives=LIVES, **more):
    (found,) = track(recipe(tasks=[task("t", lives, **more)]), forecast("cpu-manuals"), log(t=skills)).tasks
    return found


def usual(**more) -> list[float]:
    """The medians of the forecast."""
    return [point.median for point in tracked([0.0, 0.0, 0.0], **more).points]


def test_as_forecast_is_on_track():
    found = tracked(usual(), target_probability=0.6)
    assert found.status == ON_TRACK
    assert found.p_now >= 0.6 and found.remedy is None
    assert all(point.low <= point.observed <= point.high for point in found.points)
    assert found.p_stray < 0.02


def test_the_forecast_is_the_laws():
    found = tracked(usual(), target_probability=0.6)
    planned = recipe(tasks=[task("t", LIVES)])
    often = frequency(planned, planned.tasks[0], np.array([float(TOKENS)]))
    laws = forecast("cpu-manuals")
    cell = np.zeros(1, dtype=int), np.array([33_056.0]), np.array([float(TOKENS)]), often
    assert found.p_then == pytest.approx(laws.reached([Goal("table_lookup", 6.0)], *cell).mean(), abs=0.01)


def test_ahead_raises_and_behind_lowers_the_probability():
    middle = usual()
    low, same, high = (tracked([max(v + d, 0) for v in middle]).p_now for d in (-0.15, 0.0, 0.2))
    assert low < same < high


def test_nothing_learned_will_not_be_learned_and_the_rate_that_would_do_does():
    # A few guesses above chance; the target can be reached by more of r2, which has plenty of fresh text.
    found = tracked([0.02, 0.05, 0.1], target_probability=0.6)
    assert found.status == NOT
    assert found.p_now < 0.3 < found.p_then
    enough = found.remedy.enough
    assert enough.p == pytest.approx(0.6, abs=1e-6)
    (rate,) = enough.sources
    assert rate.rate > rate.planned_rate == pytest.approx(1.0)
    # Written out: exposures so far at the old rate, the rest at the new one, the same weights.
    often = (0.6 * 0.01 + 0.4 * rate.share) * 0.25
    assert enough.frequency == pytest.approx(often)
    planned = recipe(tasks=[task("t", LIVES)])
    run = forecast("cpu-manuals").one_run(goal_of(planned.tasks[0]), 33_056.0)
    at = points(np.array([0.2, 0.4, 0.6]) * TOKENS, 0.0025, finished=False)
    now = run.after(at, np.array([0.02, 0.05, 0.1]))
    for change, more in ((0.999, False), (1.001, True)):
        p = now.reached(np.array([float(TOKENS)]), np.array([often * change]))[0] @ now.weight
        assert (p >= 0.6) == more
    assert found.common_loss_increase_nats > 0


def test_late_but_likely_enough():
    found = tracked([0.0, 0.0], target_probability=0.01)
    last = found.points[-1]
    assert last.observed < last.low
    assert found.p_now >= 0.01
    assert found.status == LATE and found.remedy is None


def test_late_and_below_its_target_says_what_to_do():
    middle = usual()
    found = tracked(middle, target_probability=0.9)
    assert 0.5 < found.p_now < 0.8
    assert found.status == LATE and found.remedy is not None


def test_a_band_over_all_skills_and_nothing_said_is_too_early():
    # Parity is learned or not: its skills are anywhere between 0 and 1.
    of = {"family": "parity", "complexity": 2, "lives": {"r2": 2.0}}
    some = [tracked({0.8: value}, **of) for value in np.linspace(0, 1, 11)]
    assert some[0].points[0].high - some[0].points[0].low >= 0.9
    for one in some:
        assert (one.status == EARLY) == (abs(one.p_now - one.p_then) < 0.05)
        assert one.remedy is None or one.status != EARLY
    assert 1 <= sum(one.status == EARLY for one in some) <= 6


def test_tasks_that_were_not_measured_are_said():
    planned = recipe(tasks=[task("t", LIVES), task("u", LIVES)])
    one, two = track(planned, forecast("cpu-manuals"), log(t=[0.2])).tasks
    assert (one.points != [], two.points) == (True, [])
    assert two.status == NOTHING and two.p_now == two.p_then


def test_neither_names_nor_order_matter():
    planned = recipe(tasks=[task("a", LIVES), task("b", {"r1": 0.2}), task("c", {"r1": 0.1, "r2": 0.1})])
    skills = {"a": [0.2, 0.3], "b": [0.0, 0.05], "c": [0.1, 0.4]}
    first = {one.name: one for one in track(planned, forecast("cpu-manuals"), log(**skills)).tasks}
    data = recipe_dict(
        tasks=[task("z", {"r2": 0.1, "r1": 0.1}), task("y", {"r1": 0.2}), task("x", LIVES)],
    )
    data["sources"] = data["sources"][::-1]
    turned = {"z": skills["c"], "y": skills["b"], "x": skills["a"]}
    second = {one.name: one for one in track(recipe(**data), forecast("cpu-manuals"), log(**turned)).tasks}
    for before, after in (("a", "x"), ("b", "y"), ("c", "z")):
        assert first[before].p_now == pytest.approx(second[after].p_now, abs=1e-12)
        assert first[before].status == second[after].status


def test_exposures_of_phases_come_when_they_come():
    """A task whose source is read only in the end is not late before that."""
    data = recipe_dict(tasks=[task("t", LIVES)])
    data["phases"] = [
        {"name": "stable", "samples": 16_000, "choose": {"web": 15_040, "books": 800, "r1": 160}},
        {"name": "anneal", "samples": 4_000, "choose": {"web": 3_760, "r1": 40, "r2": 200}},
    ]
    laws = forecast("cpu-manuals")
    (phased,) = track(recipe(**data), laws, log(t=[0.0, 0.0, 0.0])).tasks
    (even,) = track(recipe(tasks=[task("t", LIVES)]), laws, log(t=[0.0, 0.0, 0.0])).tasks
    assert phased.p_then == pytest.approx(even.p_then)
    # Nothing but lucky guesses is expected before.
    assert max(point.high for point in phased.points) <= 0.2 < even.points[-1].high
    assert phased.p_now == pytest.approx(phased.p_then, abs=0.02)
    assert even.p_now < 0.2 * even.p_then


def test_bits_per_byte_before_a_decay_are_left_out():
    asked = task("kjv", {"r1": 1.0}, family="kjv", complexity=1, target_bits_per_byte=3.2)
    planned = recipe(tasks=[asked])
    (found,) = track(planned, forecast("cpu-sources"), log(kjv=[3.6, 3.5])).tasks
    assert found.status == NOTHING
    assert "2 measurement(s) before the learning rate had decayed are left out" in found.notes[0]
    given = log(kjv=[3.6, 3.5])
    decayed = Observed(*(getattr(given.observed["kjv"], at) for at in ("tokens", "value", "error")),
                       finished=np.array([True, True]))  # fmt: skip
    (found,) = track(planned, forecast("cpu-sources"), Log(given.tokens, {"kjv": decayed}, [])).tasks
    assert found.unit == "bits per byte" and len(found.points) == 2
    better = Observed(decayed.tokens, decayed.value - 0.3, decayed.error, decayed.finished)
    (ahead,) = track(planned, forecast("cpu-sources"), Log(given.tokens, {"kjv": better}, [])).tasks
    assert ahead.p_now > found.p_now


def test_more_bits_than_the_band_is_late():
    asked = task("kjv", {"r1": 1.0}, family="kjv", complexity=1, target_bits_per_byte=8.0)
    bad = Observed(np.array([1e6]), np.array([7.0]), np.zeros(1), np.array([True]))
    (found,) = track(recipe(tasks=[asked]), forecast("cpu-sources"), Log(1e6, {"kjv": bad}, [])).tasks
    assert found.points[0].high < 7.0
    assert found.status == LATE


def test_probability_at_a_confidence_is_that_of_recommend():
    generator = np.random.default_rng(0)
    drawn = generator.uniform(size=(1, 40))
    reached, draw = np.repeat(drawn[0], 3), np.repeat(np.arange(40), 3)
    weight = np.full(120, 1 / 120)
    for confidence in (0.05, 0.5, 0.9, 1.0, np.nan):
        expected = at_confidence(drawn, np.array([confidence]))[0]
        found = probability(reached, weight, draw, None if np.isnan(confidence) else confidence)
        assert found == pytest.approx(expected)
    # Draws that the log rules out do not count.
    only = np.where(draw == np.argmin(drawn[0]), 1 / 3, 0.0)
    assert probability(reached, only, draw, 0.01) == pytest.approx(drawn.min())


def plenty(**densities: float) -> Tracking:
    """Tasks in rare sources with as much text as anyone could want, none learned so far; `u` in common text,
    learning as it should."""
    data = recipe_dict()
    for one in data["sources"][2:]:
        one["tokens_available"] = 1e8
    data["tasks"] = [task(name, {name: each}, target_probability=0.6) for name, each in densities.items()]
    data["tasks"].append(task("u", {"web": 0.0035}, target_probability=0.6))
    behind = {name: [0.0, 0.0, 0.05] for name in densities}
    return track(recipe(**data), forecast("cpu-manuals"), log(u=[0.1, 0.4, 0.5], **behind))


def test_a_raise_that_would_lose_another_task_says_so():
    found = plenty(r2=0.007)
    raised, other = found.tasks
    assert raised.remedy.enough is not None and other.status == ON_TRACK
    before, after = raised.harmed["u"]
    assert before == other.p_now and after < 0.5
    text = f"but that brings u from P = {before:.3f} to {after:.3f}"
    assert any(line.endswith(text) for line in advice(found))
    assert plenty(r2=0.02).tasks[0].harmed == {}


def test_raises_that_take_more_than_there_is_are_not_offered_together():
    found = plenty(r1=0.02, r2=0.02)
    assert "web, books from 98% to 48.7%" in advice(found)[-1]
    found = plenty(r1=0.009, r2=0.009)
    assert all(one.remedy.enough for one in found.tasks[:2])
    said = [line for line in advice(found) if line.startswith("all of these together")]
    assert "cannot be had" in said[0] and "which have 98%" in said[0]
