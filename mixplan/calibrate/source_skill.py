"""Losses on the sources' held-out text become skill, by the two anchors of the same rung, seed and moment.

gap_closed = (bits_zero − bits) ÷ (bits_zero − bits_saturated), all of them bits per byte of the source's
held-out text: bits_zero from the run without any source, bits_saturated from the run where only this one is
mixed in, at its saturating share. skill = gap_closed, clipped to [0, 1].
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixplan.calibrate.runs import RunSpec
from mixplan.calibrate.sources import ZERO
from mixplan.calibrate.tasks import common_protocol
from mixplan.documents.calibration_spec import CalibrationSpec, UserSource

LEAST_GAP = 0.01
"""Share of bits_zero that the anchors must be apart by: skill is a ratio of differences of this size."""
_SPREADS = 2.0
"""Standard deviations between seeds that the anchors must be apart by, where there are several seeds."""

Entries = Sequence[Mapping[str, Any]]
Moment = tuple[str, int, int, int | None]
"""Rung, tokens of the whole run, step, branch: runs are compared at the same moment."""


def source_learning(
    spec: CalibrationSpec, runs: Sequence[tuple[RunSpec, Entries]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of the learning table for every source, run and moment where both anchors were measured.

    Args:
        runs: finished runs with their measurements of kind `sources`.

    Returns:
        The rows, and notes on what was left out and why.
    """
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for source in spec.user_sources:
        measured = _measured(source.name, runs)
        closed, missing, asked = 0, set(), 0
        for moment, of_seed in measured.items():
            gaps = {
                seed: (found[ZERO]["bits_per_byte"], found[source.name]["bits_per_byte"])
                for seed, found in of_seed.items()
                if ZERO in found and source.name in found
            }
            apart = _apart([zero - saturated for zero, saturated in gaps.values()])
            for seed, found in of_seed.items():
                for run, row in found["runs"]:
                    asked += 1
                    if seed not in gaps:
                        missing.add(f"{moment[0]} seed {seed}")
                        continue
                    zero, saturated = gaps[seed]
                    if not apart or zero - saturated <= LEAST_GAP * zero:
                        closed += 1
                        continue
                    # Like the cells that laws are fitted to, or they would be fitted to sources alone.
                    protocol = {"protocol": common_protocol(spec)}
                    rows.append({**_row(source, run, row, zero, saturated), **protocol})
        if missing:
            notes.append(
                f"source {source.name}: no finished run at share zero and at its saturating share for "
                f"{', '.join(sorted(missing))}; no skill there, left out"
            )
        if closed:
            notes.append(
                f"source {source.name}: {closed} of {asked} measurements left out: there, share zero and the "
                f"saturating share differ by no more than {LEAST_GAP:.0%} or twice the spread between seeds, "
                "so that skill is not defined"
            )
    return rows, notes


def _measured(name: str, runs: Sequence[tuple[RunSpec, Entries]]) -> dict[Moment, dict[int, dict[str, Any]]]:
    """By moment and seed: the rows of the zero anchor and of the source's own, and (run, row) of the rest."""
    found: dict[Moment, dict[int, dict[str, Any]]] = defaultdict(lambda: defaultdict(lambda: {"runs": []}))
    for run, entries in runs:
        for entry in entries:
            row = entry["row"]
            if row["source"] != name:
                continue
            here = found[run.shape.name, run.tokens, entry["at_step"], entry["branch"]][run.seed]
            if run.anchor is None:
                here["runs"].append((run, row))
            elif run.anchor in (ZERO, name):
                here[run.anchor] = row
    return found


def _apart(gaps: Sequence[float]) -> bool:
    """Whether the mean gap over seeds is larger than what seeds differ by; one seed cannot tell."""
    return len(gaps) < 2 or float(np.mean(gaps)) > _SPREADS * float(np.std(gaps, ddof=1))


def _row(
    source: UserSource, run: RunSpec, row: Mapping[str, Any], zero: float, saturated: float
) -> dict[str, Any]:
    closed = (zero - row["bits_per_byte"]) / (zero - saturated)
    skill = min(1.0, max(0.0, closed))
    share = run.shares[source.name]
    return {
        **{key: row[key] for key in ("run_id", "rung", "block_params", "total_params", "seed")},
        **{key: row[key] for key in ("step", "tokens", "lm_loss", "decayed")},
        "task": f"{source.name}@{share:g}",
        "family": source.family or source.name,
        "complexity": source.complexity,
        "frequency": row["share"],
        "frequency_requested": share,
        "exposures": row["source_tokens"],
        "accuracy": skill,
        "chance": 0.0,
        "skill": skill,
        "gap_closed": closed,
        "bits_per_byte": row["bits_per_byte"],
        "bits_per_byte_zero": zero,
        "bits_per_byte_saturated": saturated,
        "source_epochs": row["source_epochs"],
    }
