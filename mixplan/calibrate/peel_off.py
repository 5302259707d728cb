"""Peel-off: a size's loss on a task against that of the largest size at the same LM loss.

Sizes that only need more samples go along one curve of task loss against LM loss; a size that will plateau
leaves it early (arXiv 2605.29548). Only cells of the standard protocol, and only the trunk before its decay:
the LM loss falls with the learning rate, so that a decayed model belongs to another curve.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixplan.documents.measurements import STANDARD

Rows = Sequence[dict[str, Any]]
_COPIED = ("run_id", "rung", "block_params", "seed", "task", "family", "complexity", "frequency", "tokens")


def peel_off(learning: Rows) -> list[dict[str, Any]]:
    """Rows of the peel_off table, in the order of the learning table.

    The largest rung's curve is interpolated linearly in LM loss, run by run, and averaged over those of its
    runs that went through that LM loss; its own rows have no reference.

    Args:
        learning: rows of the learning table, smallest rung first.
    """
    used = [row for row in learning if _measured(row)]
    sizes = {row["block_params"] for row in used}
    if len(sizes) < 2:
        return []
    curves: dict[tuple[Any, ...], dict[str, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in used:
        if row["block_params"] == max(sizes):
            curves[_cell(row)][row["run_id"]].append((row["lm_loss"], row["choice_nll"]))
    found = []
    for row in used:
        reference = None
        if row["block_params"] != max(sizes):
            reference = _at(curves[_cell(row)].values(), row["lm_loss"])
        found.append(
            {
                **{name: row[name] for name in _COPIED},
                "lm_loss": row["lm_loss"],
                "choice_nll": row["choice_nll"],
                "reference_choice_nll": reference,
                "excess_nll": None if reference is None else row["choice_nll"] - reference,
            }
        )
    return found


def _measured(row: dict[str, Any]) -> bool:
    known = row.get("lm_loss") is not None and row.get("choice_nll") is not None
    return known and not row.get("decayed") and (row.get("protocol") or STANDARD) == STANDARD


def _cell(row: dict[str, Any]) -> tuple[Any, ...]:
    """The same cell in all rungs: what was asked for, since realised frequencies differ a little."""
    frequency = row.get("frequency_requested") or row["frequency"]
    return row["task"], row["family"], row["complexity"], frequency


def _at(curves: Any, lm_loss: float) -> float | None:
    """Mean of the curves at an LM loss, over those that reach it; None where none does."""
    read = []
    for curve in curves:
        losses, nll = np.array(sorted(curve)).T
        if losses[0] <= lm_loss <= losses[-1]:
            read.append(float(np.interp(lm_loss, losses, nll)))
    return float(np.mean(read)) if read else None
