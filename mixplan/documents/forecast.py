"""What recommend asks of the laws: a protocol, so that neither stage imports the other.

Shape legend: n = cells (broadcast together), D = parameter draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SkillForecast:
    """Predictions for n cells."""

    skill: FloatArray
    """Mean predicted skill, shape (n,)."""
    skill_low: FloatArray
    """Lower end of the 90 % interval for a new run, shape (n,)."""
    skill_high: FloatArray
    """Upper end of the 90 % interval for a new run, shape (n,)."""
    mean_low: FloatArray
    """Lower end of the 90 % interval for the mean over runs: what more measurements would narrow, shape
    (n,)."""
    mean_high: FloatArray
    """Its upper end, shape (n,)."""
    p_learned: FloatArray
    """Probability that a new run reaches the threshold skill, parameter uncertainty included, shape (n,)."""
    extrapolated: list[list[str]]
    """Per cell, why it lies outside what was measured; empty list: inside."""


class Forecast(Protocol):
    """The fitted laws, ready to answer."""

    def families(self) -> dict[str, list[float]]:
        """Calibrated families and their complexities."""
        ...

    def p_learned(
        self,
        family: list[str],
        complexity: FloatArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> FloatArray:
        """Probability learned, shape (n,). Fast: for use inside a search. `family` is a list of n names."""
        ...

    def skill(
        self,
        family: list[str],
        complexity: FloatArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> SkillForecast:
        """Everything about n cells, with intervals and extrapolation flags."""
        ...

    def lm_loss(
        self, block_params: FloatArray, tokens: FloatArray, common_share: FloatArray | None = None
    ) -> FloatArray | None:
        """Predicted LM loss (nats per token) on common data, shape (n,); None when no such law was fitted.

        `common_share` is the share of common data in the tokens; without it they are all common data.
        """
        ...
