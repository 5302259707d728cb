"""The team's own task: JSONL with prompt, answer, choices, split (train or test)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mixplan.calibrate.tasks.base import Instance, Task
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError

_KEYS = {"prompt": str, "answer": str, "choices": list, "split": str}


def load_user_task(
    path: Path, name: str, family: str, complexity: int, encode: Callable[[str], list[int]]
) -> Task:
    """Read a user's task.

    Args:
        path: JSONL file; one instance a line.
        encode: text → token ids, without special tokens.

    Raises:
        InputError: every line that breaks a rule, at most ten, and what is missing in the whole.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file (task {name!r})")
    train: list[Instance] = []
    test: list[Instance] = []
    problems: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        row, problem = _row(line)
        if problem:
            problems.append(f"{path}:{number}: {problem}")
            continue
        choices = tuple(tuple(encode(choice)) for choice in row["choices"])
        instance = Instance(tuple(encode(row["prompt"])), choices, row["choices"].index(row["answer"]))
        if not instance.prompt or not all(choices):
            problems.append(f"{path}:{number}: the prompt and every choice need at least one token")
            continue
        (train if row["split"] == "train" else test).append(instance)
    if len(problems) > 10:
        problems = [*problems[:10], f"{path}: … and {len(problems) - 10} more lines"]
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
    return Task(name, family, complexity, tuple(train), tuple(test))


def _row(line: str) -> tuple[dict, str]:
    """A checked row, or what is wrong with it."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return {}, f"not JSON: {error.msg}"
    if not isinstance(row, dict):
        return {}, "a JSON object is needed"
    for key in row:
        if key not in _KEYS:
            return {}, f"unknown key {key!r}{did_you_mean(key, _KEYS)}"
    for key, kind in _KEYS.items():
        if not isinstance(row.get(key), kind):
            return {}, f"{key!r} is missing or not a {'list' if kind is list else 'text'}"
    choices = row["choices"]
    if (
        len(choices) < 2
        or len(set(map(str, choices))) < len(choices)
        or not all(isinstance(c, str) for c in choices)
    ):
        return {}, "`choices` needs at least two different texts"
    if row["answer"] not in choices:
        return {}, f"the answer {row['answer']!r} is not among the choices"
    if row["split"] not in ("train", "test"):
        return {}, f"split is {row['split']!r}; it must be train or test"
    return row, ""
