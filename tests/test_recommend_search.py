"""The search: what it tries, how it goes on, who may read it, and that nothing of this changes the answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from planning import Logistic, plan_dict, run

from mixplan.documents import Plan
from mixplan.documents.atomic import write_text
from mixplan.errors import InputError
from mixplan.recommend.checks import build_problem
from mixplan.recommend.problem import Problem
from mixplan.recommend.search import MOST_SEARCHED, Space, search, trials_from
from mixplan.recommend.solve import Candidate, Solver, rank
from mixplan.recommend.storage import Store, store_of
from mixplan.recommend.study import BATCH, Settings

SIZES = ["cpu_8k", "cpu_33k"]
SIMPLE: dict[str, Any] = {
    "sources": [
        {"name": "web", "role": "common", "tokens_available": 1e8},
        {"name": "r1", "role": "rare", "tokens_available": 2e5},
        {"name": "r2", "role": "rare", "tokens_available": 3e5},
    ],
    "tasks": [
        {"name": "t1", "density": {"r1": 0.05}, "family": "comparison", "complexity": 8},
        {"name": "t2", "density": {"r2": 0.1}, "family": "modular_addition", "complexity": 5},
    ],
    "sizes": SIZES,
    "constraints": {"max_common_loss_increase_nats": 0.05},
}


class Peaked(Logistic):
    """p falls again beyond a frequency, so needs are no guide."""

    def log_odds(self, family, complexity, block_params, tokens, frequency):
        over = np.maximum(np.log(np.asarray(frequency) / 2e-3), 0.0)
        return super().log_odds(family, complexity, block_params, tokens, frequency) - 4.0 * over**2


def asked(**changes: Any) -> Plan:
    return Plan.model_validate(plan_dict(**{**SIMPLE, **changes}))


def space_of(plan: Plan, law: Logistic) -> tuple[Problem, Solver, Space]:
    problem = build_problem(plan, law, Path("."))
    solver = Solver(law)
    starts = [solver.best_at(problem, size) for size in range(len(problem.shapes))]
    return problem, solver, Space.around(problem, starts)


def tried(
    plan: Plan, sampler: str = "nsga2", trials: int = 50, seed: int = 0, **more: Any
) -> list[Candidate]:
    law = Logistic()
    return trials_from(space_of(plan, law)[2], law, Settings(sampler, trials, seed, **more))


def told(candidates: list[Candidate]) -> list[bytes]:
    """Everything about the mixtures, to the last bit."""
    return [
        b"".join(np.ascontiguousarray(part).tobytes() for part in vars(one.outcome).values())
        for one in candidates
    ]


def store_at(place: Path | str, plan: Plan, seed: int = 0) -> Store:
    return store_of(str(place), plan, build_problem(plan, Logistic(), Path(".")), None, seed)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_same_seed_tries_the_same_mixtures_and_another_does_not(sampler: str) -> None:
    first = told(tried(asked(), sampler))
    assert told(tried(asked(), sampler)) == first
    assert len(first) == len(SIZES) + 50
    other = told(tried(asked(), sampler, seed=1))
    assert other[: len(SIZES)] == first[: len(SIZES)]  # the analytic answers
    assert not set(other[len(SIZES) :]) & set(first[len(SIZES) :])


def test_what_a_trial_tries_does_not_depend_on_how_many_follow() -> None:
    assert told(tried(asked(), trials=70))[: len(SIZES) + 33] == told(tried(asked(), trials=33))


@pytest.mark.slow
def test_any_number_of_workers_tries_the_same() -> None:
    assert told(tried(asked(), "tpe", workers=2)) == told(tried(asked(), "tpe"))


def test_names_do_not_matter() -> None:
    renamed = json.loads(json.dumps(SIMPLE).replace('"r1"', '"zz"').replace('"t1"', '"a"'))
    assert told(tried(asked(**renamed))) == told(tried(asked()))


def test_the_order_of_sources_and_tasks_does_not_matter() -> None:
    turned = {key: SIMPLE[key][::-1] for key in ("sources", "tasks")}
    for one, other in zip(tried(asked(**turned)), tried(asked()), strict=True):
        assert one.tokens == pytest.approx(other.tokens, rel=1e-6)
        assert one.shares[::-1] == pytest.approx(other.shares, rel=1e-6)


class Killed(BaseException):
    """As abrupt as a signal: nothing catches it."""


@pytest.mark.parametrize("batches", [0, 2])
def test_a_search_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    place = tmp_path / "study.log"
    add, calls = Store.add, []

    def halfway(self: Store, trials: list[Any]) -> None:
        calls.append(len(trials))
        if len(calls) > batches:
            add(self, trials[: len(trials) // 2])
            raise Killed
        add(self, trials)

    monkeypatch.setattr(Store, "add", halfway)
    with pytest.raises(Killed):
        tried(asked(), store=store_at(place, asked()))
    monkeypatch.undo()
    with place.open("ab") as file:
        file.write(b'{"op_code": 5, "unfini')  # as a write that was cut off
    kept = len(optuna.load_study(study_name=None, storage=journal(place)).trials)
    assert 0 < kept < len(SIZES) + 50
    assert told(tried(asked(), store=store_at(place, asked()))) == told(tried(asked()))
    assert len(optuna.load_study(study_name=None, storage=journal(place)).trials) == len(SIZES) + 50


def journal(place: Path) -> optuna.storages.JournalStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(place)))


def test_more_trials_continue_a_study_and_fewer_leave_the_rest_out(tmp_path: Path) -> None:
    place = tmp_path / "study.journal"
    few = asked(search={"trials": 25})
    tried(few, trials=25, store=store_at(place, few))
    more = asked(search={"trials": 60})
    assert told(tried(more, trials=60, store=store_at(place, more))) == told(tried(more, trials=60))
    assert told(tried(few, trials=25, store=store_at(place, few))) == told(tried(few, trials=25))


@pytest.mark.slow
def test_a_recipe_is_the_same_from_a_storage_half_done_or_done(tmp_path: Path) -> None:
    plan, place = plan_dict(**{**SIMPLE, "sizes": ["cpu_8k"], "search": {"trials": 45}}), tmp_path / "s.log"
    fresh = run(plan).model_dump_json()
    half = asked(**{"sizes": ["cpu_8k"]})
    tried(half, trials=30, store=store_at(place, half))
    assert run(plan, storage=str(place)).model_dump_json() == fresh  # half done
    assert run(plan, storage=str(place)).model_dump_json() == fresh  # done


def test_a_database_keeps_a_search_as_well(tmp_path: Path) -> None:
    place, plan = f"sqlite:///{tmp_path / 'study.db'}", asked()
    tried(plan, trials=30, store=store_at(place, plan))
    assert told(tried(plan, store=store_at(place, plan))) == told(tried(plan))


def test_optuna_reads_the_study_as_its_own(tmp_path: Path) -> None:
    place, plan = tmp_path / "study.log", asked()
    found = tried(plan, store=store_at(place, plan))
    study = optuna.load_study(study_name=None, storage=journal(place))
    assert study.study_name == "plan"
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert study.metric_names == ["cheapest"]
    assert study.user_attrs["mixplan"]["seed"] == 0
    assert [trial.state for trial in study.trials] == [optuna.trial.TrialState.COMPLETE] * len(found)
    for trial, one in zip(study.trials, found, strict=True):
        assert set(trial.params) == {"size", "tokens", "rate.r1", "rate.r2"}
        assert trial.params["size"] == SIZES[one.size]
        assert trial.params["tokens"] == pytest.approx(one.tokens)
        assert {"budget.tokens", "tasks.t1.target_probability", "sources.max_epochs"} <= set(
            trial.constraints
        )
        assert (max(trial.constraints.values()) <= 0) == one.feasible
        assert sum(trial.user_attrs["shares"].values()) == pytest.approx(1)
        assert trial.user_attrs["p_learned"]["t1"] == pytest.approx(one.outcome.p_learned[0, 0])
    problem = space_of(plan, Logistic())[0]
    best = min(found, key=lambda one: rank(problem, one))
    assert study.best_trial.value == pytest.approx(float(best.outcome.values[0, 1]))


@pytest.mark.parametrize(
    ("changes", "seed", "what"),
    [
        ({"budget": {"tokens": 6e7}}, 0, "another plan"),
        ({}, 1, "another seed"),
        ({"search": {"trials": 50, "sampler": "tpe"}}, 0, "another plan"),
    ],
)
def test_a_study_of_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], seed: int, what: str
) -> None:
    place = tmp_path / "study.log"
    tried(asked(), trials=5, store=store_at(place, asked()))
    before = place.read_bytes()
    with pytest.raises(InputError, match=what):
        tried(asked(**changes), trials=5, seed=seed, store=store_at(place, asked(**changes), seed))
    assert place.read_bytes().startswith(before)
    assert len(optuna.load_study(study_name=None, storage=journal(place)).trials) == len(SIZES) + 5


def test_laws_that_changed_are_noticed_by_what_the_trials_give(tmp_path: Path) -> None:
    place, law = tmp_path / "study.log", Logistic()
    tried(asked(), trials=BATCH, store=store_at(place, asked()))
    space = space_of(asked(objective="common_loss"), law)[2]
    with pytest.raises(InputError, match=r"trial 0 .* now gives"):
        trials_from(space, law, Settings("nsga2", BATCH, 0, store_at(place, asked())))


def test_two_commands_on_one_study_are_told(tmp_path: Path) -> None:
    place = tmp_path / "study.log"
    one, two = store_at(place, asked()), store_at(place, asked())
    one.open(["minimize"])
    two.open(["minimize"])
    trial = optuna.trial.create_trial(value=1.0)
    one.add([trial])
    with pytest.raises(InputError, match="another command writes"):
        two.add([trial])


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("study.json", "ends in .log or .journal"),
        ("missing/study.log", "no folder"),
        ("folder.log", "is a folder"),
        ("nothing://here", "cannot use it"),
    ],
)
def test_storages_that_cannot_be(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "folder.log").mkdir()
    with pytest.raises(InputError, match=said):
        store_at(place if "://" in place else str(tmp_path / place), asked()).open(["minimize"])


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "notes.log"
    write_text(place, "bought milk\nand bread")
    with pytest.raises(InputError, match="no journal"):
        store_at(place, asked()).open(["minimize"])
    assert place.read_text() == "bought milk\nand bread"


def test_the_search_finds_what_needs_do_not_tell() -> None:
    law, plan = Peaked(), asked(sizes=["cpu_33k"], search={"trials": 400})
    problem = build_problem(plan, law, Path("."))
    solver = Solver(law)
    start = solver.best_at(problem, 0)
    (found,) = search(solver, problem, Settings("nsga2", 400, 0))
    assert found.feasible and (not start.feasible or found.tokens < 0.9 * start.tokens)
    p = law.p_learned(
        ["comparison", "modular_addition"],
        np.array([8.0, 5.0]),
        np.full(2, problem.block_params[0]),
        np.full(2, found.tokens),
        found.outcome.frequency[0],
    )
    assert (p >= 0.8 - 1e-9).all()


def test_every_tried_mixture_keeps_the_bounds_on_rare_sources() -> None:
    plan = asked(
        groups=[{"name": "g", "sources": ["r1", "r2"], "max_share": 0.1}],
        sources=[
            {**one, **({"max_share": 0.08} if one["role"] == "rare" else {})} for one in SIMPLE["sources"]
        ],
    )
    for one in tried(plan):
        assert one.shares.sum() == pytest.approx(1)
        assert (one.shares[1:] <= 0.08 + 1e-9).all()
        assert one.shares[1:].sum() <= 0.1 + 1e-9
        assert (one.outcome.epochs[0, 1:] <= 4 + 1e-9).all()


def test_only_sources_with_tasks_are_searched_and_of_many_the_raised_ones() -> None:
    names = [f"r{at}" for at in range(20)]
    plan = asked(
        sources=[SIMPLE["sources"][0], {"name": "idle", "role": "rare", "tokens_available": 1e5}]
        + [{"name": name, "role": "rare", "tokens_available": 1e5} for name in names],
        tasks=[
            {"name": name, "density": {name: 0.2 / (1 + at)}, "family": "comparison", "complexity": 8}
            for at, name in enumerate(names)
        ],
    )
    problem, _, space = space_of(plan, Logistic())
    raised = space.starts[0].shares[2:] - problem.natural[2:]
    assert len(space.searched) == MOST_SEARCHED
    assert 0 not in space.searched  # idle
    left = np.setdiff1d(np.arange(20), space.searched - 1)
    assert raised[space.searched - 1].min() >= raised[left].max()
    # What is not searched stays as the analytic answer has it.
    again = space.decode([space.encode(space.starts[0])])
    assert again[2][0] == pytest.approx(space.starts[0].shares, rel=1e-9)


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from test_recommend_search import asked, store_at, tried
tried(asked(), "tpe", trials=400, store=store_at(sys.argv[2], asked()))
"""


@pytest.mark.slow
def test_kill_minus_nine(tmp_path: Path) -> None:
    place = tmp_path / "study.log"
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(place)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if place.exists() and place.stat().st_size > 20_000:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = len(optuna.load_study(study_name=None, storage=journal(place)).trials)
    assert 10 < kept < 402
    again = tried(asked(), "tpe", trials=50, store=store_at(place, asked()))
    assert told(again) == told(tried(asked(), "tpe", trials=50))
