"""Does following `mixplan fit --suggest` pay as it says?

    OMP_NUM_THREADS=1 python benchmarks/suggested_runs.py

Each repetition simulates a ladder from a known law, asks for runs worth at most 50 % of its FLOPs, simulates
those and fits again; and does the same with other runs of the same cost, drawn at random.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from suggesting import follow

from mixplan.laws.forms import COMBINED, LOGISTIC

REPETITIONS = 80
COLUMNS = ("law", "before", "expected", "observed", "other runs", "observed ÷ expected", "other − observed")


def main() -> None:
    """Print the table of suggested_runs.md."""
    print("| " + " | ".join([*COLUMNS, "covered"]) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for law in (LOGISTIC.name, COMBINED.name):
        every = np.array([follow(seed, law) for seed in range(REPETITIONS)])
        widths, covered = every.mean(axis=0)[:4], every.mean(axis=0)[4]
        ratio, gain = every[:, 2] / every[:, 1], every[:, 3] - every[:, 2]
        cells = [law, *(f"{width:.3f}" for width in widths), f"{ratio.mean():.3f} ± {ratio.std():.3f}"]
        cells += [f"{gain.mean():.3f} ± {gain.std() / np.sqrt(len(gain)):.3f}", f"{covered:.0%}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
