"""plan.yaml: the sources, the rare tasks in them, the sizes to consider, and the limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, field_validator, model_validator

from mixplan.documents.base import Count, Document, Name, NonNegative, Place, Positive, RulesBroken
from mixplan.documents.calibration_spec import Tokenizer
from mixplan.documents.plan_parts import (
    Budget,
    Constraints,
    PlanGroup,
    PlanHardware,
    PlanSource,
    PlanTask,
    Search,
    SizeRange,
)
from mixplan.documents.shapes import (
    CountedSize,
    ModelShape,
    as_shapes,
    check_presets,
    kind_of_size,
)
from mixplan.documents.suggest import did_you_mean

TOLERANCE = 1e-9
"""Sums of shares may be off by so much."""


def _kind_of_size(value: Any) -> str:
    if isinstance(value, str):
        return "preset"
    ladder = "ladder" in value if isinstance(value, dict) else isinstance(value, SizeRange)
    return "range" if ladder else kind_of_size(value)


Size = Annotated[
    Annotated[str, Tag("preset")]
    | Annotated[ModelShape, Tag("shape")]
    | Annotated[CountedSize, Tag("counted")]
    | Annotated[SizeRange, Tag("range")],
    Discriminator(_kind_of_size),
]


class Plan(Document):
    """plan.yaml."""

    name: Name = "plan"
    sources: list[PlanSource]
    tasks: list[PlanTask]
    groups: list[PlanGroup] = []
    """Bounds on the shares of several sources together."""
    sizes: list[Size]
    """Sizes to choose from: preset names, explicit shapes, ranges of presets, and sizes of other
    architectures by their counts."""
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
    inference_tokens: NonNegative = 0.0
    """Tokens that the model will process after training. What they cost counts in the choice (a forward pass
    is a third of a training step's FLOPs), so that a smaller model may win; budgets are of training alone."""
    objective: Literal["cheapest", "most_tasks", "common_loss", "value"] = "cheapest"
    """cheapest: the fewest FLOPs that reach every task's target. most_tasks: as much `value` of tasks that
    reach their targets as the budget allows, then the fewest FLOPs. common_loss: the lowest loss on common
    data that leaves every target reached. value: the largest sum of value × probability learned."""
    search: Search = Search()

    @field_validator("sizes", mode="before")
    @classmethod
    def _a_list(cls, value: Any) -> Any:
        # One range or one name is what most would write first.
        return value if isinstance(value, list | tuple) else [value]

    @field_validator("sizes")
    @classmethod
    def _known_sizes(cls, value: list[Size]) -> list[Size]:
        check_presets(value)
        names = [shape.name for shape in _shapes(value)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"given twice: {', '.join(twice)}; keep one of each")
        return value

    @model_validator(mode="after")
    def _hangs_together(self) -> Plan:
        problems: list[str | tuple[Place, str]] = []
        names = [source.name for source in self.sources]
        task_names = [task.name for task in self.tasks]
        group_names = [group.name for group in self.groups]
        for what, listed in (("source", names), ("task", task_names), ("group", group_names)):
            problems += [
                f"{what} {name!r} is given twice" for name in sorted(set(listed)) if listed.count(name) > 1
            ]
        if not any(source.role == "common" for source in self.sources):
            problems.append("at least one source needs role: common, or nothing gives way to the rare ones")
        for index, task in enumerate(self.tasks):
            held = [task.source] if task.source is not None else list(task.density)
            key = "source" if task.source is not None else "density"
            problems += [
                (
                    ("tasks", index, key, *([] if key == "source" else [name])),
                    f"task {task.name!r} is in an unknown source, {name!r}{did_you_mean(name, names)}",
                )
                for name in held
                if name not in names
            ]
        given = [source.natural_share for source in self.sources if source.natural_share is not None]
        if given and len(given) < len(names):
            problems.append("natural_share is given for some sources only; give it for all or for none")
        elif given and not math.isclose(sum(given), 1.0, abs_tol=1e-6):
            problems.append(f"natural shares sum to {sum(given):.6g}; they must sum to 1")
        problems += self._group_problems(names)
        least, most = self._share_sums()
        if least > 1 + TOLERANCE:
            text = f"the lower bounds on shares sum to {least:.6g}; shares can only sum to 1: lower them"
            problems.append((("sources",), text))
        if self.sources and most < 1 - TOLERANCE:
            text = f"the upper bounds on shares sum to {most:.6g}; shares must sum to 1: raise them"
            problems.append((("sources",), text))
        if (self.budget.gpu_hours or self.budget.money) and self.hardware is None:
            problems.append("a budget in gpu_hours or money needs `hardware`")
        if self.budget.money and self.hardware is not None and self.hardware.price_per_device_hour == 0:
            problems.append("a budget in money needs hardware.price_per_device_hour above 0")
        if self.vocab_size is None and self.tokenizer.kind == "huggingface":
            problems.append("vocab_size is needed with a huggingface tokenizer")
        if problems:
            raise RulesBroken(problems)
        return self

    def _group_problems(self, names: list[str]) -> list[str | tuple[Place, str]]:
        problems: list[str | tuple[Place, str]] = []
        by_name = {source.name: source for source in self.sources}
        seen: dict[str, str] = {}
        for index, group in enumerate(self.groups):
            problems += [
                (
                    ("groups", index, "sources", at),
                    f"group {group.name!r} has an unknown source, {name!r}{did_you_mean(name, names)}",
                )
                for at, name in enumerate(group.sources)
                if name not in names
            ]
            for name in group.sources:
                if name in seen:
                    text = (
                        f"source {name!r} is in the groups {seen[name]!r} and {group.name!r}; one is allowed"
                    )
                    problems.append((("groups", index), text))
                seen[name] = group.name
            members = [by_name[name] for name in group.sources if name in by_name]
            least, most = sum(s.min_share for s in members), sum(s.max_share for s in members)
            where = f"group {group.name!r}: "
            if least > group.max_share + TOLERANCE:
                text = f"the min_share of its sources sum to {least:.6g}, above max_share={group.max_share:g}"
                problems.append((("groups", index), where + text))
            if most < group.min_share - TOLERANCE:
                text = f"the max_share of its sources sum to {most:.6g}, below min_share={group.min_share:g}"
                problems.append((("groups", index), where + text))
        return problems

    def _share_sums(self) -> tuple[float, float]:
        """Least and most that the shares can sum to, by the bounds on sources and groups."""
        grouped = {name: group.name for group in self.groups for name in group.sources}
        least = sum(s.min_share for s in self.sources if s.name not in grouped)
        most = sum(s.max_share for s in self.sources if s.name not in grouped)
        for group in self.groups:
            members = [s for s in self.sources if grouped.get(s.name) == group.name]
            least += max(group.min_share, sum(s.min_share for s in members))
            most += min(group.max_share, sum(s.max_share for s in members))
        return least, most

    def shapes(self) -> list[ModelShape | CountedSize]:
        """The sizes to consider, smallest first."""
        return _shapes(self.sizes)

    @property
    def vocabulary(self) -> int:
        """Size of the vocabulary, for FLOPs."""
        if self.vocab_size is not None:
            return self.vocab_size
        return self.tokenizer.vocab_size or 257


def _shapes(sizes: Sequence[Size]) -> list[ModelShape | CountedSize]:
    plain: list[str | ModelShape | CountedSize] = []
    for one in sizes:
        plain += one.shapes() if isinstance(one, SizeRange) else [one]
    return as_shapes(plain)
