"""What an order costs the nodes that it is read on: shards on disk, and when they are needed.

Shape legend: n = samples of the run, K = shards; the order is that of `nodes` machines with one device and
batches of one, so that sample i is read on node i mod nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixplan.recipes.replay import Planned


@dataclass(frozen=True)
class Footprint:
    """Of the node that has most."""

    peak_bytes: int
    """Most bytes of shards at one time, when a shard is fetched once, at its first use, and kept until its
    last."""
    read_bytes: int
    """Of all shards that it reads."""
    early_fraction: float
    """Part of `read_bytes` that is needed within the first 1 % of the run."""


def footprint(planned: Planned, shard_bytes: np.ndarray, nodes: int = 1) -> Footprint:
    """Bytes of shards on each node over a run.

    Args:
        planned: the order on `nodes` machines, one device each, batches of one.
        shard_bytes: int [K].
        nodes: machines.
    """
    costs = [_of_one(planned.shard[node::nodes], shard_bytes) for node in range(nodes)]
    return max(costs, key=lambda cost: (cost.peak_bytes, cost.read_bytes))


def _of_one(shard: np.ndarray, shard_bytes: np.ndarray) -> Footprint:
    samples = len(shard)
    last = np.full(len(shard_bytes), -1)
    last[shard] = np.arange(samples)  # of equal indices the last assignment holds
    first = np.full(len(shard_bytes), samples)
    first[shard[::-1]] = np.arange(samples)[::-1]
    used = last >= 0
    change = np.zeros(samples + 1, np.int64)
    np.add.at(change, first[used], shard_bytes[used])
    np.add.at(change, last[used] + 1, -shard_bytes[used])
    read = int(shard_bytes[used].sum())
    early = int(shard_bytes[used & (first < max(samples // 100, 1))].sum())
    return Footprint(int(change.cumsum().max(initial=0)), read, early / read if read else 0.0)
