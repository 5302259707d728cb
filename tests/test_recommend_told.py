"""What the recipe says in words and tables: no loss that no model has, signs, units of the objective."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning import Logistic, plan_dict, run

from mixplan.documents import Plan, Recipe
from mixplan.documents.whatif import WhatIf
from mixplan.recommend import explain, tables
from mixplan.recommend.checks import build_problem
from mixplan.recommend.evaluate import evaluate
from mixplan.recommend.pareto import as_table
from mixplan.recommend.sensitivity import _of_task
from mixplan.recommend.shown import target
from mixplan.recommend.solve import Solver
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


def test_a_loss_bound_broken_for_want_of_common_data_says_so() -> None:
    said = asked(plan_dict(), shares={"r1": 0.5, "r2": 0.5}).warnings
    assert "breaks constraints.max_common_loss_increase_nats: no common data is left against 0.01" in said
    assert not any("nan" in text for text in said)


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


def most_tasks(**changes: Any) -> dict[str, Any]:
    """Of the tasks one is reached with nearly all of the budget, the other never."""
    plan = plan_dict(objective="most_tasks", sizes=["cpu_8k"], search={"trials": 1}, **changes)
    plan["sources"][3]["tokens_available"] = 600
    plan["tasks"][1]["density"] = {"r2": 0.1}
    return plan


def test_a_tenth_cheaper_is_no_shortest_training_where_nothing_is_reached_any_more() -> None:
    plan = most_tasks(budget={"tokens": 4.6e6})
    recipe = run(plan, Logistic())
    roles = {one.role: one for one in recipe.candidates}
    chosen, cheaper = roles["chosen"], roles["a tenth cheaper"]
    assert (chosen.worth, cheaper.worth) == (1, 0)
    assert 0.8 * chosen.flops < cheaper.flops <= 0.9 * chosen.flops
    assert cheaper.p_learned["t1"] > 0.5
    shorter = plan | {"objective": "value", "budget": {"tokens": 0.9 * chosen.tokens}}
    problem = build_problem(Plan.model_validate(shorter), Logistic(), Path("."))
    best = Solver(Logistic()).best_at(problem, 0).outcome.p_learned[0].sum()
    assert sum(cheaper.p_learned.values()) == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize(
    ("objective", "column"),
    [("most_tasks", "value reached"), ("value", "expected value"), ("common_loss", "loss (nats)")],
)
def test_what_the_objective_is_after_stands_beside_every_answer(objective: str, column: str) -> None:
    plan = plan_dict(objective=objective, sizes=["cpu_8k"], search={"trials": 1})
    plan["tasks"][0]["value"] = 3.0
    plan["tasks"][1]["density"] = {"r2": 0.1}
    recipe = run(plan, Logistic())
    _, columns, rows = tables(recipe)[2]
    for one, row in zip(recipe.candidates, rows, strict=False):
        p = np.array([one.p_learned[name] for name in ("t1", "t2")])
        expected = {
            "most_tasks": (p >= 0.8 - 1e-9) @ [3.0, 1.0],
            "value": p @ [3.0, 1.0],
            "common_loss": one.common_loss_nats,
        }[objective]
        assert float(row[columns.index(column)]) == pytest.approx(expected, rel=1e-4)
    assert column in explain(recipe)[0]


def test_without_its_only_target_a_plan_goes_down_to_min_tokens() -> None:
    plan = plan_dict(sizes=["cpu_8k"], search={"trials": 1})
    del plan["tasks"][1]
    (bind,) = [one for one in run(plan, Logistic()).binds if one.constraint.startswith("tasks.")]
    assert bind.gain_without == "down to min_tokens" and bind.gain_eased.endswith("fewer FLOPs")
