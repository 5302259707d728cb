"""Rows of the three measurement tables, appended to a run's metrics.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixplan.calibrate.runs import RunFolder, RunSpec
from mixplan.calibrate.tasks import Cell


class Diverged(Exception):
    """A measurement is no longer a finite number: so are the run's weights."""


class MetricsLog:
    """Collects rows; `flush` appends them (before every checkpoint and at the end)."""

    def __init__(self, folder: RunFolder, run: RunSpec) -> None:
        self.folder, self.run = folder, run
        self.common = {
            "run_id": run.run_id,
            "rung": run.shape.name,
            "block_params": run.shape.block_params,
            "seed": run.seed,
        }
        self._waiting: list[dict[str, Any]] = []

    def learning(
        self,
        step: int,
        branch: int | None,
        decayed: bool,
        cells: Sequence[Cell],
        frequencies: np.ndarray,
        exposures: np.ndarray,
        rows: Sequence[dict[str, float]],
        lm_loss: float,
    ) -> None:
        """One row per cell; `exposures` are the instances injected so far.

        Args:
            branch: index of the branch that was measured; None for the trunk.
            decayed: whether the learning rate had decayed: the end of a horizon.
        """
        for cell, frequency, seen, row in zip(cells, frequencies, exposures, rows, strict=True):
            self._add(
                "learning",
                step,
                {
                    "total_params": self.run.shape.total_params(self.run.vocab_size),
                    "step": step,
                    "tokens": step * self.run.tokens_per_step,
                    **_cell(cell, frequency),
                    "exposures": int(seen),
                    **row,
                    "lm_loss": lm_loss,
                    "frequency_requested": cell.frequency,
                    "train_instances": len(cell.task.train),
                    "decayed": int(decayed),
                },
                branch,
            )

    def interference(
        self, step: int, cells: Sequence[Cell], frequencies: np.ndarray, rows: Sequence[dict[str, float]]
    ) -> None:
        """One row per cell."""
        for cell, frequency, row in zip(cells, frequencies, rows, strict=True):
            tokens = step * self.run.tokens_per_step
            self._add("interference", step, {"tokens": tokens, **_cell(cell, frequency), **row})

    def retention(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        """One row per probe task. All three raise Diverged where a number is not finite."""
        for row in rows:
            self._add("retention", step, row)

    def flush(self) -> None:
        """Append what has been collected."""
        if self._waiting:
            with self.folder.metrics.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(row, allow_nan=False) + "\n" for row in self._waiting))
            self._waiting.clear()

    def _add(self, kind: str, step: int, row: dict[str, Any], branch: int | None = None) -> None:
        if any(isinstance(value, float) and not math.isfinite(value) for value in row.values()):
            raise Diverged
        entry = {"kind": kind, "at_step": step, "branch": branch, "row": {**self.common, **row}}
        self._waiting.append(entry)


def _cell(cell: Cell, frequency: float) -> dict[str, Any]:
    return {
        "task": cell.task.name,
        "family": cell.task.family,
        "complexity": cell.task.complexity,
        "frequency": float(frequency),
    }
