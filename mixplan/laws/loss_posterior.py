"""The posterior of the LM-loss law: which parameters the rows leave open, and how far.

    ln loss = ln L(N, D') + v[size] + u[run] + e[row]

v, u, e normal with standard deviations size_noise (a size's own departure from the power law: its shape, its
learning rate), run_noise (its seed) and noise; L as in mixplan.laws.lm_loss.

Coordinates y: ln of the loss at the centre of the rows; ln of its slopes there in ln N and in ln D (α·a and
β·b with a and b the two terms at the centre); ln α; ln β; before_decay in nats, if there are rows before a
decay; ln R*, if there are repeats; ln of the three noises. Rows pin the first three down and leave the
exponents to their curvature, so the posterior is nearly upright in these.

Shape legend: n = rows, R = runs, P = coordinates, D = draws.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

from mixplan.laws import importance, posterior
from mixplan.laws.evidence import FloatArray
from mixplan.laws.loss_rows import LossRows
from mixplan.laws.nested_noise import Levels

EXPONENT_PRIOR = (np.log(0.3), 0.9)
"""Mean and standard deviation of ln α and ln β: 90 % between 0.07 and 1.3. Published exponents run from 0.10
to 0.46 (arXiv 2203.15556 and the OLMo ladder), that of size on the smallest reference ladder is 0.5."""
ODDS_PRIOR = (0.0, 1.5)
"""Of ln of E ÷ the two other terms at the centre: nearly flat in E's share of the loss."""
TERM_PRIOR = 2.0
"""Standard deviation of the logarithm of each power term at the centre, around a tenth of the mean loss."""
OFFSET_PRIOR = (0.0, 0.5)
"""Of before_decay, nats."""
R_STAR = 15.39
"""Repeats after which a repeated token is worth 1/e of a fresh one (arXiv 2305.16264, fitted there)."""
R_STAR_PRIOR = (np.log(R_STAR), 1.0)
NOISE_PRIOR = (np.log(5e-3), 1.5)
"""Of the logarithm of noise and run_noise, relative to the loss."""
SIZE_NOISE_SCALE = 7e-3
"""Of half a Student t with 3 degrees of freedom, the prior of size_noise. A choice, since a ladder has too
few sizes to measure it well: the means of the reference ladder's six depart from their law by 0.5 %."""
REPETITION = "repetition_constant"
"""R*, where the rows can say something of it."""
NOISES = ("noise", "run_noise", "size_noise")
OUTLYING = 6.0
"""Robust standard deviations from which a row is left out: another unit, another text, a diverged run."""
MOST_OUTLYING = 0.2
"""Share of rows up to which they are left out; if more lie apart, none is right and all are scatter."""
LEAST_START, ODDS_SCALE = 0.1, 0.3
"""Of the robust search: E ÷ loss where it begins, if a line through the losses leaves less, and about how far
it should step in ln(E ÷ the other terms)."""
ROUNDING = 1e-4
"""Relative error that every loss has: without it, losses on a curve would make a density without bounds."""
MISFIT = 0.01
"""Relative error from which misfits of the first, robust search count linearly."""
LEAST_SPREAD = 1e-3
"""Robust standard deviation that rows are at least taken to have, so that none is left out for rounding."""
NOWHERE = -1e12
"""Stands for the logarithm of no density where differences are taken."""
CHUNK = 4_000_000
"""Numbers in one array of the density; more draws are taken in turn."""


class LossPosterior:
    """Rows, their weights, and the density of the coordinates given them."""

    def __init__(self, rows: LossRows, with_offset: bool) -> None:
        """Args:
        rows: in any order; runs are told apart by `run` alone.
        with_offset: whether `before_decay` is a coordinate, for rows that are not finished.
        """
        # The order of rows and the names of runs must not reach the random numbers, not even by rounding.
        order = np.lexsort((rows.finished, rows.loss, rows.tokens, rows.common_tokens, rows.block_params))
        rows = rows.where(order)
        self.with_offset = with_offset
        self.with_repeats = bool((rows.common_tokens > rows.unique_tokens).any())
        self.names = ["E", "A", "alpha", "B", "beta"]
        self.names += ["before_decay"] * with_offset + [REPETITION] * self.with_repeats
        self.names += NOISES
        self._take(rows)
        start = self._robust()
        off = self._log_loss - self._fitted(start[None, :])[0]
        spread = max(1.4826 * float(np.median(np.abs(off))), LEAST_SPREAD)
        kept = np.abs(off) <= OUTLYING * spread
        if np.mean(~kept) > MOST_OUTLYING:
            kept[:] = True
        self.outlying = order[~kept]
        """Indices of rows that were left out."""
        self._take(rows.where(kept))
        self._start = np.concatenate([start, np.log([spread, spread, spread])])

    def _take(self, rows: LossRows) -> None:
        """Fix the rows, in their order. The centres are those of the first rows that were taken."""
        self._log_n, self._tokens = np.log(rows.block_params), rows.common_tokens
        self._unique, self._log_loss = rows.unique_tokens, np.log(rows.loss)
        self._early = (~rows.finished).astype(float)
        if not hasattr(self, "_centres"):
            log_d = np.log(effective_tokens(self._tokens, self._unique, R_STAR))
            self._centres = np.array([self._log_n.mean(), log_d.mean()])
            self._median = float(np.median(self._log_loss))
        _, first, inverse = np.unique(rows.run, return_index=True, return_inverse=True)
        by_appearance = np.argsort(first)
        rank = np.empty(len(first), dtype=np.int64)
        rank[by_appearance] = np.arange(len(first))
        size = np.unique(rows.block_params, return_inverse=True)[1].reshape(-1)
        self._levels = Levels(rank[inverse.reshape(-1)], size[first[by_appearance]])

    def peak(self) -> FloatArray:
        """Coordinates of the largest density per unit of ln(E ÷ (a + b)), shape (P,).

        Per unit of y it would be largest where E is next to nothing, far from most of the density.
        """
        scale = self._scales()

        def density(x: FloatArray) -> FloatArray:
            y = self._start + x * scale
            return np.nan_to_num(self.log_density(y) - self._log_slope(y), nan=NOWHERE, neginf=NOWHERE)

        return self._start + posterior.mode(density, [np.zeros(len(scale))]) * scale

    def draws(self, peak: FloatArray, count: int, generator: np.random.Generator) -> FloatArray:
        """Coordinates in proportion to the density, shape (D, P)."""
        scale, zero = self._scales(), np.zeros(len(peak))
        drawn = importance.sample(lambda x: self.log_density(peak + x * scale), zero, count, generator)
        return peak + drawn * scale

    def log_density(self, y: FloatArray) -> FloatArray:
        """Logarithm of the posterior density up to a constant, shape (D,), for y of shape (D, P)."""
        step = max(1, CHUNK // len(self._log_n))
        parts = [self._log_density(y[at : at + step]) for at in range(0, len(y), step)]
        return np.concatenate(parts)

    def parameters(self, y: FloatArray) -> FloatArray:
        """Named parameters, shape (D, K): E, A, α, B, β and the others in the order of `names`."""
        e, a, alpha, b, beta = self._terms(y)
        known = [e, a * np.exp(alpha * self._centres[0]), alpha, b * np.exp(beta * self._centres[1]), beta]
        others = y[:, 5:].copy()
        others[:, int(self.with_offset) :] = np.exp(others[:, int(self.with_offset) :])
        return np.column_stack([*known, others])

    def measured(self, y: FloatArray) -> dict[str, float]:
        """Share of the prior's variance that the rows remove, of ln α, ln β and ln R*; y of shape (D, P)."""
        columns = {"alpha": (3, EXPONENT_PRIOR), "beta": (4, EXPONENT_PRIOR)}
        if self.with_repeats:
            columns[REPETITION] = (5 + int(self.with_offset), R_STAR_PRIOR)
        return {
            name: float(np.clip(1.0 - np.var(y[:, at]) / spread**2, 0.0, 1.0))
            for name, (at, (_, spread)) in columns.items()
        }

    def residual(self, y: FloatArray) -> float:
        """Root mean square of ln loss − ln L over the rows that were not left out, of one y of shape (P,)."""
        return float(np.sqrt(np.mean((self._log_loss - self._fitted(y[None, :])[0]) ** 2)))

    def _log_density(self, y: FloatArray) -> FloatArray:
        off = self._log_loss - self._fitted(y)
        noise, run_noise, size_noise = np.exp(y[:, -3:].T)
        noise = np.hypot(noise, ROUNDING)
        found = self._levels.log_density(off, size_noise, run_noise, noise) + self._log_prior(y)
        return np.where(np.isfinite(found), found, -np.inf)

    def _log_prior(self, y: FloatArray) -> FloatArray:
        e, a, _, b, _ = self._terms(y)
        with np.errstate(invalid="ignore", divide="ignore"):
            odds = np.log(e) - np.log(a + b)
            found = -0.5 * ((odds - ODDS_PRIOR[0]) / ODDS_PRIOR[1]) ** 2 + self._log_slope(y)
        usual = np.log(0.1) + self._median
        for term in (a, b):
            found -= 0.5 * ((np.log(term) - usual) / TERM_PRIOR) ** 2
        found += y[:, -1] - 2.0 * np.log1p(np.exp(2.0 * y[:, -1]) / (3.0 * SIZE_NOISE_SCALE**2))
        for column, (mean, spread) in self._normals():
            found -= 0.5 * ((y[:, column] - mean) / spread) ** 2
        return np.where(np.isnan(found), -np.inf, found)

    def _log_slope(self, y: FloatArray) -> FloatArray:
        """ln dz/dy from y₀, ln of the loss E + a + b at the centre, to z₀ = ln(E ÷ (a + b)); shape (D,)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(y[:, 0] - np.log(self._terms(y)[0]))

    def _normals(self) -> list[tuple[int, tuple[float, float]]]:
        """Coordinates with a normal prior of their own: column, mean and standard deviation."""
        found = [(3, EXPONENT_PRIOR), (4, EXPONENT_PRIOR)]
        if self.with_offset:
            found.append((5, OFFSET_PRIOR))
        if self.with_repeats:
            found.append((5 + int(self.with_offset), R_STAR_PRIOR))
        return [*found, (-3, NOISE_PRIOR), (-2, NOISE_PRIOR)]

    def _terms(self, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """E, a, α, b, β at the centre, each of shape (D,); E may come out below 0, where no density is."""
        with np.errstate(over="ignore", under="ignore"):
            alpha, beta = np.exp(np.clip(y[:, 3], -12, 5)), np.exp(np.clip(y[:, 4], -12, 5))
            a, b = np.exp(y[:, 1] - y[:, 3]), np.exp(y[:, 2] - y[:, 4])
            return np.exp(y[:, 0]) - a - b, a, alpha, b, beta

    def _fitted(self, y: FloatArray) -> FloatArray:
        """ln L of the rows, shape (D, n); NaN where L is below 0."""
        e, a, alpha, b, beta = self._terms(y)
        worth = np.exp(y[:, 5 + int(self.with_offset), None]) if self.with_repeats else R_STAR
        log_d = np.log(effective_tokens(self._tokens, self._unique, worth)) - self._centres[1]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            loss = a[:, None] * np.exp(-alpha[:, None] * (self._log_n - self._centres[0]))
            loss += b[:, None] * np.exp(-beta[:, None] * log_d) + e[:, None]
            if self.with_offset:
                loss += y[:, 5, None] * self._early
            return np.log(loss)

    def _scales(self) -> FloatArray:
        """About a standard deviation of every coordinate, shape (P,)."""
        others = [0.01] * self.with_offset + [0.3] * self.with_repeats
        return np.array([0.003, 0.1, 0.1, 0.2, 0.2, *others, 0.2, 0.4, 0.5])

    def _robust(self) -> FloatArray:
        """Coordinates but the noises, of the least robust misfit plus prior, shape (P − 3,)."""
        log_d = np.log(effective_tokens(self._tokens, self._unique, R_STAR))
        x = np.column_stack(
            [np.ones(len(log_d)), self._log_n - self._centres[0], log_d - self._centres[1], self._early]
        )[:, : 3 + int(self.with_offset)]
        line = np.linalg.lstsq(x, np.exp(self._log_loss), rcond=None)[0]
        level = np.exp(self._median)
        slopes = np.log(np.maximum(-line[1:3], 0.02 * level))
        extra = [0.0] * self.with_offset + [R_STAR_PRIOR[0]] * self.with_repeats
        noises = [NOISE_PRIOR[0]] * len(NOISES)

        def coordinates(z: FloatArray) -> FloatArray:
            """y from ln(E ÷ the other terms) and the rest of y: in y itself the search could leave E > 0."""
            terms = np.logaddexp(z[1] - z[3], z[2] - z[4])
            return np.concatenate([[terms + np.logaddexp(0.0, z[0])], z[1:]])

        def misfit(z: FloatArray) -> FloatArray:
            whole = np.concatenate([coordinates(z), noises])[None, :]
            off = np.nan_to_num((self._log_loss - self._fitted(whole[:, : len(z)])[0]) / MISFIT, nan=1e3)
            usual = np.log(0.1) + self._median
            prior = [(z[0] - ODDS_PRIOR[0]) / ODDS_PRIOR[1]]
            prior += [(z[at] - z[at + 2] - usual) / TERM_PRIOR for at in (1, 2)]
            prior += [(whole[0, at] - mean) / spread for at, (mean, spread) in self._normals()[:-2]]
            return np.concatenate([off, prior])

        scale = self._scales()[: -len(NOISES)]
        scale[0] = ODDS_SCALE
        found = []
        for alpha, beta in ((0.2, 0.5), (0.5, 0.2)):
            terms = float((np.exp(slopes) / [alpha, beta]).sum())
            odds = np.log(max(level - terms, LEAST_START * level) / terms)
            start = np.array([odds, *slopes, np.log(alpha), np.log(beta), *extra])
            found.append(least_squares(misfit, start, loss="huber", x_scale=scale, max_nfev=200))
        return coordinates(np.asarray(min(found, key=lambda one: one.cost).x, dtype=float))


def effective_tokens(
    tokens: FloatArray, unique_tokens: float | FloatArray, repetition_constant: float | FloatArray
) -> FloatArray:
    """What tokens of which some are repeats are worth in fresh ones (arXiv 2305.16264, eq. 5).

    D' = D up to one epoch; beyond, D' = U + U·R*·(1 − e^(−R/R*)) with R = D/U − 1 repeats. Shapes broadcast.

    Args:
        tokens: D, tokens of common data seen.
        unique_tokens: U; infinite for data that never ends.
        repetition_constant: R*, repeats.
    """
    if np.all(np.isinf(unique_tokens)):
        return np.broadcast_to(tokens, np.broadcast_shapes(np.shape(tokens), np.shape(repetition_constant)))
    repeats = np.maximum(tokens / unique_tokens - 1.0, 0.0)
    fresh = np.minimum(tokens, unique_tokens)
    with np.errstate(invalid="ignore"):
        worth = unique_tokens * repetition_constant * -np.expm1(-repeats / repetition_constant)
    return fresh + np.where(repeats > 0, worth, 0.0)
