"""The interference law: what a step on common data does to a rare task, against model size.

    y(N) = y₀ + y₁·ln(N/N₀)

with y = |cosine| between the common gradient and the task's gradient (arXiv 2605.29548: 0.10 at 20 M, 8e-5 at
1 B parameters), the signed cosine, and loss_change, the first-order change of the task's loss (nats) by one
step of the optimizer on common data. A straight line: it holds inside the fitted sizes; beyond them
|cosine| would turn negative.

Shape legend: R = runs, D = draws.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw, Range
from mixplan.laws.bootstrap import line, line_draws, rounded, run_weights
from mixplan.laws.evidence import FloatArray

NAME = "linear in log size"
QUANTITIES = ("abs_cosine", "cosine", "loss_change")
CENTRE = "centre_log_block_params"


def fit(interference: Table, draws: int, generator: np.random.Generator) -> FittedLaw:
    """Least squares over the runs' means; bootstrap draws weight whole runs."""
    run_ids, run = np.unique(interference["run_id"].astype(str), return_inverse=True)
    counts = np.bincount(run)
    x = np.bincount(run, np.log(interference["block_params"])) / counts
    columns = {
        "abs_cosine": np.abs(interference["cosine"]),
        "cosine": interference["cosine"],
        "loss_change": interference["loss_change"],
    }
    means = {name: np.bincount(run, column) / counts for name, column in columns.items()}
    centre = float(x.mean())
    sampled = run_weights(len(x), line_draws(len(x), draws), generator)
    weights = np.vstack([np.ones(len(x)), sampled])
    table = np.column_stack([line(x - centre, means[name], weights) for name in QUANTITIES])
    misfit = means["abs_cosine"] - table[0, 0] - table[0, 1] * (x - centre)
    warnings = []
    if np.ptp(x) < 1e-9:
        warnings.append(
            "interference: one size only, so its change with size cannot be said; it is held constant"
        )
    if len(run_ids) < 3:
        warnings.append(f"interference: {len(run_ids)} runs; too few for intervals")
    return FittedLaw(
        law=NAME,
        formula="y = y + y_per_log_params·(ln(block_params) − centre), y: abs_cosine, cosine, loss_change",
        source="arXiv 2605.29548, gradient interference against size",
        parameters=[name for quantity in QUANTITIES for name in (quantity, f"{quantity}_per_log_params")],
        values=table[0].tolist(),
        draws=rounded(table[1:]),
        ranges={"block_params": Range(low=float(np.exp(x.min())), high=float(np.exp(x.max())))},
        settings={CENTRE: centre},
        rows=len(interference),
        runs=len(run_ids),
        residual=float(np.sqrt(np.mean(misfit**2))),
        warnings=warnings,
    )


def value(law: FittedLaw, quantity: str, block_params: float) -> FloatArray:
    """One quantity at one size, point estimate first, then every draw; shape (1 + D,)."""
    at = 2 * QUANTITIES.index(quantity)
    parameters = np.array([law.values, *law.draws])
    return parameters[:, at] + parameters[:, at + 1] * (np.log(block_params) - law.settings[CENTRE])
