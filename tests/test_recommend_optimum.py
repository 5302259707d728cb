"""The recipe against answers known in closed form and against an exhaustive grid, both computed here anew."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from planning import Logistic, changed, discounted, plan_dict, run, violations
from scipy.optimize import brentq

from mixplan.documents import PRESETS
from mixplan.errors import InputError
from mixplan.recommend.alternatives import AT_A_SIZE

KIND = ("comparison", 8.0)
DENSITY = 0.05


def one_task(rare: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return plan_dict(
        sources=[
            {"name": "web", "role": "common", "tokens_available": 1e9, "natural_share": 0.999},
            {"name": "r1", "role": "rare", "natural_share": 0.001, **rare},
        ],
        tasks=[{"name": "t1", "density": {"r1": DENSITY}, "family": KIND[0], "complexity": KIND[1]}],
        **{"sizes": ["cpu_33k"], "budget": {"tokens": 1e9}, "min_tokens": 1e5, "constraints": {}, **changes},
    )


def test_share_bound_binds() -> None:
    law = Logistic()
    recipe = run(one_task({"tokens_available": 1e9, "max_share": 0.02}), law)
    true = law.tokens_needed(KIND, PRESETS["cpu_33k"].block_params, 0.02 * DENSITY, 0.8)
    assert recipe.tokens == pytest.approx(true, rel=1e-3)
    assert recipe.tokens >= true * (1 - 1e-9)
    assert recipe.sources[1].share == pytest.approx(0.02, rel=1e-3)
    assert recipe.sources[1].rate == pytest.approx(20, rel=1e-3)
    assert recipe.tasks[0].recommended.p_learned == pytest.approx(0.8, abs=1e-3)
    assert recipe.tasks[0].recommended.frequency == pytest.approx(0.02 * DENSITY, rel=1e-3)
    assert recipe.tasks[0].natural.frequency == pytest.approx(0.001 * DENSITY, rel=1e-9)
    assert {bind.constraint for bind in recipe.binds} == {
        "sources.r1.max_share",
        "tasks.t1.target_probability",
    }


@pytest.mark.parametrize("cap", [1.0, 4.0, 8.0])
def test_epoch_cap_binds_with_the_repetition_discount(cap: float) -> None:
    law, unique, half_life = Logistic(), 5e4, 7.0
    rare = {"tokens_available": unique, "max_epochs": cap, "repetition_half_life_epochs": half_life}
    recipe = run(one_task(rare), law)
    worth = discounted(cap * unique, unique, half_life)
    params = PRESETS["cpu_33k"].block_params
    true = brentq(lambda d: law.tokens_needed(KIND, params, worth * DENSITY / d, 0.8) - d, 1e4, 1e9)
    assert true > cap * unique  # or the share would be the limit
    # One sample of the source is up to 0.26 % of what may be drawn from it.
    assert true * (1 - 1e-9) <= recipe.tokens <= true * 1.003
    assert recipe.sources[1].epochs == pytest.approx(cap, rel=3e-3)
    assert recipe.sources[1].epochs <= cap
    assert "sources.r1.max_epochs" in {bind.constraint for bind in recipe.binds}


def test_common_loss_bound_binds() -> None:
    law, bound = Logistic(), 0.02
    recipe = run(
        one_task({"tokens_available": 1e9}, constraints={"max_common_loss_increase_nats": bound}), law
    )
    params = float(PRESETS["cpu_33k"].block_params)

    def share_allowed(tokens: float) -> float:
        def increase(share: float) -> float:
            return (
                float(law.lm_loss(params, (1 - share) * tokens) - law.lm_loss(params, 0.999 * tokens)) - bound
            )

        return brentq(increase, 0.001, 0.999)

    true = brentq(lambda d: law.tokens_needed(KIND, params, share_allowed(d) * DENSITY, 0.8) - d, 1e4, 1e9)
    assert recipe.tokens == pytest.approx(true, rel=1e-3)
    assert recipe.common_loss_increase_nats == pytest.approx(bound, rel=5e-3)
    assert recipe.common_loss_increase_nats <= bound + 1e-9
    assert recipe.sources[1].share == pytest.approx(share_allowed(true), rel=5e-3)


def test_the_size_with_the_fewest_flops_wins() -> None:
    law = Logistic(c=2.0)  # size is worth a lot: neither the smallest nor the largest is cheapest
    sizes = ["cpu_8k", "cpu_19k", "cpu_33k", "cpu_74k", "cpu_132k", "cpu_296k"]
    recipe = run(one_task({"tokens_available": 1e9, "max_share": 0.02}, sizes=sizes), law)
    costs = {}
    for size in sizes:
        tokens = law.tokens_needed(KIND, PRESETS[size].block_params, 0.02 * DENSITY, 0.8)
        costs[size] = tokens * PRESETS[size].flops_per_token(257, 128)
    best = min(costs, key=costs.__getitem__)
    assert best not in ("cpu_8k", "cpu_296k")
    assert recipe.size.name == best
    assert recipe.cost is not None and recipe.cost.flops == pytest.approx(costs[best], rel=1e-3)
    at_a_size = [candidate for candidate in recipe.candidates if candidate.role in AT_A_SIZE]
    assert len(at_a_size) == len(sizes)
    for candidate in at_a_size:
        assert candidate.feasible and candidate.flops == pytest.approx(costs[candidate.size], rel=5e-3)


def test_natural_mixture_when_it_is_enough() -> None:
    recipe = run(one_task({"tokens_available": 1e9}, min_tokens=5e7), Logistic())
    assert recipe.tokens == pytest.approx(5e7, rel=1e-4)
    assert recipe.sources[1].rate == pytest.approx(1.0, abs=0.01)  # nothing asks for more
    assert [bind.constraint for bind in recipe.binds] == ["min_tokens"]


def test_unconstrained_answer_drops_caps_and_bounds_and_keeps_the_budget() -> None:
    law = Logistic()
    plan = one_task(
        {"tokens_available": 5e4, "max_epochs": 2, "max_share": 0.05},
        constraints={"max_common_loss_increase_nats": 0.001},
    )
    recipe = run(plan, law)
    free = recipe.unconstrained
    assert free is not None and free.feasible and recipe.cost is not None
    assert free.flops < 0.5 * recipe.cost.flops
    loose = changed(plan, {"sources.r1.max_epochs": 1e9, "sources.r1.max_share": 1.0})
    loose["constraints"] = {}
    again = run(loose, law)
    assert again.cost is not None and free.flops == pytest.approx(again.cost.flops, rel=2e-3)


def test_what_a_limit_costs_is_what_dropping_it_saves() -> None:
    plan, law = plan_dict(), Logistic()
    recipe = run(plan, law)
    bind = next(b for b in recipe.binds if b.constraint == "sources.r2.max_epochs")
    again = run(changed(plan, {"sources.r2.max_epochs": 1e9}), law)
    assert again.cost is not None and bind.flops_without == pytest.approx(again.cost.flops, rel=2e-3)


def grid_optimum(plan: dict[str, Any], law: Logistic, steps: int = 60) -> float:
    """Fewest FLOPs over sizes × tokens × shares of two rare sources, evaluated by brute force."""
    bound = plan["constraints"]["max_common_loss_increase_nats"]
    web, *rare = plan["sources"]
    everything = sum(s["tokens_available"] for s in plan["sources"])
    best = math.inf
    worth = np.vectorize(discounted)
    for name, tokens in itertools.product(plan["sizes"], np.geomspace(5e5, 2e7, 160)):
        shape = PRESETS[name]
        flops = tokens * shape.flops_per_token(257, 128)
        if flops >= best:
            continue
        low = [s["tokens_available"] / everything for s in rare]
        high = [min(4.0 * s["tokens_available"] / tokens, 0.5) for s in rare]
        if any(h < lo for lo, h in zip(low, high, strict=True)):
            continue
        x, y = np.meshgrid(*[np.linspace(lo, h, steps) for lo, h in zip(low, high, strict=True)])
        keep = x + y < 0.999
        common = worth((1 - x - y) * tokens, web["tokens_available"], 15.39)
        usual = discounted(web["tokens_available"] / everything * tokens, web["tokens_available"], 15.39)
        params = float(shape.block_params)
        keep &= law.lm_loss(params, np.maximum(common, 1)) - law.lm_loss(params, usual) <= bound
        drawn = [worth(z * tokens, s["tokens_available"], 15.39) for z, s in zip((x, y), rare, strict=True)]
        for task in plan["tasks"]:
            f = (
                sum(task["density"].get(s["name"], 0.0) * d for s, d in zip(rare, drawn, strict=True))
                / tokens
            )
            n = f.size
            cells = (
                [task["family"]] * n,
                np.full(n, task["complexity"]),
                np.full(n, params),
                np.full(n, tokens),
            )
            keep &= law.p_learned(*cells, f.ravel()).reshape(f.shape) >= 0.8
        if keep.any():
            best = flops
    return best


@pytest.mark.parametrize(
    ("densities", "bound"),
    [
        (({"r1": 0.05}, {"r2": 0.1}), 0.005),
        (({"r1": 0.05, "r2": 0.02}, {"r1": 0.01, "r2": 0.1}), 0.01),
        (({"r1": 0.03, "r2": 0.03}, {"r1": 0.1, "r2": 0.02}), 0.002),
    ],
)
def test_exhaustive_grid(densities: tuple[dict[str, float], dict[str, float]], bound: float) -> None:
    law = Logistic()
    plan = plan_dict(
        sources=[
            {"name": "web", "role": "common", "tokens_available": 1e8},
            {"name": "r1", "role": "rare", "tokens_available": 4e4, "max_share": 0.5},
            {"name": "r2", "role": "rare", "tokens_available": 9e4, "max_share": 0.5},
        ],
        tasks=[
            {"name": "t1", "density": densities[0], "family": "comparison", "complexity": 8},
            {"name": "t2", "density": densities[1], "family": "modular_addition", "complexity": 5},
        ],
        sizes=["cpu_8k", "cpu_33k", "cpu_132k"],
        budget={"tokens": 2e7},
        constraints={"max_common_loss_increase_nats": bound},
    )
    recipe = run(plan, law)
    grid = grid_optimum(plan, law)
    assert math.isfinite(grid) and recipe.cost is not None
    assert violations(plan, recipe, law) == []
    # One step of the grid's token axis is 2.3 %: the grid cannot be below the optimum, nor far above it.
    assert recipe.cost.flops <= grid * 1.002
    assert recipe.cost.flops >= grid * 0.93


class TooMuchHurts(Logistic):
    """A task seen too often is not learned: no bisection finds the window, only the search does."""

    def log_odds(self, family, complexity, block_params, tokens, frequency):
        usual = super().log_odds(family, complexity, block_params, tokens, frequency)
        return np.where(np.asarray(frequency) > 1.5e-3, -9.0, usual)


def test_the_search_finds_what_no_bisection_does() -> None:
    law = TooMuchHurts()
    plan = one_task({"tokens_available": 1e9}, budget={"tokens": 2e7}, search={"trials": 80})
    recipe = run(plan, law)
    assert violations(plan, recipe, law) == []
    # The best there is: the highest frequency below the edge.
    true = law.tokens_needed(KIND, PRESETS["cpu_33k"].block_params, 1.5e-3, 0.8)
    assert true * (1 - 1e-9) <= recipe.tokens <= 1.3 * true


def test_every_limit_of_the_plan_is_a_native_constraint_of_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    seen: dict[str, list[float]] = {}
    original = optuna.trial.create_trial

    def spy(**given: Any) -> optuna.trial.FrozenTrial:
        for name, value in given["constraints"].items():
            seen.setdefault(name, []).append(value)
        return original(**given)

    monkeypatch.setattr(optuna.trial, "create_trial", spy)
    plan = plan_dict(search={"trials": 15})
    plan["sources"][0]["min_share"] = 0.1
    run(plan)
    tasks = {f"tasks.{name}.target_probability" for name in ("t1", "t2")}
    of_sources = {"sources.max_epochs", "sources.min_share"}  # the worst of all sources
    loss = "constraints.max_common_loss_increase_nats"
    assert set(seen) == tasks | of_sources | {loss, "budget.tokens"}
    assert {len(values) for values in seen.values()} == {4 + 15}  # one start a size
    # The warm start is feasible at every size; random trials are not all.
    for start in range(4):
        assert all(values[start] <= 1e-6 for values in seen.values())
    assert any(value > 0 for values in seen.values() for value in values)


def test_no_rare_source_at_all() -> None:
    law = Logistic()
    plan = plan_dict(
        sources=[
            {"name": "web", "role": "common", "tokens_available": 9e7},
            {"name": "code", "role": "common", "tokens_available": 1e7},
        ],
        tasks=[{"name": "t1", "density": {"code": 0.01}, "family": "comparison", "complexity": 8}],
        sizes=["cpu_33k"],
    )
    recipe = run(plan, law)
    true = law.tokens_needed(KIND, PRESETS["cpu_33k"].block_params, 0.1 * 0.01, 0.8)
    assert recipe.tokens == pytest.approx(true, rel=2e-3)
    assert [source.rate for source in recipe.sources] == pytest.approx([1.0, 1.0], rel=1e-2)


def test_common_sources_keep_their_own_caps_and_share_the_rest() -> None:
    law = Logistic()
    plan = one_task({"tokens_available": 1e9, "max_share": 0.02})
    plan["sources"] = [
        {"name": "web", "role": "common", "tokens_available": 1e9, "natural_share": 0.5},
        {"name": "books", "role": "common", "tokens_available": 1e5, "natural_share": 0.3, "max_epochs": 2},
        {
            "name": "wiki",
            "role": "common",
            "tokens_available": 1e9,
            "natural_share": 0.199,
            "max_share": 0.25,
        },
        plan["sources"][1],
    ]
    recipe = run(plan, law)
    web, books, wiki, _ = recipe.sources
    assert books.epochs == pytest.approx(2.0, rel=0.01) and books.epochs <= 2.0
    assert wiki.share == pytest.approx(0.25, abs=1e-4) and wiki.share <= 0.25 + 1e-12
    assert web.share == pytest.approx(1 - 0.02 - 0.25 - books.share, abs=1e-4)
    binding = {bind.constraint for bind in recipe.binds}
    assert {"sources.books.max_epochs", "sources.wiki.max_share"} <= binding


def test_below_natural_only_where_a_limit_forces_it() -> None:
    plan = plan_dict()
    plan["sources"].append({"name": "idle", "role": "rare", "tokens_available": 5e6})
    law = Logistic()
    recipe = run(plan, law)
    assert recipe.sources[4].rate == pytest.approx(1.0, abs=0.01)
    forced = run(changed(plan, {"sources.idle.max_share": 0.01}), law)
    assert forced.sources[4].share <= 0.01 and forced.sources[4].rate < 0.5
    assert any("'idle' stands below its natural share" in text for text in forced.warnings)


def test_a_loss_bound_needs_a_loss_law() -> None:
    with pytest.raises(InputError, match="no LM-loss law"):
        run(plan_dict(), Logistic(loss=False))


def test_without_a_loss_law_the_loss_is_left_empty() -> None:
    recipe = run(plan_dict(constraints={}), Logistic(loss=False))
    assert recipe.common_loss_nats is None and recipe.common_loss_increase_nats is None
    assert any("nothing bounds the loss on common data" in text for text in recipe.warnings)
