"""Measured cells as the indices that the parameters of the learning law need, and where those stand.

Shape legend: n = rows, m = distinct points, p = parameters of the form, F = families, K = task kinds, C =
tasks, R = runs, P = parameters θ, ordered: ψ (p), ψ_family (p·F), difficulty (K), γ (K), finished (1), u (C),
v (R).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mixplan.laws.beta_noise import to_unit
from mixplan.laws.evidence import BoolArray, Evidence, FloatArray, IntArray
from mixplan.laws.forms import Form


@dataclass(frozen=True)
class Layout:
    """Where each group of parameters stands in θ."""

    p: int
    families: int
    kinds: int
    tasks: int
    runs: int

    @property
    def size(self) -> int:
        """P."""
        return self.v + self.runs

    @property
    def family(self) -> int:
        """First ψ_family: parameter j of family g stands at family + j·F + g."""
        return self.p

    @property
    def difficulty(self) -> int:
        """First difficulty."""
        return self.p * (1 + self.families)

    @property
    def ceiling(self) -> int:
        """First γ."""
        return self.difficulty + self.kinds

    @property
    def finished(self) -> int:
        """The offset of the end of a run."""
        return self.ceiling + self.kinds

    @property
    def u(self) -> int:
        """First task effect."""
        return self.finished + 1

    @property
    def v(self) -> int:
        """First run effect."""
        return self.u + self.tasks


@dataclass(frozen=True)
class Rows:
    """What is fitted: evidence with every index that θ needs."""

    points: FloatArray
    """Distinct (ln f, ln N, ln T), centred, of each family, shape (3, m): forms are evaluated there."""
    point_family: IntArray
    """Shape (m,)."""
    point: IntArray
    """Which of them each row is at, shape (n,)."""
    skill: FloatArray
    """On the scale of beta_noise.to_unit, shape (n,)."""
    early: FloatArray
    """1 before the end of a run, shape (n,)."""
    family: IntArray
    kind: IntArray
    task: IntArray
    run: IntArray
    cell: IntArray
    """Of a task in a run."""
    checkpoints: IntArray
    """Rows of the row's cell, shape (n,)."""

    def where(self, keep: BoolArray) -> Rows:
        """Some of the rows."""
        names = ("point", "skill", "early", "family", "kind", "task", "run", "cell", "checkpoints")
        return replace(self, **{name: getattr(self, name)[keep] for name in names})


def rows_of(evidence: Evidence, form: Form, families: list[str]) -> tuple[Rows, Layout, FloatArray]:
    """The rows as indices, the layout of θ for them, and the means of ln f, ln N, ln T, shape (3,)."""
    table = evidence.table
    of_kind = np.array([families.index(family) for family, _ in evidence.kinds])
    named = np.array(
        [f"{k}\x1f{task}" for k, task in zip(evidence.kind, table["task"].astype(str), strict=True)]
    )
    tasks, task = np.unique(named, return_inverse=True)
    centres = evidence.log_axes.mean(axis=0)
    # A task may come at several frequencies in one run, under one name.
    cell = evidence.cell
    family = of_kind[evidence.kind]
    places = np.column_stack([family, evidence.log_axes - centres])
    distinct, point = np.unique(places, axis=0, return_inverse=True)
    rows = Rows(
        points=distinct[:, 1:].T.copy(),
        point_family=distinct[:, 0].astype(np.int64),
        point=point.reshape(-1),
        skill=to_unit(evidence.skill),
        early=(~evidence.finished).astype(float),
        family=family,
        kind=evidence.kind,
        task=task.astype(np.int64),
        run=evidence.run,
        cell=cell,
        checkpoints=np.bincount(cell)[cell],
    )
    layout = Layout(
        len(form.parameters), len(families), len(evidence.kinds), len(tasks), len(evidence.run_ids)
    )
    return rows, layout, centres
