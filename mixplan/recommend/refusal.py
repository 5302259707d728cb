"""The diagnosis of a plan without an answer, in words and for programs."""

from __future__ import annotations

from typing import Any

from mixplan.documents.forecast import FloatArray
from mixplan.recommend.conflicts import Diagnosis
from mixplan.recommend.problem import FAR, Problem
from mixplan.recommend.solve import Candidate, missed_limits

_NAMED = 8
"""Limits that are named in a line before the rest is only counted."""


def describe(problem: Problem, diagnosis: Diagnosis, nearest: Candidate) -> list[str]:
    """The diagnosis in words, one problem a line."""
    what = "reaches every target within" if problem.targets_are_limits else "holds"
    sizes = ", ".join(shape.name for shape in problem.shapes)
    lines = [f"no size ({sizes}) and mixture {what} the plan's limits"]
    for task, best in diagnosis.unreachable.items():
        target = float(problem.target[problem.tasks.index(task)])
        lines.append(
            f"task {task!r}: no size of the plan reaches {target:g}, not even with {FAR:g} times the "
            f"budget and every other limit dropped; at best {best:.3f}"
        )
    clash = [f"{name} ({_value_of(problem, name):g})" for name in diagnosis.clash]
    if clash:
        lines.append("these limits cannot hold together: " + _few(clash, ", "))
    for remedy in diagnosis.remedies:
        changes = [_change(problem, name, value) for name, value in remedy.changes.items()]
        lines.append(
            f"it would do with {_few(changes, ' and ')}: then {remedy.size} with {remedy.tokens:,} tokens, "
            f"{remedy.flops:.3g} FLOPs"
        )
    if not diagnosis.remedies:
        lines.append("no small change of the limits was found that would do; loosen several of those named")
    shape, missed = problem.shapes[nearest.size].name, _few(missed_limits(problem, nearest), "; ")
    lines.append(f"nearest as the plan stands: {shape} with {nearest.tokens:,.0f} tokens misses {missed}")
    return lines


def as_json(problem: Problem, diagnosis: Diagnosis, nearest: Candidate, lines: list[str]) -> dict[str, Any]:
    """The diagnosis for programs, complete."""
    return {
        "feasible": False,
        "problems": lines,
        "unreachable": diagnosis.unreachable,
        "clash": [{"constraint": name, "limit": _value_of(problem, name)} for name in diagnosis.clash],
        "remedies": [
            {"changes": r.changes, "size": r.size, "tokens": r.tokens, "flops": r.flops}
            for r in diagnosis.remedies
        ],
        "nearest": {
            "size": problem.shapes[nearest.size].name,
            "tokens": nearest.tokens,
            "shares": dict(zip(problem.sources, _floats(nearest.shares), strict=True)),
            "p_learned": dict(zip(problem.tasks, _floats(nearest.outcome.p_learned[0]), strict=True)),
            "misses": missed_limits(problem, nearest),
        },
    }


def _value_of(problem: Problem, name: str) -> float:
    return float(problem.limit[problem.names.index(name)])


def _floats(values: FloatArray) -> list[float]:
    return [float(value) for value in values]


def _few(parts: list[str], joint: str) -> str:
    more = len(parts) - _NAMED
    return joint.join(parts[:_NAMED]) + (f"{joint}{more} more (--json lists them)" if more > 0 else "")


def _change(problem: Problem, name: str, value: float | None) -> str:
    if value is None:
        return f"task {name.split('.', 1)[1].rpartition('.')[0]!r} left out"
    return f"{name} {value:g} instead of {_value_of(problem, name):.10g}"
