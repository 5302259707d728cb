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
from mixplan.documents.shapes import ModelSize
from mixplan.documents.suggest import did_you_mean


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
    repetition_half_life_epochs: Positive | None = None
    """R* of arXiv 2305.16264, eq. 5, in epochs, as the plan has it: what repeats are worth."""


class RecipePhase(Part):
    """A part of the run with shares of its own: e.g. stable, then anneal."""

    name: Name
    """Also the name of its folder in the emitted mixture."""
    samples: Count
    """Samples of the phase; the `choose` of its sources sum to it."""
    choose: dict[Name, Whole]
    """Samples of each source in it; a source that is left out has none."""


class TaskPrediction(Part):
    """What the laws say about one task under one mixture."""

    frequency: NonNegative
    """Instances per training token, after the discount for repetition; of a source as a whole, its share."""
    skill: Number | None = None
    """Mean predicted skill. Empty where the target is in bits per byte."""
    skill_low: Number | None = None
    """Lower end of the 90 % interval for a new run."""
    skill_high: Number | None = None
    """Upper end of the 90 % interval for a new run."""
    bits_per_byte: Number | None = None
    """The same of a target in bits per byte: median over draws."""
    bits_per_byte_low: Number | None = None
    bits_per_byte_high: Number | None = None
    p_learned: Fraction
    """Probability that a run has learned it (has reached its target), averaged over the laws' draws."""
    p_learned_low: Fraction | None = None
    """Lower end of the 90 % interval of that probability over the draws: what the laws leave open."""
    p_learned_high: Fraction | None = None
    p_at_confidence: Fraction | None = None
    """Probability that is at least reached with the task's `confidence`; empty where it states none."""
    extrapolated: bool
    """True when size, tokens, frequency or complexity lie outside what was measured."""
    why_extrapolated: list[str] = []
    """Which of them, and by how much."""


class RecipeTask(Part):
    """One rare task under the natural mixture and under this one, both at the recommended size and tokens."""

    name: Name
    family: str
    complexity: Positive
    density: dict[Name, NonNegative] = {}
    """Instances per token of each source that holds it, as the plan has it; of a source as a whole, 1."""
    equivalent: bool = False
    """True when the plan states this kind as the equivalent of a task that was not measured."""
    target_probability: Fraction
    confidence: Fraction | None = None
    """Part of the draws in which the target must hold; empty: on average."""
    target_skill: Number | None = None
    """What counts as learned, where the plan says it; empty: the calibration's threshold, or bits per
    byte."""
    target_bits_per_byte: Positive | None = None
    value: Positive = 1.0
    natural: TaskPrediction
    recommended: TaskPrediction
    regime: Literal["sample-limited", "capacity-limited", "repetition-limited"] | None = None
    """What keeps it from more: training length, model size, or how few unique instances there are."""
    lever: str = ""
    """What would help it, with the numbers behind it."""


class Sensitivity(Part):
    """How much of what is open about one task's probability goes with one parameter of the laws."""

    task: Name
    parameter: str
    """In words."""
    variance_share: Fraction
    """Squared rank correlation with the probability over the draws."""
    p_at_low: Fraction
    """Mean probability over the fifth of the draws where the parameter is lowest."""
    p_at_high: Fraction
    """The same where it is highest."""


class MissingData(Part):
    """Data of one source that would have to be collected to close the gap to the unconstrained answer."""

    source: Name
    tokens_available: Positive
    tokens_needed: Positive
    """Unique tokens with which its cap on epochs would allow the unconstrained answer."""
    tokens_missing: Positive


class Cost(Part):
    """What the training costs."""

    flops: Positive
    """Training."""
    lifetime_flops: Positive | None = None
    """Training and inference of the plan's `inference_tokens`; empty where there are none."""
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
    """FLOPs of the answer when this one limit is dropped; empty where it was not computed."""
    gain_without: str = ""
    """What that has over the answer, in the unit of the plan's objective."""
    eased: Number | None = None
    """The limit, moved a little: one more epoch, 1 % more budget, a share or loss bound 10 % wider, a target
    0.01 lower."""
    flops_eased: Positive | None = None
    """FLOPs of the answer with that."""
    gain_eased: str = ""
    """What that has over the answer, in the unit of the plan's objective: the limit's price."""


class Alternative(Part):
    """Another answer, for comparison."""

    role: str = ""
    """What it stands for: chosen; next size down, next size up, other size (the best there); a tenth cheaper
    (the best for so much less); natural mixture; as asked (what-if); without caps and bounds; with the data
    collected."""
    size: str
    block_params: Count
    tokens: Positive
    flops: Positive
    shares: dict[str, Fraction]
    epochs: dict[str, NonNegative] = {}
    p_learned: dict[str, Fraction]
    """Mean over the draws."""
    p_learned_low: dict[str, Fraction] = {}
    """Ends of the 90 % interval over the draws."""
    p_learned_high: dict[str, Fraction] = {}
    lifetime_flops: Positive | None = None
    """Training and inference; empty where the plan has no inference."""
    gpu_hours: NonNegative | None = None
    money: NonNegative | None = None
    common_loss_nats: Number | None = None
    """Predicted LM loss on common data; empty where no model can have it: above ln(vocabulary size)."""
    common_loss_increase_nats: Number | None = None
    """Against the natural mixture at the same size and tokens."""
    worth: Number | None = None
    """What the objectives most_tasks and value are after: the value of the targets reached, and the sum of
    value × probability. Empty with others."""
    feasible: bool
    note: str = ""


class Recipe(Document):
    """recipe.yaml."""

    name: Name
    size: ModelSize
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
    phases: list[RecipePhase] = []
    """One after another, in this order; each becomes a mixture of its own. Together they are the recipe:
    their samples, and those of each source, add up to it. Empty: one phase, the whole run."""
    tasks: list[RecipeTask] = []
    cost: Cost | None = None
    common_loss_nats: Number | None = None
    """Predicted LM loss on common data. Empty without a law, and where it would be more than guessing, ln
    (vocabulary size)."""
    common_loss_increase_nats: Number | None = None
    """Against the natural mixture at the same size and tokens."""
    common_loss_increase_low: Number | None = None
    """Ends of its 90 % interval over the draws of the loss law."""
    common_loss_increase_high: Number | None = None
    objective: str = "cheapest"
    p_all_targets: Fraction | None = None
    """Part of the draws in which every task's probability is at least its target, all at once."""
    p_size_cheapest: Fraction | None = None
    """Part of the draws in which this size stays the cheapest, each size at its own best shares and as long
    as that draw asks for. Empty with one size, or another objective."""
    sensitivity: list[Sensitivity] = []
    """The parameters that matter most for each task."""
    binds: list[Binding] = []
    unconstrained: Alternative | None = None
    """The answer without caps, share bounds and the loss bound (budget kept)."""
    missing_data: list[MissingData] = []
    """What to collect so that caps on epochs no longer stand in the way; natural shares stay as they are."""
    with_data: Alternative | None = None
    """The plan solved anew with that data."""
    candidates: list[Alternative] = []
    """The chosen answer and what it was chosen against."""
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
        problems += self._phase_problems()
        if problems:
            raise RulesBroken(problems)
        return self

    def _phase_problems(self) -> list[str]:
        if not self.phases:
            return []
        problems: list[str] = []
        wanted = {source.name: source.choose for source in self.sources}
        names = [phase.name for phase in self.phases]
        problems += [f"phase {name!r} is given twice" for name in sorted(set(names)) if names.count(name) > 1]
        for phase in self.phases:
            problems += [
                f"phase {phase.name!r} has an unknown source, {name!r}{did_you_mean(name, wanted)}"
                for name in phase.choose
                if name not in wanted
            ]
            if (chosen := sum(phase.choose.values())) != phase.samples:
                problems.append(
                    f"phase {phase.name!r}: `choose` sums to {chosen}, but its samples are {phase.samples}"
                )
        for name, choose in wanted.items():
            if (there := sum(phase.choose.get(name, 0) for phase in self.phases)) != choose:
                problems.append(
                    f"source {name!r}: its phases choose {there} samples together, the recipe {choose}"
                )
        return problems
