"""The page's first screen: the main numbers in plain words."""

from __future__ import annotations

import numpy as np

from mixplan.documents.calibration import Backtest, Calibration
from mixplan.documents.recipe import Recipe
from mixplan.report import text
from mixplan.report.cells import Ladder
from mixplan.report.figures.backtest import inside
from mixplan.report.figures.skills import met
from mixplan.report.laws import Threshold
from mixplan.report.markup import Markup, tag


def lead(ladder: Ladder | None, calibration: Calibration | None, recipe: Recipe | None) -> Markup | None:
    """Up to four numbers, large."""
    items: list[tuple[str, str]] = []
    if ladder is not None:
        learned, measured = ladder.counts()
        for r, which in _ends(ladder):
            size = text.count(ladder.rungs[r].block_params)
            items.append(
                (
                    f"{learned[r]} of {measured[r]}",
                    f"cells learned by the {which} size, {size} block parameters",
                )
            )
    if calibration is not None and calibration.backtest is not None and calibration.backtest.cells:
        cells = calibration.backtest.cells
        rung = calibration.backtest.left_out_rung
        items.append(
            (
                f"{inside(cells)} of {len(cells)}",
                f"cells of the left-out {rung} inside the law's 90 % interval",
            )
        )
    if recipe is not None:
        said = f"block parameters recommended, on {text.count(recipe.tokens)} training tokens"
        items.append((text.count(recipe.block_params), said))
    if not items:
        return None
    return tag("dl", *(tag("div", tag("dd", value), tag("dt", name)) for value, name in items), class_="lead")


def sentences(
    ladder: Ladder | None,
    calibration: Calibration | None,
    limits: dict[str, list[Threshold]] | None,
    recipe: Recipe | None,
) -> list[str]:
    """What a reader should take away, in order. `limits` by kind name; None without laws."""
    said: list[str] = []
    if ladder is not None:
        said.append(_learning(ladder))
        if ladder.shorter_ends:
            said.append(
                f"{text.plural(ladder.shorter_ends, 'end')} of trainings shorter than the longest of the same"
                f" size {'is' if ladder.shorter_ends == 1 else 'are'} left out of the end-of-training"
                " figures; the laws use them."
            )
        if limits is not None:
            said.append(_thresholds(ladder, limits))
    if calibration is not None:
        censored = [t for t in calibration.tasks if t.status in ("never learned", "always learned")]
        if censored:
            names = [f"{text.kind_name(t.family, t.complexity)} ({t.status})" for t in censored]
            whose = "its threshold lies" if len(names) == 1 else "their thresholds lie"
            said.append(
                f"The ladder does not bracket {text.listing(names)}: {whose} outside what was measured."
            )
        unfinished = [t for t in calibration.tasks if t.status == "never finished"]
        if unfinished:
            names = [text.kind_name(t.family, t.complexity) for t in unfinished]
            said.append(f"No run measured {text.listing(names)} at its end: only unfinished runs did.")
        if calibration.backtest is not None:
            said.append(_backtest(calibration.backtest))
    if recipe is not None:
        said.append(_recipe(recipe))
    return said


def _ends(ladder: Ladder) -> list[tuple[int, str]]:
    last = len(ladder.rungs) - 1
    return [(0, "smallest"), (last, "largest")] if last else [(0, "only")]


def _learning(ladder: Ladder) -> str:
    learned, measured = ladder.counts()
    runs = sum(rung.runs for rung in ladder.rungs)
    sizes = [
        f"{learned[r]} of {measured[r]} at {text.count(rung.block_params)}"
        for r, rung in enumerate(ladder.rungs)
    ]
    return (
        f"{text.plural(runs, 'run')} of {text.plural(len(ladder.rungs), 'size')} measured"
        f" {text.plural(len(ladder.kinds), 'task kind')}; cells learned (mean skill ≥ {ladder.threshold:g}),"
        f" by block parameters: {text.listing(sizes, most=9)}."
    )


def _thresholds(ladder: Ladder, limits: dict[str, list[Threshold]]) -> str:
    """Threshold frequencies of the smallest and largest size, where both lie in the measured range."""
    if not limits:
        return "The laws were fitted on none of the measured task kinds."
    ends = {name: (row[0], row[-1]) for name, row in limits.items()}
    known = {name: pair for name, pair in ends.items() if pair[0].where == pair[1].where == "inside"}
    small, large = (text.count(rung.block_params) for rung in (ladder.rungs[0], ladder.rungs[-1]))
    if len(ladder.rungs) == 1:
        listed = [f"{name}: {row[0].words()}" for name, row in limits.items()]
        return f"Frequency for an even chance to be learned at {small}: {text.listing(listed)}."
    if not known:
        largest = [f"{name}: {row[-1].words()}" for name, row in limits.items()]
        return f"Frequency for an even chance to be learned at {large}: {text.listing(largest)}."
    ratios = {name: a.frequency / b.frequency for name, (a, b) in known.items()}
    name = sorted(ratios, key=lambda n: (ratios[n], n))[len(ratios) // 2]
    a, b = known[name]
    return (
        "The law puts the frequency for an even chance to be learned"
        f" {text.general(float(np.median(list(ratios.values()))), 2)} times lower at {large} than at {small}"
        f" block parameters (median over {text.plural(len(known), 'task kind')} with both inside the measured"
        f" range); for {name} it goes from {a.often} to {b.often}."
    )


def _backtest(backtest: Backtest) -> str:
    return f"Backtest on {backtest.left_out_rung}: {backtest.verdict.rstrip('.')}."


def _recipe(recipe: Recipe) -> str:
    reached = sum(met(task) for task in recipe.tasks)
    rates = [f"{s.name} ×{text.general(s.rate)}" for s in recipe.sources if s.role == "rare"]
    said = f"Recommended: {recipe.size.name} on {text.count(recipe.tokens)} tokens"
    if rates:
        said += f", with {text.listing(rates)}"
    if recipe.tasks:
        said += f"; {reached} of {text.plural(len(recipe.tasks), 'task')} reach the target probability"
    flagged = [task.name for task in recipe.tasks if task.recommended.extrapolated]
    return f"{said}. Beyond what was measured: {text.listing(flagged)}." if flagged else f"{said}."
