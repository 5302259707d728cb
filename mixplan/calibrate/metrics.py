"""Rows of the measurement tables, appended to a run's metrics.jsonl.

Shape legend: C = cells.
"""

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
    """Collects rows; `flush` appends them (before every checkpoint and at the end).

    A value may be None, which is null in the file and an empty field in the table: not measured.
    """

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
        """One row per cell.

        Args:
            step: completed steps.
            branch: index of the branch that was measured; None for the trunk.
            decayed: whether the learning rate had decayed: the end of a horizon.
            cells: the C cells.
            frequencies: instances per training token, as realised, shape (C,).
            exposures: instances injected so far, shape (C,).
            rows: of each cell, accuracy, chance, skill and choice NLL.
            lm_loss: on held-out text, nats per token.

        Raises:
            Diverged: a number is not finite.
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
                    "exposures_per_instance": int(seen) / len(cell.task.train),
                    "gap_tokens": cell.gap_steps * self.run.tokens_per_step if cell.gap_steps > 1 else 0,
                    "decayed": int(decayed),
                },
                branch,
            )

    def of_cells(
        self,
        table: str,
        step: int,
        cells: Sequence[Cell],
        frequencies: np.ndarray,
        rows: Sequence[Sequence[dict[str, Any]]],
    ) -> None:
        """Rows about cells, for the tables interference and features.

        Args:
            table: its name.
            step: completed steps.
            cells: the C cells.
            frequencies: instances per training token, as realised, shape (C,).
            rows: any number of rows for each of the C cells, less the columns that say which cell it is.

        Raises:
            Diverged: a number is not finite.
        """
        tokens = step * self.run.tokens_per_step
        for cell, frequency, found in zip(cells, frequencies, rows, strict=True):
            for row in found:
                self._add(table, step, {"tokens": tokens, **_cell(cell, frequency), **row})

    def sources(
        self, step: int, branch: int | None, decayed: bool, rows: Sequence[dict[str, Any]], lm_loss: float
    ) -> None:
        """One row per source of the user's.

        Args:
            step: completed steps.
            branch: index of the branch that was measured; None for the trunk.
            decayed: whether the learning rate had decayed.
            rows: of `source_rows`.
            lm_loss: on held-out base text, nats per token.

        Raises:
            Diverged: a number is not finite.
        """
        now = {
            "total_params": self.run.shape.total_params(self.run.vocab_size),
            "step": step,
            "tokens": step * self.run.tokens_per_step,
            "lm_loss": lm_loss,
            "decayed": int(decayed),
        }
        for row in rows:
            self._add("sources", step, {**now, **row}, branch)

    def retention(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        """One row per probe task. Raises Diverged where a number is not finite."""
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
        "protocol": cell.protocol,
    }
