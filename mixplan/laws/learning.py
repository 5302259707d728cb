"""A fitted form of the learning law becomes a document: point estimate and draws from its posterior.

Draws are normal around the mode (Laplace's approximation), except for each task kind's difficulty. Where a
kind was never learned, or always, its rows bound that on one side only, and a normal would put a fifth of
the draws where the table says no. So the part of a difficulty that the other parameters leave open is drawn
from its own density, on a grid.

Shape legend: D = draws, P = parameters θ of mixplan.laws.hierarchy, q = those kept (no effects of single
tasks and runs), K = task kinds, G = grid points.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from mixplan.documents.calibration import FittedLaw, Range
from mixplan.laws.beta_noise import to_unit
from mixplan.laws.drawn import interval_90, rounded
from mixplan.laws.evidence import AXES, Evidence, FloatArray, Kind
from mixplan.laws.forms import (
    ALPHA,
    FREQUENCY_SLOPE,
    LOG_BALANCE,
    LOG_SIZE,
    LOG_TIME,
    SIZE_SLOPE,
    TIME_EXPONENT,
    TOKENS_SLOPE,
    Form,
)
from mixplan.laws.hierarchy import DIFFICULTY_PRIOR, Estimate, estimate, mean_skill, predictor

FINISHED, TASK_SPREAD, RUN_SPREAD = "finished", "task_spread", "run_spread"
GRID = np.linspace(-10.0, 10.0, 161)
"""Points of a difficulty's density, in its standard deviations."""
OPEN_SHARE = 0.7
"""A parameter whose draws spread over more than this share of its prior's spread counts as left open."""
HELP = {
    FREQUENCY_SLOPE: "more frequencies per task, on both sides of where it is learned, would settle it",
    TOKENS_SLOPE: "another training length (horizons) would settle it",
    SIZE_SLOPE: "rungs further apart in size would settle it",
    LOG_TIME: "a longer training length on the smallest rungs would settle it",
    TIME_EXPONENT: "a longer training length on every rung would settle it",
    LOG_SIZE: "larger rungs would settle it; beyond the ladder nothing rests on it but this guess",
    ALPHA: "rungs further apart in size at the longest training length would settle it",
    LOG_BALANCE: "another training length (horizons) would settle it",
}
"""Which measurement pins a parameter down."""
_CHUNK = 4096


def family_name(parameter: str, family: str) -> str:
    """Name of a parameter of one family."""
    return f"{parameter}[{family}]"


def difficulty_name(kind: Kind) -> str:
    """Name of a task kind's difficulty among the law's parameters."""
    return f"difficulty[{kind[0]}, {_exact(kind[1])}]"


def ceiling_name(kind: Kind) -> str:
    """Name of the skill at which a task kind levels off."""
    return f"ceiling[{kind[0]}, {_exact(kind[1])}]"


def _exact(complexity: float) -> str:
    """To the last digit, so that it is found again by its name."""
    return repr(float(complexity)).removesuffix(".0")


def precision_name(family: str) -> str:
    """Name of the precision with which a family's measured skills scatter around their means."""
    return f"precision[{family}]"


def fit(
    form: Form,
    evidence: Evidence,
    draws: int,
    generator: np.random.Generator,
    time_exponent: tuple[float, float] | None = None,
) -> FittedLaw:
    """Fit one form.

    Args:
        form: one of mixplan.laws.forms.
        evidence: rows of one protocol.
        draws: from the posterior; 0 for the point estimate alone.
        generator: of the draws.
        time_exponent: mean and standard deviation of the prior of ln time_constant_exponent, from measured
            retention.
    """
    found = estimate(form, evidence, time_exponent)
    layout, variances = found.layout, found.variances
    theta = np.column_stack([found.theta[: layout.u], _draws(found, draws, generator)])
    shown = [_parameters(found, theta), _scatter(found, evidence, draws, generator)]
    table = np.vstack(shown)
    done = evidence.finished
    misfit = (mean_skill(form, layout, found.rows, found.theta) - evidence.skill)[done]
    names = [parameter.name for parameter in form.parameters]
    names += [family_name(name, family) for name in names for family in found.families]
    names += [difficulty_name(kind) for kind in evidence.kinds] + [
        ceiling_name(kind) for kind in evidence.kinds
    ]
    names += [FINISHED, TASK_SPREAD, RUN_SPREAD, *(precision_name(family) for family in found.families)]
    return FittedLaw(
        law=form.name,
        formula="mean skill = ceiling[kind]·link(η[family] − difficulty[kind] − finished·[not yet "
        f"finished]), link(η) = {form.link.formula}; {form.formula}; ln f, ln N, ln T less their centres; "
        "skill of a run: (skill + 0.05)/1.06 ~ Beta of the mean's (mean + 0.05)/1.06 and precision[family], "
        "cut to [0, 1], the mean shifted by task_spread and run_spread in η",
        source=form.source,
        parameters=names,
        values=table[:, 0].tolist(),
        draws=rounded(table[:, 1:].T),
        ranges={
            axis: Range(low=float(np.exp(column.min())), high=float(np.exp(column.max())))
            for axis, column in zip(AXES, evidence.log_axes.T, strict=True)
        },
        settings={
            **{f"centre_log_{axis}": float(c) for axis, c in zip(AXES, found.centres, strict=True)},
            "checkpoint_correlation": variances.correlation,
        },
        rows=len(evidence.skill),
        runs=len(evidence.run_ids),
        residual=float(np.sqrt(np.mean(misfit**2))),
        warnings=_warnings(form, evidence, table[: len(form.parameters)]),
    )


def _parameters(found: Estimate, theta: FloatArray) -> FloatArray:
    """θ as the document shows it, shapes (q, 1 + D)."""
    layout, parameters = found.layout, found.form.parameters
    average = [parameter.shown(theta[j]) for j, parameter in enumerate(parameters)]
    families = [
        parameter.shown(theta[layout.family + j * layout.families + g])
        for j, parameter in enumerate(parameters)
        for g in range(layout.families)
    ]
    rest = [theta[layout.difficulty : layout.ceiling], expit(theta[layout.ceiling : layout.finished])]
    return np.vstack([*average, *families, *rest, theta[layout.finished]])


def _scatter(found: Estimate, evidence: Evidence, draws: int, generator: np.random.Generator) -> FloatArray:
    """Task spread, run spread and precisions, the estimates first, then draws; shape (2 + F, 1 + D).

    A variance from m independent values is known as m ÷ χ²_m says.
    """
    layout, variances = found.layout, found.variances
    done = found.rows.early == 0
    cells = np.bincount(found.rows.family[done], minlength=layout.families).astype(float)
    # A family without an end of a run has the precision that is common to all, known as by one cell.
    worth = np.concatenate([[layout.tasks, max(layout.runs - 1, 1)], np.maximum(cells, 1.0)])
    drawn = worth[:, None] / generator.chisquare(worth[:, None], size=(len(worth), draws))
    inflated = np.column_stack([np.ones(len(worth)), drawn])
    spreads = np.array([variances.task, variances.run])[:, None] * np.sqrt(inflated[:2])
    dispersion = inflated[2:] / (1.0 + variances.precision[:, None])
    return np.vstack([spreads, np.maximum(1.0 / dispersion - 1.0, 0.02)])


def _draws(found: Estimate, draws: int, generator: np.random.Generator) -> FloatArray:
    """θ without the effects of single tasks and runs, shape (q, D)."""
    layout = found.layout
    q = layout.u
    covariance = np.linalg.inv(found.information)[:q, :q]
    covariance = (covariance + covariance.T) / 2.0
    moved = np.linalg.cholesky(covariance) @ generator.standard_normal((q, draws))
    information = np.linalg.inv(covariance)
    for kind in range(layout.kinds):
        at = layout.difficulty + kind
        open_ = information[at, at] ** -0.5
        follows = moved[at] - information[at] @ moved / information[at, at]
        grid, below = _difficulty(found, kind)
        # The grid's density holds single tasks and runs fixed: its shape counts, in its own deviations.
        sure = found.information[at, at] ** -0.5
        level = norm.cdf((moved[at] - follows) / open_)
        moved[at] = follows + np.interp(level, below, grid) * open_ / sure
    return found.theta[:q, None] + moved


def _difficulty(found: Estimate, kind: int) -> tuple[FloatArray, FloatArray]:
    """Grid of a difficulty less its mode, and the probability below each point, everything else fixed at
    the mode; shapes (G,)."""
    layout = found.layout
    at = layout.difficulty + kind
    grid = GRID * found.information[at, at] ** -0.5
    mine = np.flatnonzero(found.rows.kind == kind)
    density = -0.5 * ((found.theta[at] + grid - DIFFICULTY_PRIOR[0]) / DIFFICULTY_PRIOR[1]) ** 2
    ceiling = expit(found.theta[layout.ceiling + kind])
    for start in range(0, len(mine), _CHUNK):
        part = mine[start : start + _CHUNK]
        keep = np.zeros(len(found.rows.skill), dtype=bool)
        keep[part] = True
        rows = found.rows.where(keep)
        eta = predictor(found.form, layout, rows, found.theta)[:, None] - grid
        mu = to_unit(ceiling * found.form.link.share(eta))
        skill, weight = rows.skill[:, None], found.weights[part][:, None]
        density = density + (weight * (skill * np.log(mu) + (1.0 - skill) * np.log1p(-mu))).sum(axis=0)
    mass = np.exp(density - density.max())
    # Half of each point's own mass lies below it.
    return grid, (np.cumsum(mass) - 0.5 * mass) / mass.sum()


def _warnings(form: Form, evidence: Evidence, average: FloatArray) -> list[str]:
    """What these measurements leave open, and which others would settle it; average has shape (p, 1 + D)."""
    found = []
    for axis, column in zip(AXES, evidence.log_axes.T, strict=True):
        if np.ptp(column) < 1e-9:
            found.append(
                f"all measurements have {axis}={np.exp(column[0]):.4g}: what other values do cannot be said, "
                "and the law's slope there is a guess"
            )
    for parameter, drawn in zip(form.parameters, average, strict=True):
        if len(drawn) > 2 and parameter.searched(drawn[1:]).std() > OPEN_SHARE * parameter.spread:
            low, high = interval_90(drawn[1:])
            found.append(
                f"learning law ({form.name}): {parameter.name} is hardly pinned down by these measurements "
                f"(90 % interval {low:.2g} to {high:.2g}); {HELP[parameter.name]}"
            )
    sizes = len(np.unique(evidence.table["block_params"]))
    if len(evidence.run_ids) < 5:
        found.append(
            f"{len(evidence.run_ids)} runs over {sizes} sizes: intervals from so few runs are themselves "
            "uncertain; more seeds or rungs would settle them"
        )
    return found
