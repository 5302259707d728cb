"""Ladders of LM loss simulated and fitted again, for benchmarks/law_recovery.py."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mixplan.documents.calibration import FittedLaw
from mixplan.laws import lm_loss
from mixplan.laws.drawn import interval_90
from mixplan.laws.loss_posterior import effective_tokens
from mixplan.laws.loss_rows import LossRows

FloatArray = NDArray[np.float64]
Trials = dict[str, tuple[float, float, float, float]]
"""By quantity: estimate, both ends of its 90 % interval, truth."""
ENDS = (8_336.0, 295_776.0)
"""Block parameters of the smallest and largest size."""
HORIZONS = (0.9216e6, 1.8432e6, 3.6864e6, 7.3728e6)
CELLS = {"inside": (5e4, 2.6e6), "2.25 × the largest size": (2.25 * ENDS[1], 7.3728e6)}
NOISES = [(0.002, 0.001, 0.002), (0.005, 0.003, 0.004), (0.015, 0.006, 0.007), (0.005, 0.003, 0.0)]
"""Relative standard deviations of single losses, runs and sizes. In the last one no size departs from the
law, which the prior does not expect: intervals come out too wide."""
LADDERS = {
    "4 sizes × 2 seeds": (4, 2, (1.0,), np.inf),
    "6 × 3": (6, 3, (1.0,), np.inf),
    "6 × 2, common share 1 and 0.5, 1.2 M unique tokens": (6, 2, (1.0, 0.5), 1.2e6),
}


def true_law(generator: np.random.Generator) -> tuple[FloatArray, float]:
    """E, A, α, B, β whose terms have usual values at 50 K block parameters and 2.6 M tokens; R*."""
    alpha, beta = generator.uniform(0.15, 0.6, size=2)
    a, b = generator.uniform(0.2, 0.8, size=2)
    known = [generator.uniform(0.8, 2.0), a * 5e4**alpha, alpha, b * 2.6e6**beta, beta]
    return np.array(known), float(np.exp(generator.uniform(np.log(5), np.log(40))))


def simulate(
    truth: FloatArray,
    repetition_constant: float,
    noises: tuple[float, float, float],
    ladder: tuple[int, int, tuple[float, ...], float],
    generator: np.random.Generator,
) -> LossRows:
    """Decayed losses at four lengths of every run.

    Args:
        ladder: sizes, seeds of each, common shares of each seed, unique tokens of common data.
    """
    sizes, seeds, shares, unique = ladder
    noise, run_noise, size_noise = noises
    rows: list[tuple[int, float, float, float, float]] = []
    for run, (size, _, share) in enumerate(product(np.geomspace(*ENDS, sizes), range(seeds), shares)):
        if run % (seeds * len(shares)) == 0:
            of_size = size_noise * generator.normal()
        of_run = of_size + run_noise * generator.normal()
        for tokens in HORIZONS:
            seen = effective_tokens(np.array(share * tokens), unique, repetition_constant)
            loss = lm_loss.predict(truth, size, seen) * np.exp(of_run + noise * generator.normal())
            rows.append((run, size, tokens, float(loss), share))
    runs, params, lengths, losses, common = (np.array(column) for column in zip(*rows, strict=True))
    return LossRows(runs, params, lengths, losses, np.ones(len(runs), dtype=bool), common, unique)


def recovered(repetitions: int, draws: int) -> Iterator[tuple[str, str, str, list[Trials]]]:
    """By configuration: truth, noise and ladder in words, and what each repetition found."""
    plain = [name for name, (_, _, _, unique) in LADDERS.items() if np.isinf(unique)]
    repeating = [(NOISES[1], name) for name in LADDERS if name not in plain]
    for number, (noises, name) in enumerate([*product(NOISES, plain), *repeating]):
        found = []
        for repetition in range(repetitions):
            generator = np.random.default_rng([number, repetition])
            truth, constant = true_law(generator)
            rows = simulate(truth, constant, noises, LADDERS[name], generator)
            law, _ = lm_loss.fit(rows, draws, generator)
            assert law is not None
            found.append(_trials(law, truth, constant, noises, generator))
        said = "losses {:g}, runs {:g}, sizes {:g} of the loss".format(*noises)
        yield "drawn anew each time", said, name, found


def _trials(
    law: FittedLaw,
    truth: FloatArray,
    constant: float,
    noises: tuple[float, float, float],
    generator: np.random.Generator,
) -> Trials:
    found: Trials = {}
    for name, (size, tokens) in CELLS.items():
        told = lm_loss.forecast(law, size, tokens)
        mean = float(lm_loss.predict(truth, size, tokens)) * np.exp(noises[2] * generator.normal())
        new = mean * np.exp(np.hypot(*noises[:2]) * generator.normal())
        found[f"{name}, mean of a size"] = (told.loss[0], told.low[0], told.high[0], mean)
        found[f"{name}, a new run"] = (told.loss[0], told.run_low[0], told.run_high[0], new)
    known = dict(zip(lm_loss.PARAMETERS, truth.tolist(), strict=True)) | {"repetition_constant": constant}
    for name, value in known.items():
        if name not in law.parameters:
            continue
        at = law.parameters.index(name)
        values = np.array([law.values[at], *(draw[at] for draw in law.draws)])
        if name in ("A", "B", "repetition_constant"):
            name, value, values = f"ln {name}", float(np.log(value)), np.log(values)
        found[name] = (float(values[0]), *interval_90(values[1:]), value)
    return found
