"""Interference tables simulated and fitted again, for benchmarks/law_recovery.py."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.laws import interference
from mixplan.laws.drawn import interval_90

Trials = dict[str, tuple[float, float, float, float]]
"""By quantity: estimate, both ends of its 90 % interval, truth."""
ENDS = (8_336.0, 295_776.0)
"""Block parameters of the smallest and largest size."""
COSINE, COSINE_SLOPE = float(np.log(0.1)), -0.4
CHANGE, CHANGE_SLOPE = 4e-3, -8e-4
"""ln |cosine| and loss change (nats) at 50 K block parameters, and their slopes in ln size."""
NOISES = (0.05, 0.2, 0.5)
"""Standard deviations between runs, of ln |cosine| and of the loss change over its middle value."""
LADDERS = {"4 sizes × 2 seeds": (4, 2), "6 × 3": (6, 3)}


def recovered(repetitions: int, draws: int) -> Iterator[tuple[str, str, str, list[Trials]]]:
    """By configuration: truth, noise and ladder in words, and what each repetition found."""
    for number, (noise, name) in enumerate(product(NOISES, LADDERS)):
        found = []
        for repetition in range(repetitions):
            generator = np.random.default_rng([number, repetition])
            law = interference.fit(simulate(noise, *LADDERS[name], generator), draws, generator)
            found.append(_trials(law, noise, generator))
        yield "ln abs_cosine and loss_change linear in ln size", f"{noise:g} between runs", name, found


def simulate(noise: float, sizes: int, seeds: int, generator: np.random.Generator) -> Table:
    """One row a run: the law only sees a run's means."""
    away = np.log(np.repeat(np.geomspace(*ENDS, sizes), seeds) / 5e4)
    cosine = COSINE + COSINE_SLOPE * away + noise * generator.normal(size=len(away))
    change = CHANGE + CHANGE_SLOPE * away + noise * CHANGE * generator.normal(size=len(away))
    run_id = np.array([f"{run}" for run in range(len(away))], dtype=object)
    columns = {"run_id": run_id, "block_params": 5e4 * np.exp(away), "cosine": np.exp(cosine)}
    return Table({**columns, "loss_change": change})


def _trials(law: FittedLaw, noise: float, generator: np.random.Generator) -> Trials:
    away = float(np.log(ENDS[1] / 5e4))
    truth, another = COSINE + COSINE_SLOPE * away, noise * generator.normal()
    cosine = np.log(interference.value(law, "abs_cosine", ENDS[1]))
    new = np.log(interference.new_run_value(law, "abs_cosine", ENDS[1]))
    change = 1e3 * interference.value(law, "loss_change", ENDS[1])
    at = law.parameters.index("abs_cosine") + 1
    slope = np.array([row[at] for row in [law.values, *law.draws]])
    return {
        "ln abs_cosine, largest": (cosine[0], *interval_90(cosine[1:]), truth),
        "ln abs_cosine, a new run of the largest": (cosine[0], *interval_90(new), truth + another),
        "slope of ln abs_cosine": (slope[0], *interval_90(slope[1:]), COSINE_SLOPE),
        "loss_change of the largest, 1e-3 nats": (
            change[0],
            *interval_90(change[1:]),
            1e3 * (CHANGE + CHANGE_SLOPE * away),
        ),
    }
