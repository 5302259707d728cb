"""What a student of width N learns of the mixture, in closed form (arXiv 2605.29548).

The loss is Σ_k π_k‖Λ_k^{1/2}B_kᵀ − D_k Uᵀ‖²: a reduced-rank regression, whose optimum of width N spans the N
eigenvectors of M = Σ_k π_k C_k with the largest eigenvalues. M's eigenvectors are the tasks' features and its
eigenvalues their utilities u_{k,j} = π_k λ_{k,j} (Thm 3). Utilities that differ by rounding only count as
equal; of features tied at the last neuron every optimal subspace is as good, and they share the width left.

Shape legend: K = tasks, d = block, D = dim, N = width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixplan.testbed.mixture import FloatArray, Mixture

TIE = 1e-12
"""Relative difference of two utilities up to which they are equal."""


def critical_widths(mixture: Mixture) -> NDArray[np.int64]:
    """Least width at which each feature is captured whatever optimum is found, shape (K, d).

    That is the number of features with at least its utility, ties counted in full.
    """
    above, tied = _levels(mixture)
    return above + tied


def captured(mixture: Mixture, width: int) -> FloatArray:
    """Share of each feature inside the optimal subspace of this width, shape (K, d); in a tie a part."""
    above, tied = _levels(mixture)
    return np.clip((width - above) / tied, 0.0, 1.0)


def _levels(mixture: Mixture) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each feature: how many have a higher utility, and how many the same, itself too; shapes (K, d)."""
    utilities = mixture.utilities()
    order = np.argsort(-utilities, axis=None, kind="stable")
    falling = utilities.ravel()[order]
    # Neighbours decide, so that being equal is the same for all of a tie.
    level = np.concatenate([[0], np.cumsum(falling[1:] < falling[:-1] * (1.0 - TIE))])
    size = np.bincount(level)
    above, tied = (np.empty(utilities.size, dtype=np.int64) for _ in range(2))
    above[order], tied[order] = (np.cumsum(size) - size)[level], size[level]
    return above.reshape(utilities.shape), tied.reshape(utilities.shape)


def residuals(mixture: Mixture, width: int) -> FloatArray:
    """Least loss of each task at this width as a share of its energy, shape (K,): the λ it dropped."""
    return np.asarray(((1.0 - captured(mixture, width)) * mixture.spectra()).sum(axis=1))


def normalised(share: FloatArray, width: int, dim: int) -> FloatArray:
    """Signal on the scale where a random subspace has 0 and a captured task 1: (s − N/D)/(1 − N/D)."""
    return (share - width / dim) / (1.0 - width / dim)


def common_spectrum(mixture: Mixture, frequent: int | None = None) -> FloatArray:
    """Utilities of the frequent tasks' features, largest first: the eigenvalues of M_F = Σ_{k∈F} π_k C_k."""
    size = mixture.frequent() if frequent is None else frequent
    return np.sort(mixture.utilities()[:size], axis=None)[::-1]


def rank_one_critical_width(common: FloatArray, utility: float) -> int:
    """Least width at which a rare feature of this utility is no longer evicted by common ones (Prop 6).

    It is evicted at width N if and only if its utility u is below the N-th common one, so that
    N_crit = min{N: μ_N ≤ u}.
    Where a common feature has the same utility, either may be kept at N_crit; `critical_widths` counts on.

    Args:
        common: utilities of the common features.
        utility: π_r·λ_r of the rare one.
    """
    return int((np.asarray(common) > utility * (1.0 + TIE)).sum()) + 1


def common_gradient(encoder: FloatArray, common: FloatArray) -> FloatArray:
    """Gradient of the frequent tasks' loss in an orthonormal encoder with the best decoders, shape (D, N).

    L_F(U) = Tr((I − P_U)M_F), so the gradient is −2(I − UUᵀ)M_F U.

    Args:
        encoder: U with orthonormal columns, shape (D, N).
        common: M_F, shape (D, D).
    """
    pulled = common @ encoder
    return -2.0 * (pulled - encoder @ (encoder.T @ pulled))


def gradient_bound(encoder: FloatArray, common: FloatArray) -> float:
    """Bound on the norm of `common_gradient`: 2·sqrt(λ_1(M_F)·δ_F), δ_F = Tr((I − P_U)M_F) (Thm 4)."""
    residual = float(np.trace(common) - np.sum(encoder * (common @ encoder)))
    largest = float(np.linalg.eigvalsh(common)[-1])
    return 2.0 * float(np.sqrt(largest * max(residual, 0.0)))


def neuron_decay(learning_rate: float, steps: float, utility: float = 1.0) -> float:
    """What is left of one neuron's alignment with a rare direction after common-only steps: e^{-2ηGu} (Ex 7).

    Args:
        learning_rate: η of gradient descent; holds for 2ηu well below 1.
        steps: G, steps without the rare task.
        utility: of the common feature that pulls the neuron away.
    """
    return float(np.exp(-2.0 * learning_rate * steps * utility))


def learned_widths(mixture: Mixture, skill: float) -> NDArray[np.int64]:
    """Least width whose optimum brings each task to this normalised signal, shape (K,)."""
    widths = np.arange(1, mixture.tasks * mixture.block + 1)
    spectra = mixture.spectra()
    share = np.array([(captured(mixture, int(width)) * spectra).sum(axis=1) for width in widths])
    # (s − N/D)/(1 − N/D) ≥ skill without the division, which N = D does not allow.
    needed = skill + (1.0 - skill) * widths / mixture.dim
    return np.asarray(widths[np.argmax(share >= needed[:, None] - 1e-12, axis=0)], dtype=np.int64)


def implied_exponent(mixture: Mixture, skill: float) -> float:
    """How steeply the frequency that is just learned falls with width: −d ln π_k / d ln N_k.

    Least squares over the tasks with one level for each complexity, N_k from `learned_widths`. In a law whose
    log-odds are linear in ln frequency and ln width, with an intercept for each complexity, this is the ratio
    of the slope on width to that on frequency. NaN where no complexity has two widths.
    """
    x = np.log(learned_widths(mixture, skill).astype(np.float64))
    y = np.log(mixture.priors())
    for kind in np.unique(mixture.complexities()):
        own = mixture.complexities() == kind
        x[own], y[own] = x[own] - x[own].mean(), y[own] - y[own].mean()
    spread = float(x @ x)
    return float(-(x @ y) / spread) if spread > TIE else float("nan")
