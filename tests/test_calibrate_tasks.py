"""The injected tasks: what is held out, what is novel, and what a user's own task must look like."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from mixplan.calibrate.tasks import FAMILIES, make_cells, make_probe_tasks, reserved_symbols
from mixplan.calibrate.tasks.base import chance
from mixplan.calibrate.tasks.user import load_user_task
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.errors import InputError


def make(family: str, complexity: int, seed: int = 0):
    own = FAMILIES[family]
    symbols = np.arange(300, 300 + own.symbols(complexity))
    return own.make("t", complexity, symbols, np.random.default_rng(seed))


@pytest.mark.parametrize("family", ["comparison", "modular_addition", "table_lookup"])
@pytest.mark.parametrize("complexity", [3, 4, 9, 20])
def test_half_of_the_instances_are_held_out(family: str, complexity: int) -> None:
    task = make(family, complexity)
    train, test = {i.prompt for i in task.train}, {i.prompt for i in task.test}
    total = {
        "comparison": complexity * (complexity - 1),
        "modular_addition": complexity**2,
        "table_lookup": 4 * complexity**2,
    }[family]
    assert not train & test
    assert len(train | test) == len(task.train) + len(task.test) == total
    assert abs(len(train) - len(test)) <= 2 or complexity <= 4
    assert len(test) >= 1


def test_modular_addition_is_right() -> None:
    task = make("modular_addition", 7)
    value = {choice[0]: n for n, choice in enumerate(task.train[0].choices)}
    for i in (*task.train, *task.test):
        assert (value[i.prompt[0]] + value[i.prompt[1]]) % 7 == i.answer


@pytest.mark.parametrize("items", [3, 4, 8, 24])
@pytest.mark.parametrize("seed", range(5))
def test_comparison_trains_what_determines_the_order(items: int, seed: int) -> None:
    task = make("comparison", items, seed)
    below = {i.prompt if i.answer == 0 else i.prompt[::-1] for i in task.train}
    # Following the trained "ranks below" from any symbol must reach all that rank above it.
    symbols = {s for pair in below for s in pair}
    reach = {s: {b for a, b in below if a == s} for s in symbols}
    for _ in symbols:
        reach = {s: r.union(*(reach[b] for b in r)) for s, r in reach.items()}
    assert sorted(len(r) for r in reach.values()) == list(range(items))
    for i in task.test:
        low, high = i.prompt if i.answer == 0 else i.prompt[::-1]
        assert high in reach[low]


def test_table_lookup_tests_every_trained_fact_asked_in_another_way() -> None:
    task = make("table_lookup", 6)
    fact = {i.prompt[1:]: i.answer for i in task.train}
    assert len(fact) == 36
    markers = {pair: {i.prompt[0] for i in task.train if i.prompt[1:] == pair} for pair in fact}
    for i in task.test:
        assert fact[i.prompt[1:]] == i.answer
        assert i.prompt[0] not in markers[i.prompt[1:]]
    answers = np.bincount(list(fact.values()))
    assert list(answers) == [9, 9, 9, 9] and chance(task.test) == 0.25


def test_comparison_is_balanced_on_both_sides() -> None:
    task = make("comparison", 24)
    for side in (task.train, task.test):
        assert abs(np.mean([i.answer for i in side]) - 0.5) < 0.05


def spec(**changes: object) -> CalibrationSpec:
    grid = [
        {"family": "comparison", "complexities": [4, 8], "frequencies": [1e-3, 1e-4]},
        {"family": "modular_addition", "complexities": [5], "frequencies": [1e-3]},
    ]
    whole = {"corpus": {"paths": ["x"]}, "ladder": ["cpu_8k"], "horizons": {"tokens": [10000]}, "tasks": grid}
    return CalibrationSpec.model_validate({**whole, **changes})


def test_no_two_tasks_share_a_symbol_and_none_is_a_base_token() -> None:
    s = spec()
    cells = make_cells(s, 0, 0, 257, Path("."), None)
    tasks = [cell.task for cell in cells] + list(chain(*make_probe_tasks(s, 0, 257)))
    used = [
        {
            t
            for i in (*task.train, *task.test)
            for t in (*i.prompt, *(c for choice in i.choices for c in choice))
        }
        for task in tasks
    ]
    assert len(cells) == 5
    assert sum(map(len, used)) == len(set().union(*used)) == reserved_symbols(s)
    assert set().union(*used) == set(range(257, 257 + reserved_symbols(s)))


def test_the_meaning_of_symbols_depends_on_the_seed_only() -> None:
    first, again, other = (make_cells(spec(), seed, 0, 257, Path("."), None) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


ROW = {"prompt": "2+2=", "answer": "4", "choices": ["3", "4"], "split": "train"}


def test_user_task_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [ROW, {**ROW, "prompt": "2+1=", "answer": "3", "split": "test"}])
    task = load_user_task(path, "sums", "sums", 2, lambda text: list(text.encode()))
    assert (task.family, task.complexity, chance(task.test)) == ("sums", 2, 0.5)
    assert task.train[0].document(256) == (*b"2+2=4", 256)
    assert task.test[0].answer == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "answer": "5"}, "not among the choices"),
        ({**ROW, "choices": ["4"]}, "at least two"),
        ({**ROW, "split": "dev"}, "train or test"),
        ({**ROW, "promt": "x"}, "did you mean 'prompt'"),
        ({k: v for k, v in ROW.items() if k != "prompt"}, "'prompt' is missing"),
        ({**ROW, "prompt": ""}, "at least one token"),
    ],
)
def test_user_task_errors_name_the_line(tmp_path: Path, row: dict, message: str) -> None:
    path = write(tmp_path / "t.jsonl", [ROW, row])
    with pytest.raises(InputError, match=message) as error:
        load_user_task(path, "t", "t", 1, lambda text: list(text.encode()))
    assert f"{path}:2:" in str(error.value)


def test_user_task_needs_unseen_instances(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [ROW])
    with pytest.raises(InputError, match="no instance has split 'test'"):
        load_user_task(path, "t", "t", 1, lambda text: list(text.encode()))
    path = write(tmp_path / "t.jsonl", [ROW, {**ROW, "split": "test"}])
    with pytest.raises(InputError, match="also in train"):
        load_user_task(path, "t", "t", 1, lambda text: list(text.encode()))
