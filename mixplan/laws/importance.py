"""Draws from a posterior density by importance sampling: a tenth of the time of chains where it works.

Shape legend: P = parameters, C = points.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from mixplan.laws import posterior
from mixplan.laws.evidence import FloatArray
from mixplan.laws.posterior import Density

FREEDOM = 5.0
"""Degrees of freedom of the proposals' t distribution: tails heavier than a posterior's."""
PROPOSALS = 3000
ROUNDS = 8
"""Of proposals at most; each takes centre and covariance from the one before (Cappé et al. 2004, population
Monte Carlo)."""
ENOUGH = 3.0
"""Effective proposals a draw from which no more rounds are needed; without them, chains take over."""
COUNTED = 60
"""Proposals that share the largest weight when the next round's centre and covariance are taken (truncated
importance sampling, Ionides 2008): a few lucky ones would make a covariance of chance."""


def sample(density: Density, at: FloatArray, draws: int, generator: np.random.Generator) -> FloatArray:
    """Draws, shape (draws, P): weighted proposals, resampled; chains where too few proposals count.

    Args:
        density: log density, (C, P) → (C,), of parameters with scales around 1; -inf where there is none.
        at: its mode, shape (P,).
        draws: at least 4.
        generator: of proposals and chains.
    """
    centre, covariance = at, posterior.curvature(density, at)
    for _ in range(ROUNDS):
        proposed, log_weights = _propose(density, centre, covariance, generator)
        if not np.isfinite(log_weights).sum() > COUNTED:
            return _chains(density, at, draws, generator)
        weights = np.exp(log_weights - logsumexp(log_weights))
        effective = 1.0 / float((weights**2).sum())
        if effective >= ENOUGH * draws:
            break
        capped = np.minimum(weights, np.sort(weights)[-COUNTED])
        capped /= capped.sum()
        centre = capped @ proposed
        covariance = (proposed - centre).T @ ((proposed - centre) * capped[:, None])
    else:
        return _chains(density, at, draws, generator)
    marks = (np.arange(draws) + generator.uniform()) / draws
    chosen = np.minimum(np.searchsorted(np.cumsum(weights), marks), len(weights) - 1)
    return proposed[generator.permutation(chosen)]


def _chains(density: Density, at: FloatArray, draws: int, generator: np.random.Generator) -> FloatArray:
    """Draws by chains; those that never came to where there is any density are drawn from the others."""
    with np.errstate(invalid="ignore"):  # two points without density are compared
        found = posterior.sample(density, at, draws, generator)
    there = np.isfinite(density(found))
    if there.any() and not there.all():
        found[~there] = generator.choice(found[there], size=int((~there).sum()))
    return found


def _propose(
    density: Density, centre: FloatArray, covariance: FloatArray, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Points, shape (C, P), and the logarithms of their weights, shape (C,)."""
    size = len(centre)
    # A little is added so that a nearly flat covariance can still be factored.
    root = np.linalg.cholesky(covariance + 1e-9 * np.diag(np.diag(covariance)))
    away = generator.standard_normal((PROPOSALS, size))
    away /= np.sqrt(generator.chisquare(FREEDOM, PROPOSALS) / FREEDOM)[:, None]
    proposed = centre + away @ root.T
    log_proposal = -0.5 * (FREEDOM + size) * np.log1p((away**2).sum(axis=1) / FREEDOM)
    return proposed, density(proposed) - log_proposal
