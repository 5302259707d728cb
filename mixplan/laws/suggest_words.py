"""A suggestion as tables, sentences and the head of its calibration.yaml."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixplan.laws.evidence import FloatArray
from mixplan.laws.suggest import Censored, Suggestion
from mixplan.laws.tables import Shown
from mixplan.units import number

LONGEST = 12
"""Targets shown, the least certain first; --json has all."""
HEADER = """\
Further runs for the ladder {name}, suggested by `mixplan fit --suggest`: only these, with new seeds.
  mixplan plan {file}              what they cost
  mixplan calibrate {file} -o DIR  trains them, in a folder of their own
"""


def suggestion_tables(found: Suggestion) -> list[Shown]:
    """The runs, and what they are expected to settle."""
    design, seeds = found.design, ", ".join(map(str, found.document.seeds))
    rows: list[list[Any]] = [
        [
            option.shape.name,
            number(option.shape.block_params),
            ", ".join(number(end) for end in option.ends),
            seeds,
            design.seeds * option.runs,
            f"{design.seeds * option.flops:.3g}",
        ]
        for option in design.options
    ]
    runs = Shown(
        f"Suggested: {design.runs} run(s), {design.flops:.3g} training FLOPs "
        f"({design.flops / found.spent_flops:.0%} of the {found.spent_flops:.3g} spent so far)",
        ["rung", "block params", "tokens", "seeds", "runs", "FLOPs"],
        rows,
    )
    order = np.argsort(-found.before, kind="stable")[:LONGEST]
    settled: list[list[Any]] = [
        [
            found.targets[index].kind[0],
            f"{found.targets[index].kind[1]:g}",
            found.targets[index].rung,
            number(found.targets[index].tokens),
            _frequency(found.threshold[index]),
            _factor(found.before[index]),
            _factor(found.after[index]),
        ]
        for index in order
    ]
    more = len(found.targets) - len(order)
    title = f"Threshold frequency ({found.law} law) and its 90 % interval, as a factor either way"
    title += f"; the {LONGEST} least certain of {len(found.targets)}" if more else ""
    columns = ["family", "complexity", "rung", "tokens", "threshold", "now", "expected"]
    return [runs, Shown(title, columns, settled)]


def suggestion_sentences(found: Suggestion) -> list[str]:
    """Further frequencies, and a sentence for each kind that is censored."""
    said = []
    if found.added:
        cells = ", ".join(f"{cell.kind[0]} {cell.kind[1]:g} at {cell.frequency:g}" for cell in found.added)
        said.append(f"with frequencies that were not measured yet: {cells}")
    return said + [_censored(one) for one in found.censored]


def suggestion_summary(found: Suggestion) -> dict[str, Any]:
    """For programs."""
    return {
        "runs": found.design.runs,
        "training_flops": found.design.flops,
        "spent_training_flops": found.spent_flops,
        "calibration": found.document.model_dump(mode="json"),
        "added_cells": [cell.task for cell in found.added],
        "law": found.law,
        "targets": [
            {
                "family": target.kind[0],
                "complexity": target.kind[1],
                "rung": target.rung,
                "block_params": target.block_params,
                "tokens": target.tokens,
                "threshold_frequency": float(threshold),
                "factor_90": float(np.exp(before)),
                "factor_90_expected": float(np.exp(after)),
            }
            for target, threshold, before, after in _rows(found)
        ],
        "censored": [_censored(one) for one in found.censored],
    }


def _rows(found: Suggestion) -> list[tuple[Any, FloatArray, FloatArray, FloatArray]]:
    return list(zip(found.targets, found.threshold, found.before, found.after, strict=True))


def _censored(one: Censored) -> str:
    never = one.status == "never learned"
    which = f"the new frequency {one.frequency:g}"
    if not one.new:
        which = f"its {'highest' if never else 'lowest'} frequency, {one.frequency:g},"
    at = f"at {one.threshold:.2g}" if one.threshold <= 1.0 else "above 1, more than every token"
    said = (
        f"{one.kind[0]} of complexity {one.kind[1]:g} was {one.status}: {which} on "
        f"{one.rung} after {number(one.tokens)} tokens is expected to show skill {one.expected_skill:.2f}, "
        f"the threshold there to lie {at}"
    )
    if never == (one.threshold > one.frequency):
        said += "; so it stays censored, unless the law is wrong: " + (
            "an easier task, or a larger budget, would tell more"
            if never
            else "a harder task would tell more"
        )
    if one.own:
        said += " (each further frequency of a task of your own is a run of its own; none is suggested)"
    return said


def _factor(half_width: float) -> str:
    return f"×{number(float(np.exp(half_width)))}"


def _frequency(value: float) -> str:
    """No task can come more often than at every token."""
    return f"{value:.2g}" if value <= 1.0 else "above 1"
