"""The recipe in words: why this size, what each rate does, what binds, and how sure all this is."""

from __future__ import annotations

from mixplan.documents.recipe import Alternative, Recipe, RecipeSource, RecipeTask
from mixplan.recommend.alternatives import AT_A_SIZE, CHEAPER, CHOSEN
from mixplan.recommend.shown import aimed, between, ends, measured, missed, percent, target

_WHY = {
    "cheapest": "reaches every target with the fewest FLOPs of the sizes in the plan",
    "most_tasks": "reaches the targets of the most value within the budget, then with the fewest FLOPs",
    "common_loss": "reaches every target with the lowest loss on common data",
    "value": "gives the largest sum of value × probability within the budget",
}


def explain(recipe: Recipe) -> list[str]:
    """One subject a line."""
    return [
        *_size(recipe),
        *_cheaper(recipe),
        *(_source(source) for source in recipe.sources if source.role == "rare"),
        *(_task(task) for task in recipe.tasks),
        *_limits(recipe),
        *_unconstrained(recipe),
        _common(recipe),
        *_certainty(recipe),
        *(f"Caution: {text}." for text in recipe.warnings),
    ]


def _size(recipe: Recipe) -> list[str]:
    others = [one for one in recipe.candidates if one.role in AT_A_SIZE and one.role != CHOSEN]
    if recipe.unconstrained is None and not others:
        return []  # a mixture that was asked for, not chosen
    why = f"Size: {recipe.size.name} {_WHY[recipe.objective]}"
    if recipe.objective != "cheapest":
        chosen = next(one for one in recipe.candidates if one.role == CHOSEN)
        why += f" ({aimed(recipe, chosen)})"
    parts = [_against(recipe, one) for one in others]
    return [f"{why}; {'; '.join(parts)}." if parts else f"{why} (the only one)."]


def _against(recipe: Recipe, other: Alternative) -> str:
    if not other.feasible:
        return f"{other.size} misses {missed(other)}"
    own = recipe.cost.flops if recipe.cost else 0.0
    text = f"{other.size} needs {other.flops / own:.3g} times the FLOPs ({other.tokens:,.0f} tokens)"
    if recipe.objective == "cheapest":
        return text
    return f"{text}, {aimed(recipe, other)}"


def _cheaper(recipe: Recipe) -> list[str]:
    """What saving a tenth would cost."""
    here = {task.name: task.recommended.p_learned for task in recipe.tasks}
    lines = []
    for one in recipe.candidates:
        if one.role == CHEAPER:
            lost = [
                f"{name} {p:.2f} instead of {here[name]:.2f}"
                for name, p in one.p_learned.items()
                if p < here[name] - 0.005
            ]
            lines.append(
                f"Cheaper: for a tenth less the best is {one.size} with {one.tokens:,.0f} tokens"
                f"{', ' if aimed(recipe, one) else ''}{aimed(recipe, one)}; it gives up "
                f"{', '.join(lost) or 'nothing that shows'}."
            )
    return lines


def _source(source: RecipeSource) -> str:
    return (
        f"Source {source.name}: {source.rate:.3g} times its natural share, {percent(source.natural_share)} "
        f"to {percent(source.share)}; {source.epochs:.3g} epochs of at most {source.max_epochs:g}."
    )


def _task(task: RecipeTask) -> str:
    now, before = task.recommended, task.natural
    what = "learned" if now.bits_per_byte is None else "reached"
    text = (
        f"Task {task.name}: {what} with probability {before.p_learned:.3f} at the natural mixture (same size "
        f"and tokens) and {now.p_learned:.3f} with this one (target {target(task)}"
    )
    if now.p_at_confidence is not None:
        text += f"; {now.p_at_confidence:.3f} with that confidence"
    unit = "bits per byte are" if now.bits_per_byte is not None else "skill is"
    text += f"). A new run's {unit} expected at {measured(now)}, 90 % {between(*ends(now))}"
    text += ", beyond what was measured" if now.extrapolated else ", within what was measured"
    if task.lever:
        text += f". {task.regime.capitalize() if task.regime else 'No lever does much'}: {task.lever}"
    return text + "."


def _limits(recipe: Recipe) -> list[str]:
    lines = []
    for bind in recipe.binds:
        text = f"Limit {bind.constraint}: {bind.value:.4g} of {bind.limit:.4g}"
        if bind.gain_without:
            text += f"; without it {bind.gain_without}"
        if bind.eased is not None and bind.gain_eased:
            text += f"; at {bind.eased:.4g} {bind.gain_eased}"
        lines.append(text + ".")
    return lines


def _unconstrained(recipe: Recipe) -> list[str]:
    free, own = recipe.unconstrained, recipe.cost
    if free is None or own is None:
        return []
    lines = [
        f"Without caps and bounds: {free.size} with {free.tokens:,.0f} tokens, {free.flops / own.flops:.3g} "
        f"times the FLOPs; that {free.note or 'breaks nothing'}."
    ]
    if recipe.with_data is not None:
        asked = ", ".join(
            f"{one.tokens_missing:,.0f} more unique tokens of {one.source} ({one.tokens_available:,.0f} now)"
            for one in recipe.missing_data
        )
        lines.append(
            f"Data: with {asked} the plan would do with {recipe.with_data.size}, "
            f"{recipe.with_data.flops / own.flops:.3g} times the FLOPs (natural shares as they are)."
        )
    return lines


def _common(recipe: Recipe) -> str:
    common = [source for source in recipe.sources if source.role == "common"]
    share, natural = sum(s.share for s in common), sum(s.natural_share for s in common)
    text = f"Common data: {percent(natural)} of the tokens naturally, {percent(share)} here"
    if recipe.common_loss_increase_nats is None:
        return text + "; what that costs in loss cannot be said."
    text += (
        f"; its loss is predicted at {recipe.common_loss_nats:.4g} nats a token, "
        f"{_signed(recipe.common_loss_increase_nats)} than with the natural mixture"
    )
    low, high = recipe.common_loss_increase_low, recipe.common_loss_increase_high
    return text + ("." if low is None or high is None else f" (90 %: {low:.3g} … {high:.3g}).")


def _signed(increase: float) -> str:
    return f"{abs(increase):.3g} {'less' if increase < 0 else 'more'}"


def _certainty(recipe: Recipe) -> list[str]:
    lines = []
    if recipe.p_all_targets is not None:
        text = f"Certainty: in {percent(recipe.p_all_targets)} of the laws' draws every target holds at once"
        if recipe.p_size_cheapest is not None:
            text += f"; in {percent(recipe.p_size_cheapest)} this size stays the cheapest"
        lines.append(text + ".")
    by_task: dict[str, list[str]] = {}
    for one in recipe.sensitivity:
        by_task.setdefault(one.task, []).append(
            f"{one.parameter} ({percent(one.variance_share)}; where lowest p {one.p_at_low:.2f}, where "
            f"highest {one.p_at_high:.2f})"
        )
    return lines + [f"What {task} hangs on: {'; '.join(parts)}." for task, parts in by_task.items()]
