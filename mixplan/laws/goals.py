"""P(a new run reaches its goal) in every draw of the learning laws, fast enough for the inside of a search.

What is not known of the laws is the draw: parameters, difficulty, ceiling, the doubt outside the fitted
ranges, and how far a new task lies from its kind (one normal per draw for all kinds alike, so that draws
which are hard on one task are hard on the others; each task's own probability does not depend on that). What
differs from run to run is inside the probability (mixplan.laws.reached_tables).

Shape legend: n = cells, D = draws, G = goals, L = laws.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from mixplan.laws.protocol import shared_out
from mixplan.laws.reached_tables import FloatArray, IntArray, MeanTable, Tables, over_eta, over_mean
from mixplan.laws.surface import Kind, KindDraws, Surface

Asked = tuple[str, float, float]
"""Family, complexity and skill."""

_CHUNK = 16_000
"""Numbers in one array: all that are alive at a time fit into a core's own cache."""
_KEPT = 4
"""Sets of goals whose tables are kept."""


class SkillGoals:
    """Goals in skill, for the laws that share the forecast; keeps the tables of what was asked last."""

    def __init__(self, parts: Sequence[tuple[Surface, float]], draws: int) -> None:
        """Args:
        parts: laws and their weights, which sum to 1.
        draws: D; each law gives as many as its weight says, in the order of `shared_out`.
        """
        columns = shared_out([(len(part.run_spread), weight) for part, weight in parts], draws)
        self.surfaces = [
            part.taken(some) for (part, _), some in zip(parts, columns, strict=True) if len(some)
        ]
        self._prepared = lru_cache(maxsize=_KEPT)(self._prepare)
        self._bases: dict[tuple[int, int, float], MeanTable] = {}

    def reached(self, goals: Sequence[Asked], goal: IntArray, log_axes: FloatArray) -> FloatArray:
        """P, shape (n, D).

        Args:
            goals: kinds that every law can speak about, and the skill that is asked.
            goal: which of them, shape (n,).
            log_axes: as in `Cells`, shape (n, 3).
        """
        # Goals that are asked twice share a table.
        distinct = list(dict.fromkeys(goals))
        which = np.array([distinct.index(one) for one in goals], dtype=np.int64)[goal]
        prepared = self._prepared(tuple(distinct))
        ends = np.cumsum([0, *(len(surface.run_spread) for surface in self.surfaces)])
        found = np.empty((len(goal), ends[-1]))
        for surface, (kinds, tables), left, right in zip(
            self.surfaces, prepared, ends[:-1], ends[1:], strict=True
        ):
            step = max(1, _CHUNK // (right - left))
            for start in range(0, len(goal), step):
                rows = slice(start, start + step)
                own = which[rows]
                eta = surface.eta(kinds.family[own], log_axes[rows]) - kinds.difficulty[own]
                found[rows, left:right] = tables.at(own, eta)
        return found

    def _prepare(self, goals: tuple[Asked, ...]) -> list[tuple[KindDraws, Tables]]:
        """Kinds and tables of every law."""
        return [self._of(at, surface, goals) for at, surface in enumerate(self.surfaces)]

    def _of(self, law: int, surface: Surface, goals: tuple[Asked, ...]) -> tuple[KindDraws, Tables]:
        kinds: list[Kind] = [(family, complexity) for family, complexity, _ in goals]
        own = surface.about(kinds)
        parts = []
        for at, (_, _, skill) in enumerate(goals):
            key = (law, int(own.family[at]), skill)
            if key not in self._bases:
                self._bases[key] = over_mean(skill, own.precision[at])
            parts.append(
                over_eta(
                    self._bases[key],
                    surface.form.link,
                    own.ceiling[at],
                    surface.task_shift,
                    surface.run_spread,
                )
            )
        start, per_step, values = (np.stack(column) for column in zip(*parts, strict=True))
        return own, Tables(start, per_step, values.reshape(-1, values.shape[-1]))
