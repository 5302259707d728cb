"""Whether the other tables are about the runs of the learning table, in the same units."""

from __future__ import annotations

import numpy as np

from mixplan.documents import Measurements, Table
from mixplan.laws.units_check import thousands, tokens_per_step
from mixplan.units import number

OTHERS = ("retention", "interference", "sources")
SAME_SIZE = 1.05
"""Sizes of one rung within this ratio are one size, rounded."""
FAR = 100.0
"""Tables whose sizes or tokens lie further apart are not about the same runs."""
WHOLE = 0.02
"""How far a delay may be from a whole number of steps."""


def disagreements(measurements: Measurements) -> list[str]:
    """Contradictions between tables."""
    learning = measurements.learning
    found = []
    for name, table in _others(measurements):
        sizes = _sizes(learning)
        for rung, size in sorted(_sizes(table).items()):
            known = sizes.get(rung)
            if known is not None and not 1.0 / SAME_SIZE < size / known < SAME_SIZE:
                found.append(
                    f"{name}: rung {rung!r} has block_params {size:g}, in the learning table {known:g}; both "
                    "are parameters without input embedding and unembedding, in ones"
                )
                break
        if "tokens" in table:
            ends = _ends(learning)
            for run, end in sorted(_ends(table).items()):
                if run in ends and thousands(end / ends[run]):
                    found.append(
                        f"{name}: tokens of run {run!r} go to {end:g}, in the learning table to "
                        f"{ends[run]:g}; both are training tokens, in ones"
                    )
                    break
    return found + _short_delays(measurements)


def oddities(measurements: Measurements) -> list[str]:
    """What may be right, but rarely is."""
    learning = measurements.learning
    found = []
    low, high = learning["block_params"].min(), learning["block_params"].max()
    for name, table in _others(measurements):
        least, most = table["block_params"].min(), table["block_params"].max()
        if least > FAR * high or most * FAR < low:
            found.append(
                f"{name}: block_params {number(least)} to {number(most)}, in the learning table "
                f"{number(low)} to {number(high)}; are both in ones, without embeddings?"
            )
    if measurements.retention is not None:
        delays, per_step, _ = _delays(measurements.retention, learning)
        steps = delays / per_step
        broken = np.flatnonzero((steps > 1.0 - WHOLE) & (np.abs(steps - np.round(steps)) > WHOLE))
        if len(broken):
            found.append(
                f"retention: {len(broken)} delay(s) are no whole number of training steps, first "
                f"{delays[broken[0]]:g} tokens where a step has {per_step[broken[0]]:g}; is delay_tokens in "
                "training tokens?"
            )
    return found


def _others(measurements: Measurements) -> list[tuple[str, Table]]:
    tables = ((name, getattr(measurements, name)) for name in OTHERS)
    return [(name, table) for name, table in tables if table is not None]


def _sizes(table: Table) -> dict[str, float]:
    return {str(rung): float(size) for rung, size in zip(table["rung"], table["block_params"], strict=True)}


def _ends(table: Table) -> dict[str, float]:
    """Most tokens of every run."""
    found: dict[str, float] = {}
    for run, tokens in zip(table["run_id"], table["tokens"].tolist(), strict=True):
        found[str(run)] = max(found.get(str(run), 0.0), tokens)
    return found


def _delays(table: Table, learning: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Delays and positions above zero, the tokens in a step of their runs, and their rows, each of shape
    (m,); of runs whose steps are known."""
    per_step = tokens_per_step(learning)
    known = np.array([per_step.get(str(run), np.nan) for run in table["run_id"]])
    parts = [(table[name], known, np.arange(len(table))) for name in ("delay_tokens", "injected_at_tokens")]
    values, steps, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
    keep = np.isfinite(steps) & (values > 0)
    return values[keep], steps[keep], rows[keep]


def _short_delays(measurements: Measurements) -> list[str]:
    """Delays of less than a step: nothing is measured within one."""
    table = measurements.retention
    if table is None:
        return []
    delays, per_step, rows = _delays(table, measurements.learning)
    short = np.flatnonzero(delays < per_step * (1.0 - WHOLE))
    if not len(short):
        return []
    at = short[0]
    return [
        f"retention: {len(short)} delay(s) or positions are shorter than a training step, first row "
        f"{rows[at] + 1} with {delays[at]:g} where a step of its run has {per_step[at]:g} tokens; are "
        "delay_tokens and injected_at_tokens in steps or thousands?"
    ]
