"""streams.yaml, which `emit` writes and a trainer loads."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import model_validator

from mixplan.documents.base import Count, Document, Name, Part, Whole


class StreamSettings(Part):
    """Keyword arguments of `streaming.Stream`."""

    local: str
    """Folder of the shards, or of their cache when `remote` is given. Absolute."""
    remote: str | None = None
    """URL of the shards."""
    choose: Count
    """Samples over the whole run."""


class DatasetSettings(Part):
    """Keyword arguments of `streaming.StreamingDataset`: all that decides which sample comes when."""

    shuffle: bool = True
    shuffle_algo: Literal["naive", "py1e", "py1s", "py2s", "py1br"] = "naive"
    """naive: one permutation of the whole run, so that a scarce source is as even as independent draws."""
    shuffle_seed: Whole
    shuffle_block_size: Count
    """Samples within which the other algorithms shuffle; naive ignores it."""
    num_canonical_nodes: Count = 1
    batching_method: Literal["random", "stratified", "per_stream", "device_per_stream"] = "random"
    sampling_method: Literal["balanced", "fixed"] = "balanced"
    sampling_granularity: Count = 1
    """Samples picked at a time from one shard for a fraction of an epoch."""
    cache_limit: Count | None = None
    """Bytes of shards and indexes that a node keeps; Streaming deletes the shards that it used longest ago.
    Decides nothing about the order, and is not part of the fingerprint."""


class Mixture(Document):
    """streams.yaml: one epoch of it is the whole run."""

    name: Name
    fingerprint: str
    """Of everything that decides which sample comes when; the loader keeps it in its checkpoints."""
    samples: Count
    sequence_length: Count
    """Tokens a sample."""
    tokens: Count
    """samples × sequence_length."""
    column: str = "tokens"
    """Column that holds the tokens."""
    dataset: DatasetSettings
    streams: dict[Name, StreamSettings]
    index_sha256: dict[Name, str] = {}
    """Of the index.json of each source that could be read, as it was when the mixture was emitted."""

    @model_validator(mode="after")
    def _adds_up(self) -> Mixture:
        chosen = sum(stream.choose for stream in self.streams.values())
        if chosen != self.samples:
            raise ValueError(f"`choose` sums to {chosen} over the streams, but samples is {self.samples}")
        return self

    def digest(self) -> str:
        """SHA-256 over settings, streams in their order, and the identity of their data (not its place)."""
        streams = [
            [name, stream.choose, self.index_sha256.get(name, stream.remote or stream.local)]
            for name, stream in self.streams.items()
        ]
        content = {
            "samples": self.samples,
            "sequence_length": self.sequence_length,
            "column": self.column,
            "dataset": self.dataset.model_dump(mode="json", exclude={"cache_limit"}),
            "streams": streams,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
