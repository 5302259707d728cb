"""What rows of LM loss cannot say, in words.

Shape legend: D = draws, K = parameters.
"""

from __future__ import annotations

import numpy as np

from mixplan.laws.drawn import interval_90
from mixplan.laws.evidence import FloatArray
from mixplan.laws.loss_posterior import NOISES, R_STAR, REPETITION, LossPosterior
from mixplan.laws.loss_rows import MAX_CORRELATION, LossRows, correlation
from mixplan.units import number

LARGE_NOISE = 0.05
"""Relative scatter of a loss between runs of the same size and length above which something is wrong."""
LEARNED_SHARE = 0.5
"""Share of the prior's variance of an exponent's logarithm that rows must remove for it to be measured."""


def warnings(
    rows: LossRows,
    finals_only: bool,
    posterior: LossPosterior,
    values: FloatArray,
    table: FloatArray,
    measured: dict[str, float],
) -> list[str]:
    """What cannot be said from these rows.

    Args:
        rows: chosen to fit, the left-out ones among them.
        finals_only: whether they are all ends of runs.
        posterior: of these rows.
        values: point estimate, shape (K,).
        table: draws, shape (D, K).
        measured: by exponent, share of the prior's variance that the rows remove.
    """
    found = []
    if not finals_only:
        found.append(
            "LM loss: too few training lengths at the end of runs, so checkpoints before the learning-rate "
            "decay were used too, with a fitted offset; the dependence on tokens is that of one run's own "
            "course"
        )
    elif correlation(rows) >= MAX_CORRELATION:
        found.append(
            "LM loss: tokens grow with size in these runs, so what size does and what tokens do cannot be "
            "told apart; only runs along that same line can be forecast"
        )
    for what, column, exponent in (
        ("sizes", rows.block_params, "alpha"),
        ("training lengths", rows.common_tokens, "beta"),
    ):
        count = len(np.unique(column))
        if count < 3 or measured[exponent] < LEARNED_SHARE:
            found.append(
                f"LM loss: {count} {what} do not determine {exponent}, which then rests on a prior around "
                f"0.3; do not extrapolate to other {what}; measure more {what}, further apart"
            )
    low, high = interval_90(table[:, 0])
    if high - low > 0.5 * float(np.median(rows.loss)):
        found.append(
            f"LM loss: the irreducible loss E is not pinned down (90 % interval {low:.3g} to {high:.3g} "
            "nats); far extrapolation in size or tokens is not supported"
        )
    if posterior.with_repeats and measured[REPETITION] < LEARNED_SHARE:
        found.append(
            f"LM loss: common data was repeated too little to measure what repeats cost; R* rests on a prior "
            f"around {R_STAR:g} (arXiv 2305.16264)"
        )
    elif not posterior.with_repeats:
        known = "no run repeats common data" if np.isfinite(rows.unique_tokens) else (
            "the tables do not say how much common data there is, so it is taken that no run repeats it"
        )  # fmt: skip
        found.append(f"LM loss: {known}; what repeats cost is imported (R* = {R_STAR:g}, arXiv 2305.16264)")
    return found + _contradictions(rows, posterior, values)


def _contradictions(rows: LossRows, posterior: LossPosterior, values: FloatArray) -> list[str]:
    """Losses that do not go together: single ones apart, scatter beyond that of seeds, no fall."""
    found = []
    apart = posterior.outlying
    if len(apart):
        first = apart[np.lexsort((rows.tokens[apart], rows.block_params[apart]))[0]]
        found.append(
            f"LM loss: {len(apart)} of {len(rows.loss)} losses lie far from all others and are left out, "
            f"first {rows.loss[first]:.4g} at {number(rows.block_params[first])} block parameters and "
            f"{number(rows.tokens[first])} tokens; is it in nats per token, on the same text?"
        )
    names = posterior.names
    scatter = float(np.sqrt(sum(values[names.index(name)] ** 2 for name in NOISES)))
    if scatter > LARGE_NOISE:
        found.append(
            f"LM loss: runs scatter by {scatter:.0%} around the law, where seeds usually differ by a percent "
            "or less: the losses contradict each other, or no such law holds for them"
        )
    for what, column in (("size", rows.block_params), ("training tokens", rows.common_tokens)):
        log_x, log_loss = np.log(column), np.log(rows.loss)
        if np.polyfit(log_x, log_loss, 1)[0] >= 0:
            found.append(
                f"LM loss: it does not fall with {what} in these rows, which the law cannot follow: "
                f"what other {what} would bring cannot be forecast"
            )
    return found
