"""A shape becomes a model and its optimizer; a model and tokens become logits and losses.

The modules of transformers hold the parameters (checkpoints, state dicts, exports are theirs); the functions
here compute the same numbers from those parameters faster, without calling the modules. Where a module has
hooks (FSDP2 has, to gather its parameters), the modules are called, so that hooks always run.

Shape legend: B = batch, T = sequence length, K = positions kept, V = vocabulary, d = d_model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mixplan.calibrate import fast_cpu, fast_plain
from mixplan.calibrate.fast_loss import weighted_nll
from mixplan.calibrate.runs import RunSpec
from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.calibration_spec import Training
from mixplan.documents.shapes import ModelShape
from mixplan.errors import InputError

OLMO3_WINDOW = 4096
"""Tokens that three of four layers of Olmo3 see: the default of transformers' Olmo3Config."""

Hidden = Callable[[Any, Tensor], Tensor]


def build_model(
    shape: ModelShape,
    vocab_size: int,
    sequence_length: int,
    end_of_document_id: int = 0,
    architecture: str = "olmo2",
) -> Any:
    """A freshly initialised causal LM: QK-norm, reordered norm, SwiGLU, RoPE 5e5, untied embeddings.

    Args:
        shape: dimensions.
        vocab_size: rows of the embedding and of the unembedding.
        sequence_length: longest sequence.
        end_of_document_id: the token that separates documents.
        architecture: olmo2, or olmo3: the same parameters, and in three of four layers attention to the last
            4,096 tokens only.

    Raises:
        InputError: the installed transformers does not have the architecture.
    """
    ensure_torchvision_imports()
    import transformers

    options: dict[str, Any] = {}
    if architecture == "olmo3":
        options["sliding_window"] = OLMO3_WINDOW
    name = architecture.capitalize()
    if not hasattr(transformers, f"{name}ForCausalLM"):
        raise InputError(
            f"architecture {architecture}: transformers {transformers.__version__} does not have it; "
            "install transformers>=4.57, or use `architecture: olmo2`"
        )
    config = getattr(transformers, f"{name}Config")(
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
        **options,
    )
    return getattr(transformers, f"{name}ForCausalLM")(config)


def seeded_model(run: RunSpec, end_of_document_id: int, architecture: str = "olmo2") -> Any:
    """The run's model, initialised from its seed alone."""
    torch.manual_seed(run.seed)
    return build_model(run.shape, run.vocab_size, run.sequence_length, end_of_document_id, architecture)


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


class TokenLoss(nn.Module):
    """Mean next-token NLL of a causal LM as a module of its own, to be wrapped in DDP or compiled.

    Its parameters are the model's. Checkpoints and probes use the model, not this.
    """

    def __init__(self, model: Any, precision: str, compiled: bool = False) -> None:
        super().__init__()
        self.model, self.precision = model, precision
        self._hidden: Hidden | None = torch.compile(fast_plain.hidden_states) if compiled else None

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """In nats, a scalar, fp32."""
        return _mean_nll(self.model, tokens_BT, self.precision, self._hidden)


def token_loss(model: Any, tokens_BT: Tensor, precision: str) -> Tensor:
    """Mean next-token NLL in nats, a scalar, fp32."""
    return _mean_nll(model, tokens_BT, precision, None)


def marked_loss(model: Any, tokens_BT: Tensor, marked_BT: Tensor, precision: str) -> Tensor:
    """Sum of the NLL of the marked tokens in nats, a scalar, fp32; other tokens are context only.

    Args:
        marked_BT: bool; the first token of a sequence is predicted by nothing and must not be marked.
    """
    with _precision(tokens_BT, precision):
        hidden_BTd = _hidden_states(model, tokens_BT, precision, None)
    before_BT = marked_BT.roll(-1, 1)
    targets_N = tokens_BT[marked_BT]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    weights_N = torch.ones(len(targets_N), device=tokens_BT.device)
    return weighted_nll(hidden_BTd[before_BT], model.lm_head.weight, targets_N, weights_N, dtype)


def logits_of(model: Any, tokens_BT: Tensor, precision: str, logits_to_keep: int = 0) -> Tensor:
    """Next-token logits of the last `logits_to_keep` positions K (0: all), shape (B, K, V)."""
    with _precision(tokens_BT, precision):
        hidden_BTd = _hidden_states(model, tokens_BT, precision, None)
        return nn.functional.linear(hidden_BTd[:, -logits_to_keep:], model.lm_head.weight)


def _mean_nll(model: Any, tokens_BT: Tensor, precision: str, hidden: Hidden | None) -> Tensor:
    rows, length = tokens_BT.shape
    with _precision(tokens_BT, precision):
        hidden_BTd = _hidden_states(model, tokens_BT, precision, hidden)
    # Every position is kept, so that nothing is copied; the last one has no next token: weight 0.
    targets_BT = tokens_BT.roll(-1, 1)
    weights_BT = torch.full((rows, length), 1 / (rows * (length - 1)), device=tokens_BT.device)
    weights_BT[:, -1] = 0
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return weighted_nll(
        hidden_BTd.flatten(0, 1), model.lm_head.weight, targets_BT.flatten(), weights_BT.flatten(), dtype
    )


def _hidden_states(model: Any, tokens_BT: Tensor, precision: str, hidden: Hidden | None) -> Tensor:
    """Final normed hidden states, shape (B, T, d), by the fastest way for the device."""
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.model.modules()):
        return model.model(input_ids=tokens_BT, use_cache=False).last_hidden_state
    rows, length = tokens_BT.shape
    window = fast_plain.window_of(model)
    cached = tokens_BT.device.type == "cpu" and precision == "fp32" and length <= fast_cpu.MAX_SEQUENCE
    if hidden is None and cached and (window is None or length <= window):
        return fast_cpu.hidden_states(model, tokens_BT).view(-1, rows, length).permute(1, 2, 0)
    return (hidden or fast_plain.hidden_states)(model, tokens_BT)


def _precision(tokens_BT: Tensor, precision: str) -> torch.autocast:
    return torch.autocast(tokens_BT.device.type, torch.bfloat16, enabled=precision == "bf16")
