"""How often is `mixplan track` right on measured runs?

    OMP_NUM_THREADS=1 python benchmarks/tracking.py [REFERENCE …]

For each of the two largest rungs of a reference ladder, the laws are fitted to the smaller rungs only. Every
run of the left-out rung is then tracked as if it were under way: each of its standard cells is a task of a
recipe of the run's length and the cell's frequency, and the log holds what was measured up to 25, 50, 75 and
90 % of it, before any decay of the learning rate. The truth is the skill at the run's end.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents import Recipe
from mixplan.documents.measurements import Measurements, read_measurements
from mixplan.documents.references import resolve
from mixplan.documents.shapes import PRESETS
from mixplan.documents.table import Table
from mixplan.laws.calibration import fit_calibration
from mixplan.laws.evidence import standard_rows
from mixplan.laws.predict import LawForecast
from mixplan.recommend.track import EARLY, LATE, NOT, ON_TRACK, track
from mixplan.recommend.track_log import Log, Observed

PARTS = (0.25, 0.5, 0.75, 0.9)
SEQUENCE = 128
TARGET = 0.5
"""Target probability of every task: a verdict then says whether learning is likelier than not."""
OPEN = (0.1, 0.9)
"""Tasks whose probability beforehand lies between these are open."""
UNTOLD = {
    "frequency": 0.0,
    "p_learned": 0.0,
    "extrapolated": False,
}


def main() -> None:
    """Print the tables of tracking.md."""
    for name in sys.argv[1:] or ["cpu-manuals"]:
        tables = read_measurements(resolve(Path(f"ref:{name}")).path)
        sizes = np.unique(tables.learning["block_params"])
        found = [row for size in sizes[-2:] for row in left_out(tables, float(size))]
        show(name, found)


def left_out(tables: Measurements, size: float) -> list[dict[str, Any]]:
    """One row a task, run and part: verdict, probabilities, and whether it was learned."""
    forecast = LawForecast(fit_calibration(smaller(tables, size)))
    learning, _ = standard_rows(tables.learning, "learning")
    learning = learning.where(learning["block_params"] == size)
    found = []
    for run in np.unique(learning["run_id"].astype(str)):
        rows = learning.where(learning["run_id"] == run)
        found += tracked(rows, forecast, tables.learned_skill)
    return found


def smaller(tables: Measurements, size: float) -> Measurements:
    """The tables of the rungs below a size."""

    def below(table: Table | None) -> Table | None:
        return None if table is None else table.where(table["block_params"] < size)

    learning = below(tables.learning)
    assert learning is not None
    return replace(
        tables,
        learning=learning,
        retention=below(tables.retention),
        interference=None,
        features=None,
        peel_off=None,
        sources=None,
        dependence=None,
    )


def tracked(rows: Table, forecast: LawForecast, learned: float) -> list[dict[str, Any]]:
    """One run's cells at every part of it."""
    length = rows["tokens"].max()
    ends = rows.where(rows["tokens"] == length)
    truth = {name: skill >= learned - 1e-9 for name, skill in zip(ends["task"], ends["skill"], strict=True)}
    recipe = as_recipe(ends, length)
    under_way = rows.where(rows["decayed"] == 0)
    found = []
    for part in PARTS:
        observed = {}
        for name in truth:
            some = under_way.where((under_way["task"] == name) & (under_way["tokens"] <= part * length))
            some = some.where(np.argsort(some["tokens"]))
            nothing = np.zeros(len(some))
            observed[as_name(name)] = Observed(
                some["tokens"], np.round(some["skill"], 9), nothing, nothing.astype(bool)
            )
        verdicts = track(recipe, forecast, Log(part * length, observed, []))
        for (name, is_learned), task in zip(truth.items(), verdicts.tasks, strict=True):
            at = np.flatnonzero(ends["task"] == name)[0]
            found.append({
                "part": part, "run": rows["run_id"][0], "task": name, "family": ends["family"][at],
                "learned": bool(is_learned), "status": task.status, "p_then": task.p_then,
                "p_now": task.p_now, "last": task.points[-1].observed >= learned,
                "inside": task.points[-1].low <= max(task.points[-1].observed, 0.0) <= task.points[-1].high,
            })  # fmt: skip
    return found


def as_recipe(ends: Table, length: float) -> Recipe:
    """The run as a recipe whose tasks are its cells."""
    samples = int(length) // SEQUENCE
    shape = PRESETS[str(ends["rung"][0])]
    tasks = [
        {
            "name": as_name(name),
            "family": family,
            "complexity": complexity,
            "target_probability": TARGET,
            "natural": UNTOLD,
            "recommended": {**UNTOLD, "frequency": frequency},
        }
        for name, family, complexity, frequency in zip(
            *(ends[column] for column in ("task", "family", "complexity", "frequency")), strict=True
        )
    ]
    source = {
        "name": "all", "role": "common", "share": 1.0, "natural_share": 1.0, "rate": 1.0, "epochs": 1.0,
        "max_epochs": 4.0, "tokens": samples * SEQUENCE, "tokens_available": length, "choose": samples,
    }  # fmt: skip
    return Recipe.model_validate({
        "name": "left-out", "size": shape, "block_params": int(ends["block_params"][0]),
        "total_params": int(ends["total_params"][0]), "vocab_size": 257, "sequence_length": SEQUENCE,
        "samples": samples, "tokens": samples * SEQUENCE, "sources": [source], "tasks": tasks,
    })  # fmt: skip


def as_name(task: str) -> str:
    """A cell's name as a recipe takes it."""
    return task.replace("@", ".")


def show(name: str, rows: list[dict[str, Any]]) -> None:
    """Probabilities against the truth, for all tasks and for those that were open; then the verdicts."""
    columns = ["tasks", "measured up to", "number", "learned", "in the band", "right: P then", "right: P now",
               "right: learned already", "Brier: P then", "Brier: P now"]  # fmt: skip
    print(f"\n### {name}\n\n| {' | '.join(columns)} |\n" + "|---" * len(columns) + "|")
    for kind in ("all", "open"):
        for part in PARTS:
            some = [row for row in rows if row["part"] == part]
            some = [row for row in some if kind == "all" or OPEN[0] <= row["p_then"] <= OPEN[1]]
            truth = np.array([row["learned"] for row in some])
            cells = [kind, f"{part:.0%}", str(len(some)), str(truth.sum())]
            cells.append(f"{np.mean([row['inside'] for row in some]):.0%}")
            said = [np.array([row[column] for row in some]) for column in ("p_then", "p_now", "last")]
            cells += [f"{np.mean((p >= 0.5) == truth):.1%}" for p in said]
            cells += [f"{np.mean((p - truth) ** 2):.4f}" for p in said[:2]]
            print("| " + " | ".join(cells) + " |")
    verdicts = (ON_TRACK, LATE, NOT, EARLY)
    print("\n| measured up to | " + " | ".join(f"{one}: learned" for one in verdicts) + " |")
    print("|---" * (len(verdicts) + 1) + "|")
    for part in PARTS:
        cells = []
        for one in verdicts:
            some = [row["learned"] for row in rows if row["part"] == part and row["status"] == one]
            cells.append(f"{sum(some)} of {len(some)}")
        print(f"| {part:.0%} | " + " | ".join(cells) + " |")
    print("\n| P now | said | learned | of |\n|---|---|---|---|")
    p, truth = (np.array([row[column] for row in rows]) for column in ("p_now", "learned"))
    edges = (0, 0.02, 0.1, 0.3, 0.7, 0.9, 0.98, 1.01)
    for low, high in itertools.pairwise(edges):
        some = (p >= low) & (p < high)
        if some.any():
            means = f"{p[some].mean():.3f} | {truth[some].mean():.3f}"
            print(f"| {low:g} to {min(high, 1):g} | {means} | {some.sum()} |")


if __name__ == "__main__":
    main()
