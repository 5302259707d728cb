"""A shape becomes an Olmo2 model and its optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mixplan.calibrate.runs import RunSpec
from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.calibration_spec import Training
from mixplan.documents.shapes import ModelShape


def build_model(shape: ModelShape, vocab_size: int, sequence_length: int, end_of_document_id: int = 0) -> Any:
    """A freshly initialised Olmo2 causal LM: QK-norm, reordered norm, SwiGLU, RoPE 5e5, untied embeddings."""
    ensure_torchvision_imports()
    from transformers import Olmo2Config, Olmo2ForCausalLM

    config = Olmo2Config(
        vocab_size=vocab_size,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=sequence_length,
        rope_theta=500000.0,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        attention_bias=False,
        use_cache=False,
        bos_token_id=end_of_document_id,
        eos_token_id=end_of_document_id,
        pad_token_id=None,
        attn_implementation="sdpa",
    )
    return Olmo2ForCausalLM(config)


def seeded_model(run: RunSpec, end_of_document_id: int) -> Any:
    """The run's model, initialised from its seed alone."""
    torch.manual_seed(run.seed)
    return build_model(run.shape, run.vocab_size, run.sequence_length, end_of_document_id)


def build_optimizer(model: Any, peak_learning_rate: float, training: Training) -> torch.optim.AdamW:
    """AdamW; no weight decay on embeddings (as OLMo-2) and on vectors (norm gains)."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (kept if parameter.ndim < 2 or "embed_tokens" in name else decayed).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=peak_learning_rate, betas=(training.beta1, training.beta2), fused=True
    )


def logits_of(model: Any, tokens_BT: torch.Tensor, precision: str, logits_to_keep: int = 0) -> torch.Tensor:
    """Next-token logits of the last `logits_to_keep` positions K (0: all), shape (B, K, V)."""
    with torch.autocast(tokens_BT.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return model(input_ids=tokens_BT, use_cache=False, logits_to_keep=logits_to_keep).logits


def token_loss(model: Any, tokens_BT: torch.Tensor, precision: str) -> torch.Tensor:
    """Mean next-token NLL in nats; logits in fp32."""
    logits = logits_of(model, tokens_BT, precision)[:, :-1].float()
    return nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens_BT[:, 1:].reshape(-1))
