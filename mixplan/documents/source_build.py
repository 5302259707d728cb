"""source.json, which `build` writes beside a source's shards."""

from __future__ import annotations

from typing import Literal

from mixplan.documents.base import Count, Document, Name, Whole

SOURCE = "source.json"
"""Its name in the folder."""


class SourceBuild(Document):
    """source.json: what an MDS folder was built from. The same input and settings give the same shards."""

    name: Name
    samples: Count
    sequence_length: Count
    """Tokens a sample."""
    tokens: Count
    """samples × sequence_length."""
    documents: Whole
    """Documents that were read; of tokens one after another (npy, mds): end-of-document tokens."""
    input_bytes: Count
    """Of the files, as they are stored."""
    text_bytes: Whole | None = None
    """UTF-8 bytes that were tokenised. Empty where tokens were read."""
    input_sha256: str
    """Over the SHA-256 and length of every file, in their order."""
    input_form: Literal["text", "data: text", "jsonl", "parquet", "npy", "mds", "dataset"] = "text"
    """How the files were read: `text` as they stand, or the format of `data`."""
    input_column: str | None = None
    """Field that was read, where files have fields; the integer type of npy."""
    dropped_tokens: Whole
    """The last, incomplete sample."""
    tokenizer: Literal["bytes", "huggingface", "none"]
    tokenizer_sha256: str | None = None
    """Over the tokenizer's files. Empty with others than huggingface."""
    vocab_size: Count
    """Of the tokenizer; where tokens were read, of the plan: none is beyond it."""
    end_of_document_id: Whole
    dtype: Literal["int32", "uint16", "int64"] = "int32"
    """Integer type of the column `tokens`; torch's embeddings take int32 and int64 as they are."""
    compression: str | None = None
    """Of the shards, as Streaming names it."""
    hashes: list[str] = ["xxh3_64"]
    """Of the shards, in the index."""
