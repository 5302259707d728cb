"""Model shapes: a name becomes dimensions, exact parameter counts and FLOPs per token, without torch.

Shape legend: d = d_model, L = layers, F = feed-forward width, V = vocabulary, T = sequence length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Discriminator, Tag, model_validator

from mixplan.documents.base import Count, Name, Part, Place, Positive, RulesBroken, Whole
from mixplan.documents.suggest import did_you_mean


@dataclass(frozen=True)
class FlopsPerToken:
    """FLOPs of one token's forward pass, term by term: a product with an m × n matrix is 2·m·n.

    Convention of arXiv 2204.02311, appendix B: matrix products only. Norms, rotation, softmax and the
    activation are left out, and the input embedding is a lookup. Attention is counted in full: a causal
    kernel may do half of it, and Olmo3's sliding layers less on sequences longer than their window.
    """

    attention_projections: float
    """Queries, keys, values and output: 2·L·4d²."""
    attention_scores: float
    """Queries times keys of all heads, over the whole sequence: 2·L·d·T."""
    attention_values: float
    """Probabilities times values: 2·L·d·T."""
    feed_forward: float
    """Gate, up and down: 2·L·3dF."""
    unembedding: float
    """Logits: 2·V·d."""

    @property
    def forward(self) -> float:
        """The sum of the terms."""
        return (
            self.attention_projections
            + self.attention_scores
            + self.attention_values
            + self.feed_forward
            + self.unembedding
        )

    @property
    def backward(self) -> float:
        """Each product has two in the backward pass: for its input's gradient and for its weight's."""
        return 2 * self.forward

    @property
    def training(self) -> float:
        """Forward and backward: 6·(matmul parameters + V·d) + 12·L·d·T."""
        return self.forward + self.backward


class ModelShape(Part):
    """One shape of Olmo2 (or Olmo3: the same parameters): reordered norm, QK-norm, SwiGLU, RoPE, untied."""

    name: Name
    """Name of this size in tables and folders."""
    d_model: Count
    """Width of the residual stream."""
    layers: Count
    """Number of transformer blocks."""
    heads: Count
    """Attention heads; must divide d_model into an even head width (RoPE rotates pairs)."""
    d_ffn: Count
    """Width of the SwiGLU feed-forward layer."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelShape:
        if self.d_model % self.heads or (self.d_model // self.heads) % 2:
            even = [
                h for h in range(1, self.d_model + 1) if self.d_model % h == 0 and self.d_model // h % 2 == 0
            ]
            raise ValueError(
                f"heads={self.heads} must divide d_model={self.d_model} into an even head width; "
                f"use one of {even}"
            )
        return self

    @property
    def matmul_params(self) -> int:
        """Block parameters that take part in a matrix product: L·(4d² + 3dF)."""
        return self.layers * (4 * self.d_model**2 + 3 * self.d_model * self.d_ffn)

    @property
    def block_params(self) -> int:
        """Exact parameters of a model without input embedding and unembedding.

        matmul_params + 4d norms a layer (q, k, after attention, after feed-forward) + d final norm.
        """
        return self.matmul_params + 4 * self.layers * self.d_model + self.d_model

    def total_params(self, vocab_size: int) -> int:
        """block_params + 2·V·d: input embedding and unembedding are untied."""
        return self.block_params + 2 * vocab_size * self.d_model

    def flops(self, vocab_size: int, sequence_length: int) -> FlopsPerToken:
        """FLOPs per token, by what they are spent on."""
        return FlopsPerToken(
            attention_projections=2.0 * self.layers * 4 * self.d_model**2,
            attention_scores=2.0 * self.layers * self.d_model * sequence_length,
            attention_values=2.0 * self.layers * self.d_model * sequence_length,
            feed_forward=2.0 * self.layers * 3 * self.d_model * self.d_ffn,
            unembedding=2.0 * vocab_size * self.d_model,
        )

    def flops_per_token(self, vocab_size: int, sequence_length: int) -> float:
        """Training FLOPs per token, forward and backward: `flops(…).training`."""
        return self.flops(vocab_size, sequence_length).training


class CountedSize(Part):
    """A size of another architecture, by its counts: enough to plan with, not to train from."""

    name: Name
    """Name of this size in tables."""
    block_params: Count
    """Parameters without input embedding and unembedding, as in the measurements (their block_params)."""
    embedding_params: Whole = 0
    """Input embedding and unembedding together."""
    training_flops_per_token: Positive | None = None
    """Forward and backward. Default: 6·(block_params + embedding_params/2), which counts each parameter of a
    matrix product once (arXiv 2001.08361, section 2.1) and no attention scores."""

    def total_params(self, vocab_size: int) -> int:
        """block_params + embedding_params."""
        return self.block_params + self.embedding_params

    def flops_per_token(self, vocab_size: int, sequence_length: int) -> float:
        """Training FLOPs per token, forward and backward."""
        return self.training_flops_per_token or 6.0 * (self.block_params + self.embedding_params / 2)


def kind_of_size(value: Any) -> str:
    """Tag of a size: a dict or a part that says `block_params` is counted, any other has a shape."""
    counted = "block_params" in value if isinstance(value, dict) else isinstance(value, CountedSize)
    return "counted" if counted else "shape"


ModelSize = Annotated[
    Annotated[ModelShape, Tag("shape")] | Annotated[CountedSize, Tag("counted")], Discriminator(kind_of_size)
]


def _shape(name: str, d_model: int, layers: int, heads: int, d_ffn: int) -> ModelShape:
    return ModelShape(name=name, d_model=d_model, layers=layers, heads=heads, d_ffn=d_ffn)


def _table() -> dict[str, ModelShape]:
    rows: list[ModelShape] = []
    # CPU rungs: two layers, feed-forward 4d; named after their block parameters.
    for name, d in (("8k", 16), ("19k", 24), ("33k", 32), ("74k", 48), ("132k", 64), ("296k", 96)):
        rows.append(_shape(f"cpu_{name}", d, 2, 4, 4 * d))
    # allenai/DataDecide: SwiGLU with an inner width of 4d.
    for name, d, heads, layers in (
        ("4M", 64, 8, 8), ("6M", 96, 8, 8), ("8M", 128, 8, 8), ("10M", 144, 8, 8), ("14M", 192, 8, 8),
        ("16M", 208, 8, 8), ("20M", 192, 8, 16), ("60M", 384, 12, 16), ("90M", 528, 12, 16),
        ("150M", 768, 12, 12), ("300M", 1024, 16, 16), ("530M", 1344, 16, 16), ("750M", 1536, 16, 16),
        ("1B", 2048, 16, 16),
    ):  # fmt: skip
        rows.append(_shape(f"datadecide_{name}", d, layers, heads, 4 * d))
    # allenai/OLMo-core, src/olmo_core/nn/transformer/config.py; its 1M has 4 heads of width 3, which RoPE
    # cannot rotate in pairs, so it stands here with 2 heads (parameters and FLOPs are the same).
    for name, d, layers, heads, ffn in (
        ("1M", 12, 4, 2, 256), ("14M", 128, 4, 8, 512), ("30M", 256, 4, 8, 768), ("60M", 384, 8, 8, 1536),
        ("100M", 512, 12, 8, 2048), ("190M", 768, 12, 12, 3072), ("370M", 1024, 16, 16, 4096),
        ("600M", 1344, 16, 16, 5376), ("760M", 1536, 16, 16, 6144), ("1B", 2048, 16, 16, 8192),
        ("3B", 3328, 16, 16, 13312), ("7B", 4096, 32, 32, 11008), ("13B", 5120, 40, 40, 13824),
    ):  # fmt: skip
        rows.append(_shape(f"olmo2_{name}", d, layers, heads, ffn))
    # arXiv 2605.29548, section on OLMo: inner width 4d reproduces the reported totals.
    for name, d, layers, heads in (
        ("4M", 64, 8, 8), ("20M", 192, 16, 8), ("300M", 1024, 16, 16), ("1B", 2048, 16, 16),
        ("4B", 4096, 16, 32),
    ):  # fmt: skip
        rows.append(_shape(f"paper_{name}", d, layers, heads, 4 * d))
    return {row.name: row for row in rows}


PRESETS: dict[str, ModelShape] = _table()


def check_presets(given: Sequence[object]) -> None:
    """Raise RulesBroken for an empty list, and for every name that is no preset."""
    if not given:
        raise ValueError("at least one size is needed")
    problems: list[tuple[Place, str]] = [
        ((index,), f"{size!r} is no preset{did_you_mean(size, PRESETS)}; `mixplan schema presets` lists them")
        for index, size in enumerate(given)
        if isinstance(size, str) and size not in PRESETS
    ]
    if problems:
        raise RulesBroken(problems)


Sized = TypeVar("Sized", bound=ModelShape | CountedSize)


def as_shapes(given: Sequence[str | Sized]) -> list[ModelShape | Sized]:
    """Preset names and explicit sizes as sizes, smallest first."""
    found = [PRESETS[size] if isinstance(size, str) else size for size in given]
    return sorted(found, key=lambda shape: shape.block_params)
