"""The mixture of linear-regression tasks: who occurs how often, and how its energy is spread.

    π_k ∝ k^-β,   C_k = B_k Λ_k B_kᵀ,   λ_{k,j} ∝ j^-a_k,   x ~ N(0, I_D),   y_k = Λ_k^{1/2} B_kᵀ x

(arXiv 2605.29548, synthetic set-up). Every spectrum sums to 1, so that tasks differ in how widely
their energy is spread and not in how much of it there is.

Shape legend: K = tasks, d = block (directions of a task), D = dim (inputs), F = K·d features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixplan.errors import InputError

FloatArray = NDArray[np.float64]

LEAST_UTILITY = 1e-300
"""Below this a feature's share of the mixture is lost to rounding: it has no energy."""
FREQUENT_MASS = 0.8
"""Frequency of the smallest set of most frequent tasks that counts as common (arXiv 2605.29548)."""
ENERGY = 0.9
"""Share of a task's energy that its directions are counted up to, as the measure of its complexity."""


@dataclass(frozen=True)
class Mixture:
    """K tasks on mutually orthogonal blocks of d of the D input directions."""

    tasks: int
    block: int
    dim: int
    frequency_exponent: float
    """β of π_k ∝ k^-β; 0: all equally often."""
    spectrum_exponents: tuple[float, ...]
    """a_k of λ_{k,j} ∝ j^-a_k: one for all tasks, or one for each, most frequent first."""

    def __post_init__(self) -> None:
        """Check that the tasks fit and that each feature has energy.

        Raises:
            InputError: everything that is wrong with it.
        """
        problems = [
            f"{name}: {value} is not a whole number of at least 1"
            for name, value in (("tasks", self.tasks), ("block", self.block), ("dim", self.dim))
            if value < 1
        ]
        if not problems and self.tasks * self.block > self.dim:
            problems.append(
                f"{self.tasks} tasks × block {self.block} = {self.tasks * self.block} directions do not "
                f"fit into dim {self.dim}: blocks are orthogonal to one another; use fewer tasks, a smaller "
                f"block, or dim {self.tasks * self.block} and more"
            )
        spectra = [("spectrum exponent", value) for value in dict.fromkeys(self.spectrum_exponents)]
        problems += [
            f"{name} {value:g}: a number of at least 0 is needed (0 is flat, larger is steeper)"
            for name, value in [("frequency exponent", self.frequency_exponent), *spectra]
            if not (math.isfinite(value) and value >= 0)
        ]
        if len(self.spectrum_exponents) not in (1, self.tasks):
            problems.append(
                f"{len(self.spectrum_exponents)} spectrum exponents for {self.tasks} tasks: give one for "
                "all, or one for each, most frequent task first"
            )
        raise_all(problems or self._without_energy())

    def priors(self) -> FloatArray:
        """π, shape (K,), most frequent first; sums to 1."""
        weight = np.arange(1, self.tasks + 1, dtype=np.float64) ** -self.frequency_exponent
        return weight / weight.sum()

    def spectra(self) -> FloatArray:
        """λ, shape (K, d), largest first; every row sums to 1."""
        exponents = np.broadcast_to(np.array(self.spectrum_exponents), (self.tasks,))
        weight = np.arange(1, self.block + 1, dtype=np.float64) ** -exponents[:, None]
        return weight / weight.sum(axis=1, keepdims=True)

    def utilities(self) -> FloatArray:
        """u = π_k·λ_{k,j}, shape (K, d): what a neuron is worth to the loss (arXiv 2605.29548, Thm 3)."""
        return self.priors()[:, None] * self.spectra()

    def complexities(self) -> FloatArray:
        """Directions that hold 90 % of a task's energy, shape (K,)."""
        held = np.cumsum(self.spectra(), axis=1)
        return 1.0 + (held < ENERGY - 1e-12).sum(axis=1)

    def frequent(self) -> int:
        """Size of the smallest set of most frequent tasks with a frequency of at least 0.8 in all."""
        return int(np.searchsorted(np.cumsum(self.priors()), FREQUENT_MASS - 1e-12)) + 1

    def _without_energy(self) -> list[str]:
        with np.errstate(under="ignore"):
            empty = np.argwhere(self.utilities() < LEAST_UTILITY)
        if not len(empty):
            return []
        task, feature = empty[0] + 1
        return [
            f"frequency exponent {self.frequency_exponent:g} with spectrum exponent(s) "
            f"{', '.join(f'{a:g}' for a in dict.fromkeys(self.spectrum_exponents))} leaves {len(empty)} of "
            f"{self.tasks * self.block} features without energy, first feature {feature} of task {task}: "
            "nothing can learn them; use smaller exponents, a smaller block or fewer tasks"
        ]


def raise_all(problems: list[str]) -> None:
    """Raise what was found, if anything.

    Raises:
        InputError: there are problems.
    """
    if problems:
        raise InputError(problems)
