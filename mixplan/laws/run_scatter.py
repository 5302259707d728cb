"""A linear law through estimates from runs: scatter between runs, scatter within them, error of each.

    m_i = x_i·θ + u_run(i) + v_i + e_i,   u ~ N(0, τ²),  v ~ N(0, ω²),  e_i ~ N(0, s_i²) with s_i known

The posterior of (τ, ω) is taken on a grid and θ exactly given them (Gelman et al., Bayesian Data Analysis,
ch. 5 and 15), so short ladders get the wide tails of Student's t and not a bootstrap of few runs. The prior
on each scatter is τ/(τ² + mean error²) under half a normal of LARGEST: like 1/τ where the scatter exceeds
the errors, which gives t with (runs − coefficients) degrees of freedom, and finite where it does not.
Where every run has one estimate τ and ω cannot be told apart; ω is then 0 and τ is both.

Shape legend: n = estimates, p = coefficients, R = runs, G = grid points of (τ, ω), D = draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SMALLEST, LARGEST = 0.01, 2.0
"""Least scatter considered and scale of the half normal above, in the units of m."""
COARSE, FINE, NEGLIGIBLE = 12, 14, 1e-5
"""Points per scatter over all that it can be, then where the posterior is; its share that may be left out."""


@dataclass(frozen=True)
class Grid:
    """Points of (τ, ω) and the log prior mass of each; all of shape (G,)."""

    between: FloatArray
    within: FloatArray
    log_prior: FloatArray


@dataclass(frozen=True)
class Estimates:
    """What the runs say. mean, error: shape (n,); design: (n, p); run: (n,), numbers from 0 without gaps."""

    mean: FloatArray
    error: FloatArray
    design: FloatArray
    run: IntArray

    def where(self, keep: NDArray[np.bool_]) -> Estimates:
        """The estimates where `keep` holds, runs numbered anew."""
        run = np.unique(self.run[keep], return_inverse=True)[1].astype(np.int64)
        return Estimates(self.mean[keep], self.error[keep], self.design[keep], run)


@dataclass(frozen=True)
class Posterior:
    """Posterior on the grid; log_weight adds up (as exponentials) to the evidence of the estimates."""

    grid: Grid
    log_weight: FloatArray
    """log of prior × likelihood with θ integrated out, shape (G,)."""
    centre: FloatArray
    """Mean of θ given (τ, ω), shape (G, p)."""
    root: FloatArray
    """Lower triangular root of the covariance of θ given (τ, ω), shape (G, p, p)."""

    @property
    def log_evidence(self) -> float:
        """log p(estimates)."""
        return float(np.logaddexp.reduce(self.log_weight))

    @property
    def weight(self) -> FloatArray:
        """Posterior probability of every grid point, shape (G,)."""
        return np.asarray(np.exp(self.log_weight - self.log_evidence))

    def mean(self) -> FloatArray:
        """Posterior mean of θ, shape (p,)."""
        return np.asarray(self.weight @ self.centre)

    def medians(self) -> tuple[float, float]:
        """Posterior medians of τ and ω."""
        return _median(self.grid.between, self.weight), _median(self.grid.within, self.weight)

    def draw(self, draws: int, generator: np.random.Generator) -> FloatArray:
        """Draws of θ, τ, ω; shape (D, p + 2)."""
        at = generator.choice(len(self.weight), size=draws, p=self.weight)
        normal = generator.normal(size=(draws, self.centre.shape[1]))
        theta = self.centre[at] + np.einsum("dij,dj->di", self.root[at], normal)
        return np.column_stack([theta, self.grid.between[at], self.grid.within[at]])


def posterior(
    given: Estimates, prior_mean: FloatArray, prior_sd: FloatArray, grid: Grid | None = None
) -> Posterior:
    """The posterior of θ, τ and ω.

    Args:
        given: the estimates.
        prior_mean, prior_sd: independent normal priors on θ, shape (p,).
        grid: points to use; by default those where the posterior is. Evidence of a part of the estimates
            compares with that of the whole when both use the grid of the whole.
    """
    if grid is None:
        wide = _grid(given, np.geomspace(SMALLEST, 3 * LARGEST, COARSE), None)
        found = posterior(given, prior_mean, prior_sd, wide)
        between = _reach(wide.between, found.weight)
        grid = _grid(given, between, _reach(wide.within, found.weight) if wide.within.any() else None)
    runs = int(given.run.max(initial=-1)) + 1
    belongs = (given.run[:, None] == np.arange(runs)).astype(np.float64)  # (n, R)
    p = given.design.shape[1]
    joint = np.column_stack([given.design, given.mean - given.design @ prior_mean])  # (n, p + 1)
    squares = (joint[:, :, None] * joint[:, None, :]).reshape(len(joint), -1)  # (n, (p + 1)²)
    of_run = (belongs[:, :, None] * joint[:, None, :]).reshape(len(joint), -1)  # (n, R·(p + 1))
    variance = grid.within[:, None] ** 2 + given.error**2  # (G, n)
    precise = 1.0 / variance
    common = 1.0 + grid.between[:, None] ** 2 * (precise @ belongs)  # (G, R)
    shrink = grid.between[:, None] ** 2 / common
    summed = (precise @ of_run).reshape(-1, runs, p + 1)
    products = (precise @ squares).reshape(-1, p + 1, p + 1)
    products = products - np.swapaxes(summed, 1, 2) @ (shrink[:, :, None] * summed)
    information = products[:, :p, :p] + np.diag(prior_sd**-2.0)
    score = products[:, :p, p]
    covariance = np.linalg.inv(information)
    moved = (covariance @ score[:, :, None])[:, :, 0]
    log_det = (
        np.log(variance).sum(axis=1)
        + np.log(common).sum(axis=1)
        + np.linalg.slogdet(information)[1]
        + 2 * np.log(prior_sd).sum()
    )
    quadratic = products[:, p, p] - (score * moved).sum(axis=1)
    log_likelihood = -0.5 * (len(joint) * np.log(2 * np.pi) + log_det + quadratic)
    root = np.linalg.cholesky(covariance)
    return Posterior(grid, grid.log_prior + log_likelihood, prior_mean + moved, root)


def _grid(given: Estimates, between: FloatArray, within: FloatArray | None) -> Grid:
    """All pairs of geometric grids of τ and ω with their log prior mass; without a grid of ω, see below.

    The prior of τ looks at the error of a run's mean, that of ω at the error of one estimate.
    """
    error = float(np.sqrt(np.mean(given.error**2)))
    repeated = len(given.run) / (int(given.run.max()) + 1)
    if repeated <= 1:
        return Grid(between, np.zeros(len(between)), _log_mass(between, np.array([error]))[0])
    within = between if within is None else within
    mass = _log_mass(between, np.sqrt((within**2 + error**2) / repeated))  # (ω, τ)
    mass = mass + _log_mass(within, np.array([error])).T
    return Grid(np.tile(between, len(within)), np.repeat(within, len(between)), mass.ravel())


def _log_mass(grid: FloatArray, error: FloatArray) -> FloatArray:
    """Log prior mass of the cells of a geometric grid (B,), for each error (E,); shape (E, B)."""

    def density(scatter: FloatArray) -> FloatArray:  # per unit of ln scatter
        return 2 * np.log(scatter) - np.log(scatter**2 + error[:, None] ** 2) - 0.5 * (scatter / LARGEST) ** 2

    every = np.geomspace(SMALLEST, 3 * LARGEST, 120)
    whole = np.logaddexp.reduce(density(every), axis=1, keepdims=True) + np.log(np.log(every[1] / every[0]))
    return np.asarray(density(grid) - whole + np.log(np.log(grid[1] / grid[0])))


def _reach(points: FloatArray, weight: FloatArray) -> FloatArray:
    """A finer geometric grid over the part of an axis that holds the posterior; (FINE,)."""
    axis, at = np.unique(points, return_inverse=True)
    held = np.flatnonzero(np.bincount(at, weight) > NEGLIGIBLE)
    return np.geomspace(axis[max(held[0] - 1, 0)], axis[min(held[-1] + 1, len(axis) - 1)], FINE)


def _median(values: FloatArray, weight: FloatArray) -> float:
    order = np.argsort(values, kind="stable")
    return float(values[order][np.searchsorted(np.cumsum(weight[order]), 0.5)])
