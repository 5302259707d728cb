"""The search for the runs: every product of rungs, horizons and seeds that the budget buys, and frequencies.

A calibration.yaml asks for a product: every rung with every seed to the same horizons. So the designs are
such products, all of them up to a size, and not single runs picked one by one, which would need a file for
each remainder. Further frequencies cost no run, only a little of the text: they are picked one by one for the
chosen runs, and the runs once more for the frequencies.

Shape legend: Q = parameters, T = targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from mixplan.documents.calibration_spec import CalibrationSpec, Horizons
from mixplan.documents.shapes import ModelShape
from mixplan.laws.evidence import FloatArray
from mixplan.laws.suggest_candidates import Cell, ends_of, runs_of_a_seed, training_flops
from mixplan.laws.suggest_information import Knowledge, Targets, Thresholds

MOST_SEEDS = 3
MOST_RUNGS = 3
"""Most seeds and rungs of one suggestion."""
NEARLY = 0.95
"""Of the designs within the budget, the cheapest that gains this share of what the best one does is taken."""
LEAST_GAIN = 0.005
"""Relative narrowing below which another frequency is not worth a cell."""
VAGUE = 10.0
"""A threshold known to this factor, either way, is hardly known: what is open beyond it counts little, or a
kind far out of reach would take the budget."""
_ROUNDS = 3


@dataclass(frozen=True)
class Option:
    """One rung to one list of horizons, per seed."""

    shape: ModelShape
    horizons: Horizons
    ends: tuple[float, ...]
    runs: int
    flops: float
    """Of training."""
    information: FloatArray
    """That its runs add, shape (Q, Q)."""


@dataclass(frozen=True)
class Design:
    """A product: these options (smallest rung first, one list of horizons), each with so many new seeds."""

    options: tuple[Option, ...]
    seeds: int

    @property
    def runs(self) -> int:
        """How many."""
        return self.seeds * sum(option.runs for option in self.options)

    @property
    def flops(self) -> float:
        """Of training."""
        return self.seeds * sum(option.flops for option in self.options)

    @property
    def horizons(self) -> Horizons:
        """Of all its runs."""
        return self.options[0].horizons


class Offers:
    """What each rung and list of horizons costs and tells."""

    def __init__(
        self, spec: CalibrationSpec, knowledge: Knowledge, cells: Sequence[Cell], vocabulary: float
    ) -> None:
        """Args:
        spec: the calibration that was run.
        knowledge: of the fitted form.
        cells: synthetic ones that every run has.
        vocabulary: its size, for the FLOPs.
        """
        self._spec, self._knowledge, self._cells = spec, knowledge, cells
        self._vocabulary = vocabulary
        self._known: dict[tuple[str, str, tuple[Cell, ...]], Option] = {}

    def option(self, shape: ModelShape, horizons: Horizons, added: Sequence[Cell]) -> Option:
        """One of them, with further synthetic cells in every run."""
        key = (shape.name, horizons.model_dump_json(), tuple(added))
        if key not in self._known:
            runs = runs_of_a_seed(self._spec, shape, horizons, [*self._cells, *added])
            flops = [training_flops(self._spec, shape, run.ends, self._vocabulary) for run in runs]
            information = sum((self._knowledge.information(run) for run in runs), np.zeros(()))
            ends = tuple(ends_of(shape, horizons))
            self._known[key] = Option(shape, horizons, ends, len(runs), float(sum(flops)), information)
        return self._known[key]

    def informed(self, design: Design, added: Sequence[Cell]) -> Design:
        """A design whose runs have these further cells."""
        options = (self.option(one.shape, one.horizons, added) for one in design.options)
        return replace(design, options=tuple(options))


@dataclass(frozen=True)
class Known:
    """What the measured runs say, and how far they reach."""

    thresholds: Thresholds
    information: FloatArray
    """Shape (Q, Q)."""
    low: FloatArray
    high: FloatArray
    """Ends of the measured ln f, ln N, ln T, shape (3,)."""

    def half_widths(self, design: Design | None = None) -> FloatArray:
        """Of the targets' ln threshold frequencies, to first order; now, or as expected once a design was
        measured. Shape (T,)."""
        return self.thresholds.half_widths(*self._with(design))

    def shown_half_widths(self, knowledge: Knowledge, targets: Targets, design: Design | None) -> FloatArray:
        """The same by draws, as forecasts have them."""
        return knowledge.drawn_half_widths(targets, self.thresholds, *self._with(design))

    def _with(self, design: Design | None) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Information and measured ranges with a design. Its sizes and lengths count as measured then. Its
        frequencies do not: a cell that is never learned reaches no further by being rare."""
        if design is None:
            return self.information, self.low, self.high
        sizes = [option.shape.block_params for option in design.options]
        tokens = [end for option in design.options for end in option.ends]
        low, high = self.low.copy(), self.high.copy()
        for axis, reached in ((1, np.log(sizes)), (2, np.log(tokens))):
            low[axis] = min(low[axis], reached.min())
            high[axis] = max(high[axis], reached.max())
        new = design.seeds * sum((option.information for option in design.options), np.zeros(()))
        return self.information + new, low, high


def openness(half_widths: FloatArray) -> float:
    """What the search brings down: the mean, over half-widths w of shape (T,), of a soft minimum of w and ln
    VAGUE, (w⁻⁴ + (ln VAGUE)⁻⁴)^(−1/4)."""
    return float(((half_widths**-4.0 + np.log(VAGUE) ** -4.0) ** -0.25).mean())


def designs(choices: Sequence[Sequence[Option]], allowed: Callable[[int, float], bool]) -> Iterator[Design]:
    """Every product within the budget.

    Args:
        choices: for each list of horizons, the options of all rungs, smallest first.
        allowed: whether so many runs, with so many training FLOPs, are within the budget.
    """
    for options in choices:
        for count in range(1, min(MOST_RUNGS, len(options)) + 1):
            for chosen in combinations(options, count):
                for seeds in range(1, MOST_SEEDS + 1):
                    design = Design(chosen, seeds)
                    if allowed(design.runs, design.flops):
                        yield design


def search(
    known: Known,
    offers: Offers,
    candidates: Sequence[Design],
    sure: Sequence[Cell],
    extra: Sequence[Cell],
    room: float,
) -> tuple[Design, list[Cell]]:
    """The runs, and the cells that they have beside the measured ones.

    Args:
        known: before them.
        offers: what runs tell.
        candidates: designs within the budget.
        sure: cells that are added.
        extra: cells that may be added.
        room: instances per training token that all added cells may have together.
    """
    design = best_design(known, [offers.informed(one, sure) for one in candidates])
    for _ in range(_ROUNDS):
        added = more_frequencies(known, offers, design, sure, extra, room)
        again = best_design(known, [offers.informed(one, added) for one in candidates])
        settled = again.seeds == design.seeds and again.options == offers.informed(design, added).options
        design = again
        if settled:
            break
    return design, added


def best_design(known: Known, candidates: Sequence[Design]) -> Design:
    """The cheapest design that narrows the intervals by NEARLY as much as any of them."""
    before = openness(known.half_widths())
    gains = np.array([before - openness(known.half_widths(design)) for design in candidates])
    near = np.flatnonzero(gains >= NEARLY * gains.max())
    return min((candidates[index] for index in near), key=lambda design: (design.flops, design.runs))


def more_frequencies(
    known: Known,
    offers: Offers,
    design: Design,
    sure: Sequence[Cell],
    extra: Sequence[Cell],
    room: float,
) -> list[Cell]:
    """Further cells for the runs of a design: those that are sure, then the most useful one at a time, while
    they narrow the intervals.

    Args: as of `search`.
    """
    chosen = list(sure)
    width = openness(known.half_widths(offers.informed(design, chosen)))
    while True:
        left = room - sum(cell.frequency for cell in chosen)
        trials = [
            (openness(known.half_widths(offers.informed(design, [*chosen, cell]))), cell.task, cell)
            for cell in extra
            if cell not in chosen and cell.frequency <= left
        ]
        if not trials:
            return chosen
        reached, _, cell = min(trials, key=lambda trial: trial[:2])
        if reached > (1.0 - LEAST_GAIN) * width:
            return chosen
        chosen, width = [*chosen, cell], reached
