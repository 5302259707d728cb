"""The dependence check: cells trained alone against the same cells beside all others (arXiv 2509.23383)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixplan.calibrate.runs import RunSpec

Learned = tuple[RunSpec, Sequence[Mapping[str, Any]]]
"""A finished run and its learning rows."""


def dependence_rows(
    runs: Sequence[Learned], expected: Sequence[RunSpec]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Every cell that was trained alone against itself beside all others, at the end of each horizon.

    The run beside all others has the same rung, seed and horizons, and no source of the user's mixed in.

    Args:
        runs: all finished runs.
        expected: the runs that train a cell alone.

    Returns:
        Rows of the dependence table, and one note that says what was found (none where nothing was asked).
    """
    if not expected:
        return [], []
    rows = []
    for run, found in runs:
        for row in found if run.only_cell is not None else []:
            partners = {
                partner.seed: other
                for partner, others in runs
                if _together(partner, run)
                for other in others
                if (other["task"], other["step"]) == (row["task"], row["step"]) and other["decayed"]
            }
            if row["decayed"] and run.seed in partners:
                rows.append(_row(row, partners[run.seed], [one["skill"] for one in partners.values()]))
    alone = {run.run_id for run in expected}
    compared = {row["run_id"] for row in rows}
    missing = f"; {len(alone - compared)} run(s) have nothing to compare yet" if alone - compared else ""
    if not rows:
        return [], [f"dependence check: nothing to compare yet{missing}"]
    worst = max(rows, key=lambda row: abs(row["skill_difference"]))
    spread = worst["skill_seed_sd"]
    against = f"standard deviation between seeds {spread:.3f}" if spread is not None else "one seed only"
    return rows, [
        f"dependence check: {len(rows)} comparisons of a cell alone with the same beside all others; largest "
        f"difference in skill {worst['skill_difference']:+.3f} ({worst['task']} at {worst['rung']}, alone "
        f"{worst['skill_alone']:.3f}, together {worst['skill_together']:.3f}; {against}){missing}"
    ]


def _together(partner: RunSpec, alone: RunSpec) -> bool:
    """Whether a run has all cells, no source, and else what the lone cell's run has (but for the seed)."""
    return (
        partner.only_cell is None
        and not partner.shares
        and partner.variant == alone.variant
        and partner.shape == alone.shape
        and partner.tokens == alone.tokens
    )


def _row(alone: Mapping[str, Any], together: Mapping[str, Any], skills: Sequence[float]) -> dict[str, Any]:
    same = ("rung", "block_params", "seed", "step", "tokens", "task", "family", "complexity", "frequency")
    return {
        "run_id": alone["run_id"],
        "together_run_id": together["run_id"],
        **{key: alone[key] for key in same},
        "skill_alone": alone["skill"],
        "skill_together": together["skill"],
        "skill_difference": alone["skill"] - together["skill"],
        "skill_seed_sd": float(np.std(skills, ddof=1)) if len(skills) > 1 else None,
        "choice_nll_alone": alone["choice_nll"],
        "choice_nll_together": together["choice_nll"],
        "choice_nll_difference": alone["choice_nll"] - together["choice_nll"],
    }
