"""calibration.yaml, the training: horizons, optimisation, where runs run and what that costs."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from mixplan.documents.base import (
    Count,
    Fraction,
    NonNegative,
    OpenFraction,
    Part,
    Positive,
)


class Horizons(Part):
    """How long each rung trains: with warm-up, constant and decaying learning rate to each horizon."""

    tokens: list[Count] = []
    """Absolute token counts."""
    tokens_per_20_params: list[Positive] = []
    """Multiples of 20 tokens a block parameter (1 = Chinchilla-optimal)."""
    branches: bool = True
    """true: one run to the longest horizon, at constant learning rate; each shorter horizon is a decay that
    branches off it and ends at its token count (WSD, arXiv 2404.06395), so that all horizons cost little more
    than the longest. false: each horizon is a run of its own."""

    @model_validator(mode="after")
    def _one_kind(self) -> Horizons:
        if bool(self.tokens) == bool(self.tokens_per_20_params):
            raise ValueError("give either `tokens` or `tokens_per_20_params`, with at least one value")
        return self


class Training(Part):
    """Optimisation: AdamW, linear warm-up, constant, linear decay to zero."""

    rule: Literal["scaled", "fixed"] = "scaled"
    """scaled: learning rate and batch follow size (arXiv 2406.19146); fixed: the same for all."""
    learning_rate: Positive | None = None
    """Peak learning rate of the fixed rule."""
    learning_rate_multiplier: Positive = 0.25
    """Scaled rule: factor on 0.0047·(N/108e6)^(-1/3). OLMo-ladder uses a quarter."""
    batch_sequences: Count | None = None
    """Sequences a step, the same for all sizes. Empty with the scaled rule: batch follows size."""
    batch_multiplier: Positive = 0.5
    """Scaled rule: factor on 160·(N/108e6)^(2/3) sequences of 2048 tokens. OLMo-ladder uses a half."""
    min_batch_tokens: Count = 1024
    """Scaled rule: no batch is smaller than this."""
    warmup_fraction: Fraction = 0.0625
    """Share of the steps spent warming up."""
    decay_fraction: Fraction = 0.1
    """Share of the steps, at the end, spent decaying to zero."""
    weight_decay: NonNegative = 0.1
    """Decoupled weight decay (not on norms and embeddings)."""
    beta1: OpenFraction = 0.9
    """AdamW first-moment decay."""
    beta2: OpenFraction = 0.95
    """AdamW second-moment decay."""
    grad_clip: Positive = 1.0
    """Largest gradient norm."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast with fp32 weights; for GPUs (on CPUs it is far slower than fp32)."""
    compile: bool = False
    """Use torch.compile."""
    checkpoint_every_seconds: Positive = 60.0
    """How much work a killed run may lose, at most."""

    @model_validator(mode="after")
    def _rule_has_its_numbers(self) -> Training:
        if self.rule == "fixed" and (self.learning_rate is None or self.batch_sequences is None):
            raise ValueError("rule fixed needs both `learning_rate` and `batch_sequences`")
        if self.rule == "scaled" and self.learning_rate is not None:
            raise ValueError(
                "`learning_rate` goes with rule fixed; for rule scaled set `learning_rate_multiplier`"
            )
        if self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError("warmup_fraction + decay_fraction must not exceed 1")
        return self


class Engine(Part):
    """Where the runs run."""

    kind: Literal["local"] = "local"
    """local: one process per run, as many side by side as there are slots."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: GPUs if there are any."""
    slots: Count | None = None
    """Runs side by side. Default: one per GPU, or one per `threads_per_slot` cores."""
    threads_per_slot: Count = 1
    """CPU threads of one run. Results on CPU repeat exactly only for the same number."""


class Hardware(Part):
    """For the estimate of `mixplan plan`. The defaults were measured on one CPU core with cpu_ presets."""

    name: str = "one CPU core"
    """What a slot is."""
    peak_flops_per_second: Positive = 6.4e10
    """Peak rate of one slot."""
    mfu: OpenFraction = 0.8
    """Share of the peak that training reaches on large matrices. Required with `peak_flops_per_second`,
    because the default is a CPU core's."""
    step_overhead_seconds: NonNegative = 0.06
    """Time per step that does not shrink with the model: what tiny models spend most of theirs on."""
    start_seconds: NonNegative = 4.0
    """Time of a run before its first step: imports, model, data."""
    price_per_slot_hour: NonNegative = 0.0
    """Money per slot and hour."""
    currency: str = "USD"
    """Currency of the price."""

    @model_validator(mode="after")
    def _rate_is_whole(self) -> Hardware:
        if "peak_flops_per_second" in self.model_fields_set and "mfu" not in self.model_fields_set:
            raise ValueError(
                "give `mfu` together with `peak_flops_per_second`: the default is that of a CPU core"
            )
        return self
