"""Held-out text before every probe, read once for all that comes after it.

A probe asks thousands of short prompts after a few dozen contexts. The contexts' keys and values are computed
once and every prompt attends to those of its own, which gives what reading context and prompt together gives.

Shape legend: X = contexts, R = rows, P = tokens of a row after its context, K = positions wanted,
V = vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mixplan.calibrate.placement import Placement
from mixplan.calibrate.probes import CONTEXT_TOKENS


def held_out_contexts(
    held_out: np.ndarray, generator: np.random.Generator, placement: Placement = "anywhere", count: int = 64
) -> np.ndarray:
    """What stands before a prompt, as in training: pieces of held-out text, shape (count, CONTEXT_TOKENS).

    Where instances are injected at the start of a sequence nothing ever stands before them: (count, 0).
    """
    tokens = 0 if placement == "start" else CONTEXT_TOKENS
    starts = generator.integers(0, len(held_out) - tokens + 1, size=count)
    return np.stack([held_out[start : start + tokens] for start in starts]).astype(np.int64)


class Contexts:
    """Contexts as a model reads them; differentiable unless made without gradients."""

    def __init__(self, model: Any, tokens_X8: torch.Tensor, precision: str) -> None:
        """`tokens_X8` lie on the model's device, shape (X, CONTEXT_TOKENS), or (X, 0) for none."""
        from transformers import DynamicCache

        self.model, self.precision = model, precision
        cache = DynamicCache()
        if tokens_X8.shape[1]:
            with self._autocast(tokens_X8):
                model.model(input_ids=tokens_X8, past_key_values=cache, use_cache=True)
        self.keys_values = [(layer.keys, layer.values) for layer in cache.layers]

    def logits(self, context_R: torch.Tensor, tokens_RP: torch.Tensor, keep: int) -> torch.Tensor:
        """Next-token logits at the last `keep` positions, fp32, shape (R, K, V).

        Args:
            context_R: which context each row stands after.
            tokens_RP: what comes after it.
            keep: K.
        """
        with self._autocast(tokens_RP):
            return self.model(
                input_ids=tokens_RP,
                past_key_values=self._cache(context_R),
                use_cache=True,
                logits_to_keep=keep,
            ).logits.float()

    def hidden(self, context_R: torch.Tensor, tokens_RP: torch.Tensor) -> torch.Tensor:
        """The residual stream at the last position of every row: embeddings, then after each block.

        Returns:
            fp32, shape (layers + 1, R, d_model).
        """
        body = self.model.model
        seen: list[torch.Tensor] = []

        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            seen.append(states[:, -1].float())

        hooks = [part.register_forward_hook(keep) for part in (body.embed_tokens, *body.layers)]
        try:
            with self._autocast(tokens_RP):
                body(input_ids=tokens_RP, past_key_values=self._cache(context_R), use_cache=True)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(seen)

    def _cache(self, context_R: torch.Tensor) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.keys_values):
            cache.update(keys.index_select(0, context_R), values.index_select(0, context_R), layer)
        return cache

    def _autocast(self, like: torch.Tensor) -> Any:
        return torch.autocast(like.device.type, torch.bfloat16, enabled=self.precision == "bf16")
