"""What every candidate for the learning law offers, the baselines too: fit, predict, draws.

Shape legend: n = cells, D = draws (1 where a candidate has none).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixplan.errors import InputError
from mixplan.laws.evidence import AXES, Evidence

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """What is asked about: families (n names) and arrays of shape (n,)."""

    family: list[str]
    complexity: FloatArray
    log_axes: FloatArray
    """Natural logarithms of frequency, block_params and tokens, shape (n, 3)."""

    @classmethod
    def of(
        cls,
        family: list[str],
        complexity: ArrayLike,
        block_params: ArrayLike,
        tokens: ArrayLike,
        frequency: ArrayLike,
    ) -> Cells:
        """Cells from arrays of shape (n,) or scalars.

        Raises:
            InputError: a value that is not a number above 0.
        """
        n = len(family)
        levels = np.broadcast_to(np.asarray(complexity, dtype=np.float64), n)
        return cls(family, levels, log_axes(n, block_params, tokens, frequency))

    @classmethod
    def measured(cls, evidence: Evidence) -> Cells:
        """The cells of measured rows."""
        table = evidence.table
        return cls([str(name) for name in table["family"]], table["complexity"], evidence.log_axes)

    def __len__(self) -> int:
        return len(self.family)


def log_axes(n: int, block_params: ArrayLike, tokens: ArrayLike, frequency: ArrayLike) -> FloatArray:
    """Natural logarithms of frequency, block_params and tokens, arrays of shape (n,) or scalars, as (n, 3).

    Raises:
        InputError: a value that is not a number above 0.
    """
    columns = [np.broadcast_to(np.asarray(c, dtype=np.float64), n) for c in (frequency, block_params, tokens)]
    for axis, column in zip(AXES, columns, strict=True):
        bad = np.flatnonzero(~(np.isfinite(column) & (column > 0)))
        if len(bad):
            raise InputError(f"{axis} must be a number above 0; cell {bad[0] + 1} has {column[bad[0]]:g}")
    return np.log(np.column_stack(columns))


@dataclass(frozen=True)
class Scattered:
    """The distribution of a new run's skill, as mixplan.laws.beta_noise has it: mean and precision of every
    draw, shapes (n, D). A mean of NaN: nothing is said about the cell."""

    mean: FloatArray
    precision: FloatArray


def mixed(parts: list[tuple[Scattered, float]], draws: int) -> Scattered:
    """A mixture of distributions: of every part as many draws as its weight asks for, evenly spread.

    Args:
        parts: distributions of the same cells, and their weights, which sum to 1.
        draws: of the mixture; a part without enough of them repeats its own.
    """
    if len(parts) == 1:
        return parts[0][0]
    columns = shared_out([(part.mean.shape[1], weight) for part, weight in parts], draws)
    taken = list(zip((part for part, _ in parts), columns, strict=True))
    return Scattered(
        np.concatenate([part.mean[:, some] for part, some in taken], axis=1),
        np.concatenate([part.precision[:, some] for part, some in taken], axis=1),
    )


def shared_out(parts: list[tuple[int, float]], draws: int) -> list[IntArray]:
    """Which of its own draws each part gives to a mixture: as many as its weight says, evenly spread.

    Args:
        parts: own draws and weight of each; weights sum to 1.
        draws: of the mixture; a part without enough of them repeats its own.
    """
    ends = np.round(np.cumsum([0.0, *(weight for _, weight in parts)]) * draws).astype(int)
    return [
        np.arange(count) * own // max(count, 1) for (own, _), count in zip(parts, np.diff(ends), strict=True)
    ]


class FittedLearning(Protocol):
    """A fitted candidate."""

    def mean(self, cells: Cells) -> FloatArray:
        """Mean skill over runs, shape (n, D); its spread over D is what the measurements leave open."""
        ...

    def new_run(self, cells: Cells) -> Scattered:
        """What one more run would measure."""
        ...

    def log_threshold_frequency(self, cells: Cells, skill: float) -> FloatArray:
        """ln of the frequency at which the mean skill reaches `skill`, shape (n, D), the cells' own frequency
        aside; infinite or NaN where there is none."""
        ...


class LearningLaw(Protocol):
    """A candidate."""

    @property
    def name(self) -> str:
        """As the scores name it."""
        ...

    @property
    def baseline(self) -> bool:
        """To be beaten, never to be chosen."""
        ...

    def fit(self, evidence: Evidence, draws: int, generator: np.random.Generator) -> FittedLearning:
        """Fit it to the rows of one protocol."""
        ...
