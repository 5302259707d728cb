"""Seconds of `mixplan recommend`, imports included, on plans of many tasks and sources.

    python benchmarks/recommend_speed.py [--tasks 5 50] [--sources 20 200]

Every plan asks for six sizes, on the laws of the reference cpu-manuals. Three sources in ten are common; each
task lives in one to three rare ones.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

KINDS = (("table_lookup", 4), ("table_lookup", 6), ("table_lookup", 9), ("associative_recall", 64),
         ("comparison", 32), ("parity", 2))  # fmt: skip


def plan(tasks: int, sources: int, seed: int) -> dict[str, Any]:
    """A plan with an answer: rare sources hold 2 % of the text, and caps and a loss bound say something."""
    generator = np.random.default_rng(seed)
    common = max(sources * 3 // 10, 1)
    names = [f"common{at}" for at in range(common)] + [f"rare{at}" for at in range(sources - common)]
    sizes = np.concatenate([
        generator.dirichlet(np.ones(common)) * 0.98, generator.dirichlet(np.ones(sources - common)) * 0.02
    ])  # fmt: skip
    listed = [
        {
            "name": name,
            "role": "common" if at < common else "rare",
            "tokens_available": float(2e7 * share + 8000),
            "max_epochs": float(generator.choice([4, 8, 16])),
        }
        for at, (name, share) in enumerate(zip(names, sizes, strict=True))
    ]
    asked = []
    for at in range(tasks):
        family, complexity = KINDS[at % len(KINDS)]
        homes = generator.choice(
            names[common:], size=min(generator.integers(1, 4), sources - common), replace=False
        )
        asked.append(
            {
                "name": f"task{at}",
                "family": family,
                "complexity": complexity,
                "density": {
                    str(home): float(np.exp(generator.normal(np.log(0.3 if tasks < 20 else 1.5), 0.3)))
                    for home in homes
                },
                "target_probability": 0.6,
                **({"confidence": 0.7} if at % 3 == 0 else {}),
            }
        )
    return {
        "sources": listed,
        "tasks": asked,
        "sizes": [{"ladder": "cpu"}],
        "sequence_length": 128,
        "budget": {"tokens": 7.3e6},
        "constraints": {"max_common_loss_increase_nats": 0.2},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[5, 50])
    parser.add_argument("--sources", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--objective", default="cheapest")
    given = parser.parse_args()
    print("tasks  sources  objective    exit  seconds  CPU seconds")
    for tasks, sources in zip(given.tasks, given.sources, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "plan.yaml"
            path.write_text(yaml.safe_dump({**plan(tasks, sources, 0), "objective": given.objective}))
            command = [
                sys.executable,
                "-m",
                "mixplan",
                "recommend",
                str(path),
                "--calibration",
                "ref:cpu-manuals",
            ]
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run([*command, "-o", f"{folder}/recipe.yaml"], capture_output=True, text=True)
            seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            head = f"{tasks:5}  {sources:7}  {given.objective:11}  {done.returncode:4}"
            print(f"{head}  {seconds:7.1f}  {cpu:11.1f}")
            print((done.stdout + done.stderr)[:600] if done.returncode else done.stdout.splitlines()[0])


if __name__ == "__main__":
    main()
