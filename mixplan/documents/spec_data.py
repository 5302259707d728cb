"""calibration.yaml, the data: base text, tokenizer, the team's own sources."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from mixplan.documents.base import (
    Count,
    Name,
    OpenFraction,
    Part,
    Whole,
    distinct,
)


class Corpus(Part):
    """The base text that the tasks are injected into."""

    format: Literal["text", "npy", "mds", "datasets"] = "text"
    """text: files as bytes or through the tokenizer; npy: token arrays; mds: a Streaming folder; datasets:
    a folder written by `Dataset.save_to_disk`."""
    paths: list[str]
    """Files, folders or glob patterns, relative to this file."""
    pattern: str = "*"
    """Which files to take from a folder (text and npy), searched recursively."""
    column: str | None = None
    """Column that holds the text or the tokens (mds, datasets). Default: `tokens`, else `text`."""
    dtype: Literal["uint8", "uint16", "uint32", "int32", "int64"] = "uint16"
    """Integer type of header-less .npy token files (OLMo's format); a NumPy header says it itself."""
    max_tokens: Count | None = None
    """Use at most this many training tokens of the corpus."""
    held_out_fraction: OpenFraction = 0.05
    """Share of the corpus kept out of training, for the LM loss."""

    @field_validator("paths")
    @classmethod
    def _some(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("at least one path is needed")
        return value


class Tokenizer(Part):
    """How text becomes tokens."""

    kind: Literal["bytes", "huggingface", "none"] = "bytes"
    """bytes: 256 bytes + end-of-document; huggingface: a local tokenizer folder; none: corpus of tokens."""
    path: str | None = None
    """Tokenizer folder (tokenizer.json inside), relative to this file. Only with kind huggingface."""
    vocab_size: Count | None = None
    """Size of the vocabulary of a tokenised corpus. Only with kind none."""
    end_of_document_id: Whole | None = None
    """End-of-document token of a tokenised corpus. Only with kind none."""

    @model_validator(mode="after")
    def _fits_kind(self) -> Tokenizer:
        if (self.kind == "huggingface") != (self.path is not None):
            raise ValueError("`path` goes with kind huggingface, and only with it")
        if (self.kind == "none") != (self.vocab_size is not None and self.end_of_document_id is not None):
            raise ValueError("`vocab_size` and `end_of_document_id` go with kind none, and only with it")
        return self


class MatchRepetition(Part):
    """How scarce a source is in the plan that the proxy stands for (arXiv 2606.07597)."""

    source_tokens: Count
    """Tokens of the source that the planned run has."""
    run_tokens: Count
    """Training tokens of the planned run."""


class UserSource(Part):
    """A body of text of the team's own, mixed in as whole sequences at controlled shares.

    Skill = share of the closable gap that is closed: (bits per byte at share zero − bits per byte) ÷
    (bits per byte at share zero − at the saturating share), all on held-out text of the source, same rung,
    seed and tokens. Its frequency is its share: source tokens per training token.
    """

    name: Name
    """Becomes the family name in the measurements."""
    data: Corpus
    """Where the text is; read with the calibration's tokenizer."""
    shares: list[OpenFraction]
    """Shares of the training tokens. A source can only have one share in a run, so each further share is a
    further run of every rung (variant j takes the j-th share of every source)."""
    saturating_share: OpenFraction = 0.5
    """Share of the run that anchors skill 1: a run of its own, in which only this source is mixed in."""
    complexity: Count = 1
    """A number that grows with difficulty within the family, if several sources share one."""
    family: Name | None = None
    """Family that several sources share. Default: the source's own name."""
    match_repetition: MatchRepetition | None = None
    """Sub-sample the source to (tokens of the run) × source_tokens ÷ run_tokens, so that at equal share the
    proxy repeats it as often as the planned run will. Empty: all of it is used. The run that anchors skill 1
    is never sub-sampled: it shows what the text itself allows."""

    @field_validator("shares")
    @classmethod
    def _distinct_shares(cls, value: list[float]) -> list[float]:
        return distinct(value)

    @model_validator(mode="after")
    def _below_saturation(self) -> UserSource:
        if max(self.shares) >= self.saturating_share:
            raise ValueError(
                f"shares must be below saturating_share ({self.saturating_share:g}), which anchors skill 1; "
                f"given up to {max(self.shares):g}"
            )
        return self
