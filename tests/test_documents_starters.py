"""The starter files: they validate, their comments are true, and nothing is overwritten."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from mixplan.calibrate.tasks.user import load_user_task
from mixplan.documents import CalibrationSpec, Plan, load
from mixplan.documents.complaints import _models
from mixplan.documents.starters import write_starters
from mixplan.documents.table import read_table
from mixplan.errors import InputError

KINDS: dict[str, type[BaseModel]] = {"calibration.yaml": CalibrationSpec, "plan.yaml": Plan}


@pytest.fixture
def starters(tmp_path: Path) -> Path:
    write_starters(tmp_path / "new" / "folder")
    return tmp_path / "new" / "folder"


def test_they_validate(starters: Path) -> None:
    for name, kind in KINDS.items():
        load(starters / name, kind)
    assert sorted(path.name for path in starters.iterdir()) == [
        "calibration.yaml", "cells.csv", "my_task.jsonl", "plan.yaml",
    ]  # fmt: skip


def test_the_example_task_is_one(starters: Path) -> None:
    task = load_user_task(
        starters / "my_task.jsonl", "my_task", "my_task", 1, lambda text: list(text.encode())
    )
    assert len(task.train) == 160 and len(task.test) == 80
    assert {len(instance.prompt) for instance in task.train} == {9}


def test_the_example_cells_are_complete(starters: Path) -> None:
    cells = read_table(starters / "cells.csv", {"family"})
    assert set(cells.columns) == {"block_params", "tokens", "frequency", "family", "complexity"}
    spec = load(starters / "calibration.yaml", CalibrationSpec)
    assert set(cells["family"]) <= {grid.family for grid in spec.tasks}


def _models_of(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield kind
    for info in kind.model_fields.values():
        for leaf in [info.annotation, *typing.get_args(info.annotation)]:
            for model in _models([leaf, *typing.get_args(leaf)]):
                yield from _models_of(model)


@pytest.mark.parametrize("name", KINDS)
def test_every_field_is_shown_and_every_comment_names_a_real_one(starters: Path, name: str) -> None:
    text = (starters / name).read_text()
    shown = set(re.findall(r"^[ #-]*(\w+):", text, re.M)) | set(re.findall(r"[{,] *(\w+):", text))
    known = {field for model in _models_of(KINDS[name]) for field in model.model_fields}
    assert known - shown == set()
    keys_in_comments = set(re.findall(r"^ *# +-? *(\w+): ", text, re.M)) - {"required"}
    assert keys_in_comments and keys_in_comments <= known


def test_what_is_not_called_an_example_is_the_default(starters: Path) -> None:
    """The head of calibration.yaml says so."""
    given = yaml.safe_load((starters / "calibration.yaml").read_text())
    for key in ("ladder", "horizons", "tasks", "user_tasks"):
        del given[key]  # marked: required, or not a default
    del given["corpus"]["paths"], given["training"]["batch_sequences"]
    spec = load(starters / "calibration.yaml", CalibrationSpec)
    assert _differences(given, CalibrationSpec, spec) == []


def _differences(given: dict[str, Any], kind: type[BaseModel], document: Any, at: str = "") -> list[str]:
    found = []
    for key, value in given.items():
        read = getattr(document, key)
        if isinstance(value, dict):
            found += _differences(value, type(read), read, f"{at}{key}.")
        elif read != kind.model_fields[key].default:
            found.append(f"{at}{key}")
    return found


def test_the_defaults_that_plan_yaml_names_are_true(starters: Path) -> None:
    text = (starters / "plan.yaml").read_text()
    defaults = {
        field: info.default for model in _models_of(Plan) for field, info in model.model_fields.items()
    }
    named = re.findall(r"^[ #-]*(\w+):.*default: ([0-9.]+)\)?$", text, re.M)
    assert len(named) >= 9
    assert [(field, float(value)) for field, value in named] == [
        (field, defaults[field]) for field, _ in named
    ]


@pytest.mark.parametrize("name", ["calibration.yaml", "plan.yaml", "my_task.jsonl", "cells.csv"])
def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} exists and is not overwritten"):
        write_starters(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"
    with pytest.raises(InputError, match="is a file"):
        write_starters(tmp_path / name)


def test_json_lines(starters: Path) -> None:
    rows = [json.loads(line) for line in (starters / "my_task.jsonl").read_text().splitlines()]
    assert all(set(row) == {"prompt", "answer", "choices", "split"} for row in rows)
