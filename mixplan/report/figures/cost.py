"""What the recommended training costs, what limits it, and the other answers."""

from __future__ import annotations

from mixplan.documents.recipe import Recipe
from mixplan.report import text
from mixplan.report.figures.base import Figure, table
from mixplan.report.markup import join, tag


def figure(recipe: Recipe) -> Figure:
    """Size, tokens, price, what binds, and the other answers."""
    cost = recipe.cost
    facts: list[tuple[str, str]] = [
        (
            "Model",
            (
                f"{recipe.size.name}: {text.count(recipe.block_params)} block parameters,"
                f" {text.count(recipe.total_params)} in all"
            ),
        ),
        (
            "Training",
            f"{text.count(recipe.tokens)} tokens = {recipe.samples:,} samples of {recipe.sequence_length:,}",
        ),
    ]
    if cost is not None:
        facts.append(("FLOPs", text.power(cost.flops, 3)))
        if cost.gpu_hours is not None:
            facts.append(("Accelerator hours", text.general(cost.gpu_hours)))
        if cost.money is not None:
            facts.append(("Price", f"{money(cost.money)} {cost.currency or ''}".strip()))
    if recipe.common_loss_nats is not None:
        facts.append(("LM loss on common data", f"{text.fixed(recipe.common_loss_nats, 3)} nats per token"))
    if recipe.common_loss_increase_nats is not None:
        facts.append(
            (
                "Change against the natural mixture",
                f"{text.signed(recipe.common_loss_increase_nats, 4)} nats per token",
            )
        )
    parts = [
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts), class_="facts")
    ]
    if recipe.binds:
        rows = [
            [
                bind.constraint,
                text.general(bind.value),
                text.general(bind.limit),
                text.power(bind.flops_without, 3),
            ]
            for bind in recipe.binds
        ]
        parts.append(table(["Limit that binds", "Used", "Allowed", "FLOPs without it"], rows))
    else:
        parts.append(tag("p", "The recipe names no limit that binds."))
    others = [("without the caps", recipe.unconstrained)] if recipe.unconstrained is not None else []
    others += [("best at this size", candidate) for candidate in recipe.candidates]
    if others:
        names = [source.name for source in recipe.sources if source.role == "rare"]
        tasks = [task.name for task in recipe.tasks]
        columns = [
            "Answer",
            "Size",
            "Tokens",
            "FLOPs",
            *(f"Share {n}" for n in names),
            *(f"P {n}" for n in tasks),
            "Feasible",
        ]
        rows = [
            [
                label,
                f"{other.size} ({text.count(other.block_params)})",
                text.count(other.tokens),
                text.power(other.flops, 3),
                *(text.percent(other.shares.get(n)) for n in names),
                *(text.fixed(other.p_learned.get(n)) for n in tasks),
                ("yes" if other.feasible else "no") + (f": {other.note}" if other.note else ""),
            ]
            for label, other in others
        ]
        parts.append(
            table(
                columns,
                rows,
                "Other answers: share of each rare source, probability that each task is learned",
                words=2,
            )
        )
    return Figure("cost", "Cost and limits", _finding(recipe), join(parts), "")


def money(amount: float) -> str:
    """12345.6 → `12,346`; small amounts keep cents."""
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:,.2f}"


def _finding(recipe: Recipe) -> str:
    parts = [f"{recipe.size.name} on {text.count(recipe.tokens)} tokens"]
    if recipe.cost is not None:
        parts.append(f"costs {text.power(recipe.cost.flops)} FLOPs")
        if recipe.cost.money:
            parts[-1] += f" ({money(recipe.cost.money)} {recipe.cost.currency or ''}".rstrip() + ")"
    said = " ".join(parts)
    if recipe.common_loss_increase_nats is not None:
        change = text.signed(recipe.common_loss_increase_nats, 4)
        said += f" and changes the common loss by {change} nats per token"
    limits = text.listing([bind.constraint for bind in recipe.binds])
    return f"{said}; {limits} {'binds' if len(recipe.binds) == 1 else 'bind'}." if limits else f"{said}."
