"""Tokens per second and MFU of a calibrate run against a plain transformers Trainer, rung by rung.

    python benchmarks/training_speed.py --rungs cpu_8k cpu_132k --sequence 128 --batch 32 --peak-flops 6.4e10
    python benchmarks/training_speed.py --rungs olmo2_60M olmo2_190M --sequence 1024 --batch 32 \
        --device cuda --precision bf16 --compile --peak-flops 7.9e14

Same model, batch, optimizer and precision on both sides; calibrate's side also injects tasks. The two sides
alternate in blocks of steps, so that a noisy machine slows both. The Trainer needs `accelerate`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.calibrate.model import build_model
from mixplan.calibrate.prepared import prepare
from mixplan.calibrate.training import Run
from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.calibration_spec import CalibrationSpec


def main() -> None:
    """Measure and print one JSON document."""
    options = _options()
    with contextlib.redirect_stdout(sys.stderr):  # the Trainer prints its own figures
        rows = [measure(rung, options) for rung in options.rungs]
    result = {
        "command": " ".join(["python benchmarks/training_speed.py", *sys.argv[1:]]),
        "machine": _machine(options.device),
        "rows": rows,
    }
    print(json.dumps(result, indent=2))


def measure(rung: str, options: argparse.Namespace) -> dict[str, Any]:
    """One rung on both sides: median seconds a step over blocks, tokens/s, MFU and the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        run = _run(rung, Path(folder), options)
        trainer = _Plain(run, options)
        sides = {
            "calibrate": lambda: _steps(run, options.block, options.device),
            "trainer": lambda: trainer.steps(options.block),
        }
        for side in sides.values():
            side()  # warm-up, compilation included
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.blocks):
            for name, side in sides.items():
                seconds[name].append(side() / options.block)
    flops = run.spec.shape.flops_per_token(run.spec.vocab_size, run.spec.sequence_length)
    row: dict[str, Any] = {"rung": rung, "block_params": run.spec.shape.block_params}
    for name, found in seconds.items():
        rate = run.spec.tokens_per_step / statistics.median(found)
        row[name] = {
            "tokens_per_second": round(rate),
            "mfu": round(rate * flops / options.peak_flops, 4),
            "seconds_per_step": [round(value, 5) for value in sorted(found)],
        }
    row["ratio"] = round(row["calibrate"]["tokens_per_second"] / row["trainer"]["tokens_per_second"], 3)
    return row


def _run(rung: str, folder: Path, options: argparse.Namespace) -> Run:
    generator = np.random.default_rng(0)
    for number in range(20):
        text = generator.integers(32, 127, size=200_000).astype(np.uint8)
        (folder / f"{number}.txt").write_bytes(text.tobytes())
    spec = CalibrationSpec.model_validate(
        {
            "corpus": {"paths": ["*.txt"]},
            "ladder": [rung],
            "horizons": {"tokens": [options.batch * options.sequence * 1_000]},
            "sequence_length": options.sequence,
            "training": {
                "batch_sequences": options.batch,
                "precision": options.precision,
                "compile": options.compile,
            },
            "tasks": [{"family": "table_lookup", "complexities": [4, 9], "frequencies": [1e-3, 1e-4]}],
            "probes": {"retention": None, "interference": None, "evaluations": 1},
        }
    )
    prepared, _ = prepare(spec, folder, folder / "out")
    return Run(prepared, prepared.folder(prepared.runs()[0]), options.device)


def _steps(run: Run, count: int, device: str) -> float:
    started = time.perf_counter()
    for _ in range(count):
        run._one_step()
        run.step += 1
    _wait(device)
    return time.perf_counter() - started


class _Plain:
    """`transformers.Trainer` on the same model and batch, nothing logged or saved."""

    def __init__(self, run: Run, options: argparse.Namespace) -> None:
        ensure_torchvision_imports()
        from transformers import Trainer, TrainingArguments

        self.folder = tempfile.mkdtemp()
        self.model = build_model(run.spec.shape, run.spec.vocab_size, run.spec.sequence_length)
        rows = np.asarray(run.stream.rows[:2048], dtype=np.int64)
        data = [{"input_ids": row, "labels": row} for row in rows]

        def trainer(steps: int) -> Any:
            arguments = TrainingArguments(
                output_dir=self.folder,
                per_device_train_batch_size=run.spec.batch_sequences,
                max_steps=steps,
                learning_rate=run.spec.learning_rate,
                optim="adamw_torch_fused",
                bf16=options.precision == "bf16",
                torch_compile=options.compile,
                use_cpu=options.device == "cpu",
                report_to=[],
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
            )
            return Trainer(model=self.model, args=arguments, train_dataset=data)

        self.trainer = trainer

    def steps(self, count: int) -> float:
        """Train so many steps; seconds by the Trainer's own clock, which leaves out building it."""
        return float(self.trainer(count).train().metrics["train_runtime"])


def _wait(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _machine(device: str) -> dict[str, Any]:
    import torch
    import transformers

    gpu = device.startswith("cuda")
    name = torch.cuda.get_device_name() if gpu else platform.processor() or platform.machine()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rungs", nargs="+", default=["cpu_8k", "cpu_33k", "cpu_132k"])
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--block", type=int, default=15, help="steps a block")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--peak-flops", type=float, default=6.4e10, help="of one device, FLOP/s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
