"""What the commands show of the testbed: as JSON, and as titled tables of text and numbers."""

from __future__ import annotations

from typing import Any

from mixplan.testbed import theory
from mixplan.testbed.mixture import Mixture

Shown = tuple[str, list[str], list[list[Any]]]
"""Title, columns, rows."""


def theory_json(mixture: Mixture) -> dict[str, Any]:
    """Utilities and critical widths of all features, most frequent task and first feature first."""
    return {
        "tasks": mixture.tasks,
        "block": mixture.block,
        "dim": mixture.dim,
        "frequency_exponent": mixture.frequency_exponent,
        "spectrum_exponents": list(mixture.spectrum_exponents),
        "frequencies": mixture.priors().tolist(),
        "frequent_tasks": mixture.frequent(),
        "utilities": mixture.utilities().tolist(),
        "critical_widths": theory.critical_widths(mixture).tolist(),
    }


def theory_table(mixture: Mixture, features: int) -> Shown:
    """One row a task: frequency, and of its first features utility and critical width."""
    shown = range(min(features, mixture.block))
    widths, utilities = theory.critical_widths(mixture), mixture.utilities()
    title = (
        f"{mixture.tasks} tasks of {mixture.block} direction(s) in {mixture.dim}; {mixture.frequent()} "
        "of them make up 80 % of the samples"
    )
    columns = [
        "task",
        "frequency",
        *(f"utility {j + 1}" for j in shown),
        *(f"critical width {j + 1}" for j in shown),
    ]
    rows = [
        [k + 1, float(prior), *(float(utilities[k, j]) for j in shown), *(int(widths[k, j]) for j in shown)]
        for k, prior in enumerate(mixture.priors())
    ]
    return title, columns, rows
