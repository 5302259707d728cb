"""One form of forgetting fitted to gain curves: every shape it can have, and how well left-out runs are told.

Each curve's factor for its ln half-life (retention_curves) goes onto a line in log size and position with
scatter between and within runs (run_scatter). The posterior gives the evidence of all runs and of all but
one, and their difference is the likelihood of the one left out.

Shape legend: C = curves (one per burst of a run), p = coefficients, D = draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixplan.laws.retention_curves import Curve, half_life_of, misfit, prior_of
from mixplan.laws.retention_forms import SHAPES
from mixplan.laws.run_scatter import Estimates, Posterior, posterior

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

HOPELESS = 30.0
"""Log evidence by which a shape may lie behind the best one before its score is no longer worth computing."""


@dataclass(frozen=True)
class Bursts:
    """What all forms are fitted to."""

    curves: list[Curve]
    design: FloatArray
    """Columns of the line for ln half-life, a first one of ones; shape (C, p)."""
    run: IntArray
    """Run of each curve, numbered from 0; shape (C,)."""
    prior_sd: FloatArray
    """Standard deviations of the normal priors on the coefficients; shape (p,)."""
    constants: tuple[float, float]
    """start and step of the forms, tokens."""

    @property
    def prior_mean(self) -> FloatArray:
        """Middle of the measured delays, then 0 for whatever changes it; shape (p,)."""
        return np.array([prior_of(self.curves, self.constants[0]), *np.zeros(self.design.shape[1] - 1)])


@dataclass(frozen=True)
class Fitted:
    """One form with one shape: log mass of the curves' factors, their estimates, posterior on all runs."""

    form: str
    shape: float
    log_mass: FloatArray
    estimates: Estimates
    posterior: Posterior

    @property
    def log_evidence(self) -> float:
        """log p(all curves)."""
        return float(self.log_mass.sum()) + self.posterior.log_evidence


def fit_form(form: str, bursts: Bursts) -> list[Fitted]:
    """The form with each of its shapes."""
    prior_mean = bursts.prior_mean
    fits = []
    for shape in SHAPES[form]:
        said = np.array(
            [half_life_of(form, shape, curve, bursts.constants, prior_mean[0]) for curve in bursts.curves]
        )
        estimates = Estimates(said[:, 0], said[:, 1], bursts.design, bursts.run)
        found = posterior(estimates, prior_mean, bursts.prior_sd)
        fits.append(Fitted(form, shape, said[:, 2], estimates, found))
    return fits


def left_out_score(fits: list[Fitted], bursts: Bursts) -> float:
    """Mean over runs of the log likelihood (nats a burst) that the others' law gives a left-out run.

    The shape is weighed anew by the others each time. With one run: its own likelihood under the priors.
    """
    run, whole = bursts.run, np.logaddexp.reduce([one.log_evidence for one in fits])
    if run.max() == 0:
        return float(whole - np.log(len(fits))) / len(run)
    best = max(one.log_evidence for one in fits)
    fits = [one for one in fits if one.log_evidence > best - HOPELESS]
    lost = []
    for r in range(run.max() + 1):
        rest = [one.log_mass[run != r].sum() + _without(one, r, bursts).log_evidence for one in fits]
        lost.append(whole - np.logaddexp.reduce(rest))
    return float(np.sum(lost)) / len(run)


def left_out_misfit(one: Fitted, bursts: Bursts) -> float:
    """Root mean square misfit of each run under the half-life that the others give it (amplitude its own)."""
    squares = []
    for r in range(bursts.run.max() + 1):
        own = np.flatnonzero(bursts.run == r)
        alone = len(own) == len(bursts.curves)
        theta = (one.posterior if alone else _without(one, r, bursts)).mean()
        squares.append(np.mean(_misfits(one, theta, own, bursts)))
    return float(np.sqrt(np.mean(squares)))


def residual(one: Fitted, bursts: Bursts) -> float:
    """Root mean square misfit of all gains under the fitted half-lives (amplitudes their own)."""
    errors = _misfits(one, one.posterior.mean(), np.arange(len(bursts.curves)), bursts)
    return float(np.sqrt(np.average(errors, weights=[len(curve.delay) for curve in bursts.curves])))


def draw(fits: list[Fitted], draws: int, generator: np.random.Generator) -> FloatArray:
    """Draws of the coefficients, both scatters and the shape; (D, p + 3)."""
    evidence = np.array([one.log_evidence for one in fits])
    share = np.exp(evidence - np.logaddexp.reduce(evidence))
    return np.vstack(
        [
            np.column_stack([one.posterior.draw(number, generator), np.full(number, one.shape)])
            for one, number in zip(fits, generator.multinomial(draws, share), strict=True)
        ]
    )


def _without(one: Fitted, run: int, bursts: Bursts) -> Posterior:
    others = one.estimates.where(bursts.run != run)
    return posterior(others, bursts.prior_mean, bursts.prior_sd, one.posterior.grid)


def _misfits(one: Fitted, theta: FloatArray, which: IntArray, bursts: Bursts) -> list[float]:
    half = np.exp(bursts.design[which] @ theta)
    return [
        misfit(one.form, one.shape, h, bursts.curves[i], *bursts.constants)
        for h, i in zip(half, which, strict=True)
    ]
