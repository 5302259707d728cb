"""What synthetic tasks are written in: new tokens after the base vocabulary, or random tokens of it."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from mixplan.calibrate.tasks.families import FAMILIES
from mixplan.calibrate.vocabulary import ordinary_ids
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.errors import InputError


def reserved_symbols(spec: CalibrationSpec) -> int:
    """Novel symbols that all tasks of a run need together; they are appended to the base vocabulary.

    None with `symbols: existing`.
    """
    return 0 if spec.symbols == "existing" else needed_symbols(spec)


def needed_symbols(spec: CalibrationSpec) -> int:
    """Symbols of all synthetic cells of a run and of all tasks of its retention probe."""
    return grid_symbols(spec) + probe_symbols(spec)


def grid_symbols(spec: CalibrationSpec) -> int:
    """Symbols of all synthetic cells of a run."""
    return sum(FAMILIES[cell.family].symbols(cell.complexity) for grid in spec.tasks for cell in grid.cells())


def probe_symbols(spec: CalibrationSpec) -> int:
    """Symbols of all tasks of the retention probe, over all its injections."""
    probe = spec.probes.retention
    if probe is None:
        return 0
    return len(probe.at_fractions) * probe.replicas * FAMILIES[probe.family].symbols(probe.complexity)


def symbol_pool(spec: CalibrationSpec, seed: int, base_vocab: int, base: Path | None) -> np.ndarray:
    """The ids of all symbols of a run, those of the cells first, shape (needed_symbols,), none twice.

    Args:
        seed: of the run. Existing tokens are drawn by it, so every rung of a seed has the same.
        base_vocab: tokens of the base vocabulary; reserved symbols come after it.
        base: folder of calibration.yaml; needed for existing tokens of a tokenizer folder.

    Raises:
        InputError: the base vocabulary has fewer ordinary tokens than the tasks need.
    """
    needed = needed_symbols(spec)
    if spec.symbols == "reserved":
        return np.arange(base_vocab, base_vocab + needed)
    ids = ordinary_ids(spec.tokenizer, base)
    if needed > len(ids):
        raise InputError(
            f"symbols: existing: the tasks need {needed} different symbols ({grid_symbols(spec)} in the grid "
            f"and {probe_symbols(spec)} in the retention probe), but the vocabulary has {len(ids)} ordinary "
            "tokens; set `symbols: reserved`, use a larger tokenizer, or ask for fewer cells or probe tasks"
        )
    return named_generator(seed, "symbols").permutation(ids)[:needed]


def named_generator(seed: int, name: str) -> np.random.Generator:
    """A generator that depends on a run's seed and on what it is for, not on the rung."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
