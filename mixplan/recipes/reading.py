"""Reads a mixture with the real StreamingDataset and tells which sample came when.

The reading happens in processes of its own, one a rank, because Streaming keeps global state (shared memory,
lock files) and can end early or hang without an exception. Readers without progress are ended.

Nothing is cleaned that another process may use: `clean_stale_shared_memory` would also take the shared memory
of a training that runs beside this. Streaming steps over what others left; the readers' own goes with them.

Shape legend: n = samples read by all ranks, S = streams, K = shards of all streams.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.loading import save
from mixplan.documents.mixture import Mixture, StreamSettings
from mixplan.recipes.recording import (
    FAILED_SHARD,
    FETCHED_SHARD,
    JOB,
    LAYOUT,
    READ_SAMPLE,
    RECORD,
    REFUSED,
    STATE,
    STREAMS,
    WAITING,
    Job,
    order_file,
    waiting_file,
)
from mixplan.recipes.watching import last_words, watch_processes

_MESSAGES = "messages.txt"
_BATCH = 64
# So that also a small mixture has a middle to stop in.
_BATCHES_AT_LEAST = 8


@dataclass(frozen=True)
class Reading:
    """What came out of a mixture."""

    records: np.ndarray
    """RECORD [n], in the order of training: batch after batch, within a global batch rank after rank."""
    offsets: np.ndarray
    """First sample id of each stream, int64 [S]."""
    available: np.ndarray
    """Samples of each stream's shards, int64 [S]."""
    ended: str
    """`done`, `stalled` or `failed`."""
    message: str
    """Streaming's last words when it failed."""
    awaited: list[tuple[int, str]] = field(default_factory=list)
    """Stream and file of the shards that could not be had, else of those that readers waited for."""
    state: dict[str, Any] | None = None
    """The loader's state in the middle."""
    state_at: int = 0
    """Samples that all ranks had read by then."""
    refused: bool | None = None
    """Whether a state of another mixture was refused; empty when none was tried."""

    @property
    def sample_ids(self) -> np.ndarray:
        """int64 [n]."""
        return self.records["sample_id"]

    @cached_property
    def stream(self) -> np.ndarray:
        """Number of the stream that each sample came from, int64 [n]."""
        return np.searchsorted(self.offsets, self.sample_ids, side="right") - 1


def batch_size_for(samples: int, ranks: int) -> int:
    """Samples a batch of one rank, with which `samples` are read."""
    return max(1, min(_BATCH, samples // (_BATCHES_AT_LEAST * ranks)))


def read_mixture(
    mixture: Mixture,
    caches: dict[str, Path],
    workers: int = 0,
    ranks: int = 1,
    stall_seconds: float = 300.0,
    progress: Callable[[int], None] = lambda _: None,
    state: dict[str, Any] | None = None,
    at_most: int | None = None,
) -> Reading:
    """Read the samples of the mixture as a trainer's ranks would, and take down the state in the middle.

    Args:
        mixture: what to read; its own folders are only read from.
        caches: per stream to be copied from elsewhere (remote, or compressed), a cache folder of its own.
        workers: DataLoader workers of each rank.
        ranks: processes, on one node, that share the samples as a trainer's ranks do.
        stall_seconds: end the readers when no sample has arrived for so long (also: before the first).
        progress: called with the number of samples read, now and then.
        state: a state of the same mixture and ranks; it is read on from there. Before, a state of another
            mixture is tried.
        at_most: stop after about so many samples instead of at the end.
    """
    size = batch_size_for(mixture.samples, ranks)
    middle = mixture.samples // (2 * size * ranks)
    job = Job(
        ranks=ranks,
        workers=workers,
        batch_size=size,
        state_after_batches=middle if middle and state is None else None,
        at_most_batches=None if at_most is None else math.ceil(at_most / (size * ranks)),
        state=state,
    )
    with tempfile.TemporaryDirectory(prefix="mixplan-verify-") as scratch:
        folder = Path(scratch)
        save(_with_caches(mixture, caches), folder / STREAMS)
        job.save(folder)
        return _read(folder, ranks, stall_seconds, progress)


def _with_caches(mixture: Mixture, caches: dict[str, Path]) -> Mixture:
    streams = {}
    for name, stream in mixture.streams.items():
        moved = caches.get(name)
        streams[name] = (
            stream
            if moved is None
            else StreamSettings(local=str(moved), remote=stream.remote or stream.local, choose=stream.choose)
        )
    return mixture.model_copy(update={"streams": streams})


def _read(folder: Path, ranks: int, stall_seconds: float, progress: Callable[[int], None]) -> Reading:
    files = [order_file(folder, rank) for rank in range(ranks)]
    for file in files:
        file.touch()
    messages = folder / _MESSAGES
    messages.touch()

    def samples_so_far() -> int:
        return sum(file.stat().st_size for file in files) // RECORD.itemsize

    commands = [
        [sys.executable, "-m", "mixplan.recipes.recording", str(folder), str(rank)] for rank in range(ranks)
    ]
    code = watch_processes(commands, messages, samples_so_far, stall_seconds, progress, folder)
    layout = json.loads((folder / LAYOUT).read_text()) if (folder / LAYOUT).is_file() else {}
    records, batches = _interleaved(files)
    state = json.loads((folder / STATE).read_text()) if (folder / STATE).is_file() else None
    middle = json.loads((folder / JOB).read_text())["state_after_batches"]
    return Reading(
        records=records,
        offsets=np.array(layout.get("offsets", []), np.int64),
        available=np.array(layout.get("available", []), np.int64),
        ended="stalled" if code is None else "failed" if code else "done",
        message=last_words(messages),
        awaited=_awaited(folder, ranks, layout),
        state=state,
        state_at=0 if state is None else int((batches < middle).sum()),
        refused=json.loads((folder / REFUSED).read_text()) if (folder / REFUSED).is_file() else None,
    )


def _interleaved(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """All ranks' records in the order of training [n], and the number of each one's batch [n]."""
    parts = []
    for file in files:
        raw = file.read_bytes()
        parts.append(np.frombuffer(raw[: len(raw) // RECORD.itemsize * RECORD.itemsize], RECORD))
    if len(parts) == 1:
        return parts[0], parts[0]["batch"]
    records = np.concatenate(parts)
    rank = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    records = records[np.lexsort((rank, records["batch"]))]  # stable: within a batch as they came
    return records, records["batch"]


def _awaited(folder: Path, ranks: int, layout: dict[str, Any]) -> list[tuple[int, str]]:
    """Stream and file of what could not be had, else of what had been begun and never came."""
    if not layout:
        return []
    shards: set[int] = set()
    failed: set[int] = set()
    for rank in range(ranks):
        if not waiting_file(folder, rank).is_file():
            continue
        slots = np.fromfile(waiting_file(folder, rank), np.int64).reshape(-1, WAITING)
        failed |= set(slots[:, FAILED_SHARD].tolist())
        shards |= set(slots[:, FETCHED_SHARD:].ravel().tolist())
        samples = slots[:, READ_SAMPLE]
        at = np.searchsorted(layout["shard_offsets"], samples[samples >= 0], side="right") - 1
        shards |= set(at.tolist())
    awaited = []
    for shard in sorted((failed - {-1}) or (shards - {-1})):
        sample = layout["shard_offsets"][shard]
        stream = int(np.searchsorted(layout["offsets"], sample, side="right") - 1)
        awaited.append((stream, layout["shard_files"][shard]))
    return awaited
