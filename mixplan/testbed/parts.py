"""A part of a testbed run: one mixture and protocol, all its widths, seeds and settings; and the presets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mixplan.documents.measurements import STANDARD
from mixplan.errors import InputError
from mixplan.testbed.batches import SPREAD
from mixplan.testbed.mixture import Mixture, raise_all
from mixplan.testbed.optimizer import Schedule

SWEEP, COMPLEXITY, LONG, GAPS = "sweep", "complexity", "long", "gaps"
LONGER = 10
"""The long-horizon check trains so many times longer than the sweep."""
_DELAY_GROWTH = 2.0
"""Delays after an injection, and evaluations of a run, grow by this factor."""


@dataclass(frozen=True)
class Part:
    """One batched computation."""

    name: str
    mixture: Mixture
    widths: tuple[int, ...]
    seeds: tuple[int, ...]
    steps: int
    batch: int
    schedule: Schedule
    sampled: bool
    """Minibatches of fresh samples; else the exact expected gradient, of which a step counts as one batch."""
    gaps: tuple[int, ...] = (SPREAD,)
    """Steps between two injections of the rarest task, one setting each."""
    protocol: str = STANDARD
    """For the measurements: the laws use standard cells only."""

    def check(self) -> list[str]:
        """What cannot run, in words."""
        dim, rare = self.mixture.dim, float(self.mixture.priors()[-1])
        problems = [
            f"{self.name}: {what} {value} is not a whole number of at least {least}"
            for what, least, values in (
                ("width", 1, self.widths),
                ("seed", 0, self.seeds),
                ("steps", 1, (self.steps,)),
                ("batch", 1, (self.batch,)),
                ("gap", 0, self.gaps),
            )
            for value in values
            if value < least
        ]
        for what, values in (("widths", self.widths), ("seeds", self.seeds), ("gaps", self.gaps)):
            if not values or len(set(values)) < len(values):
                problems.append(f"{self.name}: {what} {list(values)}: at least one, and none twice")
        if wide := [width for width in self.widths if width >= dim]:
            problems.append(
                f"{self.name}: width(s) {', '.join(map(str, wide))} with dim {dim}: an encoder as wide as "
                "its input holds everything, learned or not; use widths below dim, or a larger dim"
            )
        if long := [gap for gap in self.gaps if gap >= self.steps]:
            problems.append(
                f"{self.name}: gap(s) {', '.join(map(str, long))} in a run of {self.steps} steps: nothing is "
                "measured after the first injection; use gaps shorter than the run, or more steps"
            )
        if full := [gap for gap in self.gaps if gap * rare > 1]:
            problems.append(
                f"{self.name}: gap(s) {', '.join(map(str, full))} for a task of frequency {rare:.3g}: an "
                f"injection would need {full[-1] * rare:.3g} batches at once; use gaps up to "
                f"{math.floor(1 / rare)}, or a rarer task (a larger frequency exponent, more tasks)"
            )
        return problems

    def evaluations(self) -> list[int]:
        """Steps after which everything is measured: doubling, and the last."""
        first = max(1, round(self.steps / _DELAY_GROWTH**6))
        doubling = [round(first * _DELAY_GROWTH**i) for i in range(6)]
        return sorted({min(step, self.steps) for step in [*doubling, self.steps]})

    def injections(self, gap: int) -> list[int]:
        """Steps whose injection is followed: the last in each third of the run, its gap after it."""
        if gap == SPREAD:
            return []
        last = (self.steps // gap) * gap
        last -= gap * (last + gap - 1 > self.steps)
        found = {(last * third // 3) // gap * gap for third in (1, 2, 3)}
        return sorted(step for step in found if step > 0)

    def delays(self, gap: int) -> list[int]:
        """Steps after an injection at which it is measured: 0, 1, 2, 4 … and the last before the next."""
        doubling = {0} | {2**i for i in range(gap.bit_length())}
        return sorted({delay for delay in doubling if delay < gap} | {gap - 1})


def checked(parts: Sequence[Part]) -> list[Part]:
    """The parts, if all of them can run.

    Raises:
        InputError: every problem of every part.
    """
    raise_all(list(dict.fromkeys(problem for part in parts for problem in part.check())))
    return list(parts)


def quick() -> list[Part]:
    """Every protocol at a size that a laptop trains in less than a minute."""
    mixed = Mixture(12, 6, 128, 1.0, (0.3, 1.0, 4.0) * 4)
    sweep = Part(
        SWEEP,
        mixed,
        (2, 3, 4, 6, 8, 12, 16, 24, 32, 48),
        (0, 1, 2),
        2000,
        256,
        Schedule(0.01, 100, 0.01),
        False,
    )
    rare = Mixture(8, 2, 64, 2.5, (2.0,))
    return [
        sweep,
        replace(
            sweep, name=LONG, widths=(3, 12), seeds=(0,), steps=LONGER * sweep.steps, protocol="long horizon"
        ),
        Part(GAPS, rare, (4, 13, 20), (0, 1, 2), 2000, 64, sweep.schedule, True, (8, 32, 128)),
    ]


def paper() -> list[Part]:
    """The sizes of arXiv 2605.29548, which states neither peak learning rate nor warm-up."""
    one = Mixture(32, 32, 1024, 2.0, (2.0,))
    schedule = Schedule(0.003, 1000, 0.01)
    sweep = Part(
        SWEEP, one, (2, 4, 8, 16, 32, 64, 96, 128, 192, 256), (0, 1, 2), 100_000, 1024, schedule, True
    )
    mixed = Mixture(32, 32, 1024, 2.0, (3.0, 1.0, 2.0, 1.5) * 8)
    return [
        sweep,
        replace(sweep, name=COMPLEXITY, mixture=mixed, protocol="mixed spectra"),
        replace(
            sweep,
            name=GAPS,
            widths=(32, 96, 128, 192, 256),
            batch=512,
            gaps=(64, 128, 256, 512, 1280),
        ),
        replace(
            sweep,
            name=LONG,
            widths=(8, 32, 64),
            seeds=(0,),
            steps=LONGER * sweep.steps,
            sampled=False,
            protocol="long horizon",
        ),
    ]


PRESETS = {"quick": quick, "paper": paper}


def preset(name: str) -> list[Part]:
    """The parts of a preset.

    Raises:
        InputError: no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]()
