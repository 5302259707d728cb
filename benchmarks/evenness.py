"""How evenly Streaming spreads a rare source, per setting, and what that keeps on a node's disk.

    python benchmarks/evenness.py [--samples 1000000] [--rare-shards 32] [--nodes 1] [--granularity 1]

The order is replayed from shard sizes alone, by Streaming's own functions; no data are needed. The run has a
source of 62 %, one of 37 % and a rare one of 1 %, four epochs of it; shards of the two large ones have 8,192
samples. `rare`, `large`: the cv of that source's share over 1 % windows ÷ that of a random order; `at once`:
the part of all bytes that a node keeps when it fetches each shard once, at its first use, and drops it after
its last; `early`: the part of what it reads that it needs within the first 1 % of the run.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from mixplan.documents.mixture import DatasetSettings, Mixture, StreamSettings
from mixplan.recipes.evenness import evenness
from mixplan.recipes.footprint import footprint
from mixplan.recipes.replay import import_streaming, planned_order

SHARES = {"large": 0.62, "medium": 0.37, "rare": 0.01}
EPOCHS = {"large": 0.8, "medium": 1.25, "rare": 4.0}
SHARD = 8192
SEED = 17


def shards_of(available: int, size: int) -> list[int]:
    """Shards of `size` samples, and a last one of the rest."""
    return [size] * (available // size) + ([available % size] if available % size else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--rare-shards", type=int, default=32)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--granularity", type=int, default=1)
    given = parser.parse_args()
    n, nodes = given.samples, given.nodes
    choose = {name: round(share * n) for name, share in SHARES.items()}
    choose["large"] += n - sum(choose.values())
    sizes = []
    for name, count in choose.items():
        available = round(count / EPOCHS[name])
        sizes.append(shards_of(available, SHARD if name != "rare" else -(-available // given.rare_shards)))
    bytes_of = np.array([size for source in sizes for size in source])  # one a sample: parts are shown
    import_streaming()
    print(f"{n:,} samples, rare 1 % in {len(sizes[2])} shards of {sizes[2][0]:,}, {nodes} node(s)")
    print("| order | block ÷ node's run | canonical nodes | rare | large | at once | early | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    default = max(4_000_000 // nodes, 1 << 18) * nodes / n  # Streaming's, of py1e, its default
    orders = [("naive", 1.0, 1), ("py1e", default, nodes), ("py1s", 1.0, 64 * nodes)]
    orders += [
        (algo, block, nodes) for algo in ("py1e", "py1br") for block in (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
    ]
    for algo, block, canonical in orders:
        settings = DatasetSettings(
            shuffle_algo=algo,
            shuffle_seed=SEED,
            shuffle_block_size=max(round(block * n / canonical), 2),
            num_canonical_nodes=canonical,
            sampling_granularity=given.granularity,
        )
        mixture = Mixture(
            name="evenness",
            fingerprint="",
            samples=n,
            sequence_length=1,
            tokens=n,
            dataset=settings,
            streams={name: StreamSettings(local=name, choose=count) for name, count in choose.items()},
        )
        started = time.perf_counter()
        planned = planned_order(mixture, sizes, ranks=nodes, nodes=nodes, batch_size=1)
        seconds = time.perf_counter() - started
        cost = footprint(planned, bytes_of, nodes)
        rare, large = (evenness(planned.stream, stream).cv_ratio for stream in (2, 0))
        print(
            f"| {algo} | {block:.3g} | {canonical} | {rare:.2f} | {large:.2f} | "
            f"{cost.peak_bytes / bytes_of.sum():.0%} | {cost.early_fraction:.0%} | {seconds:.1f} |"
        )


if __name__ == "__main__":
    main()
