"""Simulated measurements of a source with a known law, and what its fitted law says of fresh cells.

Shape legend: rows of a table stand for (size, share, seed, horizon), in this order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.documents.measurements import TEXT_COLUMNS
from mixplan.documents.table import from_rows
from mixplan.laws.source_forms import (
    ADDITIVE_EXPONENTIAL,
    ADDITIVE_POWER,
    JOINT_OWN,
    JOINT_PRODUCT,
    JOINT_SUM,
    NOISE,
    Form,
    Inputs,
    log_bits,
)
from mixplan.laws.source_predict import predict

TRUTHS: dict[str, dict[str, float]] = {
    JOINT_SUM.name: {"E": 1.2, "A": 60.0, "alpha": 0.45, "B": 60.0, "beta": 0.35, "tau": 0.02, "R": 8.0},
    JOINT_PRODUCT.name: {"E": 1.0, "K": 400.0, "alpha": 0.12, "beta": 0.3, "tau": 0.02, "R": 8.0},
    JOINT_OWN.name: {
        "E": 1.0, "A": 60.0, "alpha": 0.45, "B": 300.0, "beta": 0.5,
        "S": 2.0, "H": 30_000.0, "gamma": 0.8, "R": 8.0,
    },
    ADDITIVE_POWER.name: {
        "E": 1.0, "A": 60.0, "alpha": 0.45, "B": 300.0, "beta": 0.5,
        "S": 2.0, "H": 0.03, "gamma": 0.8, "R": 8.0,
    },
    ADDITIVE_EXPONENTIAL.name: {
        "E": 1.0, "A": 60.0, "alpha": 0.45, "B": 300.0, "beta": 0.5, "S": 2.0, "H": 0.1, "R": 8.0,
    },
}  # fmt: skip
SIZES = (8_336, 18_648, 33_056, 74_160)
SHARES = (0.0, 0.01, 0.04, 0.12, 0.32, 0.5)
HORIZONS = (462_848, 925_696, 1_851_392)
TEXT_TOKENS = 60_000
"""Of the source: read 15 times in the longest run at the largest share."""
BYTES_PER_TOKEN = 0.98
CELLS = {
    "inside": (0.06, 25_000, 925_696, 0.93),
    "inside, 5 epochs": (0.2, 50_000, 1_400_000, 4.67),
    "inside, largest size": (0.02, 74_160, 1_851_392, 0.62),
    "1.8× the largest size": (0.06, 131_648, 1_851_392, 1.85),
}
"""Share, block parameters, tokens and epochs of cells that no run measured."""


class Noise(NamedTuple):
    """Standard deviations of ln(bits per byte)."""

    misfit: float
    run: float
    row: float


class Cell(NamedTuple):
    """A forecast against what a simulated configuration and run came to, in ln(bits per byte)."""

    forecast: float
    mean: float
    mean_interval: tuple[float, float]
    new: float
    new_interval: tuple[float, float]


def true_log_bits(
    form: Form, share: float, block_params: float, tokens: float, epochs: float,
    truth: Mapping[str, float] | None = None,
) -> float:  # fmt: skip
    """ln(bits per byte) of the law without any scatter."""
    named = {name: np.array([value]) for name, value in (truth or TRUTHS[form.name]).items()}
    at = Inputs(*(np.array([float(value)]) for value in (block_params, tokens, share, epochs)))
    return float(log_bits(form, named, at)[0, 0])


def simulate(
    form: Form,
    noise: Noise,
    generator: np.random.Generator,
    *,
    sizes: Sequence[int] = SIZES,
    seeds: int = 2,
    shares: Sequence[float] = SHARES,
    horizons: Sequence[int] = HORIZONS,
    text_tokens: float = TEXT_TOKENS,
    name: str = "manuals",
) -> Table:
    """The table `sources` of a ladder whose truth is known: TRUTHS of the form, and this scatter."""
    rows = []
    for size, share in product(sizes, shares):
        misfit = noise.misfit * generator.normal()
        for seed in range(seeds):
            of_run = misfit + noise.run * generator.normal()
            anchor = {0.0: "zero", max(shares): name}.get(share, "")
            for tokens in horizons:
                own = share * tokens
                said = true_log_bits(form, share, size, tokens, own / text_tokens)
                bits = float(np.exp(said + of_run + noise.row * generator.normal()))
                rows.append({
                    "run_id": f"{size}-{share:g}-s{seed}", "rung": f"{size}", "block_params": size,
                    "seed": seed, "tokens": tokens, "source": name, "anchor": anchor, "share": share,
                    "source_tokens": own, "source_epochs": own / text_tokens, "decayed": 1,
                    "bits_per_byte": bits, "nats_per_token": bits * np.log(2) * BYTES_PER_TOKEN,
                })  # fmt: skip
    return from_rows(rows, TEXT_COLUMNS)


def fresh_cells(form: Form, law: FittedLaw, noise: Noise, generator: np.random.Generator) -> dict[str, Cell]:
    """Forecasts of CELLS, each against a configuration and a run of its own that are drawn here."""
    found = {}
    for name, (share, size, tokens, epochs) in CELLS.items():
        mean = true_log_bits(form, share, size, tokens, epochs) + noise.misfit * generator.normal()
        new = mean + float(np.hypot(noise.run, noise.row)) * generator.normal()
        said = predict(law, share, size, tokens, epochs)
        low, high, mean_low, mean_high = np.log([said.low, said.high, said.mean_low, said.mean_high])[:, 0]
        found[name] = Cell(float(np.log(said.bits[0])), mean, (mean_low, mean_high), new, (low, high))
    return found


def parameters(form: Form, law: FittedLaw, noise: Noise) -> dict[str, tuple[float, np.ndarray, float]]:
    """Point estimate, draws (D,) and truth of every parameter, where the true form was chosen."""
    if law.law != form.name:
        return {}
    truth = {**TRUTHS[form.name], **dict(zip(NOISE, noise, strict=True))}
    draws = np.array(law.draws)
    return {
        name: (law.values[index], draws[:, index], truth[name]) for index, name in enumerate(law.parameters)
    }
