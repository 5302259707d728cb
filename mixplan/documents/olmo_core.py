"""olmo_core.yaml, which `emit --format olmo-core --with-data` writes beside source_mixture.yaml."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from mixplan.documents.base import Count, Document, Name, Part, Whole


class TokenFile(Part):
    """One header-less file of whole samples, in random order."""

    source: Name
    path: str
    """Absolute. The name holds a digest of what is in it: OLMo-core's checkpoints know files by their names
    and by how much it takes of them, and it refuses to resume with others."""
    samples: Count
    """Samples in the file."""
    choose: Count
    """Samples of it over the whole run: the file as often as it fits, then its beginning."""


class OlmoCoreMixture(Document):
    """olmo_core.yaml: one epoch of it is the whole run."""

    name: Name
    fingerprint: str
    """Of everything that decides which sample comes when."""
    samples: Count
    sequence_length: Count
    """Tokens a sample."""
    tokens: Count
    """samples × sequence_length."""
    vocab_size: Count
    dtype: Literal["uint8", "uint16", "uint32"]
    """Integer type of the files."""
    end_of_document_id: Whole
    """Ends each document: OLMo-core's `eos_token_id`."""
    seed: Whole
    """Of the order of the run."""
    available: dict[Name, Count]
    """Samples in each source's shards, from which its files were drawn."""
    files: list[TokenFile]

    @model_validator(mode="after")
    def _adds_up(self) -> OlmoCoreMixture:
        chosen = sum(file.choose for file in self.files)
        if chosen != self.samples:
            raise ValueError(f"`choose` sums to {chosen} over the files, but samples is {self.samples}")
        return self

    def digest(self) -> str:
        """SHA-256 over settings and files in their order, by their names, which stand for their content."""
        content = {
            "samples": self.samples,
            "sequence_length": self.sequence_length,
            "vocab_size": self.vocab_size,
            "dtype": self.dtype,
            "end_of_document_id": self.end_of_document_id,
            "seed": self.seed,
            "files": [[file.source, Path(file.path).name, file.samples, file.choose] for file in self.files],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
