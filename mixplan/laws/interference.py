"""The interference law: what a step on common data does to a rare task, against model size.

    y(N) = y₀ + y₁·ln(N/N₀) + ε_run,   ε_run ~ N(0, σ²)

with y = ln |cosine| between the common gradient and the task's gradient (arXiv 2605.29548: 0.10 at 20 M, 8e-5
at 1 B parameters; a straight line in |cosine| itself would turn negative beyond the ladder), the signed
cosine, and loss_change, the first-order change of the task's loss (nats) by one step of the optimizer on
common data. Each run counts by its mean over cells and times, because these share one model. Draws are of the
normal linear model's posterior under the prior 1/σ²: Student's t with (runs − 2) degrees of freedom for the
mean of many runs at a size, so that few runs have wide intervals; σ is what seeds differ by, and a new run
scatters around the mean by it.

Shape legend: R = runs, D = draws, Q = normal quantiles, S = sizes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2, norm
from scipy.stats import f as f_distribution

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw, Range
from mixplan.errors import InputError
from mixplan.laws.drawn import line_draws, rounded

FloatArray = NDArray[np.float64]

NAME = "linear in log size, |cosine| log-linear"
QUANTITIES = ("abs_cosine", "cosine", "loss_change")
CENTRE = "centre_log_block_params"
SLOPE, SCATTER = "_per_log_params", "_sd_between_runs"
BENT = 0.01
"""Probability, were the line right, below which sizes lie too far off it for what seeds differ by."""
QUANTILES = 20


def fit(interference: Table, draws: int, generator: np.random.Generator) -> FittedLaw:
    """Least squares over the runs' means, and draws of the posterior; with fewer than three runs none.

    Raises:
        InputError: a run whose cosines are all 0, so that no logarithm can be taken.
    """
    run_ids, run = np.unique(interference["run_id"].astype(str), return_inverse=True)
    counts = np.bincount(run)
    means = {
        name: np.bincount(run, column) / counts
        for name, column in (
            ("block_params", interference["block_params"]),
            ("abs_cosine", np.abs(interference["cosine"])),
            ("cosine", interference["cosine"]),
            ("loss_change", interference["loss_change"]),
        )
    }
    silent = run_ids[means["abs_cosine"] == 0.0]
    if len(silent):
        raise InputError(
            f"interference: all cosines of {', '.join(silent)} are 0, as of gradients that nobody measured; "
            "leave out these runs or measure them again"
        )
    # Runs in an order that no name decides, so that seeds and runs may be named anew.
    order = np.lexsort([means[name] for name in ("loss_change", "cosine", "abs_cosine", "block_params")])
    means = {name: column[order] for name, column in means.items()}
    x = np.log(means.pop("block_params"))
    means["abs_cosine"] = np.log(means["abs_cosine"])
    centre = float(x.mean())
    fitted = [
        _line(x - centre, means[name], line_draws(len(x), draws), generator) for name in QUANTITIES
    ]  # fmt: skip
    sizes = interference["block_params"]
    return FittedLaw(
        law=NAME,
        formula=f"ln(abs_cosine), cosine, loss_change = y + y{SLOPE}·(ln(block_params) − centre)",
        source="arXiv 2605.29548, gradient interference against size",
        parameters=[name + part for name in QUANTITIES for part in ("", SLOPE, SCATTER)],
        values=np.concatenate([values for values, _ in fitted]).tolist(),
        draws=rounded(np.hstack([drawn for _, drawn in fitted])),
        ranges={"block_params": Range(low=float(sizes.min()), high=float(sizes.max()))},
        settings={CENTRE: centre},
        rows=len(interference),
        runs=len(run_ids),
        residual=float(fitted[0][0][2]),
        warnings=_warnings(x, means),
    )


def value(law: FittedLaw, quantity: str, block_params: ArrayLike) -> FloatArray:
    """One quantity, the mean of many runs (of |cosine|: their geometric mean) at one size or at S of them:
    point estimate, then every draw; shape (1 + D,) or (1 + D, S)."""
    level, slope, _ = _columns(law, quantity)
    away = np.log(np.asarray(block_params, dtype=np.float64)) - law.settings[CENTRE]
    found = np.add.outer(level, np.zeros_like(away)) + np.multiply.outer(slope, away)
    return np.asarray(np.exp(found) if quantity == "abs_cosine" else found)


def new_run_value(law: FittedLaw, quantity: str, block_params: float) -> FloatArray:
    """The same of one run yet to be made: every draw at Q quantiles of the scatter; shape (D·Q,).

    Quantiles of these are the interval for a new run.
    """
    level, slope, scatter = (column[1:, None] for column in _columns(law, quantity))
    found = level + slope * (np.log(block_params) - law.settings[CENTRE])
    found = found + scatter * norm.ppf((np.arange(QUANTILES) + 0.5) / QUANTILES)
    return np.asarray(np.exp(found) if quantity == "abs_cosine" else found).ravel()


def _columns(law: FittedLaw, quantity: str) -> FloatArray:
    """Level, slope and scatter of a quantity: point estimate, then every draw; (3, 1 + D)."""
    at = law.parameters.index(quantity)
    return np.array([row[at : at + 3] for row in [law.values, *law.draws]]).T


def _line(
    x: FloatArray, y: FloatArray, draws: int, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Level at x = 0 (the middle of x), slope and residual scatter: least squares (3,), draws (D, 3).

    With one value of x the slope is 0 and not drawn.
    """
    spread = float(x @ x)
    sloped = np.ptp(x) > 1e-9
    slope = float(x @ y) / spread if sloped else 0.0
    level = float(y.mean())
    squares = float(((y - level - slope * x) ** 2).sum())
    freedom = len(x) - (2 if sloped else 1)
    scatter = np.sqrt(squares / freedom) if freedom else 0.0
    # Latin hypercube: each of the three takes every one of its D quantiles once, which steadies the ends.
    ranks = generator.permuted(np.tile(np.arange(draws), (3, 1)), axis=1)
    u = (ranks + generator.uniform(size=(3, draws))) / draws
    drawn = np.sqrt(squares / chi2.ppf(u[0], max(freedom, 1)))
    levels = level + drawn * norm.ppf(u[1]) / np.sqrt(len(x))
    slopes = slope + (drawn * norm.ppf(u[2]) / np.sqrt(spread) if sloped else np.zeros(draws))
    return np.array([level, slope, scatter]), np.column_stack([levels, slopes, drawn])


def _warnings(x: FloatArray, means: Mapping[str, FloatArray]) -> list[str]:
    warnings = []
    if np.ptp(x) < 1e-9:
        warnings.append(
            "interference: one size only, so its change with size cannot be said; it is held constant"
        )
    if len(x) < 3:
        warnings.append(f"interference: {len(x)} runs; too few for intervals")
    bent = [name for name in QUANTITIES if _bent(x, means[name]) < BENT]
    if bent:
        warnings.append(
            f"interference: {', '.join(bent)} by size bends more than seeds differ; the straight line holds "
            "at best inside the fitted sizes, do not extrapolate it"
        )
    return warnings


def _bent(x: FloatArray, y: FloatArray) -> float:
    """F test of lack of fit: probability of sizes that far off the line; 1 where it cannot be tested."""
    _, size = np.unique(x, return_inverse=True)
    sizes, counts = int(size.max()) + 1, np.bincount(size)
    if sizes < 3 or len(x) <= sizes:
        return 1.0
    middle, centred = np.bincount(size, y) / counts, x - x.mean()
    slope = centred @ y / (centred @ centred)
    pure = float(((y - middle[size]) ** 2).sum())
    off = float((counts * (middle - y.mean() - slope * (np.bincount(size, centred) / counts)) ** 2).sum())
    if pure <= 1e-12 * float((y**2).sum()):
        return 1.0
    ratio = (off / (sizes - 2)) / (pure / (len(x) - sizes))
    return float(f_distribution.sf(ratio, sizes - 2, len(x) - sizes))
