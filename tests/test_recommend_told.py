"""What the recipe says in words and tables: no loss that no model has, signs, units of the objective."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning import Logistic, plan_dict

from mixplan.documents import Plan, Recipe
from mixplan.documents.whatif import WhatIf
from mixplan.recommend import explain
from mixplan.recommend.checks import build_problem
from mixplan.recommend.evaluate import evaluate
from mixplan.recommend.pareto import as_table
from mixplan.recommend.sensitivity import _of_task
from mixplan.recommend.shown import target
from mixplan.recommend.whatif import what_if

GUESSING = math.log(257)


def asked(plan: dict[str, Any], law: Logistic | None = None, **mixture: Any) -> Recipe:
    document = WhatIf.model_validate({"size": "cpu_8k", "tokens": 2e6, **mixture})
    return what_if(Plan.model_validate(plan), document, law or Logistic(), Path(".")).recipe


def bounds_said(recipe: Recipe) -> list[str]:
    return [text for text in recipe.warnings if text.startswith("nothing bounds")]


def test_a_loss_above_guessing_is_told_nowhere() -> None:
    scarce = {"web": 1e-4, "r1": 0.5, "r2": 0.4999}
    recipe = asked(plan_dict(constraints={}), shares=scarce)
    common = sum(source.tokens for source in recipe.sources if source.role == "common")
    assert common > 0 and Logistic().lm_loss(recipe.block_params, common) > GUESSING
    assert recipe.common_loss_nats is None and recipe.common_loss_increase_nats is None
    assert recipe.common_loss_increase_low is None and recipe.common_loss_increase_high is None
    assert recipe.candidates[0].common_loss_nats is None
    (said,) = bounds_said(recipe)
    assert "more than a loss law can say" in said
    assert any("what that costs in loss cannot be said" in line for line in explain(recipe))
    nature = recipe.candidates[1]
    assert nature.common_loss_nats is not None and nature.common_loss_nats < GUESSING


def test_without_a_loss_law_the_advice_is_one_that_the_plan_can_take() -> None:
    recipe = asked(plan_dict(constraints={}), Logistic(loss=False), rates={"r1": 20, "r2": 20})
    (said,) = bounds_said(recipe)
    assert "min_share" in said and "max_common_loss_increase_nats" not in said


def test_a_loss_that_falls_is_not_said_to_rise() -> None:
    plan = plan_dict(constraints={})
    recipe = asked(plan, shares={"web": 1.0})
    assert recipe.common_loss_increase_nats is not None and recipe.common_loss_increase_nats < 0
    (line,) = [line for line in explain(recipe) if line.startswith("Common data")]
    assert f"{-recipe.common_loss_increase_nats:.3g} less than with" in line
    assert bounds_said(recipe) == [] and bounds_said(asked(plan, natural=True)) == []


@pytest.mark.parametrize(("spread", "told"), [(1e-5, 0), (0.1, 1)])
def test_a_parameter_that_hardly_moves_the_probability_is_not_told(spread: float, told: int) -> None:
    values = np.linspace(-1.0, 1.0, 50)
    assert len(_of_task("t", ["intercept"], values[:, None], 0.5 + spread * values)) == told


def test_a_target_is_shown_with_its_digits() -> None:
    recipe = asked(plan_dict(), natural=True)
    task = recipe.tasks[0].model_copy(update={"target_probability": 0.9999999})
    assert target(task) == "0.9999999"


def test_the_front_leaves_such_a_loss_empty() -> None:
    plan, law = Plan.model_validate(plan_dict()), Logistic()
    problem = build_problem(plan, law, Path("."))
    scarce = np.array([1e-4, 0.0, 0.5, 0.4999])
    shares, size = np.stack([scarce, problem.natural]), np.zeros(2, dtype=int)
    table = as_table(plan, problem, evaluate(problem, law, size, np.full(2, 2e6), shares))
    for column in ("common_loss_nats", "common_loss_increase_nats"):
        assert np.isnan(table[column]).tolist() == [True, False]
