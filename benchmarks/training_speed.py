"""Tokens per second of calibrate's training against a plain transformers Trainer, rung by rung.

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py
    python benchmarks/training_speed.py --rungs olmo2_60M olmo2_190M --sequence 1024 --batch 32 \
        --device cuda --precision bf16 --compile

Same model, batch, optimizer and precision on both sides; calibrate's side also injects tasks. Each side is
a process of its own, as its users have it, warm before it is timed. The sides train in turn, a block of steps
each, with a block of large matrix products in between: a noisy machine slows all three. MFU is FLOPs per
token × tokens/s ÷ the rate of those products. The Trainer needs `accelerate`.

On a CPU that other programs use as well, `--clock cpu` counts the seconds that the core worked for a side
instead of those on the wall (with one thread the same on an idle machine).

`--side-by-side 2 4` also times so many calibrate runs at once on the device, against one alone.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

Side = Literal["calibrate", "trainer"]
SIDES: tuple[Side, ...] = ("calibrate", "trainer")
CPU_RUNGS = ["cpu_8k", "cpu_19k", "cpu_33k", "cpu_74k", "cpu_132k", "cpu_296k"]


def main() -> None:
    """Measure and print one JSON document."""
    options = _options()
    rows = []
    for rung in options.rungs:
        rows.append(measure(rung, options))
        print(json.dumps(rows[-1]), file=sys.stderr)
    result = {
        "command": " ".join(["python benchmarks/training_speed.py", *sys.argv[1:]]),
        "machine": _machine(options),
        "geometric_mean_ratio": round(statistics.geometric_mean(row["ratio"] for row in rows), 3),
        "rows": rows,
    }
    print(json.dumps(result, indent=2))


def measure(rung: str, options: argparse.Namespace) -> dict[str, Any]:
    """One rung on both sides: medians over blocks, their spread, MFU, the ratio."""
    from mixplan.documents.shapes import PRESETS

    products = _Products(options)
    workers = {side: Worker(rung, side, options) for side in SIDES}
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.blocks):
        products.block()
        for side, worker in workers.items():
            worker.start_block()
            seconds[side].append(worker.wait())
    vocab_size = workers["calibrate"].vocab_size
    for worker in workers.values():
        worker.close()
    shape = PRESETS[rung]
    flops = shape.flops_per_token(vocab_size, options.sequence)
    peak = statistics.median(products.rates)
    row: dict[str, Any] = {
        "rung": rung,
        "block_params": shape.block_params,
        "vocab_size": vocab_size,
        "matmul_gflops": round(peak / 1e9, 1),
        "matmul_gflops_range": [round(rate / 1e9, 1) for rate in (min(products.rates), max(products.rates))],
    }
    for name, found in seconds.items():
        rates = [options.block * options.batch * options.sequence / block for block in found]
        row[name] = {
            "tokens_per_second": round(statistics.median(rates)),
            "range": [round(min(rates)), round(max(rates))],
            "mfu": round(statistics.median(rates) * flops / peak, 4),
        }
    # Block by block: neighbours in time share the machine's mood.
    ratios = [t / c for c, t in zip(seconds["calibrate"], seconds["trainer"], strict=True)]
    row["ratio"] = round(statistics.median(ratios), 3)
    row["ratio_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    if options.side_by_side:
        row["side_by_side"] = {count: _together(rung, count, options) for count in (1, *options.side_by_side)}
    return row


def _together(rung: str, count: int, options: argparse.Namespace) -> dict[str, float]:
    """Tokens per second of `count` runs at once, all together: median over blocks."""
    workers = [Worker(rung, "calibrate", options) for _ in range(count)]
    rates = []
    for _ in range(options.blocks):
        for worker in workers:
            worker.start_block()
        tokens = options.block * options.batch * options.sequence
        rates.append(math.fsum(tokens / worker.wait() for worker in workers))
    for worker in workers:
        worker.close()
    return {"tokens_per_second": round(statistics.median(rates))}


class Worker:
    """A process that trains one side, a block of steps whenever it is told to."""

    def __init__(self, rung: str, side: Side, options: argparse.Namespace) -> None:
        settings = {**vars(options), "rung": rung, "side": side}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("training_side.py")), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.vocab_size = int(self._answer())  # after its warm-up

    def start_block(self) -> None:
        """Let it train a block."""
        assert self.process.stdin is not None
        self.process.stdin.write("block\n")
        self.process.stdin.flush()

    def wait(self) -> float:
        """Seconds of the block."""
        return float(self._answer())

    def close(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("answer "):  # libraries print too
                return line.split()[1]
        raise SystemExit(f"a side ended with exit code {self.process.wait()}; its messages are above")


class _Products:
    """The machine's rate in large matrix products of the precision that is trained in."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        gpu = options.device.startswith("cuda")
        torch.set_num_threads(options.threads)
        self.size, self.count = (8192, 20) if gpu else (2048, 4)
        dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        self.a, self.b = (
            torch.randn(self.size, self.size, device=options.device, dtype=dtype) for _ in range(2)
        )
        self.clock = time.process_time if options.clock == "cpu" else time.perf_counter
        self.wait = torch.cuda.synchronize if gpu else lambda: None
        self.rates: list[float] = []
        self.block()
        self.rates.clear()

    def block(self) -> None:
        """Measure FLOP/s once."""
        started = self.clock()
        for _ in range(self.count):
            self.a @ self.b
        self.wait()
        self.rates.append(2 * self.size**3 * self.count / (self.clock() - started))


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    import transformers

    gpu = options.device.startswith("cuda")
    name = torch.cuda.get_device_name() if gpu else platform.processor() or platform.machine()
    return {
        "device": name,
        "threads": options.threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rungs", nargs="+", default=CPU_RUNGS)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32, help="sequences a step")
    parser.add_argument("--vocabulary", type=int, help="train on random tokens of so many, not on bytes")
    parser.add_argument("--block", type=int, default=5, help="steps a block")
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--side-by-side", nargs="*", type=int, default=[], help="runs at once")
    options = parser.parse_args()
    if options.clock == "cpu" and (options.device != "cpu" or options.threads > 1 or options.side_by_side):
        parser.error("--clock cpu is for one thread on a CPU, and not for --side-by-side")
    return options


if __name__ == "__main__":
    main()
