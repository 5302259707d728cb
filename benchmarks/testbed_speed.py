"""The testbed's batched sweep against training the same models one after another.

    OMP_NUM_THREADS=1 python benchmarks/testbed_speed.py
    python benchmarks/testbed_speed.py --part sweep --preset paper --steps 20 --device cuda

Both sides run the same code for the same steps on the same numbers: one side all widths, seeds and gaps of
a part at once, the other a part of one model each. What a part does once (the basis, imports) is left out
of both. Blocks of both sides take turns, so that a noisy machine slows both; `--clock cpu` counts the seconds
that the core worked, for a machine that other programs use as well. The ratio is the median over blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from mixplan.testbed.parts import GAPS, SWEEP, Part, preset
from mixplan.testbed.students import targets
from mixplan.testbed.training import Trainer


def main() -> None:
    """Measure and print one JSON document."""
    options = _options()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    parts = [part for part in preset(options.preset) if part.name in options.part]
    rows = [measure(part, options.steps, options.blocks, clock, options.device) for part in parts]
    result = {
        "command": " ".join(["python benchmarks/testbed_speed.py", *sys.argv[1:]]),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "device": options.device,
            "threads": options.threads,
            "torch": torch.__version__,
            "load": os.getloadavg()[0],
        },
        "clock": options.clock,
        "rows": rows,
    }
    print(json.dumps(result, indent=2))


def measure(part: Part, steps: int, blocks: int, clock: Callable[[], float], device: str) -> dict[str, Any]:
    """Seconds a step of both sides, medians over blocks, and their ratio."""
    target = targets(part.mixture, 0, device)
    together = [Trainer(part, target, device)]
    alone = [
        Trainer(replace(part, widths=(width,), seeds=(seed,), gaps=(gap,)), target, device)
        for width in part.widths
        for seed in part.seeds
        for gap in part.gaps
    ]
    for side in (together, alone):
        _block(side, 2, clock)
    pairs = [(_block(together, steps, clock), _block(alone, steps, clock)) for _ in range(blocks)]
    ratios = [single / batched for batched, single in pairs]
    return {
        "part": part.name,
        "models": len(alone),
        "sampled": part.sampled,
        "batched_ms_a_step": round(statistics.median(batched for batched, _ in pairs) / steps * 1e3, 3),
        "one_after_another_ms_a_step": round(
            statistics.median(single for _, single in pairs) / steps * 1e3, 3
        ),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def _block(side: Sequence[Trainer], steps: int, clock: Callable[[], float]) -> float:
    started = clock()
    for trainer in side:
        for _ in range(steps):
            trainer.step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--part", nargs="+", default=[SWEEP, GAPS])
    parser.add_argument("--steps", type=int, default=20, help="steps a block")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
