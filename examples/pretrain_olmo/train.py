"""Pretrains an OLMo model on a mixture that `mixplan emit` wrote.

    torchrun --nproc-per-node 8 examples/pretrain_olmo/train.py --mixture mixture --out run

The same command continues a run that was stopped or killed. Everything that is not given is what the ladder
was trained with, so that the run is what was forecast.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from loop import Run
from mixture import Phase, held_out_indexes, read_phases, refuse_changed_shards
from parallel import RUN_STATE, Ranks, hold

from mixplan.calibrate import ladder
from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.shapes import PRESETS, ModelShape
from mixplan.documents.spec_training import Training
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError

DEFINING = (
    "architecture", "global_batch", "learning_rate", "schedule", "warmup_steps", "weight_decay", "grad_clip",
    "seed", "precision", "drop_tail",
)  # fmt: skip
"""Arguments that make a run what it is: a run is continued with the same."""
MAY_BE_ZERO = ("workers", "weight_decay", "warmup_steps")


def arguments(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--mixture", type=Path, required=True, help="folder that `mixplan emit` wrote")
    add("--out", type=Path, required=True, help="folder of the run; a run in it is continued")
    add("--size", help="preset (`mixplan schema presets`); default: the recipe's size")
    add("--architecture", choices=("olmo2", "olmo3"), default="olmo2")
    add("--global-batch", type=int, help="sequences a step over all devices; default: the ladder's rule")
    add("--micro-batch", type=int, help="sequences a device at a time; gradients are added up")
    add("--learning-rate", type=float, help="peak; default: the ladder's rule")
    add("--schedule", choices=("wsd", "cosine"), default="wsd")
    add("--warmup-steps", type=int, help="default: a sixteenth of the steps, as the ladder")
    add("--weight-decay", type=float, default=Training().weight_decay)
    add("--grad-clip", type=float, default=Training().grad_clip)
    add("--seed", type=int, default=0, help="of the initial weights")
    add("--precision", choices=("bf16", "fp32"), help="default: bf16 on GPUs, fp32 on CPUs")
    add("--fsdp", action="store_true", help="split the model over the devices (FSDP2), for large ones")
    add("--compile", action="store_true", help="torch.compile")
    add("--drop-tail", action="store_true", help="leave out the samples that fill no global batch")
    add("--workers", type=int, default=2, help="processes a device that read")
    add("--predownload", type=int, help="samples read ahead (Streaming)")
    add("--cache-limit", help="of remote shards, e.g. 200gb (Streaming)")
    add("--checkpoint-every", type=int, default=1000, help="steps")
    add("--keep", type=int, default=2, help="checkpoints kept")
    add("--log-every", type=int, default=10, help="steps")
    add("--log-samples", action="store_true", help="write the ids of every step's samples to samples.jsonl")
    add("--held-out", type=Path, help="folder with an MDS folder for each source whose loss is measured")
    add("--held-out-every", type=int, default=1000, help="steps")
    add("--held-out-samples", type=int, default=64, help="of each source")
    add("--stop-at-step", type=int, help="save and stop there, to be continued")
    add("--threads", type=int, help="CPU threads of each process")
    return parser.parse_args(given)


def resolve(args: argparse.Namespace, phases: list[Phase], ranks: int) -> tuple[ModelShape, list[int]]:
    """Fill in what was not given.

    Returns:
        The model's shape, and the step at which each phase ends.

    Raises:
        InputError: with every problem.
    """
    recipe, training = phases[0].recipe, Training()
    shape = PRESETS.get(args.size, recipe.size)
    if not isinstance(shape, ModelShape):
        raise InputError(
            f"the recipe's size {shape.name!r} is known by its counts alone, so that no model can be made of "
            "it: say which with --size"
        )
    problems = [
        f"--{name.replace('_', '-')} {value}: must be positive"
        for name, value in vars(args).items()
        if isinstance(value, int | float)
        and value <= 0
        and name not in ("seed", *MAY_BE_ZERO)
        and not isinstance(value, bool)
    ]
    problems += [
        f"--{name.replace('_', '-')} {value}: must not be negative"
        for name in MAY_BE_ZERO
        if (value := getattr(args, name)) is not None and value < 0
    ]
    if args.size is not None and args.size not in PRESETS:
        near = did_you_mean(args.size, PRESETS)
        problems.append(f"--size {args.size} is no preset{near}; `mixplan schema presets` lists them")
    lengths = {phase.name: phase.recipe.sequence_length for phase in phases}
    if len(set(lengths.values())) > 1:
        problems.append(f"the phases' samples have different lengths, {lengths}: build them alike")
    if args.global_batch is None:  # a power of two, which most numbers of devices divide
        rule = ladder.batch_sequences(shape, training, recipe.sequence_length)
        args.global_batch = 2 ** round(math.log2(rule))
    if args.global_batch <= 0:
        raise InputError(problems)
    if args.global_batch % ranks:
        up = -(-args.global_batch // ranks) * ranks
        problems.append(
            f"--global-batch {args.global_batch} cannot be dealt out evenly to {ranks} processes: use {up}"
        )
    ends, total = [], 0
    for phase in phases:
        whole, tail = divmod(phase.mixture.samples, args.global_batch)
        if tail % ranks and not args.drop_tail:
            problems.append(
                f"phase {phase.name}: the last {tail} of {phase.mixture.samples:,} samples, which fill no "
                f"global batch, cannot be dealt out evenly to {ranks} processes, and Streaming would repeat "
                "some: use another --global-batch or number of processes, or leave them out with --drop-tail"
            )
        total += whole + (tail > 0 and not args.drop_tail)
        ends.append(total)
    if problems or not total:
        raise InputError(problems or f"--global-batch {args.global_batch}: the mixture holds fewer samples")
    if args.learning_rate is None:
        args.learning_rate = ladder.learning_rate(shape, training)
    if args.warmup_steps is None:
        args.warmup_steps = ladder.warmup_steps([total], training)
    if args.precision is None:
        args.precision = "bf16" if torch.cuda.is_available() else "fp32"
    return shape, ends


def refuse_another_run(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Raise InputError when --out holds a run that is not this one."""
    saved = sorted((args.out / "checkpoints").glob(f"step-*/{RUN_STATE}"))
    if not saved:
        return
    before = json.loads(saved[-1].read_text())["settings"]
    problems = [
        f"--out {args.out} holds a run with {name} {before.get(name)}, not {value}: give what it was started "
        "with, or another --out"
        for name, value in settings.items()
        if before.get(name) != value
    ]
    if problems:
        raise InputError(problems)


def main(given: list[str] | None = None) -> int:
    """Train; the exit status: 2 when what was given is wrong."""
    args = arguments(given)
    ensure_torchvision_imports()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        phases = read_phases(args.mixture)
        shape, ends = resolve(args, phases, int(os.environ.get("WORLD_SIZE", 1)))
        settings = {
            "shape": shape.model_dump(mode="json"),
            "mixtures": [phase.mixture.digest() for phase in phases],
            **{name: getattr(args, name) for name in DEFINING},
        }
        refuse_another_run(args, settings)
        refuse_changed_shards(phases)
        if args.held_out:
            held_out_indexes(args.held_out)
        hold(args.out)
    except InputError as error:
        if os.environ.get("RANK", "0") == "0":
            print("\n".join(error.problems), file=sys.stderr)
        return error.exit_code
    training = Training(weight_decay=args.weight_decay, grad_clip=args.grad_clip)
    ranks = Ranks()
    run = Run(args, shape, training, phases, ends, settings, ranks)
    run.train()
    if ranks.first:
        report(run, phases, finished=run.step == ends[-1])
    ranks.leave()
    return 0


def report(run: Run, phases: list[Phase], finished: bool) -> None:
    """What came of every source, against what was planned."""
    print(f"step {run.step}, {'finished' if finished else 'to be continued'}: {run.args.out}")
    for name, seen in zip(run.names, run.seen, strict=True):
        planned = sum(phase.planned().get(name, 0) for phase in phases)
        print(f"  {name}: {seen:,} of {planned:,} samples, share {seen / run.seen.sum():.6f}")


if __name__ == "__main__":
    sys.exit(main())
