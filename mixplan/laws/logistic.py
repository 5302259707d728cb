"""The learning law: a run's mean skill is logistic in log frequency, log size and log tokens.

    mean skill = sigmoid(a_kind + b_f·ln(f/f₀) + b_N·ln(N/N₀) + b_T·ln(T/T₀) − c·[not yet finished])

f instances per token, N block parameters, T training tokens, the subscript ₀ the centres of the table. One
intercept a per task kind (family, complexity); slopes shared by all kinds and ≥ 0, so that skill never falls
with size, tokens or frequency. c is what the learning-rate decay at the end of a run adds over its earlier
checkpoints; forecasts are for finished runs. An empirical form of this project's own, after the frequency ×
complexity × size threshold of arXiv 2605.29548: it holds inside the fitted ranges and has no threshold that
tokens cannot move, so far beyond them it is too hopeful about long training of small models.

Shape legend: n = rows, K = task kinds, P = parameters (K intercepts, 3 slopes, c if there are checkpoints
before the last), D = draws, R = runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mixplan.documents.calibration import FittedLaw, Range
from mixplan.laws.beta_noise import fit_precision
from mixplan.laws.bootstrap import interval_90, rounded, run_weights
from mixplan.laws.evidence import AXES, Evidence, Kind

FloatArray = NDArray[np.float64]

NAME = "logistic"
SLOPES = tuple(f"log_{axis}" for axis in AXES)
FINISHED, PRECISION = "finished", "precision"
INTERCEPT_PRIOR = (0.0, 4.0)
SLOPE_PRIOR = (1.0, 2.0)
FINISHED_PRIOR = (0.0, 1.0)
"""Mean and standard deviation of the Gaussian priors, log-odds (per e-fold). Weak: they decide only what the
runs leave open. Every draw moves their means by a draw from themselves (randomised MAP, arXiv 1412.7489), so
that what the runs leave open is also wide open in the draws, e.g. the intercept of a task that no run
learned."""
WEAK_SHARE = 0.5
"""A slope whose draws spread more than this share of its prior is called unidentified."""
_MAX_STEPS, _TOLERANCE = 60, 1e-9


@dataclass(frozen=True)
class _Design:
    kind: NDArray[np.int64]  # (n,)
    columns: FloatArray  # (n, 3) centred logs, or (n, 4) with the finished flag
    skill: FloatArray  # (n,)
    kinds: int


def intercept_name(kind: Kind) -> str:
    """Name of a task kind's intercept among the law's parameters."""
    return f"intercept[{kind[0]}, {kind[1]:.10g}]"


def fit(evidence: Evidence, draws: int, generator: np.random.Generator) -> FittedLaw:
    """Fit by fractional logit (quasi-likelihood, Papke & Wooldridge 1996) with bootstrap draws over runs.

    All checkpoints count, but a cell of a run weighs 1 however many checkpoints it has, and draws weight
    whole runs.
    """
    centres = evidence.log_axes.mean(axis=0)
    columns = evidence.log_axes - centres
    has_offset = not evidence.finished.all()
    if has_offset:
        # 0 for finished runs, so that the intercepts are those of finished runs.
        columns = np.column_stack([columns, evidence.finished - 1.0])
    design = _Design(evidence.kind, columns, evidence.skill, len(evidence.kinds))
    priors = [INTERCEPT_PRIOR] * design.kinds + [SLOPE_PRIOR] * len(SLOPES) + [FINISHED_PRIOR] * has_offset
    mean, spread = np.array([m for m, _ in priors]), np.array([s for _, s in priors])
    point = _maximise(design, evidence.cell_share, mean, spread, mean.copy())
    weights = run_weights(len(evidence.run_ids), draws, generator)[:, evidence.run] * evidence.cell_share
    moved = generator.normal(mean, spread, size=(draws, len(mean)))
    sampled = np.array([_maximise(design, w, m, spread, point) for w, m in zip(weights, moved, strict=True)])
    done = evidence.finished

    def precision(parameters: FloatArray, row_weights: FloatArray) -> float:
        fitted = _mean(design, parameters)[done]
        return fit_precision(np.clip(design.skill[done], 0.0, 1.0), fitted, row_weights[done], len(point))

    values = [*point.tolist(), precision(point, evidence.cell_share)]
    drawn = [[*p.tolist(), precision(p, w)] for p, w in zip(sampled, weights, strict=True)]
    ranges = {
        axis: Range(low=float(np.exp(column.min())), high=float(np.exp(column.max())))
        for axis, column in zip(AXES, evidence.log_axes.T, strict=True)
    }
    names = [intercept_name(kind) for kind in evidence.kinds] + list(SLOPES) + [FINISHED] * has_offset
    return FittedLaw(
        law=NAME,
        formula="mean skill = sigmoid(intercept[family, complexity] + Σ log_x·(ln(x) − centre_log_x) − "
        "finished·[not yet finished]), x: frequency, block_params, tokens; skill of a run ~ "
        "Beta(mean·precision, (1 − mean)·precision)",
        source="fractional logit; threshold in frequency, complexity and size after arXiv 2605.29548",
        parameters=[*names, PRECISION],
        values=values,
        draws=rounded(np.array(drawn)) if draws else [],
        ranges=ranges,
        settings={f"centre_log_{axis}": float(c) for axis, c in zip(AXES, centres, strict=True)},
        rows=len(evidence.skill),
        runs=len(evidence.run_ids),
        residual=float(np.sqrt(np.mean((_mean(design, point) - design.skill)[done] ** 2))),
        warnings=_warnings(evidence, sampled, design.kinds),
    )


def _mean(design: _Design, parameters: FloatArray) -> FloatArray:
    return expit(parameters[design.kind] + design.columns @ parameters[design.kinds :])


def _maximise(
    design: _Design, weights: FloatArray, prior_mean: FloatArray, prior_spread: FloatArray, start: FloatArray
) -> FloatArray:
    """Penalised quasi-likelihood with slopes ≥ 0, by projected Newton steps (Bertsekas 1982); shape (P,).

    The objective is strictly convex, so the result does not depend on `start`.
    """
    kinds = design.kinds
    bounded = np.zeros(len(start), dtype=bool)
    bounded[kinds : kinds + len(SLOPES)] = True
    stiffness = prior_spread**-2.0
    at = np.where(bounded, np.maximum(start, 0.0), start)

    def cost(parameters: FloatArray) -> float:
        eta = parameters[design.kind] + design.columns @ parameters[kinds:]
        misfit = weights @ (np.logaddexp(0.0, eta) - design.skill * eta)
        return float(misfit + 0.5 * (stiffness * (parameters - prior_mean) ** 2).sum())

    current = cost(at)
    for _ in range(_MAX_STEPS):
        mean = _mean(design, at)
        residual, curvature = weights * (mean - design.skill), weights * mean * (1.0 - mean)
        slope = np.concatenate([np.bincount(design.kind, residual, kinds), design.columns.T @ residual])
        slope += stiffness * (at - prior_mean)
        free = ~(bounded & (at <= 0.0) & (slope > 0.0))
        step = np.zeros_like(at)
        step[free] = np.linalg.solve(_hessian(design, curvature, stiffness)[np.ix_(free, free)], slope[free])
        scale = 1.0
        while True:
            trial = at - scale * step
            trial[bounded] = np.maximum(trial[bounded], 0.0)
            reached = cost(trial)
            if reached <= current or scale < 1e-8:
                break
            scale *= 0.5
        settled = float(np.abs(trial - at).max()) < _TOLERANCE
        if reached > current:
            break
        at, current = trial, reached
        if settled:
            break
    return at


def _hessian(design: _Design, curvature: FloatArray, stiffness: FloatArray) -> FloatArray:
    """Second derivatives, shape (P, P). The intercepts' block is diagonal, so their rows are only summed."""
    kinds, columns = design.kinds, design.columns
    matrix = np.diag(stiffness)
    matrix[np.arange(kinds), np.arange(kinds)] += np.bincount(design.kind, curvature, kinds)
    for index, column in enumerate(columns.T):
        cross = np.bincount(design.kind, curvature * column, kinds)
        matrix[:kinds, kinds + index] = cross
        matrix[kinds + index, :kinds] = cross
    matrix[kinds:, kinds:] += (columns * curvature[:, None]).T @ columns
    return matrix


def _warnings(evidence: Evidence, sampled: FloatArray, kinds: int) -> list[str]:
    found = []
    for index, axis in enumerate(AXES):
        column = evidence.log_axes[:, index]
        if np.ptp(column) < 1e-9:
            found.append(
                f"all measurements have {axis}={np.exp(column[0]):.4g}: what other values do cannot be said, "
                "and the slope is a guess"
            )
        elif len(sampled) and sampled[:, kinds + index].std() > WEAK_SHARE * SLOPE_PRIOR[1]:
            low, high = interval_90(sampled[:, kinds + index])
            found.append(
                f"the slope on {axis} is hardly pinned down by these measurements (90 % interval {low:.2g} "
                f"to {high:.2g}); do not rely on other values of {axis} than those measured"
            )
    sizes = len(np.unique(evidence.table["block_params"]))
    if len(evidence.run_ids) < 5:
        found.append(
            f"{len(evidence.run_ids)} runs over {sizes} sizes: intervals from so few runs are themselves "
            "uncertain; more seeds or rungs would settle them"
        )
    return found
