"""The regime of a task and its levers, in worlds where it is known which one it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planning import Logistic, discounted, plan_dict, run

from mixplan.documents.recipe import RecipeTask


def only(law: Logistic, min_tokens: float = 1e5, **rare: Any) -> tuple[RecipeTask, Any]:
    """One task, one rare source, two sizes; the smaller is the answer."""
    plan = plan_dict(
        sources=[
            {"name": "web", "role": "common", "tokens_available": 1e9, "natural_share": 0.999},
            {"name": "r1", "role": "rare", "natural_share": 0.001, "tokens_available": 1e9, **rare},
        ],
        tasks=[{"name": "t1", "density": {"r1": 0.05}, "family": "comparison", "complexity": 8}],
        sizes=["cpu_33k", "cpu_74k"],
        budget={"tokens": 1e9},
        min_tokens=min_tokens,
        constraints={},
    )
    recipe = run(plan, law)
    assert recipe.size.name == "cpu_33k"
    return recipe.tasks[0], recipe


def p(law: Logistic, recipe: Any, size: float = 1.0, tokens: float = 1.0, frequency: float = 1.0) -> float:
    now = recipe.tasks[0].recommended.frequency
    cell = (
        np.array([recipe.block_params * size]),
        np.array([recipe.tokens * tokens]),
        np.array([now * frequency]),
    )
    return float(law.p_learned(["comparison"], np.array([8.0]), *cell)[0])


def test_sample_limited_and_each_lever_as_the_law_has_it() -> None:
    law = Logistic()
    assert "no more of r1 within caps" in only(law, max_share=0.02)[0].lever
    task, recipe = only(law, min_tokens=5e6, max_share=0.02)  # long enough to need less than that share
    assert task.regime == "sample-limited" and recipe.sources[1].share < 0.01
    here = p(law, recipe)
    assert f"twice the tokens at this frequency: {here:.2f} → {p(law, recipe, tokens=2):.2f}" in task.lever
    wider = p(law, recipe, size=72_768 / 33_056)
    ratio = recipe.candidates[1].block_params / recipe.block_params
    wider = p(law, recipe, size=ratio)
    assert f"next size, cpu_74k: {here:.2f} → {wider:.2f}" in task.lever
    assert f"twice the share of r1, within caps: {here:.2f} → {p(law, recipe, frequency=2):.2f}" in task.lever
    assert "data" not in task.lever  # nothing is repeated


def test_capacity_limited() -> None:
    law = Logistic(d=0.0, c=2.0)  # more tokens do not help
    task, recipe = only(law, max_share=0.9)
    assert task.regime == "capacity-limited"
    here = p(law, recipe)
    assert f"twice the tokens at this frequency: {here:.2f} → {here:.2f}" in task.lever


def test_repetition_limited_at_its_cap() -> None:
    law = Logistic()
    task, recipe = only(law, tokens_available=5e4, max_epochs=2.0)
    assert recipe.sources[1].epochs == pytest.approx(2.0, rel=1e-2)
    assert task.regime == "repetition-limited"
    assert "no more of r1 within caps" in task.lever and "at this frequency" not in task.lever
    thinner = p(law, recipe, tokens=2, frequency=0.5)
    assert f"twice the tokens with the data there is: {p(law, recipe):.2f} → {thinner:.2f}" in task.lever
    drawn = recipe.sources[1].tokens
    ratio = discounted(2 * drawn, 1e5, 15.39) / discounted(drawn, 5e4, 15.39)
    here, more = p(law, recipe), p(law, recipe, frequency=ratio)
    assert f"twice the data and share of r1: {here:.2f} → {more:.2f}" in task.lever


def test_repetition_limited_where_repeats_are_worth_little() -> None:
    task, recipe = only(
        Logistic(), tokens_available=3e4, max_epochs=1e6, repetition_half_life_epochs=0.5, max_share=0.05
    )
    assert recipe.sources[1].epochs > 3 and task.regime == "repetition-limited"
    assert "twice the data and 1.1 times the share of r1" in task.lever


def test_levers_outside_what_was_measured_are_marked() -> None:
    law = Logistic()
    task, recipe = only(law, max_share=0.001)
    assert recipe.tokens > 1e7
    assert "(extrapolated)" in task.lever.split(";")[0]  # the fake laws were fitted up to 20 M tokens


def test_weighed_tasks_get_levers_too() -> None:
    plan = plan_dict(sizes=["cpu_8k"], budget={"tokens": 1.5e6}, objective="value")
    recipe = run(plan, Logistic())
    assert min(task.recommended.p_learned for task in recipe.tasks) < 0.8
    assert all(task.regime and "→" in task.lever for task in recipe.tasks)


def test_a_share_is_raised_only_as_far_as_there_is_room() -> None:
    """What would be twice it is more than max_share, the group or all of the training allows."""
    law = Logistic()
    task, recipe = only(law, min_tokens=5e6, max_share=0.01)
    times = 0.01 / recipe.sources[1].share
    assert 1.1 < times < 1.9
    here, more = p(law, recipe), p(law, recipe, frequency=times)
    assert f"{times:.2g} times the share of r1, within caps: {here:.2f} → {more:.2f}" in task.lever
    plan = plan_dict(
        sources=[
            {"name": "web", "role": "common", "tokens_available": 6e9},
            {"name": "r1", "role": "rare", "tokens_available": 3e9},
            {"name": "r2", "role": "rare", "tokens_available": 1e9, "min_share": 0.1},
        ],
        tasks=[{"name": "t1", "density": {"web": 1e-4}, "family": "comparison", "complexity": 8}],
        constraints={},
    )
    full = run(plan, law)
    web = full.sources[0].share
    assert web > 0.45 and f"{0.9 / web:.2g} times the share of web" in full.tasks[0].lever
    plan["groups"] = [{"name": "g", "sources": ["web", "r2"], "max_share": 0.8}]
    held = run(plan, law)
    assert f"{0.7 / held.sources[0].share:.2g} times the share of web" in held.tasks[0].lever


def test_all_of_the_training_is_no_more_than_all() -> None:
    plan = plan_dict(
        tasks=[{"name": "t1", "density": {"web": 1e-3}, "family": "comparison", "complexity": 8}],
        sources=[
            {"name": "web", "role": "common", "tokens_available": 1e9},
            {"name": "r1", "role": "rare", "tokens_available": 3e4},
        ],
        constraints={},
    )
    recipe = run(plan, Logistic())
    assert recipe.sources[0].share > 0.96 and "no more of web within caps" in recipe.tasks[0].lever


def test_repetition_does_not_limit_what_longer_training_closes() -> None:
    law = Logistic(d=12.0)
    task, _ = only(law, tokens_available=5e4, max_epochs=2.0)
    assert "twice the tokens with the data there is: 0.80 → 1.00" in task.lever
    assert task.regime == "sample-limited"


@pytest.mark.filterwarnings("error")
def test_epochs_without_any_bound_and_tasks_without_an_instance() -> None:
    plan = plan_dict(objective="value", constraints={})
    plan["sources"][2] |= {"max_epochs": 1e308, "repetition_half_life_epochs": 1e3}
    plan["sources"][3] |= {"max_share": 1e-7}
    plan["tasks"][1]["density"] = {"r2": 0.1}
    recipe = run(plan, Logistic())
    assert recipe.sources[3].choose == 0
    assert "none of r2 is in the mixture" in recipe.tasks[1].lever
