"""Next-token loss that never holds all logits: some tokens at a time, gradients made on the way forward.

The loss is the last thing computed, so its gradient with respect to the hidden states and the unembedding is
known, up to one factor, as soon as the logits of a few tokens are: they are turned into that gradient at once
and thrown away. Softmax and sums in fp32 whatever the precision of the products.

Shape legend: N = tokens with a next token, d = d_model, V = vocabulary, C = tokens at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LOGITS_AT_ONCE = {"cpu": 2**17, "cuda": 2**27}
"""512 KiB, half of a core's usual second-level cache; 512 MiB of a GPU's memory."""
_FEWEST_TOKENS = 64


def weighted_nll(
    hidden_Nd: Tensor, unembedding_Vd: Tensor, targets_N: Tensor, weights_N: Tensor, dtype: torch.dtype
) -> Tensor:
    """Σ weight · NLL of the targets in nats, a scalar, fp32.

    Args:
        hidden_Nd: final hidden states, in any memory layout.
        unembedding_Vd: the output matrix.
        targets_N: token ids.
        weights_N: weight of each token in the sum, fp32; not differentiated.
        dtype: of the products with the unembedding.
    """
    with torch.autocast(hidden_Nd.device.type, enabled=False):
        return _WeightedNLL.apply(hidden_Nd, unembedding_Vd, targets_N, weights_N, dtype)


class _WeightedNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_Nd: Tensor, unembedding_Vd: Tensor, targets_N: Tensor, weights_N: Tensor, dtype: Any
    ) -> Tensor:
        weight_Vd = unembedding_Vd.to(dtype)
        limit = _LOGITS_AT_ONCE.get(hidden_Nd.device.type, _LOGITS_AT_ONCE["cuda"])
        at_once = max(_FEWEST_TOKENS, limit // len(weight_Vd))
        with_gradient = any(ctx.needs_input_grad)
        total = torch.zeros((), device=hidden_Nd.device)
        grad_hidden = torch.empty_like(hidden_Nd) if with_gradient else None
        grad_weight = torch.zeros_like(unembedding_Vd) if with_gradient else None
        for start in range(0, len(targets_N), at_once):
            part = slice(start, start + at_once)
            hidden_Cd, targets_C1, weights_C = (
                hidden_Nd[part].to(dtype),
                targets_N[part, None],
                weights_N[part],
            )
            logits_CV = (hidden_Cd @ weight_Vd.t()).float()
            probabilities_CV = logits_CV.softmax(-1)
            # log Σ exp = largest logit − log of its probability, which is never below 1/V.
            log_sum_C = logits_CV.amax(-1) - probabilities_CV.amax(-1).log_()
            total += torch.dot(log_sum_C - logits_CV.gather(1, targets_C1)[:, 0], weights_C)
            if grad_hidden is None or grad_weight is None:
                continue
            # d NLL / d logits = probabilities − 1 at the target.
            minus = torch.full_like(targets_C1, -1, dtype=torch.float32)
            grad_CV = probabilities_CV.scatter_add_(1, targets_C1, minus).mul_(weights_C[:, None]).to(dtype)
            if dtype == hidden_Nd.dtype == unembedding_Vd.dtype:
                torch.mm(grad_CV, weight_Vd, out=grad_hidden[part])
                grad_weight.addmm_(grad_CV.t(), hidden_Cd)
            else:
                grad_hidden[part] = grad_CV @ weight_Vd
                grad_weight += grad_CV.t() @ hidden_Cd
        if grad_hidden is not None and grad_weight is not None:
            ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad, grad_weight * grad, None, None, None
