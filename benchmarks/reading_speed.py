"""Tokens a second of an emitted mixture, against one stream of the same bytes and against a memory map.

    OMP_NUM_THREADS=1 python benchmarks/reading_speed.py --rounds 7

Four ways to read the same samples once, in batches of int64 tensors, in turn within one process:
  mixture    several streams, by the emitted loader
  one        the same samples as one stream, by StreamingDataset with the mixture's settings
  plain      the same, as one would write it down: shuffle=True and what Streaming does by itself
  memmap     rows of one array on disk, in random order
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mixplan.recipes.emitting import emit
from mixplan.recipes.replay import import_streaming

SHARES = {"web": 0.62, "code": 0.30, "books": 0.07, "rare": 0.01}
SHARD_BYTES = {"web": 1 << 24, "code": 1 << 24, "books": 1 << 23, "rare": 1 << 18}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--length", type=int, default=2048, help="tokens a sample")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: core time of this process, without workers",
    )
    given = parser.parse_args()
    if given.clock == "cpu" and given.workers:
        parser.error("--clock cpu does not see what workers do: --workers 0")
    clock = time.perf_counter if given.clock == "wall" else time.process_time
    import_streaming()
    with tempfile.TemporaryDirectory() as scratch:
        sides = prepared(Path(scratch), given.samples, given.length, given.batch, given.workers)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(given.rounds + 1):
            for name, read in sides.items():
                started = clock()
                tokens = sum(batch.numel() for batch in read())
                took = clock() - started
                if tokens != given.samples * given.length:
                    raise SystemExit(f"{name} read {tokens:,} tokens")
                if number:  # the first round fills the page cache
                    seconds[name].append(took)
    tokens = given.samples * given.length
    print("| side | Mtokens/s, median | mixture ÷ it, median (smallest to largest) |\n|---|---|---|")
    for name, took in seconds.items():
        ratios = [other / mine for mine, other in zip(seconds["mixture"], took, strict=True)]
        print(
            f"| {name} | {tokens / statistics.median(took) / 1e6:.1f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) |"
        )


def prepared(
    folder: Path, samples: int, length: int, batch: int, workers: int
) -> dict[str, Callable[[], Iterator[Any]]]:
    """Writes the data; each side yields batches of tokens, int64 [batch, length]."""
    import torch
    from streaming import MDSWriter, StreamingDataLoader, StreamingDataset

    from mixplan.recipes.loader import make_loader

    counts = {name: round(samples * share) for name, share in SHARES.items()}
    counts["web"] += samples - sum(counts.values())
    rng = np.random.default_rng(0)
    columns = {"tokens": f"ndarray:int32:{length}"}
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.int32, (samples, length))
    with MDSWriter(out=str(folder / "one"), columns=columns, size_limit=1 << 24) as one:
        at = 0
        for name, count in counts.items():
            with MDSWriter(
                out=str(folder / "mds" / name), columns=columns, size_limit=SHARD_BYTES[name]
            ) as out:
                for _ in range(count):
                    rows[at] = rng.integers(0, 50_000, length, dtype=np.int32)
                    for writer in (one, out):
                        writer.write({"tokens": rows[at]})
                    at += 1
    rows.flush()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(counts, length)))
    emit(folder / "recipe.yaml", folder / "mixture")
    settings = yaml.safe_load((folder / "mixture" / "streams.yaml").read_text())["dataset"]
    mixture = make_loader(batch, workers, folder / "mixture")

    class Int64(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            return {"tokens": super().__getitem__(at)["tokens"].astype(np.int64)}

    def single(**options: Any) -> Any:
        dataset = Int64(local=str(folder / "one"), batch_size=batch, **options)
        return StreamingDataLoader(dataset, batch_size=batch, num_workers=workers)

    same = single(predownload=max(8 * batch, 4096), **settings)
    plain = single(shuffle=True)

    def mapped() -> Iterator[Any]:
        held = np.load(folder / "rows.npy", mmap_mode="r")
        order = np.random.default_rng().permutation(samples)
        for first in range(0, samples, batch):
            yield torch.from_numpy(held[order[first : first + batch]].astype(np.int64))

    return {
        "mixture": lambda: (one["tokens"] for one in mixture),
        "one": lambda: (one["tokens"] for one in same),
        "plain": lambda: (one["tokens"] for one in plain),
        "memmap": mapped,
    }


def recipe(counts: dict[str, int], length: int) -> dict[str, Any]:
    """One epoch of everything."""
    samples = sum(counts.values())
    return {
        "name": "reading-speed",
        "size": {"name": "tiny", "d_model": 16, "layers": 2, "heads": 4, "d_ffn": 64},
        "block_params": 8336,
        "total_params": 16560,
        "vocab_size": 50_000,
        "sequence_length": length,
        "samples": samples,
        "tokens": samples * length,
        "sources": [
            {
                "name": name,
                "role": "rare" if name == "rare" else "common",
                "share": count / samples,
                "natural_share": count / samples,
                "rate": 1.0,
                "epochs": 1.0,
                "max_epochs": 1.0,
                "tokens": count * length,
                "tokens_available": count * length,
                "choose": count,
                "mds": f"mds/{name}",
            }
            for name, count in counts.items()
        ],
    }


if __name__ == "__main__":
    main()
