"""Retention tables simulated and fitted again, for benchmarks/law_recovery.py."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.laws import retention
from mixplan.laws.drawn import interval_90
from mixplan.laws.retention_forms import EXPONENTIAL, LOG_LINEAR, POWER, STRETCHED, kept_share

Trials = dict[str, tuple[float, float, float, float]]
"""By quantity: estimate, both ends of its 90 % interval, truth."""
DELAYS = 4096.0 * np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
COLUMNS = ("run_id", "task", "block_params", "injected_at_tokens", "gain", "delay_tokens")
ENDS = (8_336.0, 295_776.0)
"""Block parameters of the smallest and largest size."""
MIDDLE, B, C = 4e5, 0.6, 0.4
"""Half-life in tokens at 50 K block parameters and 2 M tokens, exponents of size and position."""
TRUTHS = [(EXPONENTIAL, 1.0), (LOG_LINEAR, 1.0), (POWER, 1.2), (STRETCHED, 1.7)]
"""Forms and their shapes, which lie between those that the fit tries."""
NOISES = [(0.05, 0.2), (0.2, 0.4)]
"""Standard deviations of a single gain as a share of its peak, and of ln half-life between runs."""
LADDERS = {
    "4 sizes × 2 seeds": (4, 2, (2e6,)),
    "6 × 3": (6, 3, (2e6,)),
    "6 × 3, 3 positions": (6, 3, (1e6, 2e6, 4e6)),
}
"""Sizes, seeds of each, tokens before each burst."""


def recovered(repetitions: int, draws: int) -> Iterator[tuple[str, str, str, list[Trials]]]:
    """By configuration: truth, noise and ladder in words, and what each repetition found.

    Where a run has several bursts they differ by half of what runs differ by.
    """
    for number, (truth, (noise, between), name) in enumerate(product(TRUTHS, NOISES, LADDERS)):
        within = 0.5 * between if len(LADDERS[name][2]) > 1 else 0.0
        found, right = [], 0
        for repetition in range(repetitions):
            generator = np.random.default_rng([number, repetition])
            table = simulate(truth, noise, between, within, LADDERS[name], generator)
            law, _ = retention.fit(table, draws, generator)
            assert law is not None
            right += law.law == truth[0]
            found.append(_trials(law, truth, between, within, generator))
        shape = f", shape {truth[1]:g}" if truth[0] in (POWER, STRETCHED) else ""
        said = f"gains {noise:g} of the peak, runs {between:g} of ln half-life"
        yield f"{truth[0]}{shape}; form chosen {right / repetitions:.0%}", said, name, found


def true_log_half_life(size: float, at: float) -> float:
    """Of the middle run."""
    return float(np.log(MIDDLE) + B * np.log(size / 5e4) + C * np.log(at / 2e6))


def simulate(
    truth: tuple[str, float],
    noise: float,
    between: float,
    within: float,
    ladder: tuple[int, int, tuple[float, ...]],
    generator: np.random.Generator,
) -> Table:
    """A retention table of four probes a burst.

    Args:
        truth: form of forgetting and its shape.
        noise: standard deviation of a single gain, as a share of its probe's peak.
        between, within: standard deviations of ln half-life between runs and between the bursts of a run.
        ladder: sizes, seeds of each, tokens before each burst.
    """
    sizes, seeds, positions = ladder
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for size, seed in product(np.geomspace(*ENDS, sizes), range(seeds)):
        run = between * generator.normal()
        for at in positions:
            half = np.exp(true_log_half_life(size, at) + run + within * generator.normal())
            share = kept_share(truth[0], half, truth[1], DELAYS, 0.0, DELAYS[1])
            for probe in range(4):
                gain = generator.uniform(0.6, 1.4) * (share + noise * generator.normal(size=len(share)))
                of_probe = (f"{size:.0f}-{seed}", f"probe {probe}", size, at)
                for name, value in zip(COLUMNS, of_probe, strict=False):
                    columns[name] += [value] * len(DELAYS)
                columns["gain"] += gain.tolist()
                columns["delay_tokens"] += DELAYS.tolist()
    kinds = {"run_id": object, "task": object}
    return Table({name: np.array(column, dtype=kinds.get(name, float)) for name, column in columns.items()})


def _trials(
    law: FittedLaw,
    truth: tuple[str, float],
    between: float,
    within: float,
    generator: np.random.Generator,
) -> Trials:
    found: Trials = {}
    for name, size in zip(("smallest", "largest"), ENDS, strict=True):
        half = np.log(retention.half_life(law, size, 2e6))
        found[f"ln half-life, {name}"] = (half[0], *interval_90(half[1:]), true_log_half_life(size, 2e6))
    new = np.log(retention.new_run_half_life(law, 5e4, 2e6))
    middle = true_log_half_life(5e4, 2e6)
    drawn = middle + between * generator.normal() + within * generator.normal()
    found["ln half-life, a new run in the middle"] = (float(np.median(new)), *interval_90(new), drawn)
    kept = retention.kept(law, 5e4, 5e5, 2e6)
    share = float(kept_share(truth[0], np.exp(middle), truth[1], 5e5, 0.0, DELAYS[1]))
    found["share kept after 500 K tokens, middle"] = (kept[0], *interval_90(kept[1:]), share)
    for name, known in ((retention.EXPONENT, B), (retention.POSITION_EXPONENT, C)):
        if name in law.parameters:
            at = law.parameters.index(name)
            values = np.array([draw[at] for draw in law.draws])
            found[name] = (law.values[at], *interval_90(values), known)
    return found
