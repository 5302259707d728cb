"""Do the laws recover what simulated ladders were made with, and do their 90 % intervals hold it as often?

    OMP_NUM_THREADS=1 python benchmarks/law_recovery.py                     # all laws, 200 repetitions
    OMP_NUM_THREADS=1 python benchmarks/law_recovery.py retention --repetitions 50
    OMP_NUM_THREADS=1 python benchmarks/law_recovery.py interference --write

Every law registers one function (see LAWS) that simulates ladders from known parameters, fits them as
`mixplan fit` does, the choice of form included, and says per quantity how often the interval held the truth.
Each repetition has a seed of its own. `--write` puts the law's table into benchmarks/law_recovery.md, in the
place of its earlier one; without it the table is only printed.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from recovery_of_lm_loss import recovered
from recovery_of_sources import Noise, fresh_cells, parameters, simulate

from mixplan.documents import Table
from mixplan.laws import retention
from mixplan.laws.bootstrap import interval_90
from mixplan.laws.retention_forms import EXPONENTIAL, LOG_LINEAR, POWER, STRETCHED, kept_share
from mixplan.laws.source import fit_sources
from mixplan.laws.source_forms import ADDITIVE_POWER, JOINT_OWN

FloatArray = NDArray[np.float64]
RESULTS = Path(__file__).with_suffix(".md")
DRAWS = 200


class Row(NamedTuple):
    """One line of a law's table."""

    truth: str
    """Form and parameters simulated."""
    noise: str
    ladder: str
    quantity: str
    inside: int
    """Repetitions whose 90 % interval held the truth."""
    of: int
    error: float
    """Median of |estimate − truth|, in the unit that the quantity names."""


class Trial(NamedTuple):
    """One repetition of one quantity."""

    estimate: float
    low: float
    high: float
    truth: float


def summary(truth: str, noise: str, ladder: str, trials: Iterable[dict[str, Trial]]) -> list[Row]:
    """Rows from the repetitions of one configuration; each quantity counts where it is there."""
    by_quantity: dict[str, list[Trial]] = {}
    for one in trials:
        for quantity, trial in one.items():
            by_quantity.setdefault(quantity, []).append(trial)
    return [
        Row(
            truth,
            noise,
            ladder,
            quantity,
            sum(t.low <= t.truth <= t.high for t in found),
            len(found),
            float(np.median([abs(t.estimate - t.truth) for t in found])),
        )
        for quantity, found in by_quantity.items()
    ]


def ladder_sizes(count: int) -> FloatArray:
    """Block parameters of a ladder from 8 K to 296 K in even steps of their logarithm; (count,)."""
    return np.geomspace(8_336, 295_776, count)


DELAYS = 4096.0 * np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
RETENTION_COLUMNS = ("run_id", "task", "block_params", "injected_at_tokens", "gain", "delay_tokens")
MIDDLE, B, C = 4e5, 0.6, 0.4
"""Half-life in tokens at 50 K block parameters and 2 M tokens, exponents of size and position."""
LADDERS = {
    "4 sizes × 2 seeds": (4, 2, (2e6,)),
    "6 × 3": (6, 3, (2e6,)),
    "6 × 3, 3 positions": (6, 3, (1e6, 2e6, 4e6)),
}


def true_log_half_life(size: float, at: float) -> float:
    return float(np.log(MIDDLE) + B * np.log(size / 5e4) + C * np.log(at / 2e6))


def simulate_retention(
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
    columns: dict[str, list[Any]] = {name: [] for name in RETENTION_COLUMNS}
    for size, seed in product(ladder_sizes(sizes), range(seeds)):
        run = between * generator.normal()
        for at in positions:
            half = np.exp(true_log_half_life(size, at) + run + within * generator.normal())
            share = kept_share(truth[0], half, truth[1], DELAYS, 0.0, DELAYS[1])
            for probe in range(4):
                gain = generator.uniform(0.6, 1.4) * (share + noise * generator.normal(size=len(share)))
                of_probe = (f"{size:.0f}-{seed}", f"probe {probe}", size, at)
                for name, value in zip(RETENTION_COLUMNS, of_probe, strict=False):
                    columns[name] += [value] * len(DELAYS)
                columns["gain"] += gain.tolist()
                columns["delay_tokens"] += DELAYS.tolist()
    kinds = {"run_id": object, "task": object}
    return Table({name: np.array(column, dtype=kinds.get(name, float)) for name, column in columns.items()})


def recover_retention(repetitions: int) -> list[Row]:
    """Half-life of the middle run at both ends, of a new run in the middle, exponents, share kept."""
    truths = [(EXPONENTIAL, 1.0), (LOG_LINEAR, 1.0), (POWER, 1.2), (STRETCHED, 1.7)]  # between shapes tried
    noises = [(0.05, 0.2), (0.2, 0.4)]
    rows: list[Row] = []
    for number, ((form, shape), (noise, between), name) in enumerate(product(truths, noises, LADDERS)):
        within = 0.5 * between if len(LADDERS[name][2]) > 1 else 0.0
        trials, right = [], 0
        for repetition in range(repetitions):
            generator = np.random.default_rng([number, repetition])
            table = simulate_retention((form, shape), noise, between, within, LADDERS[name], generator)
            law, _ = retention.fit(table, DRAWS, generator)
            assert law is not None
            right += law.law == form
            trials.append(_retention_trials(law, form, shape, between, within, generator))
        chosen = f"{form}, shape {shape:g}" if form in (POWER, STRETCHED) else form
        said = f"gains {noise:g} of the peak, runs {between:g} of ln half-life"
        rows += summary(f"{chosen}; form chosen {right / repetitions:.0%}", said, name, trials)
    return rows


def _retention_trials(
    law: Any, form: str, shape: float, between: float, within: float, generator: np.random.Generator
) -> dict[str, Trial]:
    smallest, largest = ladder_sizes(2)
    trials = {}
    for name, size in (("smallest", smallest), ("largest", largest)):
        half = np.log(retention.half_life(law, size, 2e6))
        trials[f"ln half-life, {name}"] = Trial(
            half[0], *interval_90(half[1:]), true_log_half_life(size, 2e6)
        )
    new = np.log(retention.new_run_half_life(law, 5e4, 2e6))
    drawn = true_log_half_life(5e4, 2e6) + between * generator.normal() + within * generator.normal()
    trials["ln half-life, a new run in the middle"] = Trial(float(np.median(new)), *interval_90(new), drawn)
    delay = 5e5
    kept = retention.kept(law, 5e4, delay, 2e6)
    truth = float(kept_share(form, np.exp(true_log_half_life(5e4, 2e6)), shape, delay, 0.0, DELAYS[1]))
    trials["share kept after 500 K tokens, middle"] = Trial(kept[0], *interval_90(kept[1:]), truth)
    for name, truth in ((retention.EXPONENT, B), (retention.POSITION_EXPONENT, C)):
        if name in law.parameters:
            at = law.parameters.index(name)
            draws = np.array([draw[at] for draw in law.draws])
            trials[name] = Trial(law.values[at], *interval_90(draws), truth)
    return trials


def recover_sources(repetitions: int) -> list[Row]:
    """Bits per byte of configurations and runs that nobody measured, and every parameter.

    The form is given. How often it is chosen from among all is counted on the first tenth of the repetitions
    only, because each costs as much as four others.
    """
    noises = [Noise(0.003, 0.005, 0.002), Noise(0.01, 0.01, 0.005), Noise(0.02, 0.03, 0.01)]
    rows: list[Row] = []
    for number, (form, noise) in enumerate(product((ADDITIVE_POWER, JOINT_OWN), noises)):
        trials, right = [], []
        for repetition in range(repetitions):
            generator = np.random.default_rng([number, repetition])
            table = simulate(form, noise, generator)
            law = fit_sources(table, DRAWS, generator, (form,))[0][0]
            if repetition < max(1, repetitions // 10):
                right.append(fit_sources(table, DRAWS, generator)[0][0].law == form.name)
            one = {}
            for name, cell in fresh_cells(form, law, noise, generator).items():
                one[f"ln bits, mean, {name}"] = Trial(cell.forecast, *cell.mean_interval, cell.mean)
                one[f"ln bits, new run, {name}"] = Trial(cell.forecast, *cell.new_interval, cell.new)
            for name, (value, draws, truth) in parameters(form, law, noise).items():
                one[name] = Trial(value, *interval_90(draws), truth)
            trials.append(one)
        said = f"ln bits: misfit {noise.misfit:g}, run {noise.run:g}, row {noise.row:g}"
        chosen = f"{form.name}; form chosen in {sum(right)} of {len(right)}"
        rows += summary(chosen, said, "4 sizes × 6 shares × 2 seeds × 3 horizons", trials)
    return rows


def recover_lm_loss(repetitions: int) -> list[Row]:
    """Losses of a size's mean and of a new run inside the ladder and beyond it; the law's parameters."""
    rows: list[Row] = []
    for truth, noise, ladder, found in recovered(repetitions, DRAWS):
        trials = [{name: Trial(*values) for name, values in one.items()} for one in found]
        rows += summary(truth, noise, ladder, trials)
    return rows


LAWS: dict[str, Callable[[int], list[Row]]] = {
    "lm_loss": recover_lm_loss,
    "retention": recover_retention,
    "source": recover_sources,
}


def markdown(law: str, rows: list[Row], repetitions: int, seconds: float) -> str:
    """The law's section: a line per configuration, a column per quantity."""
    quantities = list(dict.fromkeys(row.quantity for row in rows))
    configurations = list(dict.fromkeys((row.truth, row.noise, row.ladder) for row in rows))
    cells = {(row.truth, row.noise, row.ladder, row.quantity): row for row in rows}
    shares = [row.inside / row.of for row in rows]
    lines = [
        f"## {law}",
        "",
        f"`python benchmarks/law_recovery.py {law} --repetitions {repetitions} --write`, {seconds:.0f} s.",
        f"Cells: share of {repetitions} repetitions whose 90 % interval holds the truth, and median error.",
        f"{sum(0.85 <= share <= 0.95 for share in shares)} of {len(rows)} shares lie between 85 and 95 %, all "
        f"between {min(shares):.1%} and {max(shares):.1%}.",
        "",
        "| truth | noise | ladder | " + " | ".join(quantities) + " |",
        "|---|---|---|" + "---|" * len(quantities),
    ]
    for configuration in configurations:
        found = [cells.get((*configuration, quantity)) for quantity in quantities]
        said = [f"{row.inside / row.of:.1%} ({row.error:.2g})" if row else "–" for row in found]
        lines.append("| " + " | ".join([*configuration, *said]) + " |")
    return "\n".join([*lines, ""])


def write(section: str, law: str) -> None:
    """Put a law's section in the place of its earlier one."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Recovery of the laws\n"
    before = re.split(rf"(?m)^## {re.escape(law)}$", text)[0].rstrip() + "\n\n"
    after = re.search(rf"(?ms)^## {re.escape(law)}$.*?(?=^## |\Z)", text)
    rest = text[after.end() :] if after else ""
    RESULTS.write_text(before + section + ("\n" + rest if rest else ""), encoding="utf-8")


def main() -> None:
    """Run the laws asked for and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("laws", nargs="*", choices=[[], *LAWS], help="default: all")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for law in options.laws or LAWS:
        started = time.perf_counter()
        rows = LAWS[law](options.repetitions)
        section = markdown(law, rows, options.repetitions, time.perf_counter() - started)
        print(section, flush=True)
        if options.write:
            write(section, law)


if __name__ == "__main__":
    sys.exit(main())
