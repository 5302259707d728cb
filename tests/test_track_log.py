"""Logs of evaluations: what is read, and everything that can be wrong with one, with its lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tracking import TOKENS, recipe, task

from mixplan.documents.table import from_rows, write_table
from mixplan.errors import InputError
from mixplan.recommend.track_log import read_log

ROWS = [
    {"task": "t1", "tokens": 1e6, "skill": 0.5},
    {"task": "t1", "tokens": 5e5, "skill": 0.25},
    {"task": "t2", "tokens": 1e6, "accuracy": 0.625, "chance": 0.25},
]


def written(folder: Path, rows: list[dict], ending: str = ".jsonl") -> Path:
    path = folder / f"log{ending}"
    if ending == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        write_table(from_rows(rows, {"task", "note"}), path)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".csv.gz", ".parquet"])
def test_every_format_says_the_same(tmp_path, ending):
    rows = [{**row, "note": "kept out of the way", "loss": 2.5} for row in ROWS]
    log = read_log(written(tmp_path, rows, ending), recipe())
    assert log.tokens == 1e6
    assert list(log.observed) == ["t1", "t2"]
    assert log.observed["t1"].tokens.tolist() == [5e5, 1e6]
    assert log.observed["t1"].value.tolist() == [0.25, 0.5]
    assert log.observed["t2"].value.tolist() == [0.5]
    assert not log.observed["t1"].finished.any()
    assert log.observed["t1"].error.tolist() == [0.0, 0.0]


def test_every_problem_at_once_with_its_line(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "task,tokens,skill,accuracy,chance,evaluated,decayed\n"
        "t3,1e5,0.1,,,,\n"
        "t1,1e9,0.1,,,,\n"
        "\n"
        "t1,1e5,1.5,,,,\n"
        "t1,2e5,,,,,\n"
        "t1,,0.1,,,,\n"
        "t1,3e5,high,,,,\n"
        "t1,4e5,0.5,0.9,0.25,,\n"
        "t1,5e5,0.5,,1,,2\n"
        "t1,-6e5,0.5,,,,\n"
        "t1,7e5,0.5,,,100,\n"
        "t2,1e5,0.1,,,,\n"
        "t2,1e5,0.2,,,,\n"
        ",1e5,0.2,,,,\n"
    )
    with pytest.raises(InputError) as caught:
        read_log(path, recipe())
    found = caught.value.problems
    for line, words in (
        (2, "'t3' is no task of the recipe; known: t1, t12, t2"),
        (3, "beyond the recipe's 2,560,000"),
        (5, "skill is 1.5; it is from -1 to 1"),
        (6, "neither skill nor accuracy with chance"),
        (7, "no tokens"),
        (8, "skill is 'high'; a finite number is needed"),
        (9, "accuracy and chance give 0.867"),
        (10, "chance is 1;"),
        (10, "decayed is 2;"),
        (11, "tokens is -600000"),
        (12, "evaluated needs chance"),
        (14, "stands at"),
        (15, "no task"),
    ):
        assert any(text.startswith(f"{path}:{line}: ") and words in text for text in found), (line, words)
    assert len(found) == 13


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no rows"),
        ('{"task": "t1", "tokens": 1}\nnot json\n[1]\n', ":2: not JSON"),
        ('[1]\n', ":1: a JSON object is needed"),
        ('{"task": "t1", "tokens": true, "skill": 0.1}\n', "tokens is 'True'"),
        ('{"task": "t1", "tokens": 1e5, "skill": NaN}\n', "skill is 'nan'"),
        ('{"task": "t1", "tokens": 0, "skill": 0}\n', "every row is at 0 tokens"),
        ('{"task": "t1", "tokens": 1e5, "skill": 0, "run_id": "a"}\n'
         '{"task": "t2", "tokens": 1e5, "skill": 0, "run_id": "b"}\n', "2 runs (a, b)"),
    ],
)  # fmt: skip
def test_lines_that_are_no_log(tmp_path, text, words):
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_log(path, recipe())
    assert any(words in problem for problem in caught.value.problems)


def test_other_files_and_recipes_without_tasks(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.jsonl"):
        read_log(tmp_path / "log.txt", recipe())
    with pytest.raises(InputError, match="no such file"):
        read_log(tmp_path / "log.jsonl", recipe())
    with pytest.raises(InputError, match="nothing to track"):
        read_log(written(tmp_path, ROWS), recipe(tasks=[]))


def test_rows_before_training_are_left_out(tmp_path):
    log = read_log(written(tmp_path, [{"task": "t1", "tokens": 0, "skill": 0.01}, *ROWS]), recipe())
    assert log.observed["t1"].tokens.tolist() == [5e5, 1e6]
    assert log.notes == ["1 row(s) at 0 tokens are left out: nothing was trained"]


def test_the_order_of_rows_does_not_matter(tmp_path):
    one = read_log(written(tmp_path, ROWS), recipe())
    two = read_log(written(tmp_path, ROWS[::-1]), recipe())
    assert list(one.observed) == list(two.observed)
    for name in one.observed:
        assert np.array_equal(one.observed[name].value, two.observed[name].value)


def test_the_end_and_decayed_copies_are_finished(tmp_path):
    rows = [
        {"task": "t1", "tokens": 1e6, "skill": 0.5, "decayed": 1},
        {"task": "t1", "tokens": 1e6, "skill": 0.4, "decayed": 0},
        {"task": "t1", "tokens": TOKENS, "skill": 0.6},
    ]
    found = read_log(written(tmp_path, rows), recipe()).observed["t1"]
    assert found.finished.tolist() == [False, True, True]
    assert found.value.tolist() == [0.4, 0.5, 0.6]


def test_repeated_evaluations_are_averaged(tmp_path):
    rows = [
        {"task": "t1", "tokens": 1e6, "accuracy": a, "chance": 0.25, "evaluated": 100, "seed": seed}
        for seed, a in enumerate((0.5, 0.6))
    ]
    found = read_log(written(tmp_path, rows), recipe()).observed["t1"]
    assert found.value[0] == pytest.approx((0.55 - 0.25) / 0.75)
    # binomial errors of both, halved
    each = [(p * 100 + 1) / 102 for p in (0.5, 0.6)]
    expected = np.sqrt(sum(p * (1 - p) / 100 for p in each)) / 2 / 0.75
    assert found.error[0] == pytest.approx(expected)
    with pytest.raises(InputError, match="number repeated evaluations by `seed`"):
        read_log(written(tmp_path, [rows[0], {**rows[1], "seed": None}]), recipe())


def test_an_error_is_never_0_where_every_answer_is_right(tmp_path):
    rows = [{"task": "t1", "tokens": 1e6, "accuracy": 1.0, "chance": 0.5, "evaluated": 50}]
    assert read_log(written(tmp_path, rows), recipe()).observed["t1"].error[0] > 0.01


def test_targets_in_bits_per_byte_ask_for_those(tmp_path):
    asked = recipe(tasks=[task("kjv", {"r1": 1.0}, family="kjv", target_bits_per_byte=2.9)])
    rows = [{"task": "kjv", "tokens": 1e6, "bits_per_byte": 3.0}]
    assert read_log(written(tmp_path, rows), asked).observed["kjv"].value.tolist() == [3.0]
    for row, words in (
        ({"skill": 0.5}, "log bits_per_byte"),
        ({"bits_per_byte": 0}, "it is above 0"),
    ):
        with pytest.raises(InputError, match=words):
            read_log(written(tmp_path, [{"task": "kjv", "tokens": 1e6, **row}]), asked)
