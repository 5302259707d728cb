"""What runs that have not been trained would add to what is known, before anyone trains them.

The information of a fitted form (mixplan.laws.hierarchy) is a sum over rows, w·(∂μ/∂θ)(∂μ/∂θ)ᵀ/(μ(1 − μ)) at
the mode, and does not depend on the skills that the rows will hold: a further run adds its own sum (local
Bayesian design; Chaloner & Verdinelli 1995). Its run effect is new: it enters with the precision 1/σ² of its
prior and is integrated out (a Schur complement), as those of the measured runs are.

Shape legend: D = draws, P = parameters θ up to the run effects, E = cells that may be added (a task effect
each), Q = P + E, T = targets, n = rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import expit

from mixplan.laws.evidence import AXES, Evidence, FloatArray, IntArray, Kind
from mixplan.laws.forms import FREQUENCY_SLOPE
from mixplan.laws.hierarchy import Estimate, derivatives, form_slopes, row_weights
from mixplan.laws.hierarchy_rows import Layout, Rows
from mixplan.laws.suggest_candidates import Cell, Run
from mixplan.laws.surface import OUTSIDE_DOUBT

Z_90 = 1.6448536269514722
"""Standard deviations from the middle to either end of a normal 90 % interval."""
DRAWS = 1000
"""For the intervals that are shown; the same for every design, so that they can be compared."""
_IMAGINARY = 1e-20


@dataclass(frozen=True)
class Targets:
    """Where a threshold frequency is wanted: kinds (T of them), ln N and ln T of shape (T,)."""

    kinds: list[Kind]
    log_size: FloatArray
    log_tokens: FloatArray


@dataclass(frozen=True)
class Thresholds:
    """ln threshold frequencies at the mode, and how they move."""

    log_frequency: FloatArray
    """Where the mean skill of a finished run reaches a share of what the kind levels off at, shape (T,)."""
    gradient: FloatArray
    """By θ, shape (Q, T)."""
    log_axes: FloatArray
    """ln f, ln N, ln T, shape (T, 3)."""
    eta: float
    """What the link makes that share of, the same for all."""
    by_axis: FloatArray
    """By the law's distance from the middle along each axis, shape (T, 3)."""

    def half_widths(self, information: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """Half the 90 % interval of every ln threshold frequency, to first order in θ; shape (T,).

        Args:
            information: of θ, shape (Q, Q).
            low, high: ends of the measured logarithmic axes, shape (3,); what lies beyond is doubted as
                mixplan.laws.surface does.
        """
        known = np.einsum("qt,qt->t", self.gradient, cho_solve(cho_factor(information), self.gradient))
        beyond = self.log_axes - np.clip(self.log_axes, low, high)
        doubt = ((OUTSIDE_DOUBT * beyond * self.by_axis) ** 2).sum(axis=1)
        return Z_90 * np.sqrt(known + doubt)


class Knowledge:
    """A fitted form, and the cells that may be added to it."""

    def __init__(self, found: Estimate, evidence: Evidence, cells: Sequence[Cell], evaluations: int) -> None:
        """Args:
        found: the form as fitted to `evidence`.
        evidence: the measured rows.
        cells: of runs to come; those of other names than the measured ones are tasks of their own.
        evaluations: how often a run is measured on its way, evenly spaced.
        """
        self._found, self._evaluations = found, evaluations
        self._kinds = {kind: index for index, kind in enumerate(evidence.kinds)}
        self._families = np.array([found.families.index(family) for family, _ in evidence.kinds])
        self._frequency_slope = [p.name for p in found.form.parameters].index(FREQUENCY_SLOPE)
        old, rows = found.layout, found.rows
        names = evidence.table["task"].astype(str)
        self._tasks = dict(zip(zip(rows.kind.tolist(), names, strict=True), rows.task.tolist(), strict=True))
        for cell in cells:
            if cell.kind in self._kinds:
                self._tasks.setdefault((self._kinds[cell.kind], cell.task), len(self._tasks))
        self._layout = Layout(old.p, old.families, old.kinds, len(self._tasks), 1)
        self._theta = np.concatenate([found.theta[: old.v], np.zeros(self._layout.size - old.v)])
        self.measured = np.diag(np.full(self._layout.v, found.variances.task**-2.0))
        """Information of the measured runs and of the priors, shape (Q, Q)."""
        self.measured[: old.v, : old.v] = _without(found.information, old.v)

    def information(self, run: Run) -> FloatArray:
        """What one run is expected to add, shape (Q, Q); cells of kinds that were not measured: nothing."""
        v = self._layout.v
        cells = [cell for cell in run.cells if cell.kind in self._kinds]
        if not cells:
            return np.zeros((v, v))
        rows = self._rows(cells, run)
        weights = row_weights(rows, self._found.variances)
        fisher = derivatives(self._found.form, self._layout, rows, weights, self._theta)[1]
        fisher[v, v] += self._found.variances.run**-2.0
        return _without(fisher, v)

    def expected_skill(self, kind: Kind, frequency: float, block_params: float, tokens: float) -> float:
        """Mean skill of finished runs at the mode."""
        at = Targets([kind], np.log([block_params]), np.log([tokens]))
        _, _, eta = self._at(at, np.log([frequency]))
        ceiling = expit(self._theta[self._layout.ceiling + self._kinds[kind]])
        return float(self._found.form.link.share(eta)[0] * ceiling)

    def thresholds(self, targets: Targets, share: float) -> Thresholds:
        """Where `share` of the skill that a kind levels off at is reached.

        At fixed θ, η rises along ln f by one slope in every form: where it meets what the link wants is known
        in closed form.
        """
        start = np.full(len(targets.kinds), self._found.centres[0])
        _, slope, eta = self._at(targets, start)
        wanted = float(self._found.form.link.inverse(np.array(share)))
        log_frequency = start + (wanted - eta) / slope
        gradient, _, _ = self._at(targets, log_frequency)
        axes = np.column_stack([log_frequency, targets.log_size, targets.log_tokens])
        by_axis = self._axis_slopes(targets, log_frequency) / slope[:, None]
        return Thresholds(log_frequency, -gradient / slope, axes, wanted, by_axis)

    def drawn_half_widths(
        self, targets: Targets, at: Thresholds, information: FloatArray, low: FloatArray, high: FloatArray
    ) -> FloatArray:
        """Half the 90 % interval of every ln threshold frequency, shape (T,), by draws as a forecast has
        them: normal in θ, and the form as curved as it is.

        Args:
            targets: where.
            at: their thresholds at the mode.
            information, low, high: as in `Thresholds.half_widths`.
        """
        generator, layout = np.random.default_rng(0), self._layout
        normal = generator.standard_normal((len(information), DRAWS))
        moved = solve_triangular(np.linalg.cholesky(information), normal, trans="T", lower=True)
        theta = self._theta[: layout.v, None] + moved
        doubt = np.maximum(1.0 + generator.normal(0.0, OUTSIDE_DOUBT, size=(len(AXES), DRAWS)), 0.0)
        inside = np.clip(at.log_axes, low, high)
        x = (inside - self._found.centres)[:, :, None] + (at.log_axes - inside)[:, :, None] * doubt
        kind = np.array([self._kinds[kind] for kind in targets.kinds], dtype=np.int64)
        own = theta[layout.family : layout.difficulty].reshape(layout.p, layout.families, DRAWS)
        parameters = zip(self._found.form.parameters, own, strict=True)
        psi = np.stack([parameter.shown(row) for parameter, row in parameters])[:, self._families[kind]]
        eta = self._found.form.eta(psi, x[:, 0], x[:, 1], x[:, 2]) - theta[layout.difficulty + kind]
        # Where the mode's threshold lies, each draw is off by its η there over its slope.
        ends = np.quantile((eta - at.eta) / psi[self._frequency_slope], [0.05, 0.95], axis=1)
        return (ends[1] - ends[0]) / 2.0

    def _at(self, targets: Targets, log_frequency: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """η below the ceiling: gradient by θ (Q, T), slope in ln f (T,), and itself (T,)."""
        layout, form = self._layout, self._found.form
        rows = self._target_rows(targets, log_frequency)
        at = np.arange(len(targets.kinds))
        gradient = np.zeros((layout.v, len(at)))
        for j, slope in enumerate(form_slopes(form, layout, rows, self._theta)):
            gradient[layout.family + j * layout.families + rows.family, at] = slope
        gradient[layout.difficulty + rows.kind, at] = -1.0
        psi = self._psi(rows)
        eta = form.eta(psi, *rows.points) - self._theta[layout.difficulty + rows.kind]
        return gradient, psi[self._frequency_slope], eta

    def _axis_slopes(self, targets: Targets, log_frequency: FloatArray) -> FloatArray:
        """∂η/∂(ln f, ln N, ln T), shape (T, 3), by complex steps (Squire & Trapp 1998)."""
        rows, found = self._target_rows(targets, log_frequency), []
        psi = self._psi(rows).astype(complex)
        for axis in range(len(AXES)):
            moved = rows.points.astype(complex)
            moved[axis] += 1j * _IMAGINARY
            found.append(self._found.form.eta(psi, *moved).imag / _IMAGINARY)
        return np.column_stack(found)

    def _psi(self, rows: Rows) -> FloatArray:
        """ψ as the formulas have it, of every row's family, shape (p, n)."""
        layout = self._layout
        own = self._theta[layout.family : layout.difficulty].reshape(layout.p, layout.families)
        parameters = zip(self._found.form.parameters, own, strict=True)
        return np.stack([parameter.shown(row) for parameter, row in parameters])[:, rows.family]

    def _target_rows(self, targets: Targets, log_frequency: FloatArray) -> Rows:
        n = len(targets.kinds)
        kind = np.array([self._kinds[kind] for kind in targets.kinds], dtype=np.int64)
        log_axes = np.stack([log_frequency, targets.log_size, targets.log_tokens])
        return self._indexed(log_axes, np.zeros(n), kind, np.zeros(n, dtype=np.int64), np.arange(n))

    def _rows(self, cells: list[Cell], run: Run) -> Rows:
        """Every cell at every checkpoint of a run."""
        way = run.ends[-1] * np.arange(1, self._evaluations + 1) / self._evaluations
        tokens = np.union1d(way, run.ends)
        early = (~np.isin(tokens, run.ends)).astype(float)
        of = np.repeat(np.arange(len(cells)), len(tokens))
        kind = np.array([self._kinds[cell.kind] for cell in cells], dtype=np.int64)
        task = np.array([self._tasks[self._kinds[cell.kind], cell.task] for cell in cells], dtype=np.int64)
        log_axes = np.stack([
            np.log([cell.frequency for cell in cells])[of],
            np.full(len(of), np.log(run.shape.block_params)),
            np.tile(np.log(tokens), len(cells)),
        ])  # fmt: skip
        return self._indexed(log_axes, np.tile(early, len(cells)), kind[of], task[of], of)

    def _indexed(
        self, log_axes: FloatArray, early: FloatArray, kind: IntArray, task: IntArray, cell: IntArray
    ) -> Rows:
        return Rows(
            points=log_axes - self._found.centres[:, None],
            point_family=self._families[kind],
            point=np.arange(len(kind)),
            skill=np.full(len(kind), 0.5),  # information does not depend on it
            early=early,
            family=self._families[kind],
            kind=kind,
            task=task,
            run=np.zeros(len(kind), dtype=np.int64),
            cell=cell,
            checkpoints=np.bincount(cell)[cell],
        )


def _without(information: FloatArray, first: int) -> FloatArray:
    """The information on the parameters before `first` when the others are integrated out."""
    kept, cross = information[:first, :first], information[:first, first:]
    return kept - cross @ np.linalg.solve(information[first:, first:], cross.T)
