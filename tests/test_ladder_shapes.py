"""Parameter counts and FLOPs of every preset against the real model and against the sources' own numbers."""

from __future__ import annotations

from typing import Any

import pytest

from mixplan.documents.shapes import PRESETS, ModelShape

VOCAB = 1000

# arXiv 2605.29548: total parameters, with 50,304 tokens of vocabulary.
PAPER_TOTALS = {
    "paper_4M": 6_963_200, "paper_20M": 28_753_920, "paper_300M": 371_458_048, "paper_1B": 1_279_787_008,
    "paper_4B": 4_707_057_664,
}  # fmt: skip


@pytest.fixture(scope="module")
def build() -> Any:
    import torch

    from mixplan.calibrate.model import build_model

    def on_meta(shape: ModelShape, architecture: str = "olmo2") -> Any:
        with torch.device("meta"):
            return build_model(shape, VOCAB, sequence_length=128, architecture=architecture)

    return on_meta


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["olmo2", "olmo3"])
@pytest.mark.parametrize("shape", PRESETS.values(), ids=lambda shape: shape.name)
def test_counts_are_the_real_model_s(build: Any, shape: ModelShape, architecture: str) -> None:
    named = dict(build(shape, architecture).named_parameters())
    outside = {name for name in named if "embed_tokens" in name or "lm_head" in name}
    assert len(outside) == 2
    assert shape.block_params == sum(p.numel() for name, p in named.items() if name not in outside)
    assert shape.total_params(VOCAB) == sum(p.numel() for p in named.values())
    matrices = (p for name, p in named.items() if name not in outside and p.ndim == 2)
    assert shape.matmul_params == sum(p.numel() for p in matrices)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu_33k", "cpu_132k", "olmo2_1M", "datadecide_6M", "olmo2_14M"])
def test_flops_are_what_torch_counts(build: Any, name: str) -> None:
    """torch counts every matrix product of a forward and a backward pass; plain attention in full."""
    from torch.utils.flop_counter import FlopCounterMode

    shape = PRESETS[name]
    length, rows = 64, 2
    tokens, model = _counted(build(shape), rows, length)
    terms = shape.flops(VOCAB, length)
    # Angles of the positions: a product once a batch, not trained.
    rotary = 2 * (shape.d_model // shape.heads // 2) * length
    with FlopCounterMode(display=False) as counter:
        logits = model(tokens).logits
    assert abs(counter.get_total_flops() - terms.forward * rows * length) <= rotary
    with FlopCounterMode(display=False) as counter:
        logits.sum().backward()
    assert counter.get_total_flops() == terms.backward * rows * length
    assert terms.training == shape.flops_per_token(VOCAB, length)


def _counted(model: Any, rows: int, length: int) -> tuple[Any, Any]:
    """Tokens, and a model whose attention is made of matrix products that can be counted."""
    import torch

    model = model.to_empty(device="cpu")
    model.set_attn_implementation("eager")
    return torch.zeros(rows, length, dtype=torch.long), model


def test_flops_term_by_term() -> None:
    """A shape whose terms are all different, multiplied out by hand."""
    shape = ModelShape(name="x", d_model=8, layers=3, heads=2, d_ffn=20)
    terms = shape.flops(vocab_size=11, sequence_length=5)
    assert terms.attention_projections == 3 * 4 * (2 * 8 * 8)
    assert terms.attention_scores == terms.attention_values == 3 * (2 * 5 * 8)
    assert terms.feed_forward == 3 * 3 * (2 * 8 * 20)
    assert terms.unembedding == 2 * 8 * 11
    assert terms.training == 6 * (shape.matmul_params + 11 * 8) + 12 * 3 * 8 * 5


@pytest.mark.parametrize("name", PAPER_TOTALS)
def test_totals_of_the_paper(name: str) -> None:
    """The paper's totals have no norm gains in them: matrices and both embeddings give them exactly."""
    shape = PRESETS[name]
    assert shape.matmul_params + 2 * 50_304 * shape.d_model == PAPER_TOTALS[name]


def test_presets_grow_and_names_are_unique() -> None:
    assert len(PRESETS) == 38
    for family in ("cpu_", "paper_"):
        sizes = [shape.block_params for name, shape in PRESETS.items() if name.startswith(family)]
        assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes)


@pytest.mark.parametrize(
    ("name", "block"),
    [("cpu_8k", 8336), ("cpu_19k", 18648), ("cpu_33k", 33056), ("cpu_74k", 74160), ("cpu_132k", 131648),
     ("cpu_296k", 295776)],
)  # fmt: skip
def test_cpu_rungs_are_named_after_their_size(name: str, block: int) -> None:
    assert PRESETS[name].block_params == block
    assert name == f"cpu_{round(block / 1000)}k"


def test_heads_must_divide_into_even_widths() -> None:
    with pytest.raises(
        ValueError, match=r"heads=4 must divide d_model=12 into an even head width; use one of \[1, 2"
    ):
        ModelShape(name="x", d_model=12, layers=1, heads=4, d_ffn=8)
