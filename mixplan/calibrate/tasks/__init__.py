"""The cells of a run: which tasks, with which symbols, at which frequency."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixplan.calibrate.tasks import comparison, modular_addition, table_lookup
from mixplan.calibrate.tasks.base import Family, Instance, Task
from mixplan.calibrate.tasks.user import load_user_task
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.errors import InputError

FAMILIES: dict[str, Family] = {
    family.name: family for family in (comparison.FAMILY, modular_addition.FAMILY, table_lookup.FAMILY)
}

__all__ = ["FAMILIES", "Cell", "Instance", "Task", "make_cells", "make_probe_tasks", "reserved_symbols"]


@dataclass(frozen=True)
class Cell:
    """One task at one frequency in one run."""

    task: Task
    frequency: float
    """Instances per training token, as asked for; what was realised stands in the measurements."""


def reserved_symbols(spec: CalibrationSpec) -> int:
    """Novel symbols that all tasks of a run need together; they are appended to the base vocabulary."""
    grid = sum(
        FAMILIES[grid.family].symbols(complexity) * len(grid.frequencies)
        for grid in spec.tasks
        for complexity in grid.complexities
    )
    probe = spec.probes.retention
    return grid + (probe.replicas * FAMILIES[probe.family].symbols(probe.complexity) if probe else 0)


def make_cells(
    spec: CalibrationSpec,
    seed: int,
    variant: int,
    base_vocab: int,
    base: Path,
    encode: Callable[[str], list[int]] | None,
) -> list[Cell]:
    """The cells of a run. Every synthetic cell is a task of its own, with symbols that no other task has.

    Args:
        seed: of the run; which symbol means what depends on it and on the task, not on the rung.
        variant: which of the user tasks' frequencies.
        base_vocab: id of the first reserved symbol.
        base: folder that user task paths are relative to.
        encode: text → ids, for user tasks; None when the corpus came as tokens.
    """
    cells: list[Cell] = []
    free = base_vocab
    for grid in spec.tasks:
        family = FAMILIES[grid.family]
        for complexity in grid.complexities:
            for frequency in grid.frequencies:
                name = f"{grid.family}-{complexity}@{frequency:g}"
                count = family.symbols(complexity)
                symbols = np.arange(free, free + count)
                cells.append(Cell(family.make(name, complexity, symbols, _generator(seed, name)), frequency))
                free += count
    for own in spec.user_tasks:
        if encode is None:
            raise InputError(
                "user_tasks need a tokenizer (bytes or huggingface): the corpus is tokens already"
            )
        frequency = own.frequencies[variant % len(own.frequencies)]
        task = load_user_task(base / own.path, own.name, own.family or own.name, own.complexity, encode)
        cells.append(Cell(task, frequency))
    return cells


def make_probe_tasks(spec: CalibrationSpec, seed: int, base_vocab: int) -> list[Task]:
    """The never-seen tasks of the retention probe; their symbols are the last of the vocabulary."""
    probe = spec.probes.retention
    if probe is None:
        return []
    family = FAMILIES[probe.family]
    count = family.symbols(probe.complexity)
    first = base_vocab + reserved_symbols(spec) - probe.replicas * count
    tasks = []
    for replica in range(probe.replicas):
        name = f"probe-{probe.family}-{probe.complexity}-{replica}"
        symbols = np.arange(first + replica * count, first + (replica + 1) * count)
        tasks.append(family.make(name, probe.complexity, symbols, _generator(seed, name)))
    return tasks


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
