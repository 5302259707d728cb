"""What the page asks of a `CellForecast`: curves and thresholds over the measured ladder. No law lives here.

Shape legend: G = frequencies, R = rungs (smallest first).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mixplan.documents.forecast import CellForecast, SkillForecast
from mixplan.report.cells import Kind, Ladder, Rung

Array = NDArray[np.float64]
EVEN_CHANCE = 0.5
BRACKETS = 9  # frequencies at which a crossing is looked for first
HALVINGS = 8  # of the bracket: a thousandth of a decade where frequencies span two
_SIDE = {"inside": "", "below": "rarer than ", "above": "not at "}


@dataclass(frozen=True)
class Threshold:
    """Frequency at which a run of one size learns a task kind with an even chance, if measured there."""

    frequency: float
    """Instances per training token; the end of the measured range when `where` is not `inside`."""
    where: Literal["inside", "below", "above"]
    """below: already likely at the lowest measured frequency. above: unlikely even at the highest."""
    often: str
    """The frequency in words: `1 in 4.3 K tokens`, `2.5 % of the tokens`."""

    def words(self) -> str:
        """The frequency, or on which side of the measured range it lies."""
        return f"{_SIDE[self.where]}{self.often}"


def covers(forecast: CellForecast | None, kind: Kind) -> bool:
    """Whether the laws were fitted on this task kind."""
    return forecast is not None and kind.complexity in forecast.families().get(kind.family, [])


def curve(forecast: CellForecast, kind: Kind, rung: Rung, frequency: Array) -> SkillForecast:
    """The law for one kind and size over frequencies of shape (G,), at the rung's longest horizon."""
    same = np.ones(len(frequency))
    return forecast.skill(
        [kind.family] * len(frequency),
        kind.complexity * same,
        rung.block_params * same,
        rung.tokens * same,
        frequency,
    )


def thresholds(forecast: CellForecast | None, ladder: Ladder) -> dict[str, list[Threshold]]:
    """By kind name, one per rung; kinds the laws do not cover are left out."""
    if forecast is None:
        return {}
    return {kind.name: _of_kind(forecast, kind, ladder) for kind in ladder.kinds if covers(forecast, kind)}


def _of_kind(forecast: CellForecast, kind: Kind, ladder: Ladder) -> list[Threshold]:
    """Where p_learned first reaches one half over the kind's measured frequencies: bracketed, then halved."""
    count = len(ladder.rungs)
    params = np.array([rung.block_params for rung in ladder.rungs])
    tokens = np.array([rung.tokens for rung in ladder.rungs])

    def learned(frequency: Array) -> NDArray[np.bool_]:
        """Frequencies of shape (R, G) to whether the chance is at least even, same shape."""
        shape = frequency.shape
        chance = forecast.p_learned(
            [kind.family] * frequency.size,
            np.full(frequency.size, kind.complexity),
            np.repeat(params, shape[1]),
            np.repeat(tokens, shape[1]),
            frequency.ravel(),
        )
        return np.asarray(chance >= EVEN_CHANCE).reshape(shape)

    coarse = np.geomspace(kind.frequency[0], kind.frequency[-1], BRACKETS)
    reached = learned(np.tile(coarse, (count, 1)))
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), len(coarse))
    inside = (first > 0) & (first < len(coarse))
    low = coarse[np.clip(first - 1, 0, len(coarse) - 1)]
    high = coarse[np.clip(first, 0, len(coarse) - 1)]
    for _ in range(HALVINGS if inside.any() else 0):
        middle = np.sqrt(low * high)
        up = learned(middle[:, None])[:, 0]
        low, high = np.where(up, low, middle), np.where(up, middle, high)

    def said(r: int) -> Threshold:
        if inside[r]:
            return Threshold(float(high[r]), "inside", kind.often(float(high[r])))
        end = 0 if first[r] == 0 else -1
        return Threshold(float(coarse[end]), "above" if end else "below", kind.often(float(coarse[end])))

    return [said(r) for r in range(count)]
