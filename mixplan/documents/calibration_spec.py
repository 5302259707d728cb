"""calibration.yaml: what ladder to train, on what, with which tasks injected, and what to measure."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import field_validator, model_validator

from mixplan.documents.base import (
    Count,
    Document,
    Fraction,
    Name,
    NonNegative,
    OpenFraction,
    Part,
    Positive,
    Whole,
)
from mixplan.documents.shapes import ModelShape, as_shapes, check_presets

T = TypeVar("T")
SyntheticFamily = Literal["comparison", "modular_addition", "table_lookup"]


class Corpus(Part):
    """The base text that the tasks are injected into."""

    format: Literal["text", "npy", "mds", "datasets"] = "text"
    """text: files as bytes or through the tokenizer; npy: token arrays; mds: a Streaming folder; datasets:
    a folder written by `Dataset.save_to_disk`."""
    paths: list[str]
    """Files, folders or glob patterns, relative to this file."""
    pattern: str = "*"
    """Which files to take from a folder (text and npy), searched recursively."""
    column: str | None = None
    """Column that holds the text or the tokens (mds, datasets). Default: `tokens`, else `text`."""
    dtype: Literal["uint8", "uint16", "uint32", "int32", "int64"] = "uint16"
    """Integer type of header-less .npy token files (OLMo's format); a NumPy header says it itself."""
    max_tokens: Count | None = None
    """Use at most this many training tokens of the corpus."""
    held_out_fraction: OpenFraction = 0.05
    """Share of the corpus kept out of training, for the LM loss."""

    @field_validator("paths")
    @classmethod
    def _some(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("at least one path is needed")
        return value


class Tokenizer(Part):
    """How text becomes tokens."""

    kind: Literal["bytes", "huggingface", "none"] = "bytes"
    """bytes: 256 bytes + end-of-document; huggingface: a local tokenizer folder; none: corpus of tokens."""
    path: str | None = None
    """Tokenizer folder (tokenizer.json inside), relative to this file. Only with kind huggingface."""
    vocab_size: Count | None = None
    """Size of the vocabulary of a tokenised corpus. Only with kind none."""
    end_of_document_id: Whole | None = None
    """End-of-document token of a tokenised corpus. Only with kind none."""

    @model_validator(mode="after")
    def _fits_kind(self) -> Tokenizer:
        if (self.kind == "huggingface") != (self.path is not None):
            raise ValueError("`path` goes with kind huggingface, and only with it")
        if (self.kind == "none") != (self.vocab_size is not None and self.end_of_document_id is not None):
            raise ValueError("`vocab_size` and `end_of_document_id` go with kind none, and only with it")
        return self


class Horizons(Part):
    """How long each rung trains. Each horizon is a run of its own, with its own decay."""

    tokens: list[Count] = []
    """Absolute token counts."""
    tokens_per_20_params: list[Positive] = []
    """Multiples of 20 tokens a block parameter (1 = Chinchilla-optimal)."""

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


class TaskGrid(Part):
    """One family at several complexities, each at several frequencies: one task of its own per cell."""

    family: SyntheticFamily
    """comparison: which of two symbols is larger; modular_addition: (a + b) mod p; table_lookup: a random
    function of two symbols, asked in other ways than it was taught."""
    complexities: list[Count]
    """comparison: items compared; modular_addition: the modulus; table_lookup: the side of the table."""
    frequencies: list[Positive]
    """Injected instances per training token."""

    @field_validator("complexities")
    @classmethod
    def _hard_enough(cls, value: list[int]) -> list[int]:
        if not value or min(value) < 3:
            raise ValueError("each complexity must be at least 3, or no instance is left to hold out")
        return _distinct(value)

    @field_validator("frequencies")
    @classmethod
    def _distinct_frequencies(cls, value: list[float]) -> list[float]:
        return _distinct(value)


class UserTask(Part):
    """A task of the team's own, from JSONL with prompt, answer, choices, split (train or test)."""

    name: Name
    """Becomes the family name in the measurements."""
    path: str
    """JSONL file, relative to this file."""
    complexity: Count = 1
    """A number that grows with difficulty within the family, if there are several such tasks."""
    family: Name | None = None
    """Family that several files share. Default: the task's own name."""
    frequencies: list[Positive]
    """Injected instances per training token. A text can only have one frequency in a run, so each further
    frequency is a further run of every rung (variant j takes the j-th)."""

    @field_validator("frequencies")
    @classmethod
    def _distinct_frequencies(cls, value: list[float]) -> list[float]:
        return _distinct(value)


class Retention(Part):
    """A burst of a never-seen task, then ordinary training: what is left of the gain after each delay."""

    at_fraction: OpenFraction = 0.4
    """When, as a share of the run."""
    instances: Count = 1024
    """Instances in the burst, of each probe task, over all its steps."""
    burst_steps: Count = 32
    """Consecutive steps the burst is spread over. In a single step only the answer tokens are learned."""
    family: SyntheticFamily = "table_lookup"
    """Family of the probe tasks."""
    complexity: Count = 3
    """Complexity of the probe tasks."""
    replicas: Count = 4
    """Independent probe tasks in the same burst, each with its own symbols."""
    delays_steps: list[Whole] = [0, 1, 2, 4, 8, 16, 32, 64, 128]
    """Delays after the burst, in steps; reported in tokens."""


class Interference(Part):
    """Gradients of common data against the gradient of each task."""

    points: Whole = 4
    """How many times in the run, evenly spaced."""
    batch_sequences: Count = 32
    """Sequences of clean text for the common gradient."""


class Probes(Part):
    """What is measured on the way."""

    evaluations: Count = 10
    """How many times skill and LM loss are measured, evenly spaced; the last is at the end."""
    max_instances: Count = 256
    """Unseen instances scored per cell and evaluation, at most."""
    lm_loss_tokens: Count = 65536
    """Held-out tokens scored for the LM loss, at most."""
    retention: Retention | None = Retention()
    """The retention probe; null to leave it out."""
    interference: Interference | None = Interference()
    """The interference probe; null to leave it out."""


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


class CalibrationSpec(Document):
    """calibration.yaml."""

    name: Name = "ladder"
    """Name of this calibration."""
    corpus: Corpus
    tokenizer: Tokenizer = Tokenizer()
    ladder: list[str | ModelShape]
    """Rungs: preset names (`mixplan schema presets` lists them) or explicit shapes."""
    horizons: Horizons
    sequence_length: Count = 128
    """Tokens a sequence."""
    training: Training = Training()
    seeds: list[Whole] = [0]
    """One run per rung, horizon and seed."""
    tasks: list[TaskGrid] = []
    user_tasks: list[UserTask] = []
    probes: Probes = Probes()
    engine: Engine = Engine()
    hardware: Hardware = Hardware()
    learned_skill: OpenFraction = 0.8
    """Skill from which a task counts as learned."""

    @field_validator("ladder")
    @classmethod
    def _known_rungs(cls, value: list[str | ModelShape]) -> list[str | ModelShape]:
        check_presets(value)
        _distinct([rung if isinstance(rung, str) else rung.name for rung in value])
        return value

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: list[int]) -> list[int]:
        return _distinct(value)

    @model_validator(mode="after")
    def _something_to_measure(self) -> CalibrationSpec:
        if not self.tasks and not self.user_tasks:
            raise ValueError("give at least one task under `tasks` or `user_tasks`")
        if self.user_tasks:
            _distinct([task.name for task in self.user_tasks])
        return self

    def shapes(self) -> list[ModelShape]:
        """The rungs, smallest first."""
        return as_shapes(self.ladder)


def _distinct(value: list[T]) -> list[T]:
    if not value:
        raise ValueError("at least one value is needed")
    twice = sorted({str(item) for item in value if value.count(item) > 1})
    if twice:
        raise ValueError(f"given twice: {', '.join(twice)}")
    return value
