"""Features: what the residual stream holds of a task's structure, layer by layer.

- order_r2 (comparison): R² of a linear read-out of the hidden order from the items' leading principal
  components, on items that neither the components nor the read-out were fitted to.
- fourier_modes (modular addition): Fourier modes over the residues with a share of variance above twice that
  of noise, 2/(P − 1).

Both after arXiv 2605.29548, where the read-out is judged on the items that it was fitted to.

An item's state is the mean, over several held-out contexts, of the residual stream at its token, so that what
the contexts bring cancels out.

Shape legend: n = items (symbols of a task), P = the modulus, d = d_model, X = contexts, R = n·X rows, l =
layer (0: embeddings), S = shuffles, c = components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mixplan.calibrate.probes.contexts import Contexts
from mixplan.calibrate.tasks import Task
from mixplan.documents.calibration_spec import Features

FOLDS = 8
"""Parts that items are left out in, in turn."""
ITEMS_PER_COMPONENT = 2
"""Items behind every principal component that is used, at least: with as many components as items, a read-out
fits any order."""
NULL_DRAWS = 20
"""Shuffles or random states behind a null."""

Array = NDArray[np.float64]


class FeatureProbe:
    """The feature probe of one run."""

    def __init__(
        self, spec: Features, tasks: Sequence[Task], contexts: np.ndarray, seed: int, device: Any
    ) -> None:
        """Tasks without a hidden order are passed over; `contexts` has shape (X, CONTEXT_TOKENS)."""
        self.spec, self.tasks, self.seed = spec, tasks, seed
        self.contexts_X8 = torch.from_numpy(contexts[: spec.contexts]).to(device)
        self.ordered = [
            task.order if task.family in _FEATURES and task.order is not None else () for task in tasks
        ]
        symbols = torch.tensor([s for order in self.ordered for s in order], dtype=torch.long, device=device)
        count = len(self.contexts_X8)
        self.tokens_R1 = symbols.repeat_interleave(count)[:, None]
        self.context_R = torch.arange(count, device=device).repeat(len(symbols))

    @torch.no_grad()
    def measure(self, model: Any, precision: str) -> list[list[dict[str, Any]]]:
        """For each task its rows of the features table, one per layer or none, less what says which cell."""
        if not len(self.tokens_R1):
            return [[] for _ in self.tasks]
        contexts = Contexts(model, self.contexts_X8, precision)
        hidden_lRd = contexts.hidden(self.context_R, self.tokens_R1)
        layers, _, width = hidden_lRd.shape
        states_lnd = hidden_lRd.view(layers, -1, len(self.contexts_X8), width).mean(2).double().cpu().numpy()
        found: list[list[dict[str, Any]]] = []
        first = 0
        for number, (task, order) in enumerate(zip(self.tasks, self.ordered, strict=True)):
            own_lnd = states_lnd[:, first : first + len(order)]
            first += len(order)
            rows = []
            for layer, states_nd in enumerate(own_lnd if order else []):
                generator = np.random.default_rng([self.seed, 5, number, layer])
                feature = _FEATURES[task.family]
                value, null = (
                    order_r2(states_nd, self.spec.components, generator)
                    if feature == "order_r2"
                    else fourier_modes(states_nd, generator)
                )
                rows.append({"layer": layer, "feature": feature, "value": value, "null": null})
            found.append(rows)
        return found


_FEATURES = {"comparison": "order_r2", "modular_addition": "fourier_modes"}
"""The feature of each family that has one."""


def order_r2(states_nd: Array, components: int, generator: np.random.Generator) -> tuple[float, float]:
    """R² of the rank read off unseen items' states, and its mean over shuffled ranks.

    Principal components and least squares with intercept are fitted to all items but one part, and judged on
    that part; R² = 1 − Σ(rank − read)²/Σ(rank − mean)² over all parts together: below 0 where the read-out is
    worse than the mean.

    Args:
        states_nd: rows in the hidden order.
        components: principal components, at most; never more than one for ITEMS_PER_COMPONENT fitted items.
        generator: draws parts and shuffles.
    """
    count = len(states_nd)
    ranks_n = np.arange(count, dtype=np.float64) - (count - 1) / 2
    shuffled = [generator.permutation(ranks_n) for _ in range(NULL_DRAWS)]
    targets_nS = np.column_stack([ranks_n, *shuffled])
    missed = np.zeros(targets_nS.shape[1])
    for part in np.array_split(generator.permutation(count), min(FOLDS, count)):
        fitted = np.setdiff1d(np.arange(count), part)
        centre_d, middle_S = states_nd[fitted].mean(0), targets_nS[fitted].mean(0)
        u, s, vt = np.linalg.svd(states_nd[fitted] - centre_d, full_matrices=False)
        used = min(components, max(1, len(fitted) // ITEMS_PER_COMPONENT), int((s > 1e-9 * s[0]).sum()))
        # Least squares on principal components: they are orthogonal, so each has its own coefficient.
        coefficients_cS = (u[:, :used].T @ (targets_nS[fitted] - middle_S)) / s[:used, None]
        read_S = (states_nd[part] - centre_d) @ vt[:used].T @ coefficients_cS + middle_S
        missed += ((targets_nS[part] - read_S) ** 2).sum(0)
    r2_S = 1 - missed / (ranks_n**2).sum()
    return float(r2_S[0]), float(r2_S[1:].mean())


def fourier_modes(states_Pd: Array, generator: np.random.Generator) -> tuple[float, float]:
    """Modes over the residues with more than twice the share of variance that noise would give them; and the
    mean number of such modes among Gaussian states of the same shape.

    Under noise a mode has the share 2/(P − 1) of the variance (the last of an even modulus half of that).

    Args:
        states_Pd: row r belongs to residue r.
        generator: draws the Gaussian states.
    """
    random_SPd = generator.normal(size=(NULL_DRAWS, *states_Pd.shape))
    return float(_modes(states_Pd)), float(np.mean([_modes(one_Pd) for one_Pd in random_SPd]))


def _modes(states_Pd: Array) -> int:
    modulus = len(states_Pd)
    power = (np.abs(np.fft.rfft(states_Pd - states_Pd.mean(0), axis=0)[1:]) ** 2).sum(1)
    noise = np.full(len(power), 2 / (modulus - 1))
    if modulus % 2 == 0:
        # A pair of frequencies k and P − k for all modes but the last, which is its own mirror image.
        power[-1] /= 2
        noise[-1] /= 2
    return int((power > 2 * noise * power.sum()).sum())
