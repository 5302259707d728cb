"""plan.yaml: the sources, the rare tasks in them, the sizes to consider, and the limits."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import field_validator, model_validator

from mixplan.documents.base import (
    Count,
    Document,
    Fraction,
    Name,
    NonNegative,
    OpenFraction,
    Part,
    Place,
    Positive,
    RulesBroken,
    Whole,
)
from mixplan.documents.calibration_spec import Tokenizer
from mixplan.documents.shapes import ModelShape, as_shapes, check_presets
from mixplan.documents.suggest import did_you_mean


class PlanSource(Part):
    """A body of data."""

    name: Name
    """Also the name of its folder and of its stream."""
    role: Literal["common", "rare"]
    """rare: its upsampling rate is searched; common: shares what is left, in natural proportion."""
    text: list[str] = []
    """Raw text files, folders or glob patterns that `mixplan build` turns into MDS; relative to this file."""
    pattern: str = "*"
    """Which files to take from a folder under `text`, searched recursively."""
    mds: str | None = None
    """Folder of its MDS shards: where `build` writes and the emitted streams read. Relative to this file, or
    a URL that Streaming understands."""
    tokens_available: Positive | None = None
    """Unique tokens. Default: counted from the index of its MDS folder."""
    natural_share: Fraction | None = None
    """Share of the mixture when nothing is upsampled. Default, if no source gives it: by tokens available."""
    max_epochs: Positive = 4.0
    """How often it may be repeated (arXiv 2305.16264: up to 4 epochs are nearly as good as fresh)."""
    repetition_half_life_epochs: Positive = 15.39
    """R* of arXiv 2305.16264, eq. 5: repeats are worth U·R*(1 − e^(−R/R*)) fresh tokens."""
    min_share: Fraction = 0.0
    """Lower bound on its share."""
    max_share: Fraction = 1.0
    """Upper bound on its share."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> PlanSource:
        if self.min_share > self.max_share:
            raise ValueError(f"min_share={self.min_share:g} exceeds max_share={self.max_share:g}")
        return self


class PlanTask(Part):
    """A rare skill that the model should have at the end."""

    name: Name
    density: dict[str, Positive]
    """Instances per token of each source that holds it."""
    family: str
    """Calibrated family whose difficulty it has: a synthetic one, or the team's own measured task."""
    complexity: Positive
    """Complexity within that family."""
    target_probability: OpenFraction = 0.8
    """Probability with which a run must have learned it."""


class Budget(Part):
    """What may be spent. At least one; all that are given hold."""

    tokens: Positive | None = None
    """Training tokens."""
    flops: Positive | None = None
    """Training FLOPs."""
    gpu_hours: Positive | None = None
    """Accelerator hours; needs `hardware`."""
    money: Positive | None = None
    """In the currency of `hardware`."""

    @model_validator(mode="after")
    def _some_limit(self) -> Budget:
        if self.tokens is None and self.flops is None and self.gpu_hours is None and self.money is None:
            raise ValueError("give at least one of tokens, flops, gpu_hours, money")
        return self


class PlanHardware(Part):
    """Turns FLOPs into hours and money."""

    name: str = "accelerator"
    peak_flops_per_second: Positive
    """Peak rate of one device at the training precision."""
    mfu: OpenFraction = 0.4
    """Share of the peak that the training run reaches."""
    price_per_device_hour: NonNegative = 0.0
    """Money per device and hour."""
    currency: str = "USD"


class Constraints(Part):
    """What the mixture must not do."""

    max_common_loss_increase_nats: NonNegative | None = None
    """Largest increase of the LM loss on common data (nats per token) against the natural mixture of the same
    size and token count."""


class Search(Part):
    """The optimiser."""

    trials: Count = 400
    seed: Whole = 0


class Plan(Document):
    """plan.yaml."""

    name: Name = "plan"
    sources: list[PlanSource]
    tasks: list[PlanTask]
    sizes: list[str | ModelShape]
    """Sizes to choose from: preset names or explicit shapes."""
    tokenizer: Tokenizer = Tokenizer()
    sequence_length: Count = 2048
    """Tokens a sample."""
    vocab_size: Count | None = None
    """For FLOPs and total parameters. Default: 257 with the bytes tokenizer (required otherwise)."""
    min_tokens: Positive | None = None
    """Shortest training to consider. Default: a hundredth of the longest that the budget allows."""
    budget: Budget
    hardware: PlanHardware | None = None
    constraints: Constraints = Constraints()
    objective: Literal["cheapest"] = "cheapest"
    """cheapest: the fewest FLOPs that reach every task's target."""
    search: Search = Search()

    @field_validator("sizes")
    @classmethod
    def _known_sizes(cls, value: list[str | ModelShape]) -> list[str | ModelShape]:
        check_presets(value)
        return value

    @model_validator(mode="after")
    def _hangs_together(self) -> Plan:
        problems: list[str | tuple[Place, str]] = []
        names = [source.name for source in self.sources]
        task_names = [task.name for task in self.tasks]
        for what, listed in (("source", names), ("task", task_names)):
            problems += [
                f"{what} {name!r} is given twice" for name in sorted(set(listed)) if listed.count(name) > 1
            ]
        if not any(source.role == "common" for source in self.sources):
            problems.append("at least one source needs role: common, or nothing gives way to the rare ones")
        for index, task in enumerate(self.tasks):
            at: Place = ("tasks", index, "density")
            if not task.density:
                problems.append(
                    (at, f"task {task.name!r} is in no source; give `density` at least one source")
                )
            problems += [
                (
                    (*at, name),
                    f"task {task.name!r} has a density in an unknown source{did_you_mean(name, names)}",
                )
                for name in task.density
                if name not in names
            ]
        given = [source.natural_share for source in self.sources if source.natural_share is not None]
        if given and len(given) < len(names):
            problems.append("natural_share is given for some sources only; give it for all or for none")
        elif given and not math.isclose(sum(given), 1.0, abs_tol=1e-6):
            problems.append(f"natural shares sum to {sum(given):.6g}; they must sum to 1")
        if sum(source.min_share for source in self.sources) > 1 + 1e-9:
            total = sum(source.min_share for source in self.sources)
            problems.append(
                f"the lower bounds on shares sum to {total:.6g}; shares can only sum to 1: lower them"
            )
        if sum(source.max_share for source in self.sources) < 1 - 1e-9:
            total = sum(source.max_share for source in self.sources)
            problems.append(
                f"the upper bounds on shares sum to {total:.6g}; shares must sum to 1: raise them"
            )
        if (self.budget.gpu_hours or self.budget.money) and self.hardware is None:
            problems.append("a budget in gpu_hours or money needs `hardware`")
        if self.budget.money and self.hardware is not None and self.hardware.price_per_device_hour == 0:
            problems.append("a budget in money needs hardware.price_per_device_hour above 0")
        if self.vocab_size is None and self.tokenizer.kind == "huggingface":
            problems.append("vocab_size is needed with a huggingface tokenizer")
        if problems:
            raise RulesBroken(problems)
        return self

    def shapes(self) -> list[ModelShape]:
        """The sizes to consider, smallest first."""
        return as_shapes(self.sizes)

    @property
    def vocabulary(self) -> int:
        """Size of the vocabulary, for FLOPs."""
        if self.vocab_size is not None:
            return self.vocab_size
        return self.tokenizer.vocab_size or 257
