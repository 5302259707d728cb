"""The posterior of one form of the source law: its mode, draws, and the density of rows it did not see.

The mode is looked for in coordinates without bounds (source_forms.py). There E, a term at the centre and its
exponent lie along a bent ridge, which proposals of any one covariance miss. Draws are therefore taken in
upright coordinates: ln of the bits at the centre in place of E, and ln(exponent × term), the slope at the
centre, in place of ln(term). Rows pin these down and leave only the exponents to the curvature.

Shape legend: C = parameter vectors, P = coordinates, n = rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logit, logsumexp

from mixplan.laws import importance, posterior
from mixplan.laws.evidence import BoolArray, FloatArray
from mixplan.laws.source_forms import NOISE, Centre, Form, Inputs, log_bits, log_prior, named, prior
from mixplan.laws.source_rows import SourceRows

SCORING_DRAWS = 64
"""Of the normal approximation at the mode, which is enough to rank forms."""
CHUNK = 2_000_000
"""Numbers in one array of the density; more parameter vectors are taken in turn."""
SLOPES = (("A", "alpha"), ("B", "beta"), ("K", "beta"))
"""A term and the exponent that it is multiplied with in upright coordinates."""


@dataclass(frozen=True)
class SourcePosterior:
    """One form given rows."""

    form: Form
    rows: SourceRows
    centre: Centre

    def log_density(self, z: FloatArray) -> FloatArray:
        """Up to a constant, shape (C,), of coordinates of shape (C, P)."""
        return log_prior(self.form, z, self.centre) + self.log_likelihood(z)

    def log_likelihood(self, z: FloatArray) -> FloatArray:
        """Log density of the measured ln(bits) given coordinates, shape (C,)."""
        step = max(1, CHUNK // len(self.rows.log_bits))
        parts = [z[at : at + step] for at in range(0, len(z), step)]
        return np.concatenate([self._log_likelihood(part) for part in parts])

    def _log_likelihood(self, z: FloatArray) -> FloatArray:
        found = named(self.form, z, self.centre)
        residual = self.rows.log_bits - log_bits(self.form, found, self.rows.inputs)
        return self.rows.levels.log_density(residual, *(found[one] for one in NOISE))

    def mode(self) -> FloatArray:
        """Coordinates of the highest density, shape (P,)."""
        mean, _ = prior(self.form, self.centre)
        starts = []
        # E small or large and more noise than thought: forms have local modes.
        for floor, noise in ((0.0, 2.0), (-1.5, 1.0), (1.5, 1.0)):
            start = mean.copy()
            start[0] += floor
            start[-len(NOISE) :] += noise
            starts.append(start)
        near = posterior.mode(self.log_density, starts)
        return self._from(near, np.linalg.cholesky(posterior.curvature(self.log_density, near)))

    def draws(self, mode: FloatArray, count: int, generator: np.random.Generator) -> FloatArray:
        """Coordinates in proportion to the density, shape (count, P)."""

        def density(y: FloatArray) -> FloatArray:
            z, log_jacobian = self._from_upright(y)
            inside = np.isfinite(log_jacobian)
            found = np.full(len(y), -np.inf)
            found[inside] = self.log_density(z[inside]) + log_jacobian[inside]
            return found

        drawn = importance.sample(density, self._to_upright(mode[None])[0], count, generator)
        return self._from_upright(drawn)[0]

    def left_out(
        self, part: BoolArray, mode: FloatArray, root: FloatArray, generator: np.random.Generator
    ) -> float:
        """Log density of some rows, shape (n,) of bool, under the form fitted to the others.

        Args:
            part: the rows.
            mode: of all rows, from where that of the others is looked for.
            root: a square root of the covariance there, shape (P, P): the steps of the search.
            generator: of the draws.
        """
        others = SourcePosterior(self.form, self.rows.where(~part), self.centre)

        at = others._from(mode, root)
        covariance = posterior.curvature(others.log_density, at)
        z = generator.multivariate_normal(at, covariance, size=SCORING_DRAWS, method="eigh")
        heights = SourcePosterior(self.form, self.rows.where(part), self.centre).log_likelihood(z)
        return float(logsumexp(heights) - np.log(SCORING_DRAWS))

    def _from(self, near: FloatArray, root: FloatArray) -> FloatArray:
        """The mode, looked for from a point near it in steps of a square root of the covariance, (P, P)."""

        def density(steps: FloatArray) -> FloatArray:
            return self.log_density(near + steps @ root.T)

        return near + root @ posterior.mode(density, [np.zeros(len(near))])

    def _slopes(self) -> list[tuple[int, int]]:
        """Coordinates of every term and its exponent."""
        at = {name: index for index, name in enumerate(self.form.parameters)}
        return [(at[term], at[exponent]) for term, exponent in SLOPES if term in at]

    def _at_centre(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """E, and the bits at the centre without it, each of shape (C,)."""
        found = named(self.form, z, self.centre)
        c = self.centre
        at = Inputs(*(np.array([value]) for value in (c.block_params, c.tokens, c.share, 0.0)))
        return found["E"], np.exp(log_bits(self.form, found, at))[:, 0] - found["E"]

    def _to_upright(self, z: FloatArray) -> FloatArray:
        y = z.copy()
        e, rest = self._at_centre(z)
        y[:, 0] = np.log(e + rest)
        for term, exponent in self._slopes():
            y[:, term] += z[:, exponent]
        return y

    def _from_upright(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Coordinates (C, P), and ln|dz/dy| (C,): −∞ where E would not lie between 0 and the least bits."""
        z = y.copy()
        for term, exponent in self._slopes():
            z[:, term] -= y[:, exponent]
        z[:, 0] = 0.0
        bits = np.exp(np.clip(y[:, 0], -30.0, 30.0))
        share = (bits - self._at_centre(z)[1]) / self.centre.least_bits
        inside = (share > 0) & (share < 1)
        share = np.where(inside, share, 0.5)
        z[:, 0] = logit(share)
        log_jacobian = y[:, 0] - np.log(self.centre.least_bits * share * (1.0 - share))
        return z, np.where(inside, log_jacobian, -np.inf)
