"""The fit behind every form of the learning law: families, tasks and runs share what they can.

    mean skill μ = sigmoid(γ_kind)·link(η(x; ψ_family) − difficulty_kind + u_task + v_run −
                   finished·[not yet finished])
    ψ_family ~ N(ψ, ω²),  u_task ~ N(0, τ²),  v_run ~ N(0, σ²)

θ = all of these, found by penalised quasi-likelihood (Breslow & Clayton 1993) with Fisher scoring; ω, τ, σ
and the precision of each family's scatter by empirical Bayes around it. The binomial form is a working
likelihood (Papke & Wooldridge 1996): its score asks no more of a skill than to have mean μ and a variance
proportional to (μ + δ₀)(1 + δ₁ − μ) (mixplan.laws.beta_noise), so noise may carry it below 0; cutting it off
there would keep the lucky guesses only and bend every slope down. Checkpoints of one cell in one run are
nearly one measurement: with m of them and the correlation r of their residuals, each weighs 1 ÷ (1 + (m −
1)·r).

Shape legend: n = rows, p = parameters of the form, F = families, K = task kinds, C = tasks, R = runs, P =
parameters θ, ordered: ψ (p), ψ_family (p·F), difficulty (K), γ (K), finished (1), u (C), v (R).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from mixplan.laws.beta_noise import PRECISION_RANGE, UNIT_WIDTH, to_unit
from mixplan.laws.evidence import Evidence, FloatArray
from mixplan.laws.forms import TIME_EXPONENT, Form
from mixplan.laws.hierarchy_rows import Layout, Rows, rows_of

DIFFICULTY_PRIOR = (0.0, 4.0)
CEILING_PRIOR = (5.0, 2.0)
FINISHED_PRIOR = (0.5, 1.0)
"""Mean and standard deviation, of η and, for the ceiling, of log-odds: its middle 90 % are 0.85 to 0.9998."""
TASK_SPREAD, RUN_SPREAD = 0.2, 0.1
"""First guesses of τ and σ, in η, which count as GUESS_WORTH measurements."""
GUESS_WORTH = 2.0
MAX_WORTH = 100.0
"""Most observations of learned or not that one cell may count for, however little the cells scatter."""
POOLED_CELLS = 0.1
"""Share of an average family's cells that the precision common to all families counts for in each one's."""
ROUNDS, STEPS = 8, 40
TOLERANCE = 1e-5
"""Twice the log-density that another step could still gain: the search ends below it."""
MAX_MOVE = 3.0
_IMAGINARY = 1e-20
SETTLED = 0.01
"""Relative change of the variances at which empirical Bayes stops."""
SAMPLED_ROWS = 20_000
"""With more rows, the variances are found on a sample of whole cells; θ then still on all rows."""


@dataclass(frozen=True)
class Variances:
    """What empirical Bayes finds."""

    between: FloatArray
    """ω, shape (p,)."""
    task: float
    run: float
    precision: FloatArray
    """φ of every family, shape (F,)."""
    correlation: float
    """r of the residuals of one cell's checkpoints."""


@dataclass(frozen=True)
class Estimate:
    """The mode, and what draws around it need."""

    form: Form
    layout: Layout
    rows: Rows
    families: list[str]
    centres: FloatArray
    theta: FloatArray
    """Shape (P,)."""
    information: FloatArray
    """Of quasi-likelihood and priors, shape (P, P)."""
    variances: Variances
    weights: FloatArray
    """Of the rows, shape (n,)."""


def estimate(form: Form, evidence: Evidence, time_exponent: tuple[float, float] | None = None) -> Estimate:
    """Fit a form.

    Args:
        form: one of mixplan.laws.forms.
        evidence: rows of one protocol.
        time_exponent: mean and standard deviation of the prior of ln time_constant_exponent, from the
            measured retention; forms without a time constant do not use it.
    """
    families = sorted({family for family, _ in evidence.kinds})
    rows, layout, centres = rows_of(evidence, form, families)
    mean, spread = _priors(form, layout, bool(rows.early.any()), time_exponent)
    variances = Variances(
        between=0.5 * np.array([parameter.between for parameter in form.parameters]),
        task=TASK_SPREAD,
        run=RUN_SPREAD,
        precision=np.full(len(families), 5.0),
        correlation=0.5 if rows.checkpoints.max() > 1 else 0.0,
    )
    guess = variances
    theta = _start(mean, layout)
    some = _sample(rows)
    for _ in range(ROUNDS):
        stiffness = _stiffness(layout, spread, variances)
        theta, fisher = _mode(form, layout, some, row_weights(some, variances), mean, stiffness, theta)
        before, variances = (
            variances,
            _variances(form, layout, some, theta, fisher, stiffness, guess),
        )
        if _settled(before, variances):
            break
    stiffness = _stiffness(layout, spread, variances)
    weights = row_weights(rows, variances)
    theta, fisher = _mode(form, layout, rows, weights, mean, stiffness, theta)
    return Estimate(form, layout, rows, families, centres, theta, fisher + stiffness, variances, weights)


def mean_skill(form: Form, layout: Layout, rows: Rows, theta: FloatArray) -> FloatArray:
    """μ of every row, shape (n,)."""
    return form.link.share(predictor(form, layout, rows, theta)) * _ceiling(layout, rows, theta)


def _priors(
    form: Form, layout: Layout, has_early: bool, time_exponent: tuple[float, float] | None
) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of every parameter, shapes (P,); ψ_family's are about ψ, see
    `_stiffness`."""
    mean, spread = np.zeros(layout.size), np.ones(layout.size)
    for index, parameter in enumerate(form.parameters):
        mean[index], spread[index] = parameter.mean, parameter.spread
        if parameter.name == TIME_EXPONENT and time_exponent is not None:
            mean[index], spread[index] = time_exponent
    mean[layout.difficulty : layout.ceiling], spread[layout.difficulty : layout.ceiling] = DIFFICULTY_PRIOR
    mean[layout.ceiling : layout.finished], spread[layout.ceiling : layout.finished] = CEILING_PRIOR
    # Without an early row the offset says nothing and stays where it is.
    mean[layout.finished], spread[layout.finished] = FINISHED_PRIOR if has_early else (0.0, 1e-3)
    return mean, spread


def _start(mean: FloatArray, layout: Layout) -> FloatArray:
    theta = mean.copy()
    theta[layout.family : layout.difficulty] = np.repeat(mean[: layout.p], layout.families)
    return theta


def _stiffness(layout: Layout, spread: FloatArray, variances: Variances) -> FloatArray:
    """Precision matrix of the priors, shape (P, P): ψ_family is tied to ψ."""
    diagonal = spread**-2.0
    diagonal[layout.u : layout.v] = variances.task**-2.0
    diagonal[layout.v :] = variances.run**-2.0
    diagonal[layout.family : layout.difficulty] = 0.0
    matrix = np.diag(diagonal)
    for j, between in enumerate(variances.between):
        own = layout.family + j * layout.families + np.arange(layout.families)
        tie = between**-2.0
        matrix[own, own] += tie
        matrix[own, j] -= tie
        matrix[j, own] -= tie
        matrix[j, j] += tie * layout.families
    return matrix


def row_weights(rows: Rows, variances: Variances) -> FloatArray:
    """What each row is worth in observations of learned or not, shape (n,)."""
    worth = 1.0 + np.minimum(variances.precision, MAX_WORTH)
    return worth[rows.family] / (1.0 + (rows.checkpoints - 1) * variances.correlation)


def _mode(
    form: Form,
    layout: Layout,
    rows: Rows,
    weights: FloatArray,
    mean: FloatArray,
    stiffness: FloatArray,
    start: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """θ that maximises quasi-likelihood and priors, and the Fisher information of the rows there."""
    centre = _start(mean, layout)

    def cost(theta: FloatArray) -> float:
        mu = to_unit(mean_skill(form, layout, rows, theta))
        away = theta - centre
        misfit = weights @ (rows.skill * np.log(mu) + (1.0 - rows.skill) * np.log1p(-mu))
        return float(0.5 * away @ stiffness @ away - misfit)

    at, current = start, cost(start)
    for _ in range(STEPS):
        gradient, information = derivatives(form, layout, rows, weights, at)
        gradient += stiffness @ (at - centre)
        information += stiffness
        step = _solve(layout, information, gradient)
        if gradient @ step < TOLERANCE:
            break
        scale = min(1.0, MAX_MOVE / max(float(np.abs(step).max()), 1e-12))
        while scale > 1e-7:
            trial = at - scale * step
            reached = cost(trial)
            if reached <= current:
                break
            scale *= 0.5
        else:
            break
        at, current = trial, reached
    return at, derivatives(form, layout, rows, weights, at)[1]


def _solve(layout: Layout, information: FloatArray, gradient: FloatArray) -> FloatArray:
    """information⁻¹·gradient. No row knows two tasks: their block is diagonal, and is eliminated first."""
    tasks = slice(layout.u, layout.v)
    rest = np.r_[: layout.u, layout.v : layout.size]
    own, across = information.diagonal()[tasks], information[rest, tasks]
    weighted = across / own
    step = np.empty(layout.size)
    step[rest] = np.linalg.solve(
        information[np.ix_(rest, rest)] - weighted @ across.T, gradient[rest] - weighted @ gradient[tasks]
    )
    step[tasks] = (gradient[tasks] - across.T @ step[rest]) / own
    return step


def derivatives(
    form: Form, layout: Layout, rows: Rows, weights: FloatArray, theta: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Gradient (P,) and Fisher information (P, P) of the misfit; every row touches p + 5 parameters."""
    eta = predictor(form, layout, rows, theta)
    share, ceiling = form.link.share(eta), _ceiling(layout, rows, theta)
    mu = to_unit(share * ceiling)
    by_eta = ceiling * form.link.slope(eta) / UNIT_WIDTH
    by_gamma = share * ceiling * (1.0 - ceiling) / UNIT_WIDTH
    columns = np.empty((len(mu), layout.p + 5))
    places = np.empty((len(mu), layout.p + 5), dtype=np.int64)
    for j, slope in enumerate(form_slopes(form, layout, rows, theta)):
        columns[:, j] = by_eta * slope
        places[:, j] = layout.family + j * layout.families + rows.family
    for j, (value, place) in enumerate(
        (
            (-by_eta, layout.difficulty + rows.kind),
            (by_gamma, layout.ceiling + rows.kind),
            (-by_eta * rows.early, np.full(len(mu), layout.finished)),
            (by_eta, layout.u + rows.task),
            (by_eta, layout.v + rows.run),
        ),
        start=layout.p,
    ):
        columns[:, j], places[:, j] = value, place
    inverse = weights / (mu * (1.0 - mu))
    ends = np.arange(0, columns.size + 1, layout.p + 5)
    jacobian = csr_array((columns.ravel(), places.ravel(), ends), shape=(len(mu), layout.size))
    scaled = csr_array(
        ((columns * inverse[:, None]).ravel(), places.ravel(), ends), shape=(len(mu), layout.size)
    )
    gradient = jacobian.T @ (inverse * (mu - rows.skill))
    return gradient, (scaled.T @ jacobian).toarray()


def _family_parameters(layout: Layout, theta: FloatArray) -> FloatArray:
    """Unbounded ψ of every family, shape (p, F)."""
    return theta[layout.family : layout.difficulty].reshape(layout.p, layout.families)


def form_slopes(form: Form, layout: Layout, rows: Rows, theta: FloatArray) -> list[FloatArray]:
    """∂η/∂ψ of every row by complex steps (Squire & Trapp 1998), p arrays of shape (n,)."""
    unbounded = _family_parameters(layout, theta)
    slopes = []
    for j in range(layout.p):
        moved = unbounded.astype(complex)
        moved[j] += 1j * _IMAGINARY
        eta = form.eta(_shown(form, moved)[:, rows.point_family], *rows.points)
        slopes.append((eta.imag / _IMAGINARY)[rows.point])
    return slopes


def _shown(form: Form, unbounded: FloatArray) -> FloatArray:
    return np.stack([p.shown(row) for p, row in zip(form.parameters, unbounded, strict=True)])


def predictor(form: Form, layout: Layout, rows: Rows, theta: FloatArray) -> FloatArray:
    shown = _shown(form, _family_parameters(layout, theta))
    eta = form.eta(shown[:, rows.point_family], *rows.points)[rows.point]
    effects = theta[layout.u + rows.task] + theta[layout.v + rows.run]
    return eta + effects - theta[layout.difficulty + rows.kind] - theta[layout.finished] * rows.early


def _ceiling(layout: Layout, rows: Rows, theta: FloatArray) -> FloatArray:
    return expit(theta[layout.ceiling : layout.finished])[rows.kind]


def _variances(
    form: Form,
    layout: Layout,
    rows: Rows,
    theta: FloatArray,
    fisher: FloatArray,
    stiffness: FloatArray,
    guess: Variances,
) -> Variances:
    """One empirical-Bayes step: mean squares of the effects, with what is not known of them."""
    covariance = np.linalg.inv(fisher + stiffness)
    unknown = np.diag(covariance)
    between = np.empty(layout.p)
    for j in range(layout.p):
        own = layout.family + j * layout.families + np.arange(layout.families)
        doubt = unknown[own] + unknown[j] - 2.0 * covariance[own, j]
        between[j] = _spread((theta[own] - theta[j]) ** 2 + doubt, guess.between[j])
    task, run = slice(layout.u, layout.v), slice(layout.v, layout.size)
    mu = to_unit(mean_skill(form, layout, rows, theta))
    scale = mu * (1.0 - mu)
    residual = (rows.skill - mu) / np.sqrt(scale)
    # Parameters that the rows, not the priors, have fixed.
    used = float(np.einsum("ij,ji->", covariance, fisher))
    correlation = _correlation(rows, residual)
    independent = float((1.0 / (1.0 + (rows.checkpoints - 1) * correlation)).sum())
    free = 1.0 - min(used / independent, 0.5)
    return Variances(
        between=between,
        task=_spread(theta[task] ** 2 + unknown[task], guess.task),
        run=_spread(theta[run] ** 2 + unknown[run], guess.run),
        precision=_precision(rows, residual**2 * scale / free, scale, layout.families),
        correlation=correlation,
    )


def _spread(squares: FloatArray, guess: float) -> float:
    """Root mean square of effects, and of GUESS_WORTH guesses."""
    return float(np.sqrt((squares.sum() + GUESS_WORTH * guess**2) / (len(squares) + GUESS_WORTH)))


def _precision(rows: Rows, squares: FloatArray, scale: FloatArray, families: int) -> FloatArray:
    """φ of every family from squared residuals at the ends of runs, shape (F,); a ratio of sums, which
    bounded residuals at sharp means cannot upset."""
    done = rows.early == 0
    if not done.any():
        done = np.ones(len(done), dtype=bool)
    own_squares = np.bincount(rows.family[done], squares[done], families)
    own_scale = np.bincount(rows.family[done], scale[done], families)
    common = own_squares.sum() / own_scale.sum()
    pooled = POOLED_CELLS * own_scale.sum() / families
    dispersion = (own_squares + pooled * common) / (own_scale + pooled)
    return np.clip(1.0 / np.maximum(dispersion, 1e-6) - 1.0, *PRECISION_RANGE)


def _correlation(rows: Rows, residual: FloatArray) -> float:
    """Of the residuals of one cell's checkpoints, from all their pairs."""
    several = rows.checkpoints > 1
    if not several.any():
        return 0.0
    cells = int(rows.cell.max()) + 1
    total = np.bincount(rows.cell[several], residual[several], cells)
    squares = np.bincount(rows.cell[several], residual[several] ** 2, cells)
    count = np.bincount(rows.cell[several], minlength=cells).astype(float)
    pairs = float((count * (count - 1.0)).sum())
    return float(np.clip((total**2 - squares).sum() / pairs / np.mean(residual[several] ** 2), 0.0, 0.98))


def _settled(before: Variances, after: Variances) -> bool:
    one, other = (
        np.concatenate([v.between, [v.task, v.run, v.correlation + 1.0], v.precision])
        for v in (before, after)
    )
    return bool(np.abs(np.log(other / one)).max() < SETTLED)


def _sample(rows: Rows) -> Rows:
    """All rows, or those of every so many cells."""
    if len(rows.skill) <= SAMPLED_ROWS:
        return rows
    every = -(-len(rows.skill) // SAMPLED_ROWS)
    cells = int(rows.cell.max()) + 1
    # By what the cells are and measured, so that no name decides which are taken.
    keys = [np.bincount(rows.cell, values, cells) for values in (rows.skill, *rows.points[:, rows.point])]
    rank = np.empty(cells, dtype=np.int64)
    rank[np.lexsort(keys)] = np.arange(cells)
    return rows.where(rank[rows.cell] % every == 0)
