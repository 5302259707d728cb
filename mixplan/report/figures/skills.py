"""What the recommended mixture is predicted to give, beside the natural one."""

from __future__ import annotations

from mixplan.documents.recipe import Recipe, RecipeTask, TaskPrediction
from mixplan.report import text
from mixplan.report.figures.base import Figure, grid, key, panel, table
from mixplan.report.figures.rows import at_row, dumbbell, limit, on_axis, rows_drawing
from mixplan.report.markup import Markup, join, tag
from mixplan.report.plot import linear_axis


def figure(recipe: Recipe) -> Figure:
    """Probability and skill of every task, natural and recommended. The recipe has at least one task."""
    keys = [key("natural", "natural mixture"), key("recommended", "recommended"), key("cap", "target")]
    flagged = [task for task in recipe.tasks if task.recommended.extrapolated or task.natural.extrapolated]
    if flagged:
        keys.append(tag("span", "▲ beyond what was measured", class_="entry flag"))
    drawn = [
        panel("Probability that a run learns it", _chances(recipe.tasks), wide=True),
    ]
    # The others aim at bits per byte.
    if skills := [task for task in recipe.tasks if task.recommended.skill is not None]:
        drawn.append(panel("Predicted skill with 90 % interval", _intervals(skills), wide=True))
    rows = []
    for task in recipe.tasks:
        for name, said in (("natural", task.natural), ("recommended", task.recommended)):
            rows.append(
                [
                    task.name,
                    text.kind_name(task.family, task.complexity),
                    name,
                    text.power(said.frequency, 3),
                    text.fixed(said.p_learned),
                    text.fixed(task.target_probability),
                    text.fixed(said.skill),
                    f"{text.fixed(said.skill_low)} to {text.fixed(said.skill_high)}",
                    _flags(said),
                ]
            )
    columns = [
        "Task",
        "Kind",
        "Mixture",
        "Frequency",
        "P(learned)",
        "Target",
        "Skill",
        "90 % interval",
        "Beyond the ladder",
    ]
    numbers = table(columns, rows, words=3)
    reasons = [
        tag(
            "li",
            f"{task.name} ({mixture}): {'; '.join(said.why_extrapolated) or 'the recipe gives no reason'}",
        )
        for task in flagged
        for mixture, said in (("natural", task.natural), ("recommended", task.recommended))
        if said.extrapolated
    ]
    warning = (
        tag("div", tag("strong", "Beyond what was measured"), tag("ul", *reasons), class_="warning")
        if reasons
        else None
    )
    return Figure(
        "skills",
        "What the mixture is predicted to give",
        _finding(recipe),
        join([tag("div", *keys, class_="legend"), grid(drawn), warning, numbers]),
        f"Both mixtures at the recommended size ({text.count(recipe.block_params)} block parameters) and"
        f" {text.count(recipe.tokens)} tokens. Frequencies are instances per training token after the"
        " discount for repetition.",
    )


def met(task: RecipeTask) -> bool:
    """Whether the recommended mixture reaches the task's target."""
    return task.recommended.p_learned >= task.target_probability


def _chances(tasks: list[RecipeTask]) -> Markup:
    axis = linear_axis([0.0, 1.0], "Probability learned")
    marks = []
    for i, task in enumerate(tasks):
        marks.append(
            limit(
                axis, i, task.target_probability, f"{task.name}\ntarget {text.fixed(task.target_probability)}"
            )
        )
        tips = (
            f"{task.name}\nnatural {text.fixed(task.natural.p_learned)}",
            f"{task.name}\nrecommended {text.fixed(task.recommended.p_learned)}",
        )
        marks += dumbbell(axis, i, task.natural.p_learned, task.recommended.p_learned, tips)
    names = [
        (t.name, f"{text.fixed(t.recommended.p_learned)}{' ▲' if t.recommended.extrapolated else ''}")
        for t in tasks
    ]
    return rows_drawing(names, axis, marks, "Probability that each task is learned, natural and recommended.")


def _intervals(tasks: list[RecipeTask]) -> Markup:
    axis = linear_axis([], "Skill (0 = chance, 1 = perfect)", include=[0.0, 1.0])
    marks = []
    for i, task in enumerate(tasks):
        for said, css, up in ((task.natural, "natural", -5.0), (task.recommended, "recommended", 5.0)):
            y = at_row(i) + up
            skill, low, high = said.skill or 0.0, said.skill_low or 0.0, said.skill_high or 0.0
            ends = on_axis(axis, low), on_axis(axis, high)
            tip = f"{task.name}, {css}\nskill {text.fixed(skill)} ({text.fixed(low)} to {text.fixed(high)})"
            marks.append(tag("path", class_=f"whisker {css}", d=f"M{ends[0]:.1f} {y:.1f}H{ends[1]:.1f}"))
            marks.append(
                tag("circle", tag("title", tip), class_=f"dot {css}", cx=on_axis(axis, skill), cy=y, r=4)
            )
    names = [(task.name, text.fixed(task.recommended.skill)) for task in tasks]
    return rows_drawing(
        names, axis, marks, "Predicted skill of each task with its 90 % interval, natural and recommended."
    )


def _flags(said: TaskPrediction) -> str:
    return "▲ yes" if said.extrapolated else "no"


def _finding(recipe: Recipe) -> str:
    reached = sum(met(task) for task in recipe.tasks)
    before = sum(task.natural.p_learned >= task.target_probability for task in recipe.tasks)
    flagged = sum(task.recommended.extrapolated for task in recipe.tasks)
    said = (
        f"{reached} of {text.plural(len(recipe.tasks), 'task')} reach the target probability with this"
        f" mixture, {before} with the natural one"
    )
    return f"{said}; {flagged} of these forecasts reach beyond what was measured." if flagged else f"{said}."
