"""recipe.yaml: the chosen size, token budget and shares, what they are predicted to give, and why."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import model_validator

from mixplan.documents.base import (
    Count,
    Document,
    Fraction,
    Name,
    NonNegative,
    Number,
    Part,
    Positive,
    Provenance,
    RulesBroken,
    Whole,
)
from mixplan.documents.calibration_spec import Tokenizer
from mixplan.documents.shapes import ModelShape


class RecipeSource(Part):
    """One source's part of the mixture."""

    name: Name
    role: Literal["common", "rare"]
    share: Fraction
    """Fraction of the mixture's tokens: choose ÷ samples."""
    natural_share: Fraction
    """The share when nothing is upsampled."""
    rate: NonNegative
    """Upsampling rate: share ÷ natural share."""
    epochs: NonNegative
    """tokens ÷ tokens_available."""
    max_epochs: Positive
    """The cap that held."""
    tokens: Whole
    """choose × sequence_length."""
    tokens_available: Positive
    """Unique tokens of the source."""
    choose: Whole
    """Samples of `sequence_length` tokens, over the whole run."""
    mds: str | None = None
    """Folder of its MDS shards, relative to this file, or a URL that Streaming understands."""


class TaskPrediction(Part):
    """What the laws say about one task under one mixture."""

    frequency: NonNegative
    """Instances per training token, after the discount for repetition."""
    skill: Number
    """Mean predicted skill."""
    skill_low: Number
    """Lower end of the 90 % interval for a new run."""
    skill_high: Number
    """Upper end of the 90 % interval for a new run."""
    p_learned: Fraction
    """Probability that a run has learned it."""
    extrapolated: bool
    """True when size, tokens, frequency or complexity lie outside what was measured."""
    why_extrapolated: list[str] = []
    """Which of them, and by how much."""


class RecipeTask(Part):
    """One rare task under the natural mixture and under this one, both at the recommended size and tokens."""

    name: Name
    family: str
    complexity: Positive
    target_probability: Fraction
    natural: TaskPrediction
    recommended: TaskPrediction


class Cost(Part):
    """What the training costs."""

    flops: Positive
    gpu_hours: NonNegative | None = None
    money: NonNegative | None = None
    currency: str | None = None


class Binding(Part):
    """A limit that the answer touches."""

    constraint: str
    """Which: e.g. `budget.tokens`, `sources.kjv.max_epochs`, `constraints.max_common_loss_increase_nats`."""
    value: Number
    """What the answer uses."""
    limit: Number
    """What is allowed."""
    flops_without: Positive | None = None
    """FLOPs of the cheapest answer when this one limit is dropped; empty where that was not computed."""


class Alternative(Part):
    """Another answer, for comparison."""

    size: str
    block_params: Count
    tokens: Positive
    flops: Positive
    shares: dict[str, Fraction]
    p_learned: dict[str, Fraction]
    feasible: bool
    note: str = ""


class Recipe(Document):
    """recipe.yaml."""

    name: Name
    size: ModelShape
    block_params: Count
    total_params: Count
    vocab_size: Count
    tokenizer: Tokenizer = Tokenizer()
    sequence_length: Count
    samples: Count
    """Samples of the whole run; the `choose` of all sources sum to it."""
    tokens: Count
    """samples × sequence_length."""
    sources: list[RecipeSource]
    tasks: list[RecipeTask] = []
    cost: Cost | None = None
    common_loss_nats: Number | None = None
    """Predicted LM loss on common data."""
    common_loss_increase_nats: Number | None = None
    """Against the natural mixture at the same size and tokens."""
    binds: list[Binding] = []
    unconstrained: Alternative | None = None
    """The answer without caps, share bounds and the loss bound (budget kept)."""
    candidates: list[Alternative] = []
    """The best answer found at each size."""
    warnings: list[str] = []
    """What to know before spending the money: extrapolation, censored tasks, unbounded common loss."""
    shuffle_seed: Whole = 17
    provenance: Provenance = {}

    @model_validator(mode="after")
    def _adds_up(self) -> Recipe:
        problems: list[str] = []
        names = [source.name for source in self.sources]
        problems += [
            f"source {name!r} is given twice" for name in sorted(set(names)) if names.count(name) > 1
        ]
        chosen = sum(source.choose for source in self.sources)
        if chosen != self.samples:
            problems.append(f"`choose` sums to {chosen} over the sources, but samples is {self.samples}")
        if self.tokens != self.samples * self.sequence_length:
            problems.append(
                f"tokens is {self.tokens}, but samples × sequence_length is "
                f"{self.samples * self.sequence_length}"
            )
        shares = sum(source.share for source in self.sources)
        if not math.isclose(shares, 1.0, abs_tol=1e-6):
            problems.append(f"shares sum to {shares:.6g}; they must sum to 1")
        for source in self.sources:
            if abs(source.share - source.choose / self.samples) > 1e-6:
                problems.append(
                    f"source {source.name!r}: share {source.share:g} is not choose ÷ samples = "
                    f"{source.choose / self.samples:g}"
                )
            if source.tokens != source.choose * self.sequence_length:
                problems.append(f"source {source.name!r}: tokens is not choose × sequence_length")
        if problems:
            raise RulesBroken(problems)
        return self
