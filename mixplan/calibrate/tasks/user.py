"""The team's own task: rows of prompt, answer, choices and split (train or test)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixplan.calibrate.tasks.base import Instance, Task, mixed
from mixplan.calibrate.tasks.symbols import named_generator
from mixplan.calibrate.tasks.user_rows import rows_of
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError

_KEYS = {"prompt": str, "answer": str, "choices": list, "split": str}


def load_user_task(
    path: Path, name: str, family: str, complexity: int, encode: Callable[[str], list[int]]
) -> Task:
    """Read a user's task, its instances in a random order that depends on its name alone.

    Args:
        path: JSONL file, one instance a line; or a folder written by `Dataset.save_to_disk`, or by
            `DatasetDict.save_to_disk`, whose splits train and test stand for a missing column `split`.
        encode: text → token ids, without special tokens.

    Raises:
        InputError: every row that breaks a rule, at most ten, and what is missing in the whole; a folder, but
            `datasets` is not installed.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder (task {name!r})")
    train: list[Instance] = []
    test: list[Instance] = []
    problems: list[str] = []
    for where, row, unreadable in rows_of(path):
        problem = unreadable or _problem(row)
        if problem:
            problems.append(f"{where}: {problem}")
            continue
        choices = tuple(tuple(encode(choice)) for choice in row["choices"])
        instance = Instance(tuple(encode(row["prompt"])), choices, row["choices"].index(row["answer"]))
        if not instance.prompt or not all(choices):
            problems.append(f"{where}: the prompt and every choice need at least one token")
            continue
        if len(set(choices)) < len(choices):
            problems.append(
                f"{where}: two choices are the same tokens; give texts that the tokenizer keeps apart"
            )
            continue
        (train if row["split"] == "train" else test).append(instance)
    if len(problems) > 10:
        problems = [*problems[:10], f"{path}: … and {len(problems) - 10} more rows"]
    if not problems:
        for split, found in (("train", train), ("test", test)):
            if not found:
                problems.append(
                    f"{path}: no instance has split {split!r}; skill is measured on unseen instances"
                )
        seen = {(i.prompt, i.choices[i.answer]) for i in train}
        both = sum((i.prompt, i.choices[i.answer]) in seen for i in test)
        if both:
            problems.append(f"{path}: {both} test instance(s) are also in train; unseen instances are needed")
    if problems:
        raise InputError(problems)
    # Files are often sorted, and probes ask the first so many.
    generator = named_generator(0, name)
    return Task(name, family, complexity, mixed(train, generator), mixed(test, generator))


def _problem(row: Any) -> str:
    """What is wrong with a row; empty if nothing is."""
    if not isinstance(row, dict):
        return "a JSON object is needed"
    for key in row:
        if key not in _KEYS:
            return f"unknown key {key!r}{did_you_mean(key, _KEYS)}"
    for key, kind in _KEYS.items():
        if not isinstance(row.get(key), kind):
            return f"{key!r} is missing or not a {'list' if kind is list else 'text'}"
    choices = row["choices"]
    if (
        len(choices) < 2
        or len(set(map(str, choices))) < len(choices)
        or not all(isinstance(c, str) for c in choices)
    ):
        return "`choices` needs at least two different texts"
    if row["answer"] not in choices:
        return f"the answer {row['answer']!r} is not among the choices"
    if row["split"] not in ("train", "test"):
        return f"split is {row['split']!r}; it must be train or test"
    return ""
