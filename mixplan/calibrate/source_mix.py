"""Base text and the user's sources as one stream of sequences: a pure function of the step.

Shape legend: B = sequences a step, T = sequence length, S = sequences of a source.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixplan.calibrate.schedule import named
from mixplan.calibrate.stream import BaseStream


@dataclass(frozen=True)
class ShareSchedule:
    """How many of a run's sequences come from a source: evenly, floor(share · sequences so far + phase)."""

    share: float
    batch_sequences: int
    steps: int
    phase: float

    def seen(self, step: int | np.ndarray) -> np.ndarray:
        """Sequences of the source before `step`, int64, shape of `step`."""
        return np.floor(self.share * (np.asarray(step) * self.batch_sequences) + self.phase).astype(np.int64)

    @property
    def realised_share(self) -> float:
        """Sequences of the source per sequence of the whole run."""
        return float(self.seen(self.steps)) / (self.steps * self.batch_sequences)


def share_schedules(
    shares: Mapping[str, float], batch_sequences: int, steps: int, seed: int
) -> dict[str, ShareSchedule]:
    """The schedule of every source that is mixed into a run; phases are random by seed and name."""
    return {
        name: ShareSchedule(share, batch_sequences, steps, float(named(seed, 9, name).random()))
        for name, share in shares.items()
    }


def fullest_step(schedules: Mapping[str, ShareSchedule], steps: int) -> int:
    """Most sequences that all sources want in any one step."""
    if not schedules:
        return 0
    at = np.arange(steps + 1)
    return int(max(np.diff(sum(schedule.seen(at) for schedule in schedules.values()))))


class SourceMix:
    """The text of one run: whole sequences of the sources at their shares, base text for the rest.

    Each source is read in a random order, a new one each pass, that depends on seed and name alone.
    """

    def __init__(
        self,
        base: BaseStream,
        sources: Mapping[str, BaseStream],
        schedules: Mapping[str, ShareSchedule],
        batch_sequences: int,
        seed: int,
    ) -> None:
        self.base, self.sources, self.schedules = base, sources, schedules
        self.batch_sequences, self.seed = batch_sequences, seed

    def batch(self, step: int) -> np.ndarray:
        """The sequences of one step, in random order where sources are mixed in, shape (B, T), int64."""
        if not self.schedules:
            return self.base.batch(step, self.batch_sequences)
        rows: list[np.ndarray] = []
        before = 0
        for name, schedule in self.schedules.items():
            first, last = int(schedule.seen(step)), int(schedule.seen(step + 1))
            rows.append(self.sources[name].rows_at(first, last - first))
            before += first
        left = self.batch_sequences - sum(map(len, rows))
        rows.append(self.base.rows_at(step * self.batch_sequences - before, left))
        order = np.random.default_rng([self.seed, 10, step]).permutation(self.batch_sequences)
        return np.concatenate(rows)[order]

    def seen_tokens(self, name: str, step: int) -> int:
        """Tokens of a source before `step`; 0 where it is not mixed in."""
        if name not in self.schedules:
            return 0
        return int(self.schedules[name].seen(step)) * self.base.rows.shape[1]

    def share(self, name: str) -> float:
        """Realised tokens of a source per training token, over the whole run."""
        return self.schedules[name].realised_share if name in self.schedules else 0.0

    def epochs(self, name: str, step: int) -> float:
        """How often a source was read before `step`."""
        if name not in self.schedules:
            return 0.0
        return float(self.schedules[name].seen(step)) / self.sources[name].sequences


def source_stream(
    tokens: np.ndarray, sequence_length: int, seed: int, name: str, keep: int | None = None
) -> BaseStream:
    """A source's sequences in an order of their own.

    Args:
        keep: how many sequences the run may draw from, None: all. Fewer are always among those that more
            would be, so that a shorter run of a seed reads part of what a longer one does.
    """
    only = None
    if keep is not None:
        order = named(seed, 8, name).permutation(len(tokens) // sequence_length)
        only = np.sort(order[:keep])
    return BaseStream(tokens, sequence_length, seed, (7, zlib.crc32(name.encode())), only)
