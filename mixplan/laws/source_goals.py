"""P(a new run measures at most so many bits per byte on a source) in every draw of the source's law.

    P = Φ((ln target − ln bits(draw) − misfit_sd·distance·ξ) ÷ √(run_sd² + row_sd²))

with the curve, the doubt beyond the fitted ranges and the distance of mixplan.laws.source_predict. How far
the law is off at a mixture that was not measured is not known: one normal ξ per draw, the same for all
sources and cells. What seeds and rows scatter by is inside the probability. One thing differs from the
intervals there: beyond the measured shares the misfit does not grow with the distance in share, since a draw
whose ξ is bad would then rise with share. The doubt about that distance itself stays.

Shape legend: n = cells, D = columns of draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import norm

from mixplan.documents.calibration import FittedLaw
from mixplan.laws.reached_tables import CERTAIN
from mixplan.laws.source_forms import FORMS, NOISE, Inputs, log_bits
from mixplan.laws.source_predict import check_form, distance, doubted, doubts

FloatArray = NDArray[np.float64]

_CHUNK = 16_000
"""Numbers in one array."""


class SourceGoals:
    """One source's law, ready to answer in a given number of draws."""

    def __init__(self, law: FittedLaw, draws: int) -> None:
        """Args:
            law: one of `Calibration.sources`.
            draws: D; the law's own are gone through as often as that takes.

        Raises:
            InputError: the law is of an unknown form.
        """
        check_form(law)
        self._law = law
        table = np.array(law.draws if law.draws else [law.values])
        # From the middle on: the doubts of the learning law and of this one are the same random numbers, and
        # column d must not take both from the same place.
        columns = (np.arange(draws) + len(table) // 2) % len(table)
        self.named = {name: table[columns, index] for index, name in enumerate(law.parameters)}
        self.doubt = doubts(law)[:, columns]  # (3, D)
        misfit, run, row = (self.named[name] for name in NOISE)
        self.misfit = misfit * misfit_normal(draws)
        """misfit_sd·ξ, shape (D,)."""
        self.scatter = np.sqrt(run**2 + row**2)
        """Of new runs, in ln(bits per byte), shape (D,)."""
        self._within = np.zeros(draws)
        if not law.draws:
            # The point estimate alone has no draws over which the misfit could spread.
            self.misfit, self._within = np.zeros(draws), misfit

    def reached(
        self, bits_per_byte: FloatArray, block_params: FloatArray, tokens: FloatArray, share: FloatArray
    ) -> FloatArray:
        """P, shape (n, D); arguments of shape (n,).

        Args:
            bits_per_byte: at most so many.
            block_params, tokens: above 0.
            share: of the source in the tokens, with repeats counted for what they are worth in fresh text;
                above 1 counts as 1.
        """
        count = len(self.misfit)
        found = np.empty((len(share), count))
        step = max(1, _CHUNK // count)
        for start in range(0, len(share), step):
            rows = slice(start, start + step)
            curve, far = self._curve(block_params[rows], tokens[rows], share[rows])
            scatter = np.sqrt(self.scatter[:, None] ** 2 + (self._within[:, None] * far) ** 2)
            gap = np.log(bits_per_byte[rows]) - curve - self.misfit[:, None] * far
            found[rows] = ndtr(gap / np.maximum(scatter, 1e-12)).T
        return np.clip(found, CERTAIN, 1.0 - CERTAIN)

    def of_run(
        self, block_params: FloatArray, tokens: FloatArray, share: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Mean ln(bits per byte) over runs in every draw, and the standard deviation of a run's own part,
        each of shape (n, D)."""
        curve, far = self._curve(block_params, tokens, share)
        own = np.hypot(self.named["run_sd"], np.outer(far, self._within))
        return curve.T + np.outer(far, self.misfit), own

    def _curve(
        self, block_params: FloatArray, tokens: FloatArray, share: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """ln(bits per byte) of every draw, shape (D, n), and the distance from what was measured, (n,)."""
        given = np.minimum(share, 1.0)
        at = Inputs(block_params, tokens, given, np.zeros(len(given)))
        curve = log_bits(FORMS[self._law.law], self.named, doubted(at, self._law, self.doubt))
        return curve, distance(self._law, at, ("block_params", "tokens"))


def misfit_normal(draws: int) -> FloatArray:
    """ξ of every draw: the middles of D parts of equal probability, in random order, shape (D,)."""
    order = np.random.default_rng(1).permutation(draws)
    return np.asarray(norm.ppf((order + 0.5) / draws))
