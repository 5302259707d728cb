"""The user's own task from a `datasets` folder, and what both formats refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mixplan.calibrate.tasks import Task
from mixplan.calibrate.tasks.user import load_user_task
from mixplan.errors import InputError

ROW = {"prompt": "2+2=", "answer": "4", "choices": ["3", "4"]}
TEST_ROW = {"prompt": "2+1=", "answer": "3", "choices": ["3", "4"]}


def load(path: Path) -> Task:
    return load_user_task(path, "sums", "sums", 2, lambda text: list(text.encode()))


def problems(path: Path) -> str:
    with pytest.raises(InputError) as error:
        load(path)
    return str(error.value)


def test_a_dataset_with_a_split_column_reads_like_jsonl(tmp_path: Path) -> None:
    import datasets

    rows = [{**ROW, "split": "train"}, {**TEST_ROW, "split": "test"}]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "set")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load(tmp_path / "set")
    assert task == load(tmp_path / "t.jsonl")
    assert task.train[0].document(256) == (*b"2+2=4", 256) and task.test[0].answer == 0


def test_the_splits_of_a_dataset_dict_stand_for_the_column(tmp_path: Path) -> None:
    import datasets

    made = {"train": [ROW], "test": [TEST_ROW]}
    split = {name: datasets.Dataset.from_list(rows) for name, rows in made.items()}
    datasets.DatasetDict(split).save_to_disk(tmp_path / "dict")
    task = load(tmp_path / "dict")
    assert [i.prompt for i in task.train] == [tuple(b"2+2=")]
    assert [i.prompt for i in task.test] == [tuple(b"2+1=")]

    datasets.DatasetDict({**split, "validation": split["test"]}).save_to_disk(tmp_path / "third")
    assert "validation row 0: split is 'validation'; it must be train or test" in problems(tmp_path / "third")


def test_rows_of_a_dataset_are_checked_like_lines(tmp_path: Path) -> None:
    import datasets

    rows = [{**ROW, "split": "train"}, {**TEST_ROW, "answer": "5", "split": "test"}]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "set")
    assert f"{tmp_path / 'set'}, row 1: the answer '5' is not among the choices" in problems(tmp_path / "set")
    datasets.Dataset.from_list([ROW]).save_to_disk(tmp_path / "no_split")
    assert "'split' is missing" in problems(tmp_path / "no_split")
    datasets.Dataset.from_list([{**ROW, "split": "train", "anwser": "4"}]).save_to_disk(tmp_path / "typo")
    assert "did you mean 'answer'?" in problems(tmp_path / "typo")
    (tmp_path / "folder").mkdir()
    assert "save_to_disk" in problems(tmp_path / "folder")
    assert "no such file or folder (task 'sums')" in problems(tmp_path / "nowhere")


def test_the_first_instances_of_a_sorted_file_are_a_fair_sample(tmp_path: Path) -> None:
    rows = [
        {**ROW, "prompt": f"{kind} {n}", "split": split}
        for split, spare in (("train", 0), ("test", 500))
        for kind in ("easy", "hard")
        for n in range(spare, spare + 200)
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load(path)
    assert task == load(path)
    for half in (task.train, task.test):
        assert len(set(half)) == 400
        easy = sum(bytes(one.prompt).startswith(b"easy") for one in half[:200])
        assert 70 < easy < 130


def test_without_datasets_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "install `datasets`" in problems(tmp_path)


def test_a_line_may_hold_other_line_separators(tmp_path: Path) -> None:
    rows = [{**ROW, "prompt": "a\u2028b", "split": "train"}, {**TEST_ROW, "split": "test"}]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert load(path).train[0].prompt == tuple("a\u2028b".encode())
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in problems(path)


def test_choices_must_differ_as_tokens(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({**ROW, "choices": ["4", "four"], "split": "train"}) + "\n")
    with pytest.raises(InputError, match="same tokens"):
        load_user_task(path, "t", "t", 1, lambda text: [1])
