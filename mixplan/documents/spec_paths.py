"""The paths in a calibration.yaml, which are relative to its folder, when it is written anew elsewhere."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path

from mixplan.documents.calibration_spec import CalibrationSpec


def moved(spec: CalibrationSpec, before: Path, now: Path) -> CalibrationSpec:
    """The same calibration for another folder: every relative path leads where it did.

    Args:
        spec: as it stood in `before`.
        before, now: folders.
    """
    way = os.path.relpath(before.resolve(), now.resolve())

    def follow(path: str) -> str:
        return path if way == "." or Path(path).is_absolute() else os.path.normpath(os.path.join(way, path))

    return _changed(spec, follow)


def missing(spec: CalibrationSpec, folder: Path) -> list[str]:
    """Paths that lead nowhere from a folder."""
    lost: list[str] = []

    def look(path: str) -> str:
        there = folder / path  # an absolute path stays what it is
        if not there.exists() and not glob.glob(str(there)):
            lost.append(path)
        return path

    _changed(spec, look)
    return lost


def _changed(spec: CalibrationSpec, change: Callable[[str], str]) -> CalibrationSpec:
    """The calibration with every path in it changed."""
    corpus = spec.corpus.model_copy(update={"paths": [change(path) for path in spec.corpus.paths]})
    tokenizer = spec.tokenizer
    if tokenizer.path is not None:
        tokenizer = tokenizer.model_copy(update={"path": change(tokenizer.path)})
    tasks = [task.model_copy(update={"path": change(task.path)}) for task in spec.user_tasks]
    sources = [
        source.model_copy(
            update={
                "data": source.data.model_copy(update={"paths": [change(path) for path in source.data.paths]})
            }
        )
        for source in spec.user_sources
    ]
    changed = {"corpus": corpus, "tokenizer": tokenizer, "user_tasks": tasks, "user_sources": sources}
    return spec.model_copy(update=changed)
