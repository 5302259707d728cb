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


def findings_tables(found: dict[str, dict[str, Any]]) -> list[Shown]:
    """Each part's findings as tables."""
    shown: list[Shown] = []
    for part, said in found.items():
        if "transitions" in said:
            rows = [list(row.values()) for row in said["transitions"]]
            columns = ["task", "critical width", "on the grid", "measured", "grid steps off"]
            shown.append((f"{part}: width at which a task's first feature is captured", columns, rows))
        if "order" in said:
            order = said["order"]
            rows = [
                [axis, order[f"{axis}_by_utility"], order[f"{axis}_by_frequency"]]
                for axis in ("width", "time")
            ]
            title = (
                f"{part}: rank correlation of what is learned first (the frequency that a width just learns "
                f"falls with its power {said['implied_exponent']:.2f} in theory)"
            )
            shown.append((title, ["order in", "with utility", "with frequency"], rows))
        if "evicted" in said:
            rows = [
                [row["width"], len(row["tasks"]), row["highest_skill"], row["mean_skill"]]
                for row in said["evicted"]
            ]
            columns = ["width", "tasks left out", "highest signal", "mean signal"]
            title = f"{part}: normalised signal of tasks the optimum leaves out (0: random)"
            shown.append((title, columns, rows))
        if "retention" in said:
            gaps = sorted({row["gap_steps"] for row in said["retention"]})
            by_cell = {(row["width"], row["gap_steps"]): row["skill"] for row in said["retention"]}
            widths = sorted({width for width, _ in by_cell})
            rows = [[width, *(by_cell[width, gap] for gap in gaps)] for width in widths]
            columns = ["width", *(f"gap {gap}" for gap in gaps)]
            shown.append((f"{part}: final normalised signal of the rarest task", columns, rows))
    return shown
