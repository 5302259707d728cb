"""The recipe for people: tables, and the line above them."""

from __future__ import annotations

from typing import Any

from mixplan.documents.recipe import Alternative, Recipe, RecipeTask, TaskPrediction

_KINDS = {
    "budget": "budget in",
    "constraints": "common loss",
    "max_epochs": "epochs of",
    "max_share": "most of",
    "min_share": "least of",
    "target_probability": "target of",
}
_AIM = {
    "most_tasks": "value reached",
    "common_loss": "loss (nats)",
    "value": "expected value",
}
_LOSS = "max_common_loss_increase_nats"
_NAMED = 4
"""Names that are listed before the rest is only counted."""

Rows = list[list[Any]]
Table = tuple[str, list[str], Rows]


def headline(recipe: Recipe) -> str:
    """Size, tokens and cost in a line."""
    text = f"{recipe.size.name} ({recipe.block_params:,} block parameters), {recipe.tokens:,} tokens"
    if recipe.cost is not None:
        text += f", {recipe.cost.flops:.3g} FLOPs"
        if recipe.cost.lifetime_flops is not None:
            text += f" ({recipe.cost.lifetime_flops:.3g} with inference)"
        if recipe.cost.gpu_hours is not None:
            text += f", {recipe.cost.gpu_hours:.3g} device hours"
        if recipe.cost.money:
            text += f", {recipe.cost.money:,.2f} {recipe.cost.currency}"
    return text


def tables(recipe: Recipe) -> list[Table]:
    """Title, column names and rows of each table."""
    found = [_mixture(recipe), _tasks(recipe), _alternatives(recipe)]
    return found + [table for table in (_binds(recipe), _data(recipe)) if table[2]]


def _mixture(recipe: Recipe) -> Table:
    rows: Rows = [
        [s.name, s.role, percent(s.natural_share), percent(s.share), f"{s.rate:.3g}×", f"{s.epochs:.3g}",
         f"{s.max_epochs:g}", f"{s.tokens:,}", f"{s.choose:,}"]
        for s in recipe.sources
    ]  # fmt: skip
    columns = ["source", "role", "natural", "share", "rate", "epochs", "cap", "tokens", "samples"]
    return "Mixture", columns, rows


def _tasks(recipe: Recipe) -> Table:
    sure = any(task.confidence is not None for task in recipe.tasks)
    rows: Rows = []
    for task in recipe.tasks:
        now = task.recommended
        rows.append([
            task.name, target(task), f"{task.natural.p_learned:.3f}", f"{now.p_learned:.3f}",
            between(now.p_learned_low, now.p_learned_high),
            *(["–" if now.p_at_confidence is None else f"{now.p_at_confidence:.3f}"] if sure else []),
            measured(now), between(*ends(now)), f"{now.frequency:.3g}", task.regime or "–", now.extrapolated,
        ])  # fmt: skip
    columns = [
        "task", "target", "p natural", "p here", "over draws", *(["p, that sure"] if sure else []), "skill",
        "a new run", "frequency", "regime", "extrapolated",
    ]  # fmt: skip
    return "Tasks at this size and token count (intervals: 90 %)", columns, rows


def _alternatives(recipe: Recipe) -> Table:
    shown = [*recipe.candidates, *(one for one in (recipe.unconstrained, recipe.with_data) if one)]
    lifetime = any(one.lifetime_flops is not None for one in shown)
    hours, money = any(one.gpu_hours is not None for one in shown), any(one.money for one in shown)
    rows: Rows = []
    for one in shown:
        weakest = min(one.p_learned, key=lambda task: one.p_learned[task], default=None)
        rows.append([
            one.role, one.size, f"{one.tokens:,.0f}", f"{one.flops:.3g}",
            *([f"{one.lifetime_flops or 0:.3g}"] if lifetime else []),
            *([f"{one.gpu_hours or 0:.3g}"] if hours else []),
            *([f"{one.money or 0:,.2f}"] if money else []),
            *([_number(aim(recipe, one))] if recipe.objective in _AIM else []),
            "–" if weakest is None else f"{one.p_learned[weakest]:.3f}",
            "–" if weakest is None else between(
                one.p_learned_low.get(weakest), one.p_learned_high.get(weakest)
            ),
            f"{max(one.epochs.values(), default=0.0):.3g}",
            "–" if one.common_loss_increase_nats is None else f"{one.common_loss_increase_nats:+.3g}",
            missed(one),
        ])  # fmt: skip
    columns = [
        "mixture", "size", "tokens", "FLOPs", *(["with inference"] if lifetime else []),
        *(["hours"] if hours else []), *(["money"] if money else []),
        *([_AIM[recipe.objective]] if recipe.objective in _AIM else []), "lowest p", "over draws",
        "most epochs", "common loss", "misses",
    ]  # fmt: skip
    return "The answer and what it stands against", columns, rows


def _binds(recipe: Recipe) -> Table:
    rows: Rows = [
        [
            bind.constraint,
            f"{bind.value:.4g}",
            f"{bind.limit:.4g}",
            bind.gain_without or "–",
            "–" if bind.eased is None else f"{bind.eased:.4g}",
            bind.gain_eased or "–",
        ]
        for bind in recipe.binds
    ]
    columns = ["limit", "value", "allowed", "without it", "eased to", "then"]
    return "What the answer touches, and what it costs", columns, rows


def _data(recipe: Recipe) -> Table:
    rows: Rows = [
        [
            one.source,
            f"{one.tokens_available:,.0f}",
            f"{one.tokens_needed:,.0f}",
            f"{one.tokens_missing:,.0f}",
        ]
        for one in recipe.missing_data
    ]
    return "Data to collect (unique tokens)", ["source", "has", "needs", "missing"], rows


def aim(recipe: Recipe, one: Alternative) -> float | None:
    """What the plan's objective is of an alternative, where that is not its cost."""
    return one.common_loss_nats if recipe.objective == "common_loss" else one.worth


def aimed(recipe: Recipe, one: Alternative) -> str:
    """The same in words; empty where the objective is the cost."""
    if recipe.objective not in _AIM:
        return ""
    return f"{_AIM[recipe.objective]} {_number(aim(recipe, one))}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"


def target(task: RecipeTask) -> str:
    """What is asked of a task."""
    text = f"{task.target_probability:.10g}"
    if task.target_bits_per_byte is not None:
        text += f" of ≤ {task.target_bits_per_byte:g} bits"
    elif task.target_skill is not None:
        text += f" of ≥ {task.target_skill:g}"
    return text if task.confidence is None else f"{text}, {percent(task.confidence)} sure"


def measured(now: TaskPrediction) -> str:
    """What a new run is expected to measure."""
    if now.bits_per_byte is not None:
        return f"{now.bits_per_byte:.3f} bits"
    return "–" if now.skill is None else f"{now.skill:.2f}"


def ends(now: TaskPrediction) -> tuple[float | None, float | None]:
    """The ends of that value's interval."""
    if now.bits_per_byte is not None:
        return now.bits_per_byte_low, now.bits_per_byte_high
    return now.skill_low, now.skill_high


def between(low: float | None, high: float | None) -> str:
    """An interval."""
    return "–" if low is None or high is None else f"{low:.2f} … {high:.2f}"


def missed(other: Alternative) -> str:
    """What an alternative does not hold, by kind of limit and without values."""
    note = other.note.removeprefix("misses ").removeprefix("breaks ")
    kinds: dict[str, list[str]] = {}
    for name in (part.rsplit(": ", 1)[0] for part in note.split("; ") if part):
        head, rest = name.split(".", 1)
        owner, _, key = rest.rpartition(".")
        kinds.setdefault(_KINDS.get(key, key) if owner else _KINDS.get(head, name), []).append(owner or rest)
    return ", ".join(f"{kind} {_few(owners)}".rstrip() for kind, owners in kinds.items()) or "nothing"


def _few(names: list[str]) -> str:
    names = [name for name in names if name != _LOSS]
    more = "" if len(names) <= _NAMED else f" and {len(names) - _NAMED} more"
    return " ".join(names[:_NAMED]) + more


def percent(value: float) -> str:
    """A part as a percentage."""
    return f"{100 * value:.3g}%"
