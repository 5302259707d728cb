"""The blocks of an Olmo2 or Olmo3 model in few plain operators: GPUs, bf16, torch.compile, long sequences.

Same parameters and numbers as the modules of transformers, without their masks, caches and keyword plumbing:
attention is torch's causal kernel (flash where the device has it), norms are torch's, and the whole is one
graph for torch.compile. Under autocast the residual stream and the norms are fp32, as in transformers.

Shape legend: B = batch, T = sequence length, d = d_model, H = heads, D = d/H head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def hidden_states(model: Any, tokens_BT: Tensor) -> Tensor:
    """Final normed hidden states, shape (B, T, d)."""
    body = model.model
    length = tokens_BT.shape[1]
    cos_TD, sin_TD = rotary(body, length, tokens_BT.device)
    windowed_TT = _window(model, length, tokens_BT.device)
    x_BTd = functional.embedding(tokens_BT, body.embed_tokens.weight)
    for layer in body.layers:
        slides = getattr(layer.self_attn, "sliding_window", None) is not None
        y_BTd = _attend(x_BTd, layer.self_attn, cos_TD, sin_TD, windowed_TT if slides else None)
        x_BTd = x_BTd + norm(y_BTd, layer.post_attention_layernorm)
        mlp = layer.mlp
        gated = functional.silu(functional.linear(x_BTd, mlp.gate_proj.weight))
        y_BTd = functional.linear(gated * functional.linear(x_BTd, mlp.up_proj.weight), mlp.down_proj.weight)
        x_BTd = x_BTd + norm(y_BTd, layer.post_feedforward_layernorm)
    return norm(x_BTd, body.norm)


def norm(x: Tensor, module: Any) -> Tensor:
    """RMSNorm over the last dimension in fp32 (arXiv 1910.07467)."""
    weight = module.weight
    return functional.rms_norm(x.float(), weight.shape, weight, module.variance_epsilon).to(x.dtype)


def rotary(body: Any, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of RoPE (arXiv 2104.09864), the sine negated for a head's first half, (T, D)."""
    # Olmo3 has frequencies for full and for sliding attention; without RoPE scaling they are the same.
    # transformers 4 keeps them in a module each, transformers 5 in one module under prefixed names.
    module = body.rotary_emb if hasattr(body, "rotary_emb") else body.rotary_embs["full_attention"]
    prefix = "" if hasattr(module, "inv_freq") else f"{module.layer_types[0]}_"
    frequencies_h = getattr(module, f"{prefix}inv_freq").to(device, torch.float32)
    scaling = getattr(module, f"{prefix}attention_scaling")
    angles_Th = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequencies_h
    cos_Th, sin_Th = angles_Th.cos() * scaling, angles_Th.sin() * scaling
    return torch.cat([cos_Th, cos_Th], -1), torch.cat([-sin_Th, sin_Th], -1)


def window_of(model: Any) -> int | None:
    """Tokens that sliding attention sees; None for an architecture without it."""
    window = getattr(model.config, "sliding_window", None)
    return None if window is None else int(window)


def _window(model: Any, length: int, device: torch.device) -> Tensor | None:
    """True where sliding attention may look, (T, T); None where the window holds the whole sequence."""
    window = window_of(model)
    if window is None or length <= window:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=device).tril_().triu_(1 - window)


def _attend(x_BTd: Tensor, attention: Any, cos_TD: Tensor, sin_TD: Tensor, mask_TT: Tensor | None) -> Tensor:
    q_BTd = norm(functional.linear(x_BTd, attention.q_proj.weight), attention.q_norm)
    k_BTd = norm(functional.linear(x_BTd, attention.k_proj.weight), attention.k_norm)
    v_BTd = functional.linear(x_BTd, attention.v_proj.weight)
    q, k, v = (x.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for x in (q_BTd, k_BTd, v_BTd))
    read_BHTD = functional.scaled_dot_product_attention(
        _rotate(q, cos_TD, sin_TD),
        _rotate(k, cos_TD, sin_TD),
        v,
        attn_mask=mask_TT,
        is_causal=mask_TT is None,
    )
    return functional.linear(read_BHTD.transpose(1, 2).flatten(2), attention.o_proj.weight)


def _rotate(x_BHTD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    first, second = x_BHTD.chunk(2, dim=-1)
    return (x_BHTD * cos_TD + torch.cat([second, first], -1) * sin_TD).to(x_BHTD.dtype)
