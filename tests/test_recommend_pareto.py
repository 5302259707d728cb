"""The front: nothing on it is beaten, every limit holds, and the answer to the plan itself lies on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning import Logistic, plan_dict
from test_recommend_search import SIMPLE, asked

from mixplan.documents import Plan
from mixplan.documents.table import Table, read_table, write_table
from mixplan.errors import InputError, NoAnswer
from mixplan.recommend.checks import build_problem
from mixplan.recommend.evaluate import evaluate
from mixplan.recommend.pareto import best_rows, front_table, pareto_front, wishes
from mixplan.recommend.solve import Solver


def front_of(plan: Plan, law: Logistic | None = None, **more: Any) -> Table:
    return pareto_front(plan, law or Logistic(), Path("."), **more)


@pytest.fixture(scope="module")
def front() -> Table:
    return front_of(asked(search={"trials": 100}))


def beaten(front: Table) -> list[tuple[int, int]]:
    """Pairs of rows, the second better in one wish and no worse in the others."""
    value = np.stack([front["lifetime_flops"], -front["coverage"], front["common_loss_nats"]], axis=1)
    value = np.nan_to_num(value, nan=0.0)
    no_worse = (value[None] <= value[:, None]).all(axis=2)
    better = (value[None] < value[:, None]).any(axis=2)
    return [(int(a), int(b)) for a, b in zip(*np.nonzero(no_worse & better), strict=True)]


def test_no_row_beats_another_and_the_cheapest_comes_first(front: Table) -> None:
    assert len(front) > 20
    assert beaten(front) == []
    assert (np.diff(front["lifetime_flops"]) >= 0).all()


def test_what_a_row_says_agrees_with_the_laws(front: Table) -> None:
    law, plan = Logistic(), asked()
    problem = build_problem(plan, law, Path("."))
    for row in front.rows():
        shares = np.array([row[f"share.{name}"] for name in ("web", "r1", "r2")])
        assert shares.sum() == pytest.approx(1)
        assert (shares * row["tokens"] <= 4 * problem.unique_tokens * (1 + 1e-9)).all()
        p = [row["p.t1"], row["p.t2"]]
        assert row["tasks_learned"] == sum(one >= 0.8 - 1e-9 for one in p) == 2 * row["coverage"]
        assert row["expected_tasks"] == pytest.approx(sum(p))
        assert row["common_loss_increase_nats"] <= 0.05 + 1e-9
        assert row["tokens"] <= 5e7 * (1 + 1e-9)
        shape = problem.shapes[[one.name for one in problem.shapes].index(row["size"])]
        assert row["flops"] == pytest.approx(row["tokens"] * shape.flops_per_token(257, 128))
        assert row["lifetime_flops"] == row["flops"]  # no inference in this plan


@pytest.mark.parametrize("objective", ["cheapest", "common_loss"])
def test_the_answer_to_the_plan_lies_on_the_front(objective: str) -> None:
    plan, law = asked(objective=objective, search={"trials": 100}), Logistic()
    front = front_of(plan, law)
    problem, solver = build_problem(plan, law, Path(".")), Solver(law)
    answers = [solver.best_at(problem, size) for size in range(len(problem.shapes))]
    everything = front["coverage"] == 1
    if objective == "cheapest":
        best = min(float(problem.cost(one.size, one.tokens)) for one in answers if one.feasible)
        assert front["lifetime_flops"][everything].min() <= best * 1.01
    else:
        best = min(float(one.outcome.common_loss[0]) for one in answers if one.feasible)
        assert front["common_loss_nats"][everything].min() <= best * 1.01


def test_fewer_tasks_are_cheaper_and_values_weigh_them() -> None:
    tasks = [{**SIMPLE["tasks"][0], "value": 3.0}, SIMPLE["tasks"][1]]
    front = front_of(asked(tasks=tasks, search={"trials": 40}))
    levels = np.unique(front["coverage"])
    assert {0.0, 1.0} <= set(levels) <= {0.0, 0.25, 0.75, 1.0}
    cheapest = [front["lifetime_flops"][front["coverage"] == level].min() for level in levels]
    assert cheapest[0] < cheapest[-1]


def test_more_trials_or_a_storage_keep_it_repeatable(tmp_path: Path, front: Table) -> None:
    place = str(tmp_path / "front.log")
    for storage in (None, place, place):
        again = front_of(asked(search={"trials": 100}), storage=storage)
        assert again.rows() == front.rows()
    with pytest.raises(InputError, match="another seed"):
        front_of(asked(search={"trials": 100}), storage=place, seed=1)


def test_inference_and_sizes_are_weighed() -> None:
    plain = front_of(asked(search={"trials": 20}))
    used = front_of(asked(search={"trials": 20}, inference_tokens=1e9))
    assert (used["lifetime_flops"] > used["flops"]).all()
    assert beaten(used) == []
    large = [np.mean(table["size"] == "cpu_33k") for table in (plain, used)]
    assert large[1] <= large[0]  # a large model costs its inference too


def test_without_a_loss_law_two_wishes_are_left() -> None:
    front = front_of(asked(constraints={}, search={"trials": 20}), Logistic(loss=False))
    assert np.isnan(front["common_loss_nats"]).all()
    assert len(np.unique(front["coverage"])) == len(front)  # the cheapest of each coverage
    assert front_table(front)[2][0][-1] is None


def test_tasks_in_several_sources_and_groups_keep_every_limit() -> None:
    plan = plan_dict(
        groups=[{"name": "g", "sources": ["r1", "r2"], "max_share": 0.03}],
        tasks=[
            {"name": "t1", "density": {"r1": 0.05, "r2": 0.02}, "family": "comparison", "complexity": 8},
            {"name": "t2", "density": {"r2": 0.1, "r1": 0.01}, "family": "modular_addition", "complexity": 5},
        ],
        sizes=["cpu_8k", "cpu_33k"],
        search={"trials": 40},
    )
    front = front_of(Plan.model_validate(plan))
    assert beaten(front) == []
    assert (front["share.r1"] + front["share.r2"] <= 0.03 + 1e-9).all()
    assert (front["common_loss_increase_nats"] <= 0.01 + 1e-9).all()


def test_limits_that_clash_without_the_targets_are_an_answer() -> None:
    plan = asked(
        sources=[
            SIMPLE["sources"][0],
            *({**one, "min_share": 0.45} for one in SIMPLE["sources"][1:]),
        ],
        constraints={"max_common_loss_increase_nats": 1e-6},
        search={"trials": 5},
    )
    with pytest.raises(NoAnswer, match="even without the targets"):
        front_of(plan)


def test_best_rows_against_every_pair() -> None:
    law, plan = Logistic(), asked()
    problem = build_problem(plan, law, Path("."))

    generator = np.random.default_rng(0)
    rare = generator.uniform(0.0, 0.02, (300, 2))
    shares = np.concatenate([1 - rare.sum(axis=1, keepdims=True), rare], axis=1)
    tokens = np.exp(generator.uniform(np.log(1e6), np.log(5e7), 300))
    outcome = evaluate(problem, law, generator.integers(0, 2, 300), tokens, shares)
    free = build_problem(asked(objective="most_tasks"), law, Path("."))
    outcome = evaluate(free, law, outcome.size, tokens, shares)
    kept = wishes(free, best_rows(free, outcome))
    held = wishes(free, outcome)[outcome.feasible]
    assert len(kept) > 5
    for row in held:
        close = (kept[:, 1] == row[1]) & (row[0] <= kept[:, 0] * 1.01) & (row[0] >= kept[:, 0])
        assert ((kept <= row).all(axis=1) | close).any()


def test_the_table_survives_its_file(tmp_path: Path, front: Table) -> None:
    for name in ("front.csv", "front.parquet"):
        write_table(front, tmp_path / name)
        again = read_table(tmp_path / name, {"size"})
        assert again.rows() == front.rows()
