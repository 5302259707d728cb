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
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import recovery_of_interference
import recovery_of_learning
import recovery_of_lm_loss
import recovery_of_retention
from recovery_of_sources import Noise, fresh_cells, parameters, simulate

from mixplan.laws.drawn import interval_90
from mixplan.laws.source import fit_sources
from mixplan.laws.source_forms import ADDITIVE_POWER, JOINT_OWN

Repetition = dict[str, tuple[float, float, float, float]]
"""By quantity: estimate, both ends of its 90 % interval, truth."""
Recovered = Callable[[int, int], Iterable[tuple[str, str, str, list[Repetition]]]]
"""Repetitions and draws in; out, by configuration: truth, noise and ladder in words, and the repetitions."""
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


def recover(recovered: Recovered, repetitions: int) -> list[Row]:
    """Rows of a law whose own module says what its repetitions found."""
    rows: list[Row] = []
    for truth, noise, ladder, found in recovered(repetitions, DRAWS):
        trials = [{name: Trial(*values) for name, values in one.items()} for one in found]
        rows += summary(truth, noise, ladder, trials)
    return rows


LAWS: dict[str, Callable[[int], list[Row]]] = {
    "interference": partial(recover, recovery_of_interference.recovered),
    "learning": partial(recover, recovery_of_learning.recovered),
    "lm_loss": partial(recover, recovery_of_lm_loss.recovered),
    "retention": partial(recover, recovery_of_retention.recovered),
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
        f"{sum(0.85 <= share <= 0.95 for share in shares)} of {len(rows)} shares lie between 85 and 95 %, "
        f"all between {min(shares):.1%} and {max(shares):.1%}.",
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
