"""The blocks of an Olmo2 or Olmo3 model on a CPU in fp32, faster than operator by operator.

Same parameters and same numbers (to fp32 rounding) as the modules of transformers, with the backward pass
written out. What makes the difference on one core:
- Features come first: activations are (d, tokens), so that norms, rotary halves and narrow attention heads
  (4 to 24 wide) are long contiguous rows. A product with a narrow last dimension runs at a fraction of the
  machine's rate.
- Attention works on a few heads and queries at a time, so that scores stay in the cache; it makes its
  probabilities again in the backward pass instead of keeping them, and skips keys after its last query.
- Nothing as large as (tokens, vocabulary) exists at once (see fast_loss.py): fresh memory costs page faults.

Shape legend: B = batch, T = sequence length, N = B·T tokens, d = d_model, F = feed-forward width, H = heads,
D = d/H head width, G = B·H.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mixplan.calibrate.fast_plain import rotary

MAX_SEQUENCE = 1024
"""Torch's blockwise attention is as fast on longer sequences: lab book, 7."""
_CACHED_NUMBERS = 2**17
"""Scores or activations worked on at once: 512 KiB, half of a core's usual second-level cache."""
_FEWEST_TOKENS = 64
_QUERIES_AT_ONCE = 64
"""Queries of a block; the keys after its last one are left out."""


def hidden_states(model: Any, tokens_BT: Tensor) -> Tensor:
    """Final normed hidden states, features first, shape (d, N)."""
    keep_freed_memory()
    body = model.model
    rows, length = tokens_BT.shape
    cos_DT, sin_DT = (table.t().contiguous() for table in rotary(body, length, tokens_BT.device))
    x_dN = torch.nn.functional.embedding(tokens_BT.reshape(-1), body.embed_tokens.weight).t().contiguous()
    for layer in body.layers:
        attention, mlp = layer.self_attn, layer.mlp
        y_dN = _Attention.apply(
            x_dN, attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight,
            attention.o_proj.weight, attention.q_norm.weight, attention.k_norm.weight,
            cos_DT, sin_DT, rows, attention.head_dim, attention.q_norm.variance_epsilon,
        )  # fmt: skip
        x_dN = _add_normed(x_dN, y_dN, layer.post_attention_layernorm)
        y_dN = _SwiGLU.apply(x_dN, mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight)
        x_dN = _add_normed(x_dN, y_dN, layer.post_feedforward_layernorm)
    return _add_normed(None, x_dN, body.norm)


@cache
def keep_freed_memory() -> bool:
    """Tell the C library to keep what the process frees, instead of giving it back at the end of every step.

    Each page given back is cleared and mapped again in the next step. Only where the C library is glibc;
    nothing happens elsewhere. Returns whether it was told.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # malloc.h: M_TRIM_THRESHOLD is -1, M_MMAP_THRESHOLD -3; 1 GiB and (the most it takes) 32 MiB.
    return mallopt is not None and bool(mallopt(-1, 2**30)) and bool(mallopt(-3, 2**25))


def _add_normed(x_dN: Tensor | None, y_dN: Tensor, module: Any) -> Tensor:
    """x + RMSNorm(y) over features: y / sqrt(mean(y²) + ε) · gain (arXiv 1910.07467), shape (d, N)."""
    return _AddNormed.apply(x_dN, y_dN, module.weight, module.variance_epsilon)


class _AddNormed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_dN: Tensor | None, y_dN: Tensor, gain_d: Tensor, epsilon: float) -> Tensor:
        normed_dN, scale_N = _normalise(y_dN, epsilon)
        ctx.save_for_backward(normed_dN, scale_N, gain_d)
        ctx.adds = x_dN is not None
        gain_d1 = gain_d[:, None]
        return normed_dN * gain_d1 if x_dN is None else torch.addcmul(x_dN, normed_dN, gain_d1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_dN: Tensor) -> tuple[Tensor | None, ...]:
        grad_y_dN, grad_gain_d = _norm_backward(grad_dN, *ctx.saved_tensors)
        return grad_dN if ctx.adds else None, grad_y_dN, grad_gain_d, None


def _normalise(x_dN: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """x / rms(x) and 1 / rms(x), shapes (d, N) and (N,)."""
    scale_N = (x_dN * x_dN).sum(0).div_(x_dN.shape[0]).add_(epsilon).rsqrt_()
    return x_dN * scale_N, scale_N


def _norm_backward(
    grad_dN: Tensor, normed_dN: Tensor, scale_N: Tensor, gain_d: Tensor
) -> tuple[Tensor, Tensor]:
    """With x̂ = x·s, y = x̂·g and c = mean(dy·g·x̂) over features: dx = s·(dy·g − x̂·c), dg = Σ_N dy·x̂."""
    product_dN = grad_dN * normed_dN
    mean_N = torch.mv(product_dN.t(), gain_d).div_(len(gain_d))
    grad_gain_d = product_dN.sum(1)
    torch.mul(grad_dN, gain_d[:, None], out=product_dN)
    return product_dN.addcmul_(normed_dN, mean_N, value=-1).mul_(scale_N), grad_gain_d


class _SwiGLU(torch.autograd.Function):
    """down(silu(gate·x) ⊙ up·x), arXiv 2002.05202, some tokens at a time. C = tokens at once."""

    @staticmethod
    def forward(ctx: Any, x_dN: Tensor, gate_Fd: Tensor, up_Fd: Tensor, down_dF: Tensor) -> Tensor:
        wide = len(gate_Fd)
        both_2Fd = torch.cat([gate_Fd, up_Fd])
        at_once = max(_FEWEST_TOKENS, _CACHED_NUMBERS // (2 * wide))
        y_dN = torch.empty_like(x_dN)
        lifted = []
        active_FC = torch.empty(wide, at_once)
        for x_dC, y_dC in zip(x_dN.split(at_once, 1), y_dN.split(at_once, 1), strict=True):
            lifted.append(both_2Fd @ x_dC)
            gate_FC, up_FC = lifted[-1].split(wide)
            active = torch.ops.aten.silu.out(gate_FC, out=active_FC[:, : gate_FC.shape[1]]).mul_(up_FC)
            torch.mm(down_dF, active, out=y_dC)
        ctx.save_for_backward(x_dN, both_2Fd, down_dF, *lifted)
        return y_dN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_dN: Tensor) -> tuple[Tensor, ...]:
        x_dN, both_2Fd, down_dF, *lifted = ctx.saved_tensors
        wide, at_once = down_dF.shape[1], lifted[0].shape[1]
        grad_x_dN = torch.empty_like(x_dN)
        grad_both, grad_down = torch.zeros_like(both_2Fd), torch.zeros_like(down_dF)
        scratch = torch.empty(4, wide, at_once)
        parts = zip(*(t.split(at_once, 1) for t in (grad_dN, x_dN, grad_x_dN)), lifted, strict=True)
        for grad_dC, x_dC, grad_x_dC, both_2FC in parts:
            gate_FC, up_FC = both_2FC.split(wide)
            active, product, *_ = room = scratch[:, :, : gate_FC.shape[1]]
            torch.ops.aten.silu.out(gate_FC, out=active)
            grad_down.addmm_(grad_dC, torch.mul(active, up_FC, out=product).t())
            torch.mm(down_dF.t(), grad_dC, out=product)
            grad_gate, grad_up = room[2:]
            torch.mul(product, active, out=grad_up)
            torch.ops.aten.silu_backward.grad_input(product.mul_(up_FC), gate_FC, grad_input=grad_gate)
            grad_2FC = room[2:].flatten(0, 1)
            torch.mm(both_2Fd.t(), grad_2FC, out=grad_x_dC)
            grad_both.addmm_(grad_2FC, x_dC.t())
        return grad_x_dN, *grad_both.split(wide), grad_down


class _Attention(torch.autograd.Function):
    """o(attend(rope(norm(q·x)), rope(norm(k·x)), v·x)): causal, with QK-norm over all heads together."""

    @staticmethod
    def forward(
        ctx: Any, x_dN: Tensor, q_dd: Tensor, k_dd: Tensor, v_dd: Tensor, o_dd: Tensor, q_gain_d: Tensor,
        k_gain_d: Tensor, cos_DT: Tensor, sin_DT: Tensor, rows: int, width: int, epsilon: float,
    ) -> Tensor:  # fmt: skip
        q_normed, q_scale = _normalise(q_dd @ x_dN, epsilon)
        k_normed, k_scale = _normalise(k_dd @ x_dN, epsilon)
        # Scores are scaled by 1/√D; that factor goes into the queries.
        q_GDT = _rotate_heads(q_normed * (q_gain_d * width**-0.5)[:, None], cos_DT, sin_DT, rows, width)
        k_GDT = _rotate_heads(k_normed * k_gain_d[:, None], cos_DT, sin_DT, rows, width)
        v_GDT = _split_heads(v_dd @ x_dN, rows, width).contiguous().view_as(q_GDT)
        read_GDT = torch.empty_like(q_GDT)
        for heads, queries, scores in _blocks(q_GDT.shape):
            probabilities = _attend(q_GDT, k_GDT, heads, queries, scores)
            value = v_GDT[heads, :, : queries.stop]
            read_GDT[heads, :, queries] = torch.bmm(value, probabilities.transpose(1, 2))
        read_dN = _merge_heads(read_GDT, rows)
        ctx.save_for_backward(
            x_dN, q_dd, k_dd, v_dd, o_dd, q_gain_d, k_gain_d, cos_DT, sin_DT,
            q_normed, q_scale, k_normed, k_scale, q_GDT, k_GDT, v_GDT, read_dN,
        )  # fmt: skip
        ctx.rows, ctx.width = rows, width
        return o_dd @ read_dN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_dN: Tensor) -> tuple[Tensor | None, ...]:
        (
            x_dN, q_dd, k_dd, v_dd, o_dd, q_gain_d, k_gain_d, cos_DT, sin_DT,
            q_normed, q_scale, k_normed, k_scale, q_GDT, k_GDT, v_GDT, read_dN,
        ) = ctx.saved_tensors  # fmt: skip
        rows, width = ctx.rows, ctx.width
        grad_o = grad_dN @ read_dN.t()
        grad_read_GDT = _split_heads(o_dd.t() @ grad_dN, rows, width).contiguous().view_as(q_GDT)
        grad_q_GDT, grad_k_GDT, grad_v_GDT = _attend_backward(q_GDT, k_GDT, v_GDT, grad_read_GDT)
        # A rotation's transpose is the rotation back.
        grad_q_dN = _merge_rotated(grad_q_GDT, cos_DT, sin_DT, rows)
        grad_k_dN = _merge_rotated(grad_k_GDT, cos_DT, sin_DT, rows)
        grad_v_dN = _merge_heads(grad_v_GDT, rows)
        grad_q_dN, grad_q_gain = _norm_backward(grad_q_dN.mul_(width**-0.5), q_normed, q_scale, q_gain_d)
        grad_k_dN, grad_k_gain = _norm_backward(grad_k_dN, k_normed, k_scale, k_gain_d)
        grad_x = (v_dd.t() @ grad_v_dN).addmm_(k_dd.t(), grad_k_dN).addmm_(q_dd.t(), grad_q_dN)
        x_Nd = x_dN.t()
        weights = (grad_q_dN @ x_Nd, grad_k_dN @ x_Nd, grad_v_dN @ x_Nd, grad_o)
        return grad_x, *weights, grad_q_gain, grad_k_gain, None, None, None, None, None


def _attend_backward(
    q_GDT: Tensor, k_GDT: Tensor, v_GDT: Tensor, grad_GDT: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the (scaled) queries, keys and values."""
    grad_q = torch.empty_like(q_GDT)
    grad_k, grad_v = torch.zeros_like(k_GDT), torch.zeros_like(v_GDT)
    for heads, queries, scores in _blocks(q_GDT.shape):
        keys = slice(0, queries.stop)
        probabilities = _attend(q_GDT, k_GDT, heads, queries, scores)
        grad_read = grad_GDT[heads, :, queries]
        grad_v[heads, :, keys] += torch.bmm(grad_read, probabilities)
        grad_probabilities = torch.bmm(grad_read.transpose(1, 2), v_GDT[heads, :, keys], out=scores)
        grad_scores = torch._softmax_backward_data(
            grad_probabilities, probabilities, -1, torch.float32, grad_input=scores
        )
        grad_q[heads, :, queries] = torch.bmm(k_GDT[heads, :, keys], grad_scores.transpose(1, 2))
        grad_k[heads, :, keys] += torch.bmm(q_GDT[heads, :, queries], grad_scores)
    return grad_q, grad_k, grad_v


def _attend(q_GDT: Tensor, k_GDT: Tensor, heads: slice, queries: slice, scores: Tensor) -> Tensor:
    """Causal attention probabilities of a block, shape (heads, queries, keys); `scores` is scratch memory."""
    q, k = q_GDT[heads, :, queries], k_GDT[heads, :, : queries.stop]
    mask = _mask(queries.start, queries.stop)
    return torch.baddbmm(mask, q.transpose(1, 2), k, out=scores).softmax(-1)


def _blocks(shape: torch.Size) -> Iterator[tuple[slice, slice, Tensor]]:
    """Heads, queries and scratch memory for the scores of each block."""
    count, _, length = shape
    for start in range(0, length, _QUERIES_AT_ONCE):
        queries = slice(start, min(start + _QUERIES_AT_ONCE, length))
        size = (queries.stop - start) * queries.stop
        at_once = min(count, max(1, _CACHED_NUMBERS // size))
        scratch = torch.empty(at_once, queries.stop - start, queries.stop)
        for first in range(0, count, at_once):
            heads = slice(first, min(first + at_once, count))
            yield heads, queries, scratch[: heads.stop - first]


@lru_cache(maxsize=64)
def _mask(start: int, stop: int) -> Tensor:
    """Added to the scores of queries start…stop: 0, and −∞ for keys in their future."""
    return torch.full((stop - start, stop), -torch.inf).triu_(start + 1)


def _split_heads(x_dN: Tensor, rows: int, width: int) -> Tensor:
    """(d, N) seen as (B, H, D, T)."""
    return x_dN.view(x_dN.shape[0] // width, width, rows, -1).permute(2, 0, 1, 3)


def _merge_heads(x_GDT: Tensor, rows: int) -> Tensor:
    """(G, D, T) as (d, N)."""
    _, width, length = x_GDT.shape
    x_BHDT = x_GDT.view(rows, -1, width, length)
    return x_BHDT.permute(1, 2, 0, 3).reshape(x_BHDT.shape[1] * width, rows * length)


def _rotate_heads(x_dN: Tensor, cos_DT: Tensor, sin_DT: Tensor, rows: int, width: int) -> Tensor:
    """Rotated heads, shape (G, D, T)."""
    x_BHDT = _split_heads(x_dN, rows, width)
    rotated = (x_BHDT * cos_DT).contiguous()
    half = width // 2
    rotated[:, :, :half].addcmul_(x_BHDT[:, :, half:], sin_DT[:half])
    rotated[:, :, half:].addcmul_(x_BHDT[:, :, :half], sin_DT[half:])
    return rotated.view(-1, width, rotated.shape[-1])


def _merge_rotated(x_GDT: Tensor, cos_DT: Tensor, sin_DT: Tensor, rows: int) -> Tensor:
    """Rotated back, shape (d, N)."""
    width = x_GDT.shape[1]
    half = width // 2
    back = x_GDT * cos_DT
    back[:, :half].addcmul_(x_GDT[:, half:], sin_DT[:half], value=-1)
    back[:, half:].addcmul_(x_GDT[:, :half], sin_DT[half:], value=-1)
    return _merge_heads(back, rows)
