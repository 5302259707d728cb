"""Pretrain an OLMo-core model with OLMo-core's own trainer, from what `emit --format olmo-core` wrote.

    python train.py MIXTURE --save-folder RUN --preset olmo2_1M --batch-sequences 8           # CPU, one GPU
    torchrun --nproc-per-node 8 train.py MIXTURE --save-folder RUN --preset olmo2_1B --batch-sequences 512

MIXTURE holds shards or token files, the script is the same. The same command again goes on from the last
checkpoint of RUN with the next batch. Every rank writes RUN/data-rankN.jsonl: for each step the sequences of
each source in its batch, and a digest of their tokens.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from olmo_core.config import DType
from olmo_core.distributed.parallel import DataParallelType
from olmo_core.distributed.utils import get_rank, get_world_size
from olmo_core.io import is_url
from olmo_core.nn.transformer import TransformerConfig
from olmo_core.optim import AdamWConfig, OptimGroupOverride
from olmo_core.optim.scheduler import ConstantWithWarmup, CosWithWarmup, LinearWithWarmup, Scheduler
from olmo_core.train import (
    Duration,
    ReduceType,
    Trainer,
    TrainerConfig,
    prepare_training_environment,
    teardown_training_environment,
)
from olmo_core.train.callbacks import Callback, CheckpointerCallback
from olmo_core.train.train_module import TransformerDataParallelConfig, TransformerTrainModuleConfig

PRESETS = sorted(name for name in dir(TransformerConfig) if name.startswith(("olmo2_", "olmo3_")))


@dataclass
class DataLog(Callback):
    """Writes down what each step was trained on, and hands the sources' shares to OLMo-core's metrics."""

    path: str
    names: tuple[str, ...]

    def pre_train(self) -> None:
        """A run that was killed has lines of steps after its last checkpoint; they are trained again."""
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        path.write_text("".join(line + "\n" for line in kept))

    def pre_step(self, batch: dict[str, Any]) -> None:
        counts = torch.bincount(batch["source"].cpu(), minlength=len(self.names)).tolist()
        digest = hashlib.sha256(batch["input_ids"].cpu().numpy().tobytes()).hexdigest()
        line = {"step": self.step, "sources": dict(zip(self.names, counts, strict=True)), "tokens": digest}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, count in zip(self.names, counts, strict=True):
            share = torch.tensor(count / max(sum(counts), 1))
            self.trainer.record_metric(f"data/share of {name}", share, ReduceType.mean)


def main(arguments: list[str] | None = None) -> Trainer:
    """Train, or go on training; the trainer as it ended."""
    asked = parse(arguments)
    distributed = "RANK" in os.environ or torch.cuda.is_available()
    backend = ("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo") if distributed else None
    prepare_training_environment(
        seed=asked.seed, backend=backend, shared_filesystem=not is_url(asked.save_folder)
    )
    try:
        return train(asked)
    finally:
        teardown_training_environment()


def train(asked: argparse.Namespace) -> Trainer:
    """The model, the data and the trainer; then all steps."""
    mixture = asked.mixture.resolve()
    sys.path.insert(0, str(mixture))
    adapter = importlib.import_module("olmo_core_loader")
    described = mixture / (adapter.STREAMS if (mixture / adapter.STREAMS).is_file() else adapter.FILES)
    length = adapter.read_yaml(described)["sequence_length"]
    batch_tokens = asked.batch_sequences * length
    world = get_world_size()
    microbatch = asked.microbatch_sequences or max(asked.batch_sequences // world, 1)

    vocabulary = -(-adapter.vocab_size(mixture) // 128) * 128  # a multiple of 128 is faster on GPUs
    model = getattr(TransformerConfig, asked.preset)(vocab_size=vocabulary).build(init_device="cpu")
    module = TransformerTrainModuleConfig(
        rank_microbatch_size=microbatch * length,
        max_sequence_length=length,
        optim=AdamWConfig(
            lr=asked.learning_rate,
            weight_decay=0.1,
            betas=(0.9, 0.95),
            group_overrides=[OptimGroupOverride(params=["embeddings.weight"], opts={"weight_decay": 0.0})],
        ),
        scheduler=schedule(asked),
        max_grad_norm=1.0,
        compile_model=asked.compile,
        dp_config=parallel() if world > 1 or torch.cuda.is_available() else None,
    ).build(model)

    loader = adapter.make_data_loader(
        batch_tokens,
        asked.work_dir or f"{asked.save_folder}/work",
        mixture,
        dp_process_group=module.dp_process_group,
        num_workers=asked.workers,
    )
    log_folder = asked.work_dir if is_url(asked.save_folder) else asked.save_folder
    config = TrainerConfig(
        save_folder=asked.save_folder,
        work_dir=asked.work_dir,
        save_overwrite=True,
        max_duration=Duration.epochs(1),
        hard_stop=Duration.steps(asked.stop_after) if asked.stop_after else None,
        metrics_collect_interval=asked.log_every,
        load_path=asked.start_from,
        load_trainer_state=False if asked.start_from else None,
    )
    names = tuple(adapter.source_names(mixture))
    config.add_callback("data", DataLog(f"{log_folder}/data-rank{get_rank()}.jsonl", names))
    config.add_callback("checkpointer", CheckpointerCallback(save_interval=asked.save_every))
    trainer = config.build(module, loader)
    trainer.fit()
    return trainer


def schedule(asked: argparse.Namespace) -> Scheduler:
    """The learning rate over the run."""
    if asked.schedule == "constant":
        return ConstantWithWarmup(warmup=asked.warmup_steps)
    if asked.schedule == "to-zero":
        return LinearWithWarmup(warmup=asked.warmup_steps, alpha_f=0.0)
    return CosWithWarmup(warmup=asked.warmup_steps)


def parallel() -> TransformerDataParallelConfig:
    """Sharded data parallelism, in bf16 on GPUs."""
    return TransformerDataParallelConfig(
        name=DataParallelType.fsdp,
        param_dtype=DType.bfloat16 if torch.cuda.is_available() else None,
        reduce_dtype=DType.float32,
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mixture", type=Path, help="folder that mixplan emit --format olmo-core wrote")
    parser.add_argument(
        "--save-folder", required=True, help="checkpoints; a folder that all nodes see, or a URL"
    )
    parser.add_argument("--work-dir", help="local scratch; needed when --save-folder is a URL")
    parser.add_argument(
        "--preset", choices=PRESETS, default="olmo2_190M", metavar="PRESET", help=", ".join(PRESETS)
    )
    parser.add_argument(
        "--batch-sequences", type=int, required=True, help="sequences a step, over all devices"
    )
    parser.add_argument(
        "--microbatch-sequences", type=int, help="sequences a device takes at once; default: all"
    )
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--warmup-steps", type=int, default=0)
    parser.add_argument("--schedule", choices=["cosine", "constant", "to-zero"], default="cosine")
    parser.add_argument("--start-from", help="weights and optimizer of another run: the phase before")
    parser.add_argument(
        "--stop-after", type=int, help="stop at this step; the schedule stays the whole run's"
    )
    parser.add_argument("--save-every", type=int, default=1000, help="steps between checkpoints")
    parser.add_argument("--log-every", type=int, default=10, help="steps between lines of metrics")
    parser.add_argument("--workers", type=int, default=0, help="reading processes a device")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights")
    asked = parser.parse_args(arguments)
    if is_url(asked.save_folder) and not asked.work_dir:
        parser.error("--save-folder is a URL: give --work-dir, a local folder")
    return asked


if __name__ == "__main__":
    main()
