"""source.json, which `build` writes beside a source's shards."""

from __future__ import annotations

from typing import Literal

from mixplan.documents.base import Count, Document, Name, Whole


class SourceBuild(Document):
    """source.json: what an MDS folder was built from. The same input and settings give the same shards."""

    name: Name
    samples: Count
    sequence_length: Count
    """Tokens a sample."""
    tokens: Count
    """samples × sequence_length."""
    documents: Count
    """Input files; each ends with an end-of-document token."""
    input_bytes: Count
    input_sha256: str
    """Over the documents in their order, each followed by its length."""
    dropped_tokens: Whole
    """The last, incomplete sample."""
    tokenizer: Literal["bytes", "huggingface"]
    tokenizer_sha256: str | None = None
    """Over the tokenizer's files. Empty with bytes."""
    vocab_size: Count
    end_of_document_id: Whole
    dtype: Literal["int32"] = "int32"
    """Integer type of the column `tokens`; torch's embeddings take it as it is."""
