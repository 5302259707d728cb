"""Objectives, groups, confidence and inference, against closed forms and against exhaustive grids."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning import Logistic, discounted, plan_dict
from test_recommend_optimum import DENSITY, KIND, one_task

from mixplan.documents import PRESETS, Plan
from mixplan.recommend.bounds import complete, rare_bounds
from mixplan.recommend.checks import build_problem
from mixplan.recommend.evaluate import evaluate
from mixplan.recommend.problem import Problem
from mixplan.recommend.rounding import Whole, round_samples
from mixplan.recommend.solve import Solver, rank


def solved(plan: dict[str, Any], law: Logistic) -> tuple[Problem, Whole]:
    """The analytic answer, whole samples included, without the random search."""
    problem = build_problem(Plan.model_validate(plan), law, Path("."))
    solver = Solver(law)
    found = [
        round_samples(solver, problem, solver.best_at(problem, size)) for size in range(len(problem.shapes))
    ]
    return problem, min(found, key=lambda whole: rank(problem, whole.candidate))


def tokens_of(whole: Whole) -> float:
    return whole.candidate.tokens


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_with_confidence_the_closed_form_of_the_draw_that_decides(confidence: float) -> None:
    law = Logistic(spread=0.6)
    plan = one_task({"tokens_available": 1e9, "max_share": 0.02})
    plan["tasks"][0]["confidence"] = confidence
    _, whole = solved(plan, law)
    shift = np.sort(law.shift)[::-1][math.ceil(confidence * 9 - 1e-9) - 1]
    params = PRESETS["cpu_33k"].block_params
    true = Logistic().tokens_needed(KIND, params, 0.02 * DENSITY, 0.8) * math.exp(-shift / law.d)
    assert tokens_of(whole) == pytest.approx(true, rel=1e-3) and tokens_of(whole) >= true * (1 - 1e-9)


def test_without_confidence_it_is_the_mean_over_draws() -> None:
    law = Logistic(spread=0.6)
    _, whole = solved(one_task({"tokens_available": 1e9, "max_share": 0.02}), law)
    cell = ["comparison"], np.array([8.0]), np.array([33_056.0]), np.array([tokens_of(whole)])
    assert law.p_learned(*cell, np.array([0.02 * DENSITY]))[0] == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("inference", [0.0, 1e8, 3e9])
def test_inference_counts_and_a_smaller_model_may_win(inference: float) -> None:
    law = Logistic(c=2.0)
    sizes = ["cpu_8k", "cpu_19k", "cpu_33k", "cpu_74k", "cpu_132k", "cpu_296k"]
    plan = one_task({"tokens_available": 1e9, "max_share": 0.02}, sizes=sizes, inference_tokens=inference)
    problem, whole = solved(plan, law)
    costs = {}
    for size in sizes:
        tokens = law.tokens_needed(KIND, PRESETS[size].block_params, 0.02 * DENSITY, 0.8)
        costs[size] = (tokens + inference / 3) * PRESETS[size].flops_per_token(257, 128)
    best = min(costs, key=costs.__getitem__)
    assert problem.shapes[whole.candidate.size].name == best
    assert float(problem.cost(whole.candidate.size, tokens_of(whole))) == pytest.approx(costs[best], rel=1e-3)


def test_much_inference_moves_the_choice_to_a_smaller_model() -> None:
    law = Logistic(c=2.0)
    plan = one_task({"tokens_available": 1e9, "max_share": 0.02}, sizes=[{"ladder": "cpu"}])
    before, after = (solved({**plan, "inference_tokens": many}, law) for many in (0.0, 3e9))
    assert after[1].candidate.size < before[1].candidate.size


def test_a_group_bound_is_a_bound_on_the_sum() -> None:
    law = Logistic()
    half = {"role": "rare", "natural_share": 0.0005, "tokens_available": 1e9}
    plan = one_task({"tokens_available": 1e9})
    plan["sources"] = [plan["sources"][0], {"name": "r1", **half}, {"name": "r2", **half}]
    plan["tasks"][0]["density"] = {"r1": DENSITY, "r2": DENSITY}
    plan["groups"] = [{"name": "g", "sources": ["r1", "r2"], "max_share": 0.02}]
    _, whole = solved(plan, law)
    true = law.tokens_needed(KIND, PRESETS["cpu_33k"].block_params, 0.02 * DENSITY, 0.8)
    assert tokens_of(whole) == pytest.approx(true, rel=1e-3)
    assert whole.candidate.shares[1:].sum() == pytest.approx(0.02, rel=1e-3)
    assert whole.candidate.shares[1:].sum() <= 0.02 + 1e-9


def test_a_group_with_common_members_leaves_room_for_the_rare_one() -> None:
    """`web` may only have what the group leaves; `books` takes the rest."""
    plan = one_task({"tokens_available": 1e9, "max_share": 0.02})
    plan["sources"] = [
        {"name": "web", "role": "common", "tokens_available": 1e9, "natural_share": 0.6},
        {"name": "books", "role": "common", "tokens_available": 1e9, "natural_share": 0.399},
        plan["sources"][1],
    ]
    plan["groups"] = [{"name": "g", "sources": ["web", "r1"], "max_share": 0.3}]
    _, whole = solved(plan, Logistic())
    web, books, rare = whole.candidate.shares
    assert rare == pytest.approx(0.02, rel=1e-3)
    assert web + rare == pytest.approx(0.3, rel=1e-3) and web + rare <= 0.3 + 1e-9
    assert books == pytest.approx(0.7, rel=1e-3)


def test_a_group_minimum_raises_its_members() -> None:
    plan = one_task({"tokens_available": 1e9}, min_tokens=5e7)
    plan["groups"] = [{"name": "g", "sources": ["r1"], "min_share": 0.05}]
    _, whole = solved(plan, Logistic())
    assert whole.candidate.feasible and whole.candidate.shares[1] == pytest.approx(0.05, rel=1e-3)


def small_plan(**changes: Any) -> dict[str, Any]:
    """Two rare sources, three tasks, one of them in both; not all can be had."""
    return plan_dict(
        sources=[
            {"name": "web", "role": "common", "tokens_available": 1e8},
            {"name": "r1", "role": "rare", "tokens_available": 3e4, "max_share": 0.2},
            {"name": "r2", "role": "rare", "tokens_available": 5e4, "max_share": 0.2},
        ],
        tasks=[
            {"name": "t1", "density": {"r1": 0.05}, "family": "comparison", "complexity": 8, "value": 2.0},
            {"name": "t2", "density": {"r2": 0.05}, "family": "comparison", "complexity": 8, "value": 3.0},
            {
                "name": "t3",
                "density": {"r1": 0.04, "r2": 0.06},
                "family": "modular_addition",
                "complexity": 5,
                "value": 2.5,
            },
        ],
        **{
            "sizes": ["cpu_33k", "cpu_132k"],
            "budget": {"flops": 9e11},
            "constraints": {"max_common_loss_increase_nats": 0.006},
            "min_tokens": 1e5,
            **changes,
        },
    )


def grid(plan: dict[str, Any], law: Logistic, steps: int = 70) -> dict[str, np.ndarray]:
    """Every mixture of a fine grid that holds the limits other than targets, by brute force."""
    web, *rare = plan["sources"]
    everything = sum(s["tokens_available"] for s in plan["sources"])
    worth = np.vectorize(discounted)
    rows: dict[str, list[np.ndarray]] = {"loss": [], "p": [], "cost": []}
    for name in plan["sizes"]:
        shape = PRESETS[name]
        per_token = shape.flops_per_token(257, 128)
        most = plan["budget"]["flops"] / per_token
        for tokens in np.geomspace(1e5, most, 60):
            low = [s["tokens_available"] / everything for s in rare]
            high = [min(4.0 * s["tokens_available"] / tokens, 0.2) for s in rare]
            if any(h < lo for lo, h in zip(low, high, strict=True)):
                continue
            x, y = np.meshgrid(*[np.linspace(lo, h, steps) for lo, h in zip(low, high, strict=True)])
            common = worth((1 - x - y) * tokens, web["tokens_available"], 15.39)
            usual = discounted(web["tokens_available"] / everything * tokens, web["tokens_available"], 15.39)
            params = float(shape.block_params)
            loss = law.lm_loss(params, np.maximum(common, 1))
            held = loss - law.lm_loss(params, usual) <= plan["constraints"]["max_common_loss_increase_nats"]
            drawn = [
                worth(z * tokens, s["tokens_available"], 15.39) for z, s in zip((x, y), rare, strict=True)
            ]
            p = []
            for task in plan["tasks"]:
                f = sum(task["density"].get(s["name"], 0.0) * d for s, d in zip(rare, drawn, strict=True))
                cells = [task["family"]] * f.size, np.full(f.size, task["complexity"])
                columns = np.full(f.size, params), np.full(f.size, tokens), (f / tokens).ravel()
                p.append(law.p_learned(*cells, *columns).reshape(f.shape)[held])
            rows["loss"].append(loss[held])
            rows["p"].append(np.stack(p, axis=1))
            rows["cost"].append(np.full(int(held.sum()), tokens * per_token))
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def test_most_tasks_reaches_what_an_exhaustive_grid_reaches_and_no_dearer() -> None:
    law, plan = Logistic(), small_plan(objective="most_tasks")
    problem, whole = solved(plan, law)
    every = grid(plan, law)
    values = np.array([task["value"] for task in plan["tasks"]])
    reached = (every["p"] >= 0.8) @ values
    assert 0 < reached.max() < values.sum()  # or there would be nothing to choose
    own = (whole.candidate.outcome.p_learned[0] >= 0.8 - 1e-9) @ values
    assert whole.candidate.feasible and own == reached.max()
    cheapest = every["cost"][reached == reached.max()].min()
    assert problem.cost(whole.candidate.size, whole.candidate.tokens) <= cheapest * 1.002


def test_the_value_is_that_of_an_exhaustive_grid() -> None:
    law, plan = Logistic(), small_plan(objective="value")
    _, whole = solved(plan, law)
    values = np.array([task["value"] for task in plan["tasks"]])
    best = (grid(plan, law)["p"] @ values).max()
    assert whole.candidate.feasible
    assert whole.candidate.outcome.p_learned[0] @ values >= 0.99 * best


def test_the_lowest_common_loss_with_every_target_met() -> None:
    law = Logistic()
    plan = small_plan(objective="common_loss", budget={"flops": 4e12})
    _, whole = solved(plan, law)
    every = grid(plan, law)
    best = every["loss"][(every["p"] >= 0.8).all(axis=1)].min()
    assert whole.candidate.feasible
    assert whole.candidate.outcome.common_loss[0] <= best + 1e-4


def test_spread_tasks_at_scale_are_within_a_percent_of_a_much_finer_search() -> None:
    """Twelve tasks in one to three of sixteen sources: nothing near the answer is cheaper."""
    generator = np.random.default_rng(3)
    names = [f"r{at}" for at in range(16)]
    tasks = []
    for at in range(12):
        homes = generator.choice(names, size=int(generator.integers(1, 4)), replace=False)
        density = {str(home): float(10 ** generator.uniform(-2, -1)) for home in homes}
        kind = [("comparison", 4), ("comparison", 8), ("modular_addition", 5)][at % 3]
        tasks.append({"name": f"t{at}", "density": density, "family": kind[0], "complexity": kind[1]})
    plan = plan_dict(
        sources=[
            {"name": "web", "role": "common", "tokens_available": 1e8},
            *(
                {"name": name, "role": "rare", "tokens_available": float(10 ** generator.uniform(4, 5.5))}
                for name in names
            ),
        ],
        tasks=tasks,
        sizes=["cpu_33k"],
        constraints={"max_common_loss_increase_nats": 0.02},
    )
    law = Logistic()
    problem, whole = solved(plan, law)
    assert whole.candidate.feasible
    solver = Solver(law)
    best = solver.best_at(problem, 0)
    # A little less training leaves no mixture: neither the shares of the answer nor any near them.
    fewer = np.full(4000, 0.99 * best.tokens)
    bounds = rare_bounds(problem, fewer)
    around = best.shares[problem.rare] * np.exp(generator.normal(0, 0.1, size=(4000, 16)))
    shares = complete(problem, fewer, np.clip(around, bounds.low, bounds.high))
    assert not evaluate(problem, law, np.zeros(4000, dtype=int), fewer, shares).feasible.any()
    assert tokens_of(whole) <= 1.005 * best.tokens


def test_the_same_plan_has_the_same_answer() -> None:
    for objective, confidence in itertools.product(("cheapest", "most_tasks"), (None, 0.8)):
        plan = small_plan(objective=objective, budget={"flops": 4e12})
        plan["tasks"][0]["confidence"] = confidence
        first, second = (solved(plan, Logistic(spread=0.3))[1] for _ in range(2))
        assert (first.choose == second.choose).all()


def test_what_is_weighed_does_not_depend_on_the_order_of_sources_and_tasks() -> None:
    plan = plan_dict(sizes=["cpu_296k"], budget={"tokens": 3e6}, objective="value")
    plan["sources"].append({"name": "r3", "role": "rare", "tokens_available": 6e4})
    plan["tasks"].append(
        {"name": "t3", "density": {"r3": 0.1}, "family": "modular_addition", "complexity": 5}
    )
    found = []
    for sources, tasks in ((range(5), range(3)), ((4, 1, 3, 0, 2), (2, 0, 1)), ((2, 4, 0, 3, 1), (1, 2, 0))):
        turned = {"sources": [plan["sources"][at] for at in sources]}
        turned["tasks"] = [plan["tasks"][at] for at in tasks]
        problem, whole = solved({**plan, **turned}, Logistic())
        found.append(dict(zip(problem.sources, whole.choose.tolist(), strict=True)))
    assert found[0] == found[1] == found[2]
