"""Plans without an answer: which limits clash, and that every remedy offered really works."""

from __future__ import annotations

import json
from typing import Any

import pytest
from planning import Logistic, changed, plan_dict, run, violations

from mixplan.errors import NoAnswer
from mixplan.recommend import Infeasible

HARDWARE = {"peak_flops_per_second": 1e9, "mfu": 0.5, "price_per_device_hour": 2.0}
LOSS = "constraints.max_common_loss_increase_nats"


def refusal(plan: dict[str, Any], law: Logistic | None = None) -> Infeasible:
    with pytest.raises(Infeasible) as caught:
        run(plan, law)
    assert isinstance(caught.value, NoAnswer) and caught.value.exit_code == 1
    json.dumps(caught.value.report, allow_nan=False)
    return caught.value


def check_remedies(plan: dict[str, Any], no: Infeasible, law: Logistic | None = None) -> list[set[str]]:
    """Every remedy is put into the plan and solved anew."""
    law = law or Logistic()
    for remedy in no.report["remedies"]:
        mended = changed(plan, remedy["changes"])
        recipe = run(mended, law)
        assert violations(mended, recipe, law) == []
        assert recipe.cost is not None and recipe.cost.flops == pytest.approx(remedy["flops"], rel=0.01)
    return [set(remedy["changes"]) for remedy in no.report["remedies"]]


@pytest.mark.parametrize("name", ["tokens", "flops", "gpu_hours", "money"])
def test_budget_too_small(name: str) -> None:
    free = plan_dict(budget={"tokens": 5e7}, hardware=HARDWARE)
    recipe = run(free)
    assert recipe.cost is not None and recipe.cost.gpu_hours is not None and recipe.cost.money is not None
    fewest_tokens = min(c.tokens for c in recipe.candidates if c.feasible)
    needs = {
        "tokens": fewest_tokens,
        "flops": recipe.cost.flops,
        "gpu_hours": recipe.cost.gpu_hours,
        "money": recipe.cost.money,
    }[name]
    plan = plan_dict(budget={name: 0.5 * needs}, hardware=HARDWARE, min_tokens=1e5)
    no = refusal(plan)
    sets = check_remedies(plan, no)
    assert {f"budget.{name}"} in sets
    remedy = next(r for r in no.report["remedies"] if set(r["changes"]) == {f"budget.{name}"})
    # Not merely enough: next to the least that is enough.
    assert needs * (1 - 1e-6) <= remedy["changes"][f"budget.{name}"] <= needs * 1.02
    assert f"budget.{name}" in {one["constraint"] for one in no.report["clash"]}


def one_source(**rare: Any) -> dict[str, Any]:
    return plan_dict(
        sources=[
            {"name": "web", "role": "common", "tokens_available": 1e8},
            {"name": "r1", "role": "rare", "tokens_available": 3e4, **rare},
        ],
        tasks=[{"name": "t1", "density": {"r1": 0.05}, "family": "comparison", "complexity": 8}],
        sizes=["cpu_33k", "cpu_132k"],
        budget={"tokens": 3e6},
        min_tokens=1e5,
    )


@pytest.mark.parametrize(
    ("rare", "limit"),
    [
        ({"max_epochs": 0.5}, "sources.r1.max_epochs"),
        ({"max_share": 1e-3, "max_epochs": 1e3}, "sources.r1.max_share"),
    ],
)
def test_cap_too_tight(rare: dict[str, Any], limit: str) -> None:
    plan = one_source(**rare)
    no = refusal(plan)
    sets = check_remedies(plan, no)
    assert {limit} in sets
    clash = {one["constraint"] for one in no.report["clash"]}
    assert clash == {limit, "budget.tokens", "tasks.t1.target_probability"} or clash == {
        limit,
        "tasks.t1.target_probability",
    }
    # Lowering the target is offered too, as the probability that is in reach.
    target = "tasks.t1.target_probability"
    lowered = [r["changes"] for r in no.report["remedies"] if set(r["changes"]) == {target}]
    assert lowered and 0 < lowered[0][target] < 0.8


def test_common_lower_bound_leaves_no_room() -> None:
    plan = one_source(max_epochs=100)
    plan["sources"][0]["min_share"] = 0.999
    no = refusal(plan)
    assert {"sources.web.min_share"} in check_remedies(plan, no)
    assert "sources.web.min_share" in {one["constraint"] for one in no.report["clash"]}


def test_loss_bound_too_tight() -> None:
    plan = changed(one_source(), {LOSS: 1e-6})
    no = refusal(plan)
    assert {LOSS} in check_remedies(plan, no)
    assert LOSS in {one["constraint"] for one in no.report["clash"]}


def test_two_clashes_need_two_changes() -> None:
    law = Logistic(d=0.0)  # more tokens do not help
    plan = plan_dict(sizes=["cpu_33k"], constraints={})
    plan["tasks"][1]["density"] = {"r2": 0.1}
    plan["sources"][2]["max_epochs"] = 0.1
    plan["sources"][3]["max_share"] = 1e-3
    no = refusal(plan, law)
    first = {"sources.r1.max_epochs", "tasks.t1.target_probability"}
    second = {"sources.r2.max_share", "tasks.t2.target_probability"}
    sets = check_remedies(plan, no, law)
    assert {one["constraint"] for one in no.report["clash"]} in (first, second)
    for changes in sets:
        assert len(changes) == 2 and len(changes & first) == 1 and len(changes & second) == 1
    assert {"sources.r1.max_epochs", "sources.r2.max_share"} in sets
    for alone in ({"sources.r1.max_epochs": 1e9}, {"sources.r2.max_share": 1.0}):
        refusal(changed(plan, alone), law)


def test_a_target_out_of_any_reach_is_said_as_such() -> None:
    plan = plan_dict()
    plan["tasks"][1]["density"] = {"r2": 1e-9}
    no = refusal(plan)
    assert set(no.report["unreachable"]) == {"t2"} and no.report["unreachable"]["t2"] < 0.8
    assert any("t2" in line and "1000 times the budget" in line for line in no.problems)
    assert {"tasks.t2.target_probability"} in [set(r["changes"]) for r in no.report["remedies"]]
    assert no.report["remedies"][0]["changes"] == {"tasks.t2.target_probability": None}
    assert any("task 't2' left out" in line for line in no.problems)
    check_remedies(plan, no)


def test_a_target_that_only_repetition_stops_names_what_is_reachable() -> None:
    plan = plan_dict(sizes=["cpu_8k"])
    plan["tasks"][0]["density"] = {"r1": 2e-9}
    plan["tasks"][0]["target_probability"] = 0.8
    no = refusal(plan)
    assert "t1" in no.report["unreachable"]


def test_no_increase_of_the_common_loss_at_all_is_the_natural_mixture() -> None:
    plan = plan_dict(constraints={"max_common_loss_increase_nats": 0.0}, budget={"tokens": 4e8})
    recipe = run(plan)
    assert violations(plan, recipe, Logistic()) == []
    assert recipe.common_loss_increase_nats is not None and recipe.common_loss_increase_nats <= 1e-9
    assert all(source.rate == pytest.approx(1, abs=0.02) for source in recipe.sources)


def test_everything_at_once_still_gets_an_answer() -> None:
    plan = plan_dict(budget={"tokens": 4e5, "flops": 1e10}, min_tokens=1e4)
    plan["sources"][2]["max_epochs"] = 0.1
    plan["sources"][3]["max_share"] = 1e-4
    plan["constraints"] = {"max_common_loss_increase_nats": 0.0}
    no = refusal(plan)
    assert len(no.report["clash"]) >= 2
    assert no.report["remedies"], no.problems
    check_remedies(plan, no)


def test_the_nearest_mixture_is_a_mixture() -> None:
    no = refusal(one_source(max_epochs=0.5))
    nearest = no.report["nearest"]
    assert sum(nearest["shares"].values()) == pytest.approx(1)
    assert nearest["size"] in ("cpu_33k", "cpu_132k") and nearest["tokens"] <= 3e6
    assert nearest["p_learned"]["t1"] < 0.8
