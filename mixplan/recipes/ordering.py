"""The order of a mixture: chosen as was asked, measured, and what it costs said."""

from __future__ import annotations

from typing import Any

from mixplan.documents.mixture import DatasetSettings, Mixture
from mixplan.errors import InputError
from mixplan.recipes.indexes import SourceIndex
from mixplan.recipes.spacing import (
    BYTES_TO_DRAW,
    EVEN_WITHIN,
    REPLAY_UP_TO,
    Spacing,
    measure,
    seeds_tried,
    within_cache,
)
from mixplan.recipes.written import Options
from mixplan.units import byte_size, duration

# Streaming starts with a cache of four times its largest shard, or not at all.
_LARGEST_SHARDS = 4
_SHOWN = 8  # sources in a note


def ordered(
    mixture: Mixture, rare: list[str], indexes: dict[str, SourceIndex], options: Options
) -> tuple[DatasetSettings, list[str], dict[str, Any]]:
    """Settings of the order, notes, and what was measured of it.

    Args:
        mixture: its settings have the recipe's seed and the block that was asked for.
        rare: streams whose evenness counts.
        indexes: of the streams whose index could be read.
        options: what was asked.

    Returns:
        Settings; notes; the measurements as JSON, empty where the order was not replayed.

    Raises:
        InputError: there are more nodes than samples.
        NoAnswer: no even order fits into the cache that was asked for.
    """
    nodes = options.nodes or 1
    if (most := max(nodes, options.canonical_nodes or 1)) > mixture.samples:
        raise InputError(f"{most:,} nodes or canonical nodes: the run has {mixture.samples:,} samples only")
    settings = mixture.dataset
    if options.block_samples is None:
        settings = settings.model_copy(update={"num_canonical_nodes": options.canonical_nodes or 1})
    else:
        canonical = options.canonical_nodes or nodes
        settings = settings.model_copy(update={"shuffle_algo": "py1e", "num_canonical_nodes": canonical})
    mixture = mixture.model_copy(update={"dataset": settings})
    unknown = [name for name in mixture.streams if name not in indexes]
    if unknown or mixture.samples > REPLAY_UP_TO:
        why = (
            f"the index of {', '.join(unknown)} could not be read"
            if unknown
            else f"{mixture.samples:,} samples are more than the {REPLAY_UP_TO:,} that are replayed"
        )
        return settings, [*_unproven(why, options), *_memory(mixture, None)], {}
    if options.cache_limit is not None:
        spacing = within_cache(mixture, rare, indexes, nodes, options.canonical_nodes, options.cache_limit)
    elif options.block_samples is not None:
        spacing = measure(mixture, rare, indexes, nodes, settings)
    else:
        spacing = seeds_tried(mixture, rare, indexes, nodes, settings)
    settings, notes = _cache(mixture, indexes, spacing.settings, options.cache_limit)
    notes = [*_evenness(mixture, spacing), *_costs(spacing, nodes), *notes]
    return settings, [*notes, *_memory(mixture, spacing.draw_seconds)], spacing.to_json()


def _unproven(why: str, options: Options) -> list[str]:
    asked = "" if options.cache_limit is None else "; --cache-limit was not used"
    return [f"the order was not replayed, so its evenness is not proven here: {why}{asked}"]


def _evenness(mixture: Mixture, spacing: Spacing) -> list[str]:
    notes = []
    if spacing.settings.shuffle_seed != mixture.dataset.shuffle_seed:
        notes.append(
            f"shuffle_seed {spacing.settings.shuffle_seed} is used: with the recipe's, "
            f"{mixture.dataset.shuffle_seed}, a rare source happens to be less even"
        )
    if not spacing.rare:
        return notes
    worst = sorted(spacing.rare, key=lambda name: (-spacing.rare[name].cv_ratio, name))
    shown = ", ".join(f"{name} {spacing.rare[name].cv_ratio:.2f}" for name in worst[:_SHOWN])
    shown += f", {len(worst) - _SHOWN} more below" if len(worst) > _SHOWN else ""
    said = "the share of each rare source over 1 % windows varies, against a random order"
    if spacing.even:
        return [*notes, f"{said}, by a factor of {shown} (at most {EVEN_WITHIN:g} is promised)"]
    notes.append(
        f"NOT EVEN: {said}, by a factor of {shown}, where {EVEN_WITHIN:g} is promised without these blocks"
    )
    if spacing.settings.shuffle_algo == "naive":
        few = min(spacing.rare, key=lambda name: mixture.streams[name].choose)
        notes.append(
            f"that is chance, {few!r} has {mixture.streams[few].choose} samples: another shuffle_seed helps"
        )
    else:
        notes.append(
            "whole shards come together in blocks: emit without --block-samples, or build the source in "
            "smaller shards"
        )
    return notes


def _costs(spacing: Spacing, nodes: int) -> list[str]:
    cost, settings = spacing.footprint, spacing.settings
    where = "the node" if nodes == 1 else f"each of {nodes} nodes"
    how = (
        "one permutation of the whole run"
        if settings.shuffle_algo == "naive"
        else f"{settings.shuffle_algo} in blocks of {settings.shuffle_block_size:,} samples"
    )
    notes = [
        f"order: {how}, {settings.num_canonical_nodes} canonical node(s); {where} reads "
        f"{byte_size(cost.read_bytes)} of shards, {cost.early_fraction:.0%} of it within the first 1 % of "
        f"the run, and has up to {byte_size(cost.peak_bytes)} on disk at once"
    ]
    if nodes > 1 and settings.shuffle_algo == "naive":
        notes.append(
            f"where shards are fetched, --cache-limit finds an order in which each of the {nodes} nodes "
            "needs its part only"
        )
    if spacing.padding:
        notes.append(
            f"{spacing.padding} samples more than the recipe's are drawn, repeats, because {nodes} nodes and "
            f"{settings.num_canonical_nodes} canonical nodes do not divide its samples"
        )
    return notes


def _cache(
    mixture: Mixture, indexes: dict[str, SourceIndex], settings: DatasetSettings, cache_limit: int | None
) -> tuple[DatasetSettings, list[str]]:
    """`cache_limit` itself goes to Streaming only where it can fetch again what it deletes."""
    if cache_limit is None:
        return settings, []
    local = [name for name, stream in mixture.streams.items() if stream.remote is None]
    if local:
        return settings, [
            f"{', '.join(local)} lie here without a remote copy, so streams.yaml sets no cache_limit: "
            "Streaming would delete shards and could not fetch them again"
        ]
    largest = max(size for index in indexes.values() for size in index.shard_bytes)
    if cache_limit < _LARGEST_SHARDS * largest:
        return settings, [
            f"Streaming needs a cache_limit of four times its largest shard, {byte_size(largest)}, so "
            "streams.yaml sets none; the order itself needs no more than was asked for"
        ]
    return settings.model_copy(update={"cache_limit": cache_limit}), []


def _memory(mixture: Mixture, seconds: float | None) -> list[str]:
    drawn = "" if seconds is None else f"; drawing it took {duration(seconds)} here"
    return [
        f"at every start Streaming draws the order anew: {byte_size(BYTES_TO_DRAW * mixture.samples)} of "
        f"memory on each node meanwhile, {byte_size(8 * mixture.samples)} of it shared{drawn}"
    ]
