"""Draws from a posterior density of a few parameters: its mode first, then many chains side by side.

Chains move by differential evolution (ter Braak 2006, Statistics and Computing 16:239): the step of one
chain is the difference of two others, so that the steps take the shape of the posterior by themselves,
ridges included.

Shape legend: P = parameters, C = points or chains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize

from mixplan.laws.evidence import FloatArray, IntArray

Density = Callable[[FloatArray], FloatArray]
"""Log density of C points, (C, P) → (C,)."""
STEP = 1e-4
"""Of the central differences; parameters have scales around 1."""
ROUNDS = 400
"""Moves of every chain. Along bent ridges 400 are too few (standard deviations a fifth too small); in upright
coordinates, 400 and 4000 agreed to within a tenth on the source laws of ref:cpu-sources."""
NUDGE = 1e-4
"""Standard deviation of what is added to every move, so that no direction is ever lost."""
BOLD = 10
"""Every so many moves a chain takes the whole difference, by which it can cross to another mode."""


def mode(density: Density, starts: Sequence[FloatArray]) -> FloatArray:
    """The point of highest density that is found from any of the starts, shape (P,)."""

    def down(point: FloatArray) -> tuple[float, FloatArray]:
        around = _around(point)
        values = density(np.vstack([point, around]))
        up, low = np.split(values[1:], 2)
        return -float(values[0]), -(up - low) / (2 * STEP)

    found = [minimize(down, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}) for start in starts]
    best: FloatArray = min(found, key=lambda one: float(one.fun)).x
    return best


def curvature(density: Density, at: FloatArray) -> FloatArray:
    """Covariance of the normal density that is as curved as this one at its mode, shape (P, P).

    Directions in which the density is flat or convex, or ends within a step, get a standard deviation of 1,
    about that of a prior.

    Raises:
        ValueError: there is no density at the mode.
    """
    if not np.isfinite(density(at[None, :])[0]):
        raise ValueError("there is no density at the point that was given as its mode")
    step = 30 * STEP
    corners = _around(at, step)
    size = len(at)
    moved = np.vstack([_around(corner) for corner in corners])
    values = density(moved).reshape(2 * size, 2, size)
    with np.errstate(invalid="ignore"):  # -inf less -inf, where the density ends
        gradient = (values[:, 0] - values[:, 1]) / (2 * STEP)  # (2P, P)
        hessian = (gradient[:size] - gradient[size:]) / (2 * step)
        hessian = hessian + hessian.T
    hessian = np.where(np.isfinite(hessian), hessian, 0.0)
    eigen, axes = np.linalg.eigh(-hessian / 2)
    return np.asarray((axes / np.maximum(eigen, 1.0)) @ axes.T)


def sample(density: Density, at: FloatArray, draws: int, generator: np.random.Generator) -> FloatArray:
    """Draws, shape (draws, P): where as many chains stand that began around the mode.

    Args:
        density: log density.
        at: the mode, shape (P,).
        draws: at least 4, since a move needs three chains.
        generator: of the chains.
    """
    size = len(at)
    chains = generator.multivariate_normal(at, curvature(density, at), size=draws, method="eigh")
    height = density(chains)
    usual = 2.38 / np.sqrt(2 * size)
    half = draws // 2
    for turn in range(ROUNDS):
        factor = 1.0 if turn % BOLD == BOLD - 1 else usual
        # One half moves by differences of the other, which stands still meanwhile: so all can move at once.
        for mine, others in (
            (np.arange(half), np.arange(half, draws)),
            (np.arange(half, draws), np.arange(half)),
        ):
            pair = _pairs(len(mine), len(others), generator)
            step = factor * (chains[others[pair[0]]] - chains[others[pair[1]]])
            there = chains[mine] + step + generator.normal(0.0, NUDGE, size=step.shape)
            new = density(there)
            taken = np.log(generator.random(len(mine))) < new - height[mine]
            chains[mine[taken]], height[mine[taken]] = there[taken], new[taken]
    return chains


def _pairs(moving: int, standing: int, generator: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Two different chains for each that moves."""
    first = generator.integers(standing, size=moving)
    return first, (first + generator.integers(1, standing, size=moving)) % standing


def _around(point: FloatArray, step: float = STEP) -> FloatArray:
    """One step up, then one step down along every axis, shape (2P, P)."""
    moves = step * np.eye(len(point))
    return np.vstack([point + moves, point - moves])
