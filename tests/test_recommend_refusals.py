"""Plans without an answer: limits of groups, confidences, bits per byte, and tasks that are weighed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from planning import Logistic, changed, plan_dict, run

from mixplan.recommend import Infeasible


class Bits(Logistic):
    """Bits per byte on r1 behave as comparison 8 does."""

    def sources(self):
        return ["r1"]

    def reached(self, goals, goal, *columns):
        told = [
            goal if goal.bits_per_byte is None else replace(goal, family="comparison", complexity=8.0)
            for goal in goals
        ]
        return super().reached(told, goal, *columns)


class Ceiling(Logistic):
    """No run learns with more than 0.7."""

    def reached(self, *cells):
        return 0.7 * super().reached(*cells)


def refusal(plan: dict[str, Any], law: Logistic | None = None) -> Infeasible:
    with pytest.raises(Infeasible) as caught:
        run(plan, law)
    json.dumps(caught.value.report, allow_nan=False)
    return caught.value


def check(plan: dict[str, Any], no: Infeasible, law: Logistic | None = None) -> list[set[str]]:
    """Every remedy, put into the plan and solved anew, gives the answer that it promises."""
    assert no.report["remedies"]
    for remedy in no.report["remedies"]:
        recipe = run(changed(plan, remedy["changes"]), law)
        assert recipe.cost is not None and recipe.cost.flops == pytest.approx(remedy["flops"], rel=0.01)
    return [set(remedy["changes"]) for remedy in no.report["remedies"]]


def small(**changes: Any) -> dict[str, Any]:
    plan = plan_dict(sizes=["cpu_33k"], budget={"tokens": 5e6}, constraints={}, **changes)
    plan["tasks"] = plan["tasks"][:1]
    return plan


def test_a_group_without_room() -> None:
    plan = small(groups=[{"name": "rares", "sources": ["r1", "r2"], "max_share": 0.001}])
    no = refusal(plan)
    assert "groups.rares.max_share" in {one["constraint"] for one in no.report["clash"]}
    assert {"groups.rares.max_share"} in check(plan, no)


def test_a_confidence_that_asks_too_much() -> None:
    plan, law = small(), Logistic(spread=1.5)
    plan["tasks"][0]["target_probability"] = 0.85
    assert run(plan, law).samples > 0
    plan["tasks"][0]["confidence"] = 0.95
    no = refusal(plan, law)
    assert {"tasks.t1.target_probability"} in check(plan, no, law)


def test_bits_per_byte_out_of_reach() -> None:
    plan, law = small(), Bits()
    plan["tasks"] = [{"name": "reads", "source": "r1", "family": "r1", "target_bits_per_byte": 1.2}]
    plan["sources"][2]["max_share"] = 3e-4
    plan["budget"] = {"tokens": 2e6}
    no = refusal(plan, law)
    assert "tasks.reads.target_probability" in {one["constraint"] for one in no.report["clash"]}
    check(plan, no, law)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["value", "most_tasks"])
def test_weighed_tasks_fail_by_limits_alone(objective: str) -> None:
    plan = small(objective=objective, min_tokens=4e6)
    plan["sources"][0]["max_epochs"] = 0.01  # web gives 1 M tokens at most
    plan["sources"][1]["max_share"] = 0.1
    no = refusal(plan)
    assert "no size (cpu_33k) and mixture holds the plan's limits" in no.problems
    clash = {one["constraint"] for one in no.report["clash"]}
    assert "sources.web.max_epochs" in clash and not any(name.startswith("tasks.") for name in clash)
    assert {"sources.web.max_epochs"} in check(plan, no)


def test_the_best_common_loss_needs_every_target() -> None:
    plan = small(objective="common_loss")
    plan["budget"] = {"tokens": 4e5}
    no = refusal(plan)
    assert {"budget.tokens"} in [set(one["changes"]) for one in no.report["remedies"]]


def test_what_is_out_of_reach_is_said_with_the_best_there_is() -> None:
    plan = small()
    no = refusal(plan, Ceiling())
    assert no.report["unreachable"]["t1"] == pytest.approx(0.7, abs=1e-3)
    assert any("at best 0.700" in text for text in no.problems)
    check(changed(plan, {"tasks.t1.target_probability": 0.8}), no, Ceiling())
