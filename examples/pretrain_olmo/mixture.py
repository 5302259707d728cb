"""What `mixplan emit` wrote, as phases that are trained one after another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixplan.documents import load
from mixplan.documents.mixture import Mixture
from mixplan.documents.phases import Phases
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError


@dataclass(frozen=True)
class Phase:
    """A mixture: the whole run, or a part of it with shares of its own."""

    name: str
    folder: Path
    mixture: Mixture
    recipe: Recipe

    def planned(self) -> dict[str, int]:
        """Samples of each source."""
        return {name: stream.choose for name, stream in self.mixture.streams.items()}


def read_phases(folder: Path) -> list[Phase]:
    """The phases of a folder in their order; one when it has no phases.yaml.

    Raises:
        InputError: the folder holds no mixture, or a damaged one.
    """
    folders = {"run": folder}
    if (folder / "phases.yaml").is_file():
        listed = load(folder / "phases.yaml", Phases).phases
        folders = {phase.name: folder / phase.folder for phase in listed}
    missing = [str(path) for path in folders.values() if not (path / "streams.yaml").is_file()]
    if missing:
        raise InputError(
            f"--mixture {folder}: no mixture in {', '.join(missing)}; `mixplan emit recipe.yaml -o {folder}` "
            "writes one"
        )
    return [
        Phase(name, path, load(path / "streams.yaml", Mixture), load(path / "recipe.yaml", Recipe))
        for name, path in folders.items()
    ]


def refuse_changed_shards(phases: list[Phase]) -> None:
    """Raise InputError when shards are not those that the mixture was emitted for."""
    from mixplan.recipes import loader

    problems = []
    for phase in phases:
        try:
            loader.refuse_changed_shards(phase.mixture.model_dump(mode="json"))
        except ValueError as error:
            problems.append(f"phase {phase.name}: {error}" if len(phases) > 1 else str(error))
    if problems:
        raise InputError(problems)


def open_loader(phase: Phase, batch_size: int, workers: int, pin: bool, options: dict[str, Any]) -> Any:
    """The loader that was emitted with the mixture, giving this process `batch_size` samples at a time."""
    from mixplan.recipes.loader import make_loader

    return make_loader(batch_size, workers, phase.folder, options, pin_memory=pin)


def held_out_indexes(folder: Path) -> list[Path]:
    """The index of each source's held-out samples.

    Raises:
        InputError: there is none.
    """
    found = sorted(folder.glob("*/index.json"))
    if not found:
        raise InputError(f"--held-out {folder}: give a folder with a folder of MDS shards for each source")
    return found


def held_out_samples(folder: Path, column: str, most: int) -> dict[str, Any]:
    """Samples to measure the loss of each source on: int64 (n, L) by source.

    Args:
        folder: an MDS folder for each source, by its name, built like the sources.
        column: that holds the tokens.
        most: samples of each source.

    Raises:
        InputError: there is no such folder.
    """
    import numpy as np
    from streaming import LocalDataset

    found = {}
    for index in held_out_indexes(folder):
        data = LocalDataset(str(index.parent))
        rows = [data[number][column].astype(np.int64) for number in range(min(most, data.size))]
        found[index.parent.name] = np.stack(rows)
    return found
