"""The recipe for people: tables, and the reasons in words."""

from __future__ import annotations

from typing import Any

from mixplan.documents.recipe import Alternative, Recipe, RecipeSource, RecipeTask

Rows = list[list[Any]]


def tables(recipe: Recipe) -> list[tuple[str, list[str], Rows]]:
    """Title, column names and rows of each table."""
    sources: Rows = [
        [s.name, s.role, _percent(s.natural_share), _percent(s.share), f"{s.rate:.3g}×", f"{s.epochs:.3g}",
         f"{s.max_epochs:g}", f"{s.tokens:,}", f"{s.choose:,}"]
        for s in recipe.sources
    ]  # fmt: skip
    tasks: Rows = [
        [t.name, f"{t.target_probability:g}", f"{t.natural.p_learned:.3f}", f"{t.recommended.p_learned:.3f}",
         f"{t.recommended.skill:.2f}", f"{t.recommended.skill_low:.2f} … {t.recommended.skill_high:.2f}",
         f"{t.recommended.frequency:.3g}", t.recommended.extrapolated]
        for t in recipe.tasks
    ]  # fmt: skip
    binds: Rows = [
        [
            b.constraint,
            f"{b.value:.4g}",
            f"{b.limit:.4g}",
            "–" if b.flops_without is None else f"{b.flops_without:.3g}",
        ]
        for b in recipe.binds
    ]
    sizes: Rows = [
        [other.size + suffix, f"{other.tokens:,.0f}", f"{other.flops:.3g}",
         f"{min(other.p_learned.values(), default=0.0):.3f}", _missed(other)]
        for other, suffix in _others(recipe)
    ]  # fmt: skip
    return [
        (
            "Mixture",
            ["source", "role", "natural", "share", "rate", "epochs", "cap", "tokens", "samples"],
            sources,
        ),
        (
            "Tasks at this size and token count (interval: 90 %, a new run)",
            ["task", "target", "p natural", "p learned", "skill", "interval", "frequency", "extrapolated"],
            tasks,
        ),
        ("What the answer touches", ["limit", "value", "allowed", "FLOPs without it"], binds),
        ("Best at each size", ["size", "tokens", "FLOPs", "lowest p learned", "misses"], sizes),
    ]


def _others(recipe: Recipe) -> list[tuple[Alternative, str]]:
    free = [(recipe.unconstrained, " without caps and bounds")] if recipe.unconstrained else []
    return [(candidate, "") for candidate in recipe.candidates] + free


def _missed(other: Alternative) -> str:
    """The limits that an infeasible alternative misses, without their values."""
    names = [part.split(": ")[0] for part in other.note.removeprefix("misses ").split("; ") if part]
    tasks = [name.split(".")[1] for name in names if name.startswith("tasks.")]
    limits = [name for name in names if not name.startswith("tasks.")]
    return ", ".join([*limits, *([f"target of {' '.join(tasks)}"] if tasks else [])]) or "nothing"


def headline(recipe: Recipe) -> str:
    """Size, tokens and cost in a line."""
    text = f"{recipe.size.name} ({recipe.block_params:,} block parameters), {recipe.tokens:,} tokens"
    if recipe.cost is not None:
        text += f", {recipe.cost.flops:.3g} FLOPs"
        if recipe.cost.gpu_hours is not None:
            text += f", {recipe.cost.gpu_hours:.3g} device hours"
        if recipe.cost.money:
            text += f", {recipe.cost.money:,.2f} {recipe.cost.currency}"
    return text


def explain(recipe: Recipe) -> list[str]:
    """Why this size, what each rate does, what binds, what it costs the common data, how sure all this is."""
    return [
        _why_size(recipe),
        *(_source(recipe, source) for source in recipe.sources if source.role == "rare"),
        *(_task(task) for task in recipe.tasks),
        *_limits(recipe),
        _common(recipe),
        *(f"Caution: {text}." for text in recipe.warnings),
    ]


def _why_size(recipe: Recipe) -> str:
    own = recipe.cost.flops if recipe.cost else 0.0
    parts = []
    for other in recipe.candidates:
        if other.size == recipe.size.name:
            continue
        if other.feasible:
            parts.append(
                f"{other.size} needs {other.flops / own:.3g} times the FLOPs ({other.tokens:,.0f} tokens)"
            )
        else:
            parts.append(f"{other.size} misses {_missed(other)}")
    why = f"Size: {recipe.size.name} reaches every target with the fewest FLOPs of the sizes in the plan"
    return f"{why}; {'; '.join(parts)}." if parts else f"{why} (the only one)."


def _source(recipe: Recipe, source: RecipeSource) -> str:
    return (
        f"Source {source.name}: {source.rate:.3g} times its natural share, "
        f"{_percent(source.natural_share)} to "
        f"{_percent(source.share)}; {source.epochs:.3g} epochs of at most {source.max_epochs:g}."
    )


def _task(task: RecipeTask) -> str:
    now, before = task.recommended, task.natural
    text = (
        f"Task {task.name}: at the natural mixture, the same size and tokens, learned with probability "
        f"{before.p_learned:.3f}; with this mixture {now.p_learned:.3f} (target "
        f"{task.target_probability:g}). "
        f"A new run's skill is expected at {now.skill:.2f}, 90 % between {now.skill_low:.2f} and "
        f"{now.skill_high:.2f}"
    )
    return text + (", beyond what was measured." if now.extrapolated else ", within what was measured.")


def _limits(recipe: Recipe) -> list[str]:
    own = recipe.cost.flops if recipe.cost else None
    lines = []
    for bind in recipe.binds:
        text = f"Limit {bind.constraint}: {bind.value:.4g} of {bind.limit:.4g}"
        if own and bind.flops_without is not None:
            saved = 1 - bind.flops_without / own
            text += f"; without it {saved:.1%} fewer FLOPs would do" if saved > 5e-4 else "; it costs nothing"
        lines.append(text + ".")
    return lines


def _common(recipe: Recipe) -> str:
    common = [source for source in recipe.sources if source.role == "common"]
    share, natural = sum(s.share for s in common), sum(s.natural_share for s in common)
    text = f"Common data: {_percent(natural)} of the tokens naturally, {_percent(share)} here"
    if recipe.common_loss_increase_nats is None:
        return text + "; what that costs in loss cannot be said."
    return text + (
        f"; its loss is predicted at {recipe.common_loss_nats:.4g} nats a token, "
        f"{recipe.common_loss_increase_nats:.3g} more than with the natural mixture."
    )


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"
