"""Tokens become shards of samples of one length; every process writes some shards, in any order.

Shape legend: n samples of L tokens; the tokens of a source are one array, cut into samples without gaps.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.atomic import write_json
from mixplan.recipes.mds_shards import OFFSET_BYTES, ShardFormat

# Streaming shuffles shards before samples: a source in few shards arrives in bursts.
_SHARDS_AT_LEAST = 32
_SHARD_BYTES_AT_MOST = 1 << 26
# So much is written at a time: one large shard, or several small ones.
_TASK_BYTES = 1 << 26


@dataclass(frozen=True)
class Stretch:
    """Tokens that follow each other in a file."""

    path: Path
    start: int
    """First token."""
    tokens: int


@dataclass(frozen=True)
class Packing:
    """Some shards to write."""

    folder: Path
    record_file: Path
    """Their entries in the index; written last."""
    stretches: tuple[Stretch, ...]
    """The tokens."""
    stored_dtype: str
    format: ShardFormat
    size_limit: int
    first_shard: int
    shard_samples: int
    """In each but the last."""

    @property
    def tokens(self) -> int:
        """Of all its shards."""
        return sum(one.tokens for one in self.stretches)


def shard_samples(samples: int, form: ShardFormat) -> int:
    """Samples a shard: at least 32 shards where there are so many samples, and at most 64 MiB each."""
    sample_bytes = form.sample_bytes + OFFSET_BYTES
    return min(max(1, samples // _SHARDS_AT_LEAST), max(1, _SHARD_BYTES_AT_MOST // sample_bytes))


def plan_packing(
    spills: Sequence[tuple[Path, int]], stored_dtype: str, samples: int, form: ShardFormat, work: Path
) -> tuple[Path, list[Packing]]:
    """Who writes which shards.

    Args:
        spills: files of tokens with their counts, in their order.
        stored_dtype: integer type in these files.
        samples: how many to write, from the start.
        form: how shards are written.
        work: folder for what is unfinished.

    Returns:
        The folder that the shards are written to, named by all that decides what is in it, and the tasks.
    """
    per_shard = shard_samples(samples, form)
    size_limit = form.size_limit(per_shard)
    key = [[path.name for path, _ in spills], form.config(size_limit), samples]
    folder = work / f"packed-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}"
    shards = -(-samples // per_shard)
    together = max(1, _TASK_BYTES // (per_shard * form.sample_bytes))
    starts = np.cumsum([0, *(count for _, count in spills)])
    tasks = []
    for first in range(0, shards, together):
        low = first * per_shard * form.sequence_length
        high = min((first + together) * per_shard, samples) * form.sequence_length
        record = work / f"{folder.name}.{first:08}.json"
        stretches = tuple(_stretches(spills, starts, low, high))
        tasks.append(Packing(folder, record, stretches, stored_dtype, form, size_limit, first, per_shard))
    return folder, tasks


def _stretches(spills: Sequence[tuple[Path, int]], starts: np.ndarray, low: int, high: int) -> list[Stretch]:
    """Where the tokens `low` … `high` − 1 are; `starts` [files + 1] are the first tokens of the files."""
    found = []
    at = int(np.searchsorted(starts, low, side="right")) - 1
    while low < high:
        stop = min(int(starts[at + 1]), high)
        if stop > low:
            found.append(Stretch(spills[at][0], low - int(starts[at]), stop - low))
        low, at = stop, at + 1
    return found


def pack(_: Any, task: Packing) -> list[dict[str, Any]]:
    """Write the shards; their entries in the index."""
    width = np.dtype(task.stored_dtype).itemsize
    tokens = np.empty(task.tokens, task.format.dtype)
    at = 0
    for one in task.stretches:
        tokens[at : at + one.tokens] = np.fromfile(
            one.path, task.stored_dtype, one.tokens, offset=one.start * width
        )
        at += one.tokens
    rows = tokens.reshape(-1, task.format.sequence_length)
    entries = []
    for number, first in enumerate(range(0, len(rows), task.shard_samples), task.first_shard):
        some = rows[first : first + task.shard_samples]
        entry, name, data = task.format.shard(some, number, task.size_limit)
        unfinished = task.folder / f"{name}.{os.getpid()}.tmp"
        unfinished.write_bytes(data)
        os.replace(unfinished, task.folder / name)
        entries.append(entry)
    write_json(task.record_file, entries)
    return entries


def packed_before(task: Packing) -> list[dict[str, Any]] | None:
    """The entries of shards that an earlier build wrote, if they are all there."""
    try:
        entries = json.loads(task.record_file.read_text(encoding="utf-8"))
        for entry in entries:
            part = entry["zip_data"] or entry["raw_data"]
            if (task.folder / part["basename"]).stat().st_size != part["bytes"]:
                return None
    except (OSError, ValueError):
        return None
    return list(entries)


def index_text(entries: list[dict[str, Any]]) -> str:
    """index.json of these shards, as Streaming writes it."""
    return json.dumps({"version": 2, "shards": entries}, sort_keys=True)
