"""A learning law read back from its document: mean skill of any cell in every draw.

Beyond a fitted range every draw stretches what lies outside by 1 + ε, ε ~ N(0, 0.3²) cut at −1, drawn once
per draw and axis. So intervals widen with the logarithm of the distance, on top of the draws' own spread, and
no draw ever falls with size, tokens or frequency. Where a form levels off in size or tokens, nobody knows
that skill does so too: there every draw gains 0.05·|ε′| in η per e-fold, ε′ ~ N(0, 1), on top of its form.
The 0.3 and the 0.05 are choices, not measurements; `mixplan backtest` shows the coverage they give.

Shape legend: n = cells, D = draws (1: the point estimate, where there are none), p = parameters of the form,
F = families, K = measured task kinds, G = task kinds that are asked about.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixplan.documents.calibration import FittedLaw
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.laws.evidence import AXES
from mixplan.laws.forms import FORMS, FREQUENCY_SLOPE
from mixplan.laws.learning import (
    FINISHED,
    RUN_SPREAD,
    TASK_SPREAD,
    ceiling_name,
    difficulty_name,
    family_name,
    precision_name,
)
from mixplan.laws.protocol import Cells, Scattered

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Kind = tuple[str, float]

OPEN_END = 0.05
"""Scale of what a draw gains in η per e-fold of size or tokens beyond the range."""
OUTSIDE_DOUBT = 0.3
"""Standard deviation of ε, the relative error of the law's logarithmic distance from its range."""


@dataclass(frozen=True)
class KindDraws:
    """What every draw says of G task kinds."""

    family: IntArray
    """Which family each belongs to, shape (G,)."""
    difficulty: FloatArray
    """In η, shape (G, D)."""
    ceiling: FloatArray
    """Skill at which the kind levels off, shape (G, D)."""
    precision: FloatArray
    """φ of mixplan.laws.beta_noise, shape (G, D)."""


class Surface:
    """One fitted law; deterministic."""

    def __init__(self, law: FittedLaw) -> None:
        """Args: law: as fitted by mixplan.laws.learning.

        Raises:
            InputError: the law is of an unknown form or lacks parameters.
        """
        if law.law not in FORMS:
            raise InputError(
                f"calibration: the learning law is {law.law!r}; known: {', '.join(map(repr, FORMS))}; write "
                "it anew with `mixplan fit`"
            )
        self.form = FORMS[law.law]
        at = {name: index for index, name in enumerate(law.parameters)}
        self.kinds = _kinds(law)
        self.families = sorted({family for family, _ in self.kinds})
        own = [[family_name(p.name, family) for family in self.families] for p in self.form.parameters]
        difficulties = [difficulty_name(kind) for kind in self.kinds]
        ceilings = [ceiling_name(kind) for kind in self.kinds]
        precisions = [precision_name(family) for family in self.families]
        wanted = [
            *(name for row in own for name in row),
            *difficulties,
            *ceilings,
            *precisions,
            TASK_SPREAD,
            RUN_SPREAD,
        ]
        settings = [f"centre_log_{axis}" for axis in AXES]
        missing = [name for name in wanted if name not in at]
        missing += [name for name in settings if name not in law.settings]
        missing += [f"ranges.{axis}" for axis in AXES if axis not in law.ranges]
        if missing or not self.kinds:
            raise InputError(
                f"calibration: the learning law lacks {', '.join(missing or ['task kinds'])}; write it anew "
                "with `mixplan fit`"
            )
        table = np.array(law.draws if law.draws else [law.values]).T  # (parameters, D)
        self.psi = np.stack([table[[at[name] for name in row]] for row in own])  # (p, F, D)
        self._difficulty = table[[at[name] for name in difficulties]]  # (K, D)
        self._ceiling = table[[at[name] for name in ceilings]]  # (K, D)
        self._precision = table[[at[name] for name in precisions]]  # (F, D)
        self._centres = np.array([law.settings[name] for name in settings])
        self.low = np.log([law.ranges[axis].low for axis in AXES])  # (3,)
        self.high = np.log([law.ranges[axis].high for axis in AXES])
        draws = table.shape[1]
        generator = np.random.default_rng(0)
        doubt = generator.normal(0.0, OUTSIDE_DOUBT, size=(len(AXES) + 1, draws))
        gain = np.abs(generator.normal(0.0, OPEN_END, size=(len(AXES), draws)))
        gain[[axis not in self.form.levels_off for axis in AXES]] = 0.0
        self.run_spread = table[at[RUN_SPREAD]]  # σ, in η, (D,)
        self.task_spread = table[at[TASK_SPREAD]]  # τ, in η, (D,)
        # By how much η is less before the end of a run, (D,); laws from elsewhere may not say.
        self.finished = table[at[FINISHED]] if FINISHED in at else np.zeros(draws)
        shift = generator.standard_normal((2, draws)) * table[[at[TASK_SPREAD], at[RUN_SPREAD]]]
        # Without draws there is only the point estimate, and it is taken as it is.
        # Per axis, that of complexity last: 1 + ε (4, D), and what is gained in η per e-fold (3, D).
        self.doubt = np.maximum(1.0 + doubt, 0.0) if law.draws else np.ones_like(doubt)
        self.gain = gain if law.draws else np.zeros_like(gain)
        # How far a new task lies from its kind, in η, (D,): one normal a draw, the same for every kind.
        self.task_shift = shift[0] if law.draws else np.zeros(draws)
        self._new_run = shift.sum(axis=0) if law.draws else np.zeros(draws)

    def taken(self, draws: IntArray) -> Surface:
        """The same law with some of its draws, in this order, repeated where they are; shape (D',)."""
        some = copy.copy(self)
        for name in (
            *("psi", "_difficulty", "_ceiling", "_precision"),
            *("run_spread", "task_spread", "finished", "doubt", "gain", "task_shift", "_new_run"),
        ):
            setattr(some, name, getattr(self, name)[..., draws])
        return some

    def problems(self, family: list[str], complexity: ArrayLike) -> list[tuple[int, str]]:
        """Cells of kinds that nothing can be said about: index and reason."""
        known = measured_complexities(self.kinds)
        found = []
        for index, (name, level) in enumerate(
            zip(family, np.broadcast_to(np.asarray(complexity, float), len(family)), strict=True)
        ):
            if name not in known:
                found.append((index, f"family {name!r} was not measured{did_you_mean(name, known)}"))
            elif float(level) not in known[name] and len(known[name]) < 2:
                found.append((
                    index,
                    f"complexity {level:g} of {name!r} was not measured, and one measured complexity "
                    f"({known[name][0]:g}) says nothing about others; measure a second one",
                ))  # fmt: skip
        return found

    def mean(self, cells: Cells) -> FloatArray:
        """Mean skill over runs and tasks of a kind, shape (n, D)."""
        eta, ceiling = self._eta(cells)
        return ceiling * self.form.link.share(eta)

    def new_run(self, cells: Cells) -> Scattered:
        """What one more run of a new task of the kind would measure."""
        eta, ceiling = self._eta(cells)
        family = [self.families.index(name) for name in cells.family]
        return Scattered(ceiling * self.form.link.share(eta + self._new_run), self._precision[family])

    def log_threshold_frequency(self, cells: Cells, skill: float) -> FloatArray:
        """ln of the frequency at which the mean skill reaches `skill`, shape (n, D); infinite where it
        levels off below. The cells' own frequency does not matter, except that it says how far outside the
        fitted frequencies the answer may be trusted."""
        eta, ceiling = self._eta(cells)
        family = [self.families.index(name) for name in cells.family]
        slope = self.psi[[p.name for p in self.form.parameters].index(FREQUENCY_SLOPE)][family]
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = np.where(
                ceiling > skill, self.form.link.inverse(np.minimum(skill / ceiling, 1.0)), np.inf
            )
        return cells.log_axes[:, [0]] + (wanted - eta) / slope

    def _eta(self, cells: Cells) -> tuple[FloatArray, FloatArray]:
        """η below the ceiling, and the ceiling, shapes (n, D).

        Raises:
            InputError: with every cell that cannot be forecast.
        """
        problems = self.problems(cells.family, cells.complexity)
        if problems:
            raise InputError(list(dict.fromkeys(reason for _, reason in problems)))
        found: dict[Kind, int] = {}
        order = np.empty(len(cells.family), dtype=np.int64)
        for index, kind in enumerate(zip(cells.family, cells.complexity.tolist(), strict=True)):
            order[index] = found.setdefault(kind, len(found))
        own = self.about(list(found))
        return self.eta(own.family[order], cells.log_axes) - own.difficulty[order], own.ceiling[order]

    def about(self, kinds: list[Kind]) -> KindDraws:
        """What the draws say of task kinds; those that `problems` names must have been refused before."""
        own = [self._kind(*kind) for kind in kinds]
        family = np.array([self.families.index(name) for name, _ in kinds], dtype=np.int64)
        none = np.empty((0, self.psi.shape[2]))
        return KindDraws(
            family=family,
            difficulty=np.stack([one for one, _ in own]) if own else none,
            ceiling=np.stack([one for _, one in own]) if own else none,
            precision=self._precision[family],
        )

    def beyond_measured(self, family: str, complexity: float) -> bool:
        """Whether a complexity lies outside the family's measured ones."""
        levels = measured_complexities(self.kinds)[family]
        return not levels[0] <= complexity <= levels[-1]

    def eta(self, family: IntArray, log_axes: FloatArray) -> FloatArray:
        """η without the kinds' difficulties, shape (n, D).

        Args:
            family: which of `families`, shape (n,).
            log_axes: as in `Cells`, shape (n, 3).
        """
        inside = np.clip(log_axes, self.low, self.high)
        beyond = (log_axes - inside)[:, :, None] * self.doubt[: len(AXES)]
        x = (inside - self._centres)[:, :, None] + beyond
        eta = self.form.eta(self.psi[:, family], x[:, 0], x[:, 1], x[:, 2])
        return np.asarray(eta + (log_axes - inside) @ self.gain)

    def _kind(self, family: str, complexity: float) -> tuple[FloatArray, FloatArray]:
        """A kind's difficulty and ceiling, each of shape (D,).

        Measured; or between its neighbours, linear in log complexity; or beyond the hardest or easiest one,
        with its ceiling and a difficulty along the family's least-squares line (never easier as complexity
        grows).
        """
        if (family, complexity) in self.kinds:
            at = self.kinds.index((family, complexity))
            return self._difficulty[at], self._ceiling[at]
        members = sorted((level, k) for k, (name, level) in enumerate(self.kinds) if name == family)
        u, rows = np.log([level for level, _ in members]), [k for _, k in members]
        difficulties, ceilings = self._difficulty[rows], self._ceiling[rows]
        wanted = np.log(complexity)
        if u[0] < wanted < u[-1]:
            right = int(np.searchsorted(u, wanted))
            share = (wanted - u[right - 1]) / (u[right] - u[right - 1])
            parts = np.array([1.0 - share, share])
            return parts @ difficulties[right - 1 : right + 1], parts @ ceilings[right - 1 : right + 1]
        centred = u - u.mean()
        slope = np.maximum(centred @ difficulties / (centred @ centred), 0.0) * self.doubt[-1]
        end = 0 if wanted <= u[0] else -1
        return difficulties[end] + slope * (wanted - u[end]), ceilings[end]


def measured_complexities(kinds: list[Kind]) -> dict[str, list[float]]:
    """Complexities of every family, ascending."""
    found: dict[str, list[float]] = {}
    for family, complexity in sorted(kinds):
        found.setdefault(family, []).append(complexity)
    return found


def _kinds(law: FittedLaw) -> list[Kind]:
    """The measured kinds, from the names of their difficulties."""
    found = []
    for name in law.parameters:
        if name.startswith("difficulty[") and name.endswith("]"):
            family, _, level = name.removeprefix("difficulty[").removesuffix("]").rpartition(", ")
            found.append((family, float(level)))
    return sorted(found)
