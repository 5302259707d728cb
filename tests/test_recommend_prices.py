"""What each limit costs: without it and a little looser, against the plan changed by hand and solved anew."""

from __future__ import annotations

from typing import Any

import pytest
from planning import Logistic, changed, plan_dict, run

from mixplan.documents import Recipe
from mixplan.documents.recipe import Binding
from mixplan.recommend.prices import eased_limit

LOSS = "constraints.max_common_loss_increase_nats"


def binding(recipe: Recipe, name: str) -> Binding:
    return next(bind for bind in recipe.binds if bind.constraint == name)


def anew(plan: dict[str, Any], name: str, value: float | None) -> float:
    """FLOPs of the plan with one limit moved."""
    again = run(changed(plan, {name: value}), Logistic())
    assert again.cost is not None
    return again.cost.flops


def test_how_far_limits_are_eased() -> None:
    assert eased_limit("budget.tokens", 100.0) == pytest.approx(101.0)
    assert eased_limit("sources.a.max_epochs", 4.0) == 5.0
    assert eased_limit("sources.a.max_share", 0.5) == pytest.approx(0.55)
    assert eased_limit("groups.g.max_share", 0.95) == 1.0
    assert eased_limit("groups.g.max_share", 1.0) is None
    assert eased_limit("sources.a.min_share", 0.5) == pytest.approx(0.45)
    assert eased_limit(LOSS, 0.01) == pytest.approx(0.011)
    assert eased_limit(LOSS, 0.0) is None
    assert eased_limit("tasks.t.target_probability", 0.8) == pytest.approx(0.79)
    assert eased_limit("tasks.t.target_probability", 0.01) is None


@pytest.mark.slow
def test_epochs_and_targets() -> None:
    plan = plan_dict(sizes=["cpu_8k", "cpu_33k"])
    recipe = run(plan, Logistic())
    assert recipe.cost is not None
    cap, target = "sources.r2.max_epochs", "tasks.t2.target_probability"
    for name, eased in ((cap, 5.0), (target, 0.79)):
        bind = binding(recipe, name)
        assert bind.eased == pytest.approx(eased)
        assert bind.flops_eased == pytest.approx(anew(plan, name, eased), rel=5e-3)
        assert bind.flops_eased < 0.97 * recipe.cost.flops
        said = 1 - float(bind.gain_eased.split("%")[0]) / 100
        assert said == pytest.approx(bind.flops_eased / recipe.cost.flops, abs=2e-3)
    assert binding(recipe, cap).flops_without == pytest.approx(anew(plan, cap, 1e9), rel=5e-3)
    # A task left out of the plan is not the same as a target of nothing; next to nothing is.
    assert binding(recipe, target).flops_without == pytest.approx(anew(plan, target, 1e-6), rel=5e-3)


@pytest.mark.slow
def test_the_loss_bound_and_a_share_bound() -> None:
    plan = plan_dict(sizes=["cpu_33k", "cpu_132k"])
    plan["sources"][3]["max_share"] = 0.03
    recipe = run(plan, Logistic())
    for name, eased in ((LOSS, 0.011), ("sources.r2.max_share", 0.033)):
        held = [bind for bind in recipe.binds if bind.constraint == name]
        if held:
            assert held[0].flops_eased == pytest.approx(anew(plan, name, eased), rel=5e-3)
    assert {LOSS, "sources.r2.max_share"} & {bind.constraint for bind in recipe.binds}


def test_a_limit_that_costs_nothing_says_so() -> None:
    plan = plan_dict(min_tokens=4e7, sizes=["cpu_8k"])
    recipe = run(plan, Logistic())
    bind = binding(recipe, "min_tokens")
    assert bind.flops_without is not None and recipe.cost is not None
    assert bind.flops_without < 0.5 * recipe.cost.flops and "fewer FLOPs" in bind.gain_without
    free = run(plan_dict(min_tokens=1e5, sizes=["cpu_8k"]), Logistic())
    assert free.cost is not None and bind.flops_without == pytest.approx(free.cost.flops, rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["value", "common_loss"])
def test_prices_in_the_objectives_own_unit(objective: str) -> None:
    budget = 1.5e6 if objective == "value" else 6e6
    plan = plan_dict(sizes=["cpu_8k", "cpu_33k"], budget={"tokens": budget}, objective=objective)
    recipe = run(plan, Logistic())
    bind = binding(recipe, "budget.tokens")
    assert bind.flops_without is None and bind.eased == pytest.approx(1.01 * budget)
    again = run(changed(plan, {"budget.tokens": 1.01 * budget}), Logistic())
    if objective == "common_loss":
        assert again.common_loss_nats is not None and recipe.common_loss_nats is not None
        gained, unit = recipe.common_loss_nats - again.common_loss_nats, "nats less common loss"
    else:
        now, then = (sum(task.recommended.p_learned for task in one.tasks) for one in (recipe, again))
        gained, unit = then - now, "more expected value"
    assert gained > 0
    assert unit in bind.gain_eased
    assert float(bind.gain_eased.split()[0]) == pytest.approx(gained, rel=0.1)
