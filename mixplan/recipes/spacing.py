"""Which of Streaming's shuffles keeps every rare source evenly spread, proven on the order itself.

With Streaming's defaults a scarce source comes in bursts: whole shards are shuffled, their samples only
within a block. Here an order is replayed (without data) before it is written, and kept only when the share of
every rare source over 1 % windows of the run varies at most EVEN_WITHIN times as much as in a random order.

An order within blocks is even only where a block holds many shards: whole units (a shard, once an epoch) are
put in random order, and few of them lie over any moment. For a rare source of m samples in U units among V
others and blocks of a fraction f of the run, the squared ratio is roughly 1 + (m/100)·(1/U + 1/V)/f: more
shards of the rare source help only together with more of the others. A block that takes in a node's whole run
needs none of that; the node then keeps all its shards, which on N nodes are one Nth.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mixplan.documents.mixture import DatasetSettings, Mixture
from mixplan.errors import NoAnswer
from mixplan.recipes.evenness import Evenness, evenness
from mixplan.recipes.footprint import Footprint, footprint
from mixplan.recipes.indexes import SourceIndex
from mixplan.recipes.replay import import_streaming, planned_order
from mixplan.units import byte_size

EVEN_WITHIN = 1.3
# A longer run is not replayed when it is emitted: drawing it takes BYTES_TO_DRAW a sample, so 10 GB. One
# permutation of so many samples is as even as any random order.
REPLAY_UP_TO = 200_000_000
# Measured: peak memory of drawing 10 and 20 million samples (naive and py1br 48, py1e 56).
BYTES_TO_DRAW = 48
_SEEDS = 8
# Blocks that are tried, as parts of the samples of a canonical node. From 1 on py1br shuffles it as a whole,
# unless its random first block ends early; py1e comes near to that from 2 on.
_BLOCKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
_CANONICAL_PER_NODE = (1, 4)


@dataclass(frozen=True)
class Spacing:
    """An order, and what was measured of it."""

    settings: DatasetSettings
    rare: dict[str, Evenness]
    """Of every rare source."""
    footprint: Footprint
    padding: int
    """Samples that are repeated because nodes do not divide the samples of the run."""
    draw_seconds: float
    """What drawing the order took."""

    @property
    def worst(self) -> float:
        """Largest cv ÷ random cv over rare sources; 0 without rare sources."""
        return max((spread.cv_ratio for spread in self.rare.values()), default=0.0)

    @property
    def even(self) -> bool:
        return self.worst <= EVEN_WITHIN

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "settings": self.settings.model_dump(mode="json"),
            "even_within": EVEN_WITHIN,
            "even": self.even,
        }


def measure(
    mixture: Mixture, rare: list[str], indexes: dict[str, SourceIndex], nodes: int, settings: DatasetSettings
) -> Spacing:
    """Replay the mixture with these settings.

    Args:
        mixture: streams and samples.
        rare: streams whose evenness counts.
        indexes: of every stream.
        nodes: machines that it will be read on.
        settings: instead of the mixture's.
    """
    used = [indexes[name] for name in mixture.streams]
    import_streaming()  # takes longer than drawing a short order
    started = time.perf_counter()
    planned = planned_order(
        mixture.model_copy(update={"dataset": settings}),
        [index.samples for index in used],
        ranks=nodes,
        nodes=nodes,
        batch_size=1,
    )
    seconds = time.perf_counter() - started
    number = {name: at for at, name in enumerate(mixture.streams)}
    return Spacing(
        settings=settings,
        rare={name: evenness(planned.stream, number[name]) for name in rare},
        footprint=footprint(planned, np.array([b for index in used for b in index.shard_bytes]), nodes),
        padding=planned.padding,
        draw_seconds=seconds,
    )


def seeds_tried(
    mixture: Mixture, rare: list[str], indexes: dict[str, SourceIndex], nodes: int, settings: DatasetSettings
) -> Spacing:
    """The first seed, from the one in `settings` on, whose order is even; the most even one when none is.

    A source of few samples is uneven in some random orders, by chance; another seed helps. When a source is
    more uneven than chance explains, another seed does not, and none is tried.
    """
    best = measure(mixture, rare, indexes, nodes, settings)
    for extra in range(1, _SEEDS):
        if best.even or not all(_by_chance(mixture, name, spread) for name, spread in best.rare.items()):
            break
        reseeded = settings.model_copy(update={"shuffle_seed": settings.shuffle_seed + extra})
        other = measure(mixture, rare, indexes, nodes, reseeded)
        best = min(best, other, key=lambda spacing: spacing.worst)
    return best


def _by_chance(mixture: Mixture, name: str, spread: Evenness) -> bool:
    """Whether a random order may be so uneven: its squared ratio has variance 2/(windows − 1) + 1/m."""
    variance = 2 / max(spread.windows - 1, 1) + 1 / mixture.streams[name].choose
    return spread.cv_ratio**2 - 1 <= 4 * variance**0.5


def within_cache(
    mixture: Mixture,
    rare: list[str],
    indexes: dict[str, SourceIndex],
    nodes: int,
    canonical_nodes: int | None,
    cache_limit: int,
) -> Spacing:
    """The even order that needs least disk on a node; the whole permutation where that fits.

    Raises:
        NoAnswer: no even order fits; says what the smallest one needs, and what would help.
    """
    room = cache_limit - sum(index.index_bytes for index in indexes.values())
    whole = seeds_tried(mixture, rare, indexes, nodes, mixture.dataset)
    if whole.even and whole.footprint.peak_bytes <= room:
        return whole
    found = [whole] if whole.even else []
    for settings in _families(mixture, nodes, canonical_nodes):
        found += _smallest(mixture, rare, indexes, nodes, settings)
    smallest = min(found, key=lambda spacing: spacing.footprint.peak_bytes, default=None)
    if smallest is not None and smallest.footprint.peak_bytes <= room:
        return smallest
    raise NoAnswer(_refusal(mixture, rare, indexes, nodes, cache_limit, smallest))


def _families(mixture: Mixture, nodes: int, canonical_nodes: int | None) -> Iterator[list[DatasetSettings]]:
    """Settings that differ in their block alone, from small to large."""
    fitting = [
        nodes * times for times in _CANONICAL_PER_NODE if times == 1 or mixture.samples % (nodes * times) == 0
    ]
    for canonical in [canonical_nodes] if canonical_nodes else fitting:
        for algo in ("py1br", "py1e"):
            yield [
                mixture.dataset.model_copy(
                    update={
                        "shuffle_algo": algo,
                        "num_canonical_nodes": canonical,
                        "shuffle_block_size": max(round(block * mixture.samples / canonical), 2),
                    }
                )
                for block in _BLOCKS
            ]


def _smallest(
    mixture: Mixture,
    rare: list[str],
    indexes: dict[str, SourceIndex],
    nodes: int,
    family: list[DatasetSettings],
) -> list[Spacing]:
    """The smallest block that is even, by halving; nothing when the largest is not."""
    low, high = 0, len(family) - 1
    best = seeds_tried(mixture, rare, indexes, nodes, family[high])
    if not best.even:
        return []
    while low < high:
        middle = (low + high) // 2
        tried = seeds_tried(mixture, rare, indexes, nodes, family[middle])
        if tried.even:
            best, high = tried, middle
        else:
            low = middle + 1
    return [best]


def _refusal(
    mixture: Mixture,
    rare: list[str],
    indexes: dict[str, SourceIndex],
    nodes: int,
    cache_limit: int,
    smallest: Spacing | None,
) -> str:
    units = ", ".join(f"{name} {len(indexes[name].samples):,}" for name in mixture.streams)
    finer = f", or build all sources in more shards, so that a block holds many of each (now {units})"
    asked = f"--cache-limit {cache_limit} ({byte_size(cache_limit)})"
    more_nodes = f", plan for more than {nodes} node{'s' if nodes > 1 else ''} (--nodes), each has its part"
    if smallest is None:
        return f"{asked}: no order was found in which every rare source is even{more_nodes}{finer}"
    needed = smallest.footprint.peak_bytes + sum(index.index_bytes for index in indexes.values())
    return (
        f"{asked}: orders that keep every rare source as even as {EVEN_WITHIN:g} times a random order need "
        f"{byte_size(needed)} on a node at least; give --cache-limit {needed}{more_nodes}{finer}, or choose "
        "bursts with --block-samples"
    )
