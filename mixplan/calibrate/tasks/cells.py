"""The cells of a run: which tasks, with which symbols, at which frequency, by which protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixplan.calibrate.tasks.base import Task
from mixplan.calibrate.tasks.families import FAMILIES
from mixplan.calibrate.tasks.symbols import grid_symbols, named_generator, symbol_pool
from mixplan.calibrate.tasks.user import load_user_task
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.documents.spec_tasks import GridCell
from mixplan.errors import InputError


@dataclass(frozen=True)
class Cell:
    """One task at one frequency in one run."""

    task: Task
    frequency: float
    """Instances per training token, as asked for; what was realised stands in the measurements."""
    gap_steps: int = 1
    """Withheld for so many steps, then all at once, at the same long-run frequency; 1: spread over all."""
    protocol: str = "standard"
    """All that departs from the standard protocol (every instance that the task has, spread evenly, anywhere
    in a sequence, beside all other cells): "gap 64 steps", "32 unique instances", "poisson", "aligned",
    "start", "alone", joined by ", "."""


def make_cells(
    spec: CalibrationSpec,
    seed: int,
    variant: int,
    base_vocab: int,
    base: Path,
    encode: Callable[[str], list[int]] | None,
    only: str | None = None,
) -> list[Cell]:
    """The cells of a run. Every synthetic cell is a task of its own, with symbols that no other task has.

    Args:
        seed: of the run; which symbol means what depends on it and on the task, not on the rung.
        variant: which of the user tasks' frequencies.
        base_vocab: id of the first reserved symbol.
        base: folder that user task paths are relative to.
        encode: text → ids, for user tasks; None when the corpus came as tokens.
        only: name of the only synthetic cell to make, with exactly the symbols and instances that it has
            beside the others (dependence check).

    Raises:
        InputError: more unique instances asked for than a task has; too few tokens for existing symbols; a
            user's task that cannot be read, or cannot be encoded.
    """
    cells: list[Cell] = []
    problems: list[str] = []
    pool = symbol_pool(spec, seed, base_vocab, base)
    for asked in (cell for grid in spec.tasks for cell in grid.cells()):
        count = FAMILIES[asked.family].symbols(asked.complexity)
        symbols, pool = pool[:count], pool[count:]
        if only not in (None, asked.name):
            continue
        task, all_instances = _make(asked, symbols, seed)
        unique = asked.unique_instances
        if unique is not None and unique > all_instances:
            problems.append(
                f"task {asked.name}: {unique} unique instances asked for, but it has {all_instances} to "
                f"train on; give at most {all_instances}"
            )
        fewer = unique if unique != all_instances else None
        protocol = _protocol(spec, asked.gap_steps, fewer, only is not None)
        cells.append(Cell(task, asked.frequency, asked.gap_steps, protocol))
    if only is not None and not cells:
        raise ValueError(f"no cell is called {only!r}")
    for own in spec.user_tasks if only is None else []:
        if encode is None:
            problems.append(
                f"user task {own.name}: it needs a tokenizer (bytes or huggingface), but the corpus is "
                "tokens already; set `tokenizer` and give text, or leave the task out"
            )
            continue
        frequency = own.frequencies[variant % len(own.frequencies)]
        try:
            task = load_user_task(base / own.path, own.name, own.family or own.name, own.complexity, encode)
        except InputError as error:
            problems += error.problems
        else:
            cells.append(Cell(task, frequency, 1, common_protocol(spec)))
    if problems:
        raise InputError(problems)
    return cells


def make_probe_tasks(
    spec: CalibrationSpec, seed: int, base_vocab: int, base: Path | None = None
) -> list[list[Task]]:
    """The never-seen tasks of the retention probe: one list of `replicas` tasks per injection.

    Their symbols follow those of the cells.

    Args:
        base: folder of calibration.yaml; needed with `symbols: existing` and a tokenizer folder.

    Raises:
        InputError: too few tokens for existing symbols.
    """
    probe = spec.probes.retention
    if probe is None:
        return []
    family = FAMILIES[probe.family]
    count = family.symbols(probe.complexity)
    pool = symbol_pool(spec, seed, base_vocab, base)[grid_symbols(spec) :].reshape(-1, probe.replicas, count)
    return [
        [
            family.make(name, probe.complexity, pool[injection, replica], named_generator(seed, name))
            for replica in range(probe.replicas)
            for name in [f"probe-{probe.family}-{probe.complexity}-{injection}.{replica}"]
        ]
        for injection in range(len(probe.at_fractions))
    ]


def dependence_cells(spec: CalibrationSpec) -> list[str]:
    """Names of the cells that the dependence check trains alone too: evenly over the grid, with both ends.

    Only cells with all their instances and without a gap. All of these if there are no more than asked for.

    Raises:
        InputError: there are none.
    """
    if spec.dependence is None:
        return []
    plain = [cell.name for grid in spec.tasks for cell in grid.cells() if _is_plain(cell)]
    if not plain:
        raise InputError(
            "dependence: no cell of the grid has all its instances and no gap; add one (gaps_steps with 1, "
            "without unique_instances), or set dependence to null"
        )
    count = min(spec.dependence.cells, len(plain))
    if count == 1:
        return [plain[(len(plain) - 1) // 2]]
    return [plain[round(i * (len(plain) - 1) / (count - 1))] for i in range(count)]


def _is_plain(cell: GridCell) -> bool:
    if cell.gap_steps > 1:
        return False
    if cell.unique_instances is None:
        return True
    symbols = np.arange(FAMILIES[cell.family].symbols(cell.complexity))
    return _make(cell, symbols, 0)[1] == cell.unique_instances  # the number does not depend on the seed


def _make(asked: GridCell, symbols: np.ndarray, seed: int) -> tuple[Task, int]:
    """The task of a cell, and how many training instances it has when all are taught."""
    generator = named_generator(seed, asked.name)
    task = FAMILIES[asked.family].make(asked.name, asked.complexity, symbols, generator)
    unique = asked.unique_instances
    if unique is None or unique >= len(task.train):
        return task, len(task.train)
    taught = tuple(task.train[index] for index in np.sort(generator.permutation(len(task.train))[:unique]))
    # Where skill is the share of the taught instances that was stored, it is of those that are taught now.
    untaught = set(task.train) - set(taught)
    test = tuple(instance for instance in task.test if instance not in untaught)
    return replace(task, train=taught, test=test), len(task.train)


def common_protocol(spec: CalibrationSpec) -> str:
    """Protocol of the cells of a calibration that depart in nothing of their own."""
    return _protocol(spec, 1, None, False)


def _protocol(spec: CalibrationSpec, gap_steps: int, unique: int | None, alone: bool) -> str:
    departures = [
        f"gap {gap_steps} steps" if gap_steps > 1 else "",
        f"{unique} unique instances" if unique is not None else "",
        # Of bursts too: laws are fitted by the protocol that all others of a ladder only add to.
        spec.injection.spacing if spec.injection.spacing != "even" else "",
        spec.injection.placement if spec.injection.placement != "anywhere" else "",
        "alone" if alone else "",
    ]
    return ", ".join(filter(None, departures)) or "standard"
