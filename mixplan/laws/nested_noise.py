"""Scatter around a curve in three nested levels: where a form does not fit, between seeds, within a run.

Rows of one run share a trained model, and runs of one configuration (size, mixture) differ by their seed
alone, so a row's residual is the sum of three independent normal parts:

    r = m[configuration] + s[run] + e[row],   standard deviations misfit_sd, run_sd, row_sd

Shape legend: C = parameter vectors, n = rows, R = runs, G = configurations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixplan.laws.evidence import FloatArray, IntArray


@dataclass(frozen=True)
class Levels:
    """Which run each row, and which configuration each run, belongs to."""

    run: IntArray
    """Shape (n,), 0 … R − 1."""
    configuration: IntArray
    """Of each run, shape (R,), 0 … G − 1."""

    @cached_property
    def _in_run(self) -> FloatArray:
        """1 where a row belongs to a run, shape (n, R)."""
        return np.equal.outer(self.run, np.arange(len(self.configuration))).astype(float)

    @cached_property
    def _in_configuration(self) -> FloatArray:
        """1 where a run belongs to a configuration, shape (R, G)."""
        groups = int(self.configuration.max()) + 1
        return np.equal.outer(self.configuration, np.arange(groups)).astype(float)

    def log_density(
        self, residual: FloatArray, misfit_sd: FloatArray, run_sd: FloatArray, row_sd: FloatArray
    ) -> FloatArray:
        """Log density of the residuals under each of C sets of standard deviations.

        The covariance of a run is row_sd²·I + run_sd²·J, that of a configuration adds misfit_sd²·J over all
        its rows; both are inverted by the Sherman-Morrison formula.

        Args:
            residual: shape (C, n).
            misfit_sd, run_sd, row_sd: shape (C,), above 0.

        Returns:
            Shape (C,).
        """
        size = self._in_run.sum(axis=0)  # (R,)
        row, run, misfit = row_sd[:, None] ** 2, run_sd[:, None] ** 2, misfit_sd[:, None] ** 2  # (C, 1)
        total = residual @ self._in_run  # (C, R)
        whole = row + size * run
        # Along the ones of a run its covariance is `whole`, across them row_sd².
        square = ((residual**2).sum(axis=1) - (run * total**2 / whole).sum(axis=1)) / row[:, 0]
        log_det = (len(self.run) - len(size)) * np.log(row[:, 0]) + np.log(whole).sum(axis=1)
        ahead = 1 + misfit * ((size / whole) @ self._in_configuration)  # (C, G): 1 + misfit_sd²·1ᵀV⁻¹1
        along = (total / whole) @ self._in_configuration  # 1ᵀV⁻¹r
        square -= (misfit * along**2 / ahead).sum(axis=1)
        log_det += np.log(ahead).sum(axis=1)
        return -0.5 * (square + log_det + len(self.run) * np.log(2 * np.pi))
