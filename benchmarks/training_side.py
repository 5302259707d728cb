"""One side of training_speed.py: a process that trains a block of steps for every line it reads.

It answers `answer N`: first its vocabulary size, when it is warm, then the seconds of each block.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixplan.calibrate.distributed import World
from mixplan.calibrate.model import build_model
from mixplan.calibrate.prepared import prepare
from mixplan.calibrate.training import Run
from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.calibration_spec import CalibrationSpec


def main() -> None:
    """Serve blocks until the other end closes."""
    options = Namespace(**json.loads(sys.argv[1]))
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        run = _run(Path(folder), options)
        if options.side == "trainer":
            _train_plainly(run, options)
        else:
            _train(run, options)


class _Blocks:
    """Waits to be told, and answers with the seconds since."""

    def __init__(self, vocab_size: int, options: Namespace) -> None:
        self.device = options.device
        self.clock = time.process_time if options.clock == "cpu" else time.perf_counter
        self.answer = vocab_size
        self.started = self.clock()

    def next(self) -> bool:
        """End a block and wait for the next; False when there is none."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds = self.clock() - self.started
        print("answer", self.answer or seconds, flush=True)
        self.answer = 0
        told = bool(sys.stdin.readline())
        self.started = self.clock()
        return told


def _train(run: Run, options: Namespace) -> None:
    for _ in range(options.block):  # warm-up, compilation included
        run.one_step()
    blocks = _Blocks(run.spec.vocab_size, options)
    while blocks.next():
        for _ in range(options.block):
            run.one_step()


def _train_plainly(run: Run, options: Namespace) -> None:
    """`transformers.Trainer` on the same model and batch, nothing logged, measured or saved."""
    ensure_torchvision_imports()
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model = build_model(run.spec.shape, run.spec.vocab_size, run.spec.sequence_length)
    rows = np.asarray(run.batches.stream.rows[:2048], dtype=np.int64)
    blocks: list[_Blocks] = []

    class InBlocks(TrainerCallback):  # type: ignore[misc]  # untyped base
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % options.block:
                return
            if not blocks:  # the first block is the warm-up, compilation included
                blocks.append(_Blocks(run.spec.vocab_size, options))
            control.should_training_stop = not blocks[0].next()

    arguments = TrainingArguments(
        output_dir=str(run.folder.path / "trainer"),
        per_device_train_batch_size=run.spec.batch_sequences,
        max_steps=10**6,
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
    data = [{"input_ids": row, "labels": row} for row in rows]
    Trainer(model=model, args=arguments, train_dataset=data, callbacks=[InBlocks()]).train()


def _run(folder: Path, options: Namespace) -> Run:
    """A run of calibrate on random text (or random tokens, for a given vocabulary), with injected tasks."""
    generator = np.random.default_rng(0)
    if options.vocabulary:
        corpus: dict[str, Any] = {"format": "npy", "paths": ["*.npy"]}
        tokenizer = {"kind": "none", "vocab_size": options.vocabulary, "end_of_document_id": 0}
        tokens = generator.integers(1, options.vocabulary, size=4_000_000).astype(np.uint32)
        np.save(folder / "tokens.npy", tokens)
    else:
        corpus, tokenizer = {"paths": ["*.txt"]}, {"kind": "bytes"}
        for number in range(20):
            text = generator.integers(32, 127, size=200_000).astype(np.uint8)
            (folder / f"{number}.txt").write_bytes(text.tobytes())
    spec = CalibrationSpec.model_validate(
        {
            "corpus": corpus,
            "tokenizer": tokenizer,
            "ladder": [options.rung],
            "horizons": {"tokens": [options.batch * options.sequence * 100_000]},
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
    world = World(options.device, threading.Event())
    return Run(prepared, prepared.folder(prepared.runs()[0]), world)


if __name__ == "__main__":
    main()
