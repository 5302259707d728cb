"""The pieces of plan.yaml: sources, groups of them, tasks, sizes, limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import field_validator, model_validator

from mixplan.documents.base import (
    Count,
    Fraction,
    Name,
    NonNegative,
    OpenFraction,
    Part,
    Positive,
    RulesBroken,
    Whole,
    distinct,
)
from mixplan.documents.shapes import PRESETS, ModelShape
from mixplan.documents.suggest import did_you_mean


class PlanData(Part):
    """Where the text or the tokens of a source are: what `mixplan scan` counts and `mixplan build` reads."""

    format: Literal["text", "jsonl", "parquet", "npy", "mds", "dataset"] = "text"
    """text, jsonl, parquet: text that the plan's tokenizer turns into tokens, compressed or not; parquet may
    also hold token lists. npy: token arrays, with a NumPy header or without (OLMo's). mds: Streaming
    folders. dataset: a Hugging Face dataset, of text or token lists."""
    paths: list[str]
    """Files, folders or glob patterns, relative to the plan; dataset: folders that `save_to_disk` wrote, or
    names (which need the network, or a filled cache)."""
    pattern: str = "*"
    """Which files to take from a folder, searched recursively; "*" means *.npy and *.parquet with those."""
    column: str = "text"
    """jsonl, parquet, dataset: the field with the text, or (not jsonl) with the list of tokens."""
    dtype: Literal["uint8", "uint16", "uint32", "int32", "int64"] = "uint16"
    """Integer type of header-less .npy token files; a NumPy header says it itself."""
    subset: str | None = None
    """dataset by name: which of its configurations."""
    split: str | None = None
    """dataset: which split, where there are several."""

    @field_validator("paths")
    @classmethod
    def _some(cls, value: list[str]) -> list[str]:
        return distinct(value)

    @model_validator(mode="after")
    def _of_a_dataset(self) -> PlanData:
        if self.format != "dataset" and (self.subset is not None or self.split is not None):
            raise ValueError("`subset` and `split` go with format dataset, and only with it")
        return self


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
    data: PlanData | None = None
    """Where it is in any other form; `mixplan build` takes it before `text`, as `mixplan scan` does."""
    tokens_available: Positive | None = None
    """Unique tokens. Default: counted from the index of its MDS folder; `mixplan scan` counts other forms."""
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


class PlanGroup(Part):
    """Sources whose shares are bounded together; a source is in one group at most."""

    name: Name
    sources: list[Name]
    min_share: Fraction = 0.0
    """Lower bound on the sum of their shares."""
    max_share: Fraction = 1.0
    """Upper bound on the sum of their shares."""

    @field_validator("sources")
    @classmethod
    def _some(cls, value: list[str]) -> list[str]:
        return distinct(value)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> PlanGroup:
        if self.min_share > self.max_share:
            raise ValueError(f"min_share={self.min_share:g} exceeds max_share={self.max_share:g}")
        return self


class Equivalent(Part):
    """A calibrated task kind that a task is stated to be as hard as: an assumption, and shown as one."""

    family: str
    complexity: Positive


class PlanTask(Part):
    """A rare skill that the model should have at the end, or a source that it should be good at.

    Where it is met: `density`, or `source` for a source as a whole. How hard it is: `family` (and
    `complexity`), or `equivalent`. What is asked: `target_probability`, for a source as a whole of reaching
    `target_gain` or `target_bits_per_byte`.
    """

    name: Name
    density: dict[str, Positive] = {}
    """Instances per token of each source that holds it."""
    source: Name | None = None
    """The source that it is, as a whole: its frequency is then the share of that source."""
    family: str | None = None
    """Calibrated family whose difficulty it has: a synthetic one, or the team's own measured task or source.
    Default for a source as a whole: the source's name."""
    complexity: Positive | None = None
    """Complexity within that family. Default: the measured one, where there is one only."""
    equivalent: Equivalent | None = None
    """In place of family and complexity, where it was not measured itself."""
    target_probability: OpenFraction = 0.8
    """Probability with which a run must have learned it (or reached the target of its source)."""
    confidence: OpenFraction | None = None
    """With this confidence the probability must be at least the target: it holds in so large a part of the
    draws of the laws' parameters. Default: the probability is averaged over them."""
    target_gain: OpenFraction | None = None
    """A source as a whole: share of the reachable gain, i.e. of the gap in bits per byte between a run
    without it and one at its saturating share. Default: the calibration's `learned_skill`."""
    target_bits_per_byte: Positive | None = None
    """A source as a whole, in place of `target_gain`: at most so many bits per byte on its held-out text."""
    value: Positive = 1.0
    """What having it is worth against the other tasks; for the objectives `most_tasks` and `value`."""

    @model_validator(mode="after")
    def _one_way_each(self) -> PlanTask:
        problems = []
        if (self.source is None) == (not self.density):
            problems.append(
                f"task {self.name!r} is in no source; give `density` at least one source, or `source` for a "
                "source as a whole"
                if self.source is None
                else f"task {self.name!r}: give `density` or `source`, not both"
            )
        if self.equivalent is not None and (self.family is not None or self.complexity is not None):
            problems.append(
                f"task {self.name!r}: `equivalent` stands in place of family and complexity; give one or the "
                "other"
            )
        if self.equivalent is None and self.family is None and self.source is None:
            problems.append(
                f"task {self.name!r} has no difficulty; give `family` and `complexity`, or `equivalent`"
            )
        whole = self.target_gain is not None or self.target_bits_per_byte is not None
        if whole and self.source is None:
            problems.append(
                f"task {self.name!r}: target_gain and target_bits_per_byte speak of a source as a whole; "
                "give `source` in place of `density`"
            )
        if self.target_gain is not None and self.target_bits_per_byte is not None:
            problems.append(f"task {self.name!r}: give target_gain or target_bits_per_byte, not both")
        if problems:
            raise RulesBroken(problems)
        return self

    @property
    def kind(self) -> tuple[str, float | None]:
        """Family and complexity; complexity None: the only measured one."""
        if self.equivalent is not None:
            return self.equivalent.family, self.equivalent.complexity
        return self.family or self.source or "", self.complexity

    def densities(self) -> dict[str, float]:
        """Instances per token of each source; a source as a whole counts its tokens."""
        return dict(self.density) if self.source is None else {self.source: 1.0}

    def measured_kind(self, families: Mapping[str, list[float]]) -> tuple[str, float]:
        """Its family and complexity among the measured ones.

        Raises:
            ValueError: it was not measured; says what was.
        """
        family, complexity = self.kind
        if family not in families:
            raise ValueError(
                f"task {self.name!r}: family {family!r} was not calibrated{did_you_mean(family, families)}"
            )
        known = families[family]
        if complexity is None and len(known) == 1:
            return family, known[0]
        shown = ", ".join(f"{level:g}" for level in known)
        if complexity is None:
            raise ValueError(
                f"task {self.name!r}: family {family!r} was calibrated at several complexities ({shown}); "
                "give `complexity`"
            )
        nearest = min(known, key=lambda level: abs(level - complexity))
        if not math.isclose(nearest, complexity):
            raise ValueError(
                f"task {self.name!r}: complexity {complexity:g} of family {family!r} was not calibrated "
                f"(calibrated: {shown}); did you mean {nearest:g}?"
            )
        return family, nearest


class SizeRange(Part):
    """All presets of a ladder between two sizes."""

    ladder: Literal["cpu", "datadecide", "olmo2", "paper"]
    """Which presets: `mixplan schema presets` lists them."""
    min_block_params: Positive | None = None
    max_block_params: Positive | None = None

    @model_validator(mode="after")
    def _some(self) -> SizeRange:
        low, high = self.min_block_params, self.max_block_params
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_block_params={low:,.0f} exceeds max_block_params={high:,.0f}")
        if not self.shapes():
            known = [f"{s.block_params:,} ({s.name})" for s in self._ladder()]
            raise ValueError(
                f"no {self.ladder} preset lies in this range; block parameters of that ladder: "
                f"{', '.join(known)}"
            )
        return self

    def _ladder(self) -> list[ModelShape]:
        return [shape for name, shape in PRESETS.items() if name.startswith(f"{self.ladder}_")]

    def shapes(self) -> list[ModelShape]:
        """The presets in the range."""
        low, high = self.min_block_params or 0.0, self.max_block_params or float("inf")
        return [shape for shape in self._ladder() if low <= shape.block_params <= high]


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
    """Mixtures that Optuna tries, beyond the analytic answers that it starts from. 400 take about 2 s with
    nsga2 and 5 to 8 s with tpe; gp takes seconds for each."""
    seed: Whole = 0
    sampler: Literal["nsga2", "tpe", "gp"] = "nsga2"
    """Optuna's sampler; benchmarks/samplers.md compares them."""
