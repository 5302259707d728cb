"""How long the learning law takes on a million rows: python benchmarks/law_speed.py [--rows 1000000]

Ten sizes × five seeds, 400 tasks, 50 checkpoints of which every tenth ends a horizon; skills drawn from a
logistic. Prints the seconds of wall and of CPU for reading the rows as evidence, fitting the combined law
with 200 draws, forecasting 20,000 cells with intervals, and for 10,000 cells the probability in every draw
that a run reaches its goal, as a search asks for it: once with the tables still to be made, once with them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scipy.special import expit

from mixplan.documents import Table
from mixplan.laws import learning
from mixplan.laws.beta_noise import interval, probability_at_least
from mixplan.laws.evidence import collect_evidence
from mixplan.laws.forms import COMBINED
from mixplan.laws.goals import SkillGoals
from mixplan.laws.protocol import Cells
from mixplan.laws.surface import Surface

SIZES, SEEDS, CHECKPOINTS, DRAWS, ASKED, SEARCHED = 10, 5, 50, 200, 20_000, 10_000


def main() -> None:
    """Simulate, time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    tasks = max(8, parser.parse_args().rows // (SIZES * SEEDS * CHECKPOINTS))
    generator = np.random.default_rng(0)
    table = ladder(tasks, generator)
    print(f"{len(table):,} rows")
    with timed("evidence"):
        evidence = collect_evidence(table)
    with timed(f"fit with {DRAWS} draws"):
        law = learning.fit(COMBINED, evidence, DRAWS, generator)
    rows = generator.integers(0, len(table), ASKED)
    family = [str(name) for name in table["family"][rows]]
    with timed(f"forecast of {ASKED:,} cells with intervals"):
        cells = Cells.of(
            family, *(table[name][rows] for name in ("complexity", "block_params", "tokens", "frequency"))
        )
        found = Surface(law).new_run(cells)
        interval(found.mean, found.precision)
        probability_at_least(0.8, found.mean, found.precision)
    goals = SkillGoals([(Surface(law), 1.0)], DRAWS)
    kinds = sorted(set(zip(family, cells.complexity.tolist(), strict=True)))
    asked = [(*kind, 0.8) for kind in kinds]
    which = generator.integers(0, len(kinds), SEARCHED)
    for what in (f"tables of {len(kinds)} kinds, and", "with these tables"):
        with timed(f"{what} {SEARCHED:,} cells in {DRAWS} draws"):
            goals.reached(asked, which, cells.log_axes[:SEARCHED])


def ladder(tasks: int, generator: np.random.Generator) -> Table:
    """A learning table of SIZES × SEEDS × CHECKPOINTS × tasks rows."""
    runs = SIZES * SEEDS
    run = np.repeat(np.arange(runs), tasks * CHECKPOINTS)
    task = np.tile(np.repeat(np.arange(tasks), CHECKPOINTS), runs)
    step = np.tile(np.arange(1, CHECKPOINTS + 1), runs * tasks)
    size = np.geomspace(1e6, 1e9, SIZES)[run // SEEDS]
    level, tokens = (task // 4) % 5, step * 4e8
    frequency = 10.0 ** (-7 + 3 * ((task // 20) % 20) / 20)
    odds = 1.1 * np.log(frequency / 6e-6) + 1.5 * np.log(tokens / 1e10) + 0.3 * np.log(size / 2.4e7)
    mean = expit(odds - level + generator.normal(0.0, 0.1, runs)[run])
    skill = generator.beta(mean * 10 + 0.01, (1 - mean) * 10 + 0.01)
    return Table({
        "run_id": names("run", runs)[run], "rung": names("rung", SIZES)[run // SEEDS], "block_params": size,
        "seed": (run % SEEDS).astype(float), "step": step.astype(float), "tokens": tokens,
        "task": names("task", tasks)[task], "family": names("family", 4)[task % 4],
        "complexity": 2.0 ** (1 + level), "frequency": frequency, "accuracy": 0.5 + 0.5 * skill,
        "chance": np.full(len(run), 0.5), "skill": skill, "decayed": (step % 10 == 0).astype(float),
    })  # fmt: skip


def names(what: str, count: int) -> np.ndarray:
    """what-000 …"""
    return np.array([f"{what}-{index:03d}" for index in range(count)], dtype=object)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long a block takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    print(f"{what}: {time.perf_counter() - wall:.2f} s, {time.process_time() - cpu:.2f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
