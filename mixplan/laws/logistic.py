"""The learning law: mean skill is logistic in log frequency, log size and log tokens, up to a ceiling.

    mean skill = c_kind·sigmoid(a_kind + b_f·ln(f/f₀) + b_N·ln(N/N₀) + b_T·ln(T/T₀) − d·[not yet finished])

f instances per token, N block parameters, T training tokens, the subscript ₀ the centres of the table.
Intercept a and ceiling c per task kind (family, complexity): skill on unseen instances may level off below
1, however long, often or large. Slopes are shared by all kinds and ≥ 0, so that skill never falls with
size, tokens or frequency. d is what the learning-rate decay at the end of a run adds over its earlier
checkpoints; forecasts are for finished runs. An empirical form of this project's own, after the frequency ×
complexity × size threshold of arXiv 2605.29548: it holds inside the fitted ranges and has no threshold that
tokens cannot move, so far beyond them it is too hopeful about long training of small models.

Shape legend: n = rows, K = task kinds, P = parameters (K intercepts, K ceilings, 3 slopes, d if there are
checkpoints before the last), D = draws, R = runs.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from mixplan.documents.calibration import FittedLaw, Range
from mixplan.laws.beta_noise import fit_precision
from mixplan.laws.bootstrap import interval_90, rounded, run_weights
from mixplan.laws.evidence import AXES, Evidence, FloatArray, Kind
from mixplan.laws.quasi_logit import Design, maximise, mean_skill

NAME = "logistic"
SLOPES = tuple(f"log_{axis}" for axis in AXES)
FINISHED, PRECISION = "finished", "precision"
INTERCEPT_PRIOR = (0.0, 4.0)
CEILING_PRIOR = (5.0, 2.0)
SLOPE_PRIOR = (1.0, 2.0)
FINISHED_PRIOR = (0.0, 1.0)
"""Mean and standard deviation of the Gaussian priors, in log-odds (slopes: per e-fold). Weak: they decide
only what the runs leave open. The ceiling's has its middle 90 % between 0.85 and 0.9997. Every draw moves
the priors' means by a draw from themselves (randomised priors, arXiv 1806.03335), so that what the runs
leave open is wide open in the draws too, e.g. the intercept of a task that no run learned."""
MAX_WORTH = 50.0
"""Most observations of learned or not that one cell may count for, however little the cells scatter."""
WEAK_SHARE = 0.25
"""A slope whose draws spread more than this share of its prior is called unidentified."""


def intercept_name(kind: Kind) -> str:
    """Name of a task kind's intercept among the law's parameters."""
    return f"intercept[{kind[0]}, {kind[1]:.10g}]"


def ceiling_name(kind: Kind) -> str:
    """Name of the skill at which a task kind levels off."""
    return f"ceiling[{kind[0]}, {kind[1]:.10g}]"


def fit(evidence: Evidence, draws: int, generator: np.random.Generator) -> FittedLaw:
    """Fit by quasi-likelihood with bootstrap draws over runs.

    All checkpoints count, but a cell of a run weighs 1 however many checkpoints it has, and draws weight
    whole runs. The priors are weighed against the scatter there is: a first fit gives the precision φ, with
    which a cell is worth 1 + φ observations of learned or not.
    """
    centres = evidence.log_axes.mean(axis=0)
    columns = evidence.log_axes - centres
    has_offset = not evidence.finished.all()
    if has_offset:
        # 0 for finished runs, so that the intercepts are those of finished runs.
        columns = np.column_stack([columns, evidence.finished - 1.0])
    kinds = len(evidence.kinds)
    priors = [INTERCEPT_PRIOR] * kinds + [CEILING_PRIOR] * kinds + [SLOPE_PRIOR] * len(SLOPES)
    priors += [FINISHED_PRIOR] * has_offset
    mean, spread = np.array([m for m, _ in priors]), np.array([s for _, s in priors])
    bounded = np.zeros(len(mean), dtype=bool)
    bounded[2 * kinds : 2 * kinds + len(SLOPES)] = True
    design = Design(evidence.kind, columns, evidence.skill, kinds, bounded)
    done = evidence.finished

    def precision(theta: FloatArray, weights: FloatArray) -> float:
        return fit_precision(design.skill[done], mean_skill(design, theta)[done], weights[done], len(theta))

    share = evidence.cell_share
    first = maximise(design, share, mean, spread, mean.copy())
    worth = share * min(1.0 + precision(first, share), MAX_WORTH)
    point = maximise(design, worth, mean, spread, first)
    weights = run_weights(len(evidence.run_ids), draws, generator)[:, evidence.run]
    moved = generator.normal(mean, spread, size=(draws, len(mean)))
    sampled = [maximise(design, w * worth, m, spread, point) for w, m in zip(weights, moved, strict=True)]

    def named(theta: FloatArray, row_weights: FloatArray) -> FloatArray:
        shown = theta.copy()
        shown[kinds : 2 * kinds] = expit(theta[kinds : 2 * kinds])
        return np.append(shown, precision(theta, row_weights))

    names = [intercept_name(kind) for kind in evidence.kinds] + [
        ceiling_name(kind) for kind in evidence.kinds
    ]
    drawn = np.array([named(theta, w * share) for theta, w in zip(sampled, weights, strict=True)])
    return FittedLaw(
        law=NAME,
        formula="mean skill = ceiling[family, complexity]·sigmoid(intercept[family, complexity] + Σ "
        "log_x·(ln(x) − centre_log_x) − finished·[not yet finished]), x: frequency, block_params, tokens; "
        "skill of a run: (skill + 0.05)/1.06 ~ Beta of the mean's (mean + 0.05)/1.06 and precision, cut to "
        "[0, 1]",
        source="fractional logit; threshold in frequency, complexity and size after arXiv 2605.29548",
        parameters=[*names, *SLOPES, *([FINISHED] if has_offset else []), PRECISION],
        values=named(point, share).tolist(),
        draws=rounded(drawn),
        ranges={
            axis: Range(low=float(np.exp(column.min())), high=float(np.exp(column.max())))
            for axis, column in zip(AXES, evidence.log_axes.T, strict=True)
        },
        settings={f"centre_log_{axis}": float(c) for axis, c in zip(AXES, centres, strict=True)},
        rows=len(evidence.skill),
        runs=len(evidence.run_ids),
        residual=float(np.sqrt(np.mean((mean_skill(design, point) - design.skill)[done] ** 2))),
        warnings=_warnings(evidence, drawn[:, 2 * kinds :]),
    )


def _warnings(evidence: Evidence, slopes: FloatArray) -> list[str]:
    found = []
    for index, axis in enumerate(AXES):
        column = evidence.log_axes[:, index]
        if np.ptp(column) < 1e-9:
            found.append(
                f"all measurements have {axis}={np.exp(column[0]):.4g}: what other values do cannot be said, "
                "and the slope is a guess"
            )
        elif slopes[:, index].std() > WEAK_SHARE * SLOPE_PRIOR[1]:
            low, high = interval_90(slopes[:, index])
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
