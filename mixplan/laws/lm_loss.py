"""The LM-loss law on common data.

    L(N, D) = E + A/N^α + B/D^β        (arXiv 2203.15556, eq. 2)

L in nats per token, N block parameters, D training tokens of a finished run. Exponents are fitted, never
imported.

Which rows: final checkpoints where they can tell N from D, else all checkpoints from a fifth of the run on
(before that, warm-up bends the curve), plus `before_decay` nats for those before the end, which were measured
ahead of the learning-rate decay.

Shape legend: n = rows, P = parameters of the search, D = draws, R = runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit

from mixplan.documents.calibration import FittedLaw, Range
from mixplan.errors import InputError
from mixplan.laws.bootstrap import interval_90, rounded, run_weights
from mixplan.laws.evidence import BoolArray, Evidence, FloatArray, IntArray

NAME = "power law in size and tokens"
PARAMETERS = ("E", "A", "alpha", "B", "beta")
BEFORE_DECAY = "before_decay"
NOISE = 0.01
"""Relative error of a loss measurement up to which misfits count squared, beyond it linearly (Huber)."""
EXPONENT_PRIOR = (np.log(0.3), 0.7)
"""Mean and standard deviation of ln α and ln β. Published exponents run from 0.10 to 0.46 (arXiv 2203.15556
and the OLMo ladder); the prior only keeps a short ladder from running off, and every draw moves its mean."""
SHARE_PRIOR = (0.0, 1.5)
"""Of the log-odds of E as a share of the smallest loss seen: nearly flat."""
TERM_PRIOR = 2.0
"""Standard deviation of the logarithm of each power term at the centre, around a tenth of the least loss."""
OFFSET_PRIOR = (0.0, 0.5)
"""Of `before_decay`, nats."""
SKIPPED_SHARE = 0.2
"""Share of a run at its start whose checkpoints the law does not see."""
MAX_CORRELATION = 0.95
"""Above this correlation of ln N with ln D, final checkpoints cannot tell size from tokens."""


@dataclass(frozen=True)
class LossRows:
    """One row per run and checkpoint; every array has shape (n,)."""

    run: IntArray
    block_params: FloatArray
    tokens: FloatArray
    loss: FloatArray
    finished: BoolArray


def loss_rows(evidence: Evidence) -> LossRows | None:
    """One LM loss per run and step; None when the table has none.

    Raises:
        InputError: a run has several different LM losses at one step.
    """
    table = evidence.table
    if "lm_loss" not in table:
        return None
    have = np.isfinite(table["lm_loss"]) & (table["lm_loss"] > 0)
    if not have.any():
        return None
    keys = np.column_stack([evidence.run[have].astype(float), table["step"][have]])
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    loss = table["lm_loss"][have]
    differing = np.flatnonzero(np.abs(loss - loss[first][group]) > 1e-6 * loss)
    if len(differing):
        row = differing[0]
        raise InputError(
            f"learning: lm_loss must be one number per run and step; {len(np.unique(group[differing]))} have "
            f"several, first run {evidence.run_ids[int(keys[row, 0])]!r} at step {keys[row, 1]:g}"
        )
    rows = np.flatnonzero(have)[first]
    return LossRows(
        run=evidence.run[rows],
        block_params=table["block_params"][rows],
        tokens=table["tokens"][rows],
        loss=table["lm_loss"][rows],
        finished=evidence.finished[rows],
    )


def fit(rows: LossRows, draws: int, generator: np.random.Generator) -> tuple[FittedLaw | None, list[str]]:
    """Fit the law; None, with the reason, when the rows have one size or one token count only."""
    used, finals_only = _choose(rows)
    sizes, lengths = len(np.unique(used.block_params)), len(np.unique(used.tokens))
    if sizes < 2 or lengths < 2:
        missing = "size" if sizes < 2 else "token count"
        return None, [f"LM loss: measured at one {missing} only, so no law of size and tokens was fitted"]
    log_n, log_d = np.log(used.block_params), np.log(used.tokens)
    centres = np.array([log_n.mean(), log_d.mean()])
    floor = float(used.loss.min())
    run_ids, run = np.unique(used.run, return_inverse=True)
    share = 1.0 / np.bincount(run)[run]
    search = _Search(
        log_n - centres[0],
        log_d - centres[1],
        np.log(used.loss),
        ~used.finished,
        floor,
        with_offset=not finals_only,
    )
    mean, spread = search.prior()
    starts = [
        np.array([e, mean[1], np.log(a), mean[3], np.log(b), 0.0])[: len(mean)]
        for e in (-1.0, 1.0) for a in (0.15, 0.6) for b in (0.15, 0.6)
    ]  # fmt: skip
    point = min((search.solve(share, mean, spread, start) for start in starts), key=lambda found: found[1])[0]
    weights = run_weights(len(run_ids), draws, generator)[:, run] * share
    moved = generator.normal(mean, spread, size=(draws, len(mean)))
    drawn = [search.solve(w, m, spread, point)[0] for w, m in zip(weights, moved, strict=True)]
    values = search.named(point, centres)
    table = np.array([search.named(one, centres) for one in drawn]).reshape(draws, len(values))
    return (
        FittedLaw(
            law=NAME,
            formula="lm_loss = E + A/block_params^alpha + B/tokens^beta (+ before_decay before a run's end)",
            source="arXiv 2203.15556, eq. 2",
            parameters=[*PARAMETERS, *([] if finals_only else [BEFORE_DECAY])],
            values=values.tolist(),
            draws=rounded(table),
            ranges={
                "block_params": Range(
                    low=float(used.block_params.min()), high=float(used.block_params.max())
                ),
                "tokens": Range(low=float(used.tokens.min()), high=float(used.tokens.max())),
            },
            settings={},
            rows=len(used.loss),
            runs=len(run_ids),
            residual=float(np.sqrt(np.mean((np.exp(search.log_loss(point)) - used.loss) ** 2))),
            warnings=_warnings(used, finals_only, sizes, lengths, table),
        ),
        [],
    )


def predict(parameters: FloatArray, block_params: FloatArray, tokens: FloatArray) -> FloatArray:
    """LM loss of finished runs in nats per token, shape (n,); parameters begin with E, A, α, B, β."""
    e, a, alpha, b, beta = parameters[:5]
    return e + a * block_params**-alpha + b * tokens**-beta


class _Search:
    """The law in coordinates that are free of bounds, with its residuals.

    Coordinates: log-odds of E ÷ smallest loss; ln of the size term at the centre; ln α; ln of the token term
    at the centre; ln β; before_decay.
    """

    def __init__(
        self,
        n: FloatArray,
        d: FloatArray,
        log_loss: FloatArray,
        early: BoolArray,
        floor: float,
        with_offset: bool,
    ) -> None:
        self.n, self.d, self.target, self.early, self.floor = n, d, log_loss, early.astype(float), floor
        self.with_offset = with_offset

    def prior(self) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of every coordinate, shapes (P,)."""
        term = (np.log(0.1 * self.floor), TERM_PRIOR)
        rows = [SHARE_PRIOR, term, EXPONENT_PRIOR, term, EXPONENT_PRIOR] + [OFFSET_PRIOR] * self.with_offset
        return np.array([m for m, _ in rows]), np.array([s for _, s in rows])

    def log_loss(self, z: FloatArray) -> FloatArray:
        """ln L of the rows, shape (n,)."""
        return np.log(self._terms(z)[0])

    def solve(
        self, weights: FloatArray, mean: FloatArray, spread: FloatArray, start: FloatArray
    ) -> tuple[FloatArray, float]:
        """Coordinates with the smallest robust misfit plus prior, and that cost."""
        root = np.sqrt(weights) / NOISE

        def residuals(z: FloatArray) -> FloatArray:
            return np.concatenate([root * (self.log_loss(z) - self.target), (z - mean) / spread])

        def jacobian(z: FloatArray) -> FloatArray:
            loss, e, size, length, alpha, beta = self._terms(z)
            columns = [
                e * (1.0 - e / self.floor) * np.ones_like(self.n),
                size, -alpha * self.n * size, length, -beta * self.d * length,
            ] + [self.early] * self.with_offset  # fmt: skip
            return np.vstack([(root / loss)[:, None] * np.column_stack(columns), np.diag(1.0 / spread)])

        found = least_squares(
            residuals, start, jac=jacobian, loss="huber", f_scale=1.0, xtol=1e-10, ftol=1e-10
        )
        return found.x, float(found.cost)

    def named(self, z: FloatArray, centres: FloatArray) -> FloatArray:
        """E, A, α, B, β and, if searched, before_decay."""
        alpha, beta = _exponent(z[2]), _exponent(z[4])
        known = [
            self.floor * expit(z[0]),
            np.exp(z[1] + alpha * centres[0]),
            alpha,
            np.exp(z[3] + beta * centres[1]),
            beta,
        ]
        return np.array([*known, *z[5:]])

    def _terms(self, z: FloatArray) -> tuple[FloatArray, float, FloatArray, FloatArray, float, float]:
        alpha, beta = _exponent(z[2]), _exponent(z[4])
        e = float(self.floor * expit(z[0]))
        size = np.exp(np.clip(z[1] - alpha * self.n, -50.0, 50.0))
        length = np.exp(np.clip(z[3] - beta * self.d, -50.0, 50.0))
        loss = e + size + length + (z[5] * self.early if self.with_offset else 0.0)
        return np.maximum(loss, 1e-6), e, size, length, alpha, beta


def _exponent(log_exponent: float) -> float:
    """Bounded, since far-off steps would overflow; only a term that the rows do not show ends out there."""
    return float(np.exp(np.clip(log_exponent, -6.0, 2.0)))


def _choose(rows: LossRows) -> tuple[LossRows, bool]:
    """Final checkpoints (then True) if they span sizes and tokens independently, else all late ones."""
    final = _where(rows, rows.finished)
    spans = len(np.unique(final.block_params)) >= 3 and len(np.unique(final.tokens)) >= 3
    if spans and _correlation(final) < MAX_CORRELATION:
        return final, True
    length = np.zeros(int(rows.run.max()) + 1)
    np.maximum.at(length, rows.run, rows.tokens)
    late = _where(rows, rows.tokens >= SKIPPED_SHARE * length[rows.run])
    return late, bool(late.finished.all())


def _correlation(rows: LossRows) -> float:
    """Of ln N with ln D, without its sign; needs two values of each."""
    return float(abs(np.corrcoef(np.log(rows.block_params), np.log(rows.tokens))[0, 1]))


def _where(rows: LossRows, keep: BoolArray) -> LossRows:
    return LossRows(
        rows.run[keep], rows.block_params[keep], rows.tokens[keep], rows.loss[keep], rows.finished[keep]
    )


def _warnings(rows: LossRows, finals_only: bool, sizes: int, lengths: int, draws: FloatArray) -> list[str]:
    found = []
    if not finals_only:
        found.append(
            "LM loss: too few training lengths at the end of runs, so checkpoints before the learning-rate "
            "decay were used too, with a fitted offset; the dependence on tokens is that of one run's own "
            "course"
        )
    elif _correlation(rows) >= MAX_CORRELATION:
        found.append(
            "LM loss: tokens grow with size in these runs, so what size does and what tokens do cannot be "
            "told apart; only runs along that same line can be forecast"
        )
    for count, what, exponent in ((sizes, "sizes", "alpha"), (lengths, "training lengths", "beta")):
        if count < 3:
            found.append(
                f"LM loss: {count} {what} do not determine {exponent}, which then rests on a prior around "
                f"0.3; do not extrapolate to other {what}"
            )
    if len(draws) and sizes >= 3:
        low, high = interval_90(draws[:, 0])
        if high - low > 0.5 * float(rows.loss.min()):
            found.append(
                f"LM loss: the irreducible loss E is not pinned down (90 % interval {low:.3g} to {high:.3g} "
                "nats); far extrapolation in size is not supported"
            )
    return found
