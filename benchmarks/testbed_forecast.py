"""Fitted to a testbed's narrow students, does the learning law say how wide the other tasks need them? As
Markdown.

    python benchmarks/testbed_forecast.py MEASUREMENTS --widths-up-to W

MEASUREMENTS: of `mixplan testbed run` with a sweep. What students wider than W measured is left out of every
table, and the law is the one that `mixplan fit` chooses then; beside it, the law of all students. A task's
width is the one at which its mean skill counts as learned (½ of the signal) at the end of the sweep; the
theory's is that of the best student there is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents import Measurements, Table, read_measurements
from mixplan.errors import InputError
from mixplan.laws.backtest import Tested, backtest
from mixplan.laws.calibration import checked_evidence
from mixplan.laws.candidates import parametric, time_exponent
from mixplan.laws.drawn import interval_90
from mixplan.laws.evidence import FloatArray, standard_rows
from mixplan.laws.protocol import Cells, Scattered, mixed
from mixplan.laws.surface import Surface
from mixplan.laws.tables import backtest_tables, default_said
from mixplan.testbed.mixture import Mixture
from mixplan.testbed.parts import SWEEP
from mixplan.testbed.rows import FAMILY
from mixplan.testbed.theory import implied_exponent, learned_widths

BACKTEST_DRAWS, DRAWS, SEED = 200, 2000, 0
"""Of the fitted laws ten times as many as usual: the middle of few draws of a wide interval is off by 5 %."""
LEAST, REACH, POINTS = 0.5, 100.0, 2000
"""Widths are looked for from LEAST to REACH times the widest student; beyond, none is said to be enough."""

Span = tuple[float, float]
"""Two widths."""


@dataclass(frozen=True)
class Task:
    """One task of the sweep, and the widths at which it is learned."""

    number: int
    complexity: float
    frequency: float
    theory: int
    trained: float | None
    """Least width of the grid, seeds averaged; None: none of it."""
    predicted: float
    """Middle of the draws; infinite beyond reach."""
    low: float
    high: float

    @property
    def inside(self) -> bool:
        """Whether the 90 % interval holds the theory's width."""
        return self.low <= self.theory <= self.high


class Forecast:
    """Laws and their shares in the forecast at one training length, draw by draw."""

    def __init__(self, parts: list[tuple[Surface, float]], tokens: float) -> None:
        self._parts = parts
        self._tokens = tokens

    def widths(self, complexity: float, frequency: float, skill: float, grid: FloatArray) -> FloatArray:
        """Least width of the grid, ascending, whose mean skill reaches `skill`, shape (D,); infinite where
        none does."""
        cells = self._cells(complexity, frequency, grid)
        reached = self._mixed([(part.mean(cells), share) for part, share in self._parts]) >= skill
        return np.where(reached.any(axis=0), grid[reached.argmax(axis=0)], np.inf)

    def exponents(
        self, complexity: float, ends: Sequence[float], frequency: float, skill: float
    ) -> FloatArray:
        """−d ln f ÷ d ln N of the just learned frequency between two widths, shape (D,) or shorter."""
        cells = self._cells(complexity, frequency, np.array(ends))
        found = self._mixed(
            [(part.log_threshold_frequency(cells, skill), share) for part, share in self._parts]
        )
        # A draw that levels off below `skill` has no such frequency.
        found = found[:, np.isfinite(found).all(axis=0)]
        return (found[0] - found[1]) / np.log(ends[1] / ends[0])

    def _cells(self, complexity: float, frequency: float, widths: FloatArray) -> Cells:
        return Cells.of([FAMILY] * len(widths), complexity, widths, self._tokens, frequency)

    @staticmethod
    def _mixed(parts: list[tuple[FloatArray, float]]) -> FloatArray:
        return mixed([(Scattered(values, values), share) for values, share in parts], DRAWS).mean


def main() -> None:
    """Print what is said about one folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--widths-up-to", type=float, required=True, metavar="W")
    asked = parser.parse_args()
    print("\n".join(about(read_measurements(asked.measurements), asked.widths_up_to)))


def about(measured: Measurements, widest: float) -> Iterator[str]:
    """What the law of the narrow students says, then what that of all students does."""
    skill, mixture = measured.learned_skill, sweep_of(measured)
    table, tokens = ends(measured)
    for title, tables in ((f"Widths up to {widest:g}", narrow(measured, widest)), ("All widths", measured)):
        tested, laws = fitted(tables)
        forecast = Forecast([(laws[name], share) for name, share in tested.choice.weights.items()], tokens)
        yield f"## {title}"
        yield ""
        yield from widths_said(tasks(table, forecast, mixture, skill), widest)
        yield ""
        alone = {name: Forecast([(law, 1.0)], tokens) for name, law in laws.items()}
        yield from forms_said(table, alone, mixture, skill, widest)
        yield ""
        inside = np.unique(ends(tables)[0]["block_params"])
        spans = [(inside[0], inside[-1])]
        if inside[-1] < table["block_params"].max():
            spans.append((inside[-1], table["block_params"].max()))
        yield from (exponent_said(forecast, span, mixture, skill) for span in spans)
        yield f"In theory {implied_exponent(mixture, skill):.2f}."
        yield ""
        yield from backtest_said(tested)


def fitted(tables: Measurements) -> tuple[Tested, dict[str, Surface]]:
    """The backtest, with its choice of laws as `mixplan fit` makes it, and every form."""
    evidence = checked_evidence(tables, tables.learned_skill, BACKTEST_DRAWS)
    tested = backtest(evidence, tables.learned_skill, BACKTEST_DRAWS, SEED, tables.retention)
    laws = parametric(time_exponent(tables.retention))
    return tested, {law.name: law.fit(evidence, DRAWS, np.random.default_rng(SEED)) for law in laws}


def forms_said(
    table: Table, forecasts: dict[str, Forecast], mixture: Mixture, skill: float, widest: float
) -> Iterator[str]:
    """What each form would say of the tasks that need more than `widest`."""
    rows = []
    for name, forecast in forecasts.items():
        found = [one for one in tasks(table, forecast, mixture, skill) if one.theory > widest]
        ratios = [one.predicted / one.theory for one in found]
        inside = sum(one.inside for one in found)
        rows.append((name, f"{min(ratios):.2f} to {max(ratios):.2f}", f"{inside} of {len(found)}"))
    yield from markdown(("form", "its width ÷ theory's", "theory inside 90 % interval"), rows)


def narrow(measured: Measurements, widest: float) -> Measurements:
    """All tables without what students wider than `widest` measured.

    Raises:
        InputError: nothing is left out, or fewer than two widths are left.
    """
    every = np.unique(measured.learning["block_params"])
    kept = int((every <= widest).sum())
    if kept < 2 or kept == len(every):
        raise InputError(
            f"--widths-up-to {widest:g} keeps {kept} of {len(every)} widths "
            f"({', '.join(f'{width:g}' for width in every)}); at least two must be kept and one left out"
        )
    tables: dict[str, Any] = {}
    for name in ("learning", "retention", "interference"):
        table = getattr(measured, name)
        if table is not None:
            table = table.where(table["block_params"] <= widest)
            tables[name] = table if len(table) else None
    return replace(measured, **tables)


def sweep_of(measured: Measurements) -> Mixture:
    """The mixture that the sweep trained on.

    Raises:
        InputError: the tables are not of a testbed's sweep.
    """
    made_by: Any = measured.provenance.get("testbed", {})
    for part in made_by.get("parts", []):
        if part["name"] == SWEEP:
            said = part["mixture"]
            return Mixture(**{**said, "spectrum_exponents": tuple(said["spectrum_exponents"])})
    raise InputError(
        f"the measurements hold no {SWEEP!r} of `mixplan testbed run`, whose theory is asked for"
    )


def ends(measured: Measurements) -> tuple[Table, float]:
    """The sweep's rows at the end of training, and its tokens."""
    table, _ = standard_rows(measured.learning, "learning")
    tokens = float(table["tokens"].max())
    return table.where(table["tokens"] == tokens), tokens


def tasks(table: Table, forecast: Forecast, mixture: Mixture, skill: float) -> list[Task]:
    """Every task of the sweep; `table`: the ends of all students."""
    grid = np.geomspace(LEAST, REACH * table["block_params"].max(), POINTS)
    found = []
    for index, theory in enumerate(learned_widths(mixture, skill)):
        frequency, complexity = float(mixture.priors()[index]), float(mixture.complexities()[index])
        own = table.where(table["task"] == f"task_{index + 1}")
        drawn = forecast.widths(complexity, frequency, skill, grid)
        low, middle, high = np.quantile(drawn, [0.05, 0.5, 0.95], method="nearest").tolist()
        width = trained(own, skill)
        found.append(Task(index + 1, complexity, frequency, int(theory), width, middle, low, high))
    return found


def trained(own: Table, skill: float) -> float | None:
    """Least width at which one task's mean skill over seeds reaches `skill`."""
    for width in np.unique(own["block_params"]):
        if own["skill"][own["block_params"] == width].mean() >= skill:
            return float(width)
    return None


def widths_said(found: list[Task], widest: float) -> Iterator[str]:
    """A row a task, then how far off those are that need more than `widest`."""
    yield from markdown(
        ("task", "complexity", "frequency", "theory", "trained (grid)", "law", "90 % interval", "ratio"),
        [
            (
                str(one.number), f"{one.complexity:g}", f"{one.frequency:.4f}", str(one.theory),
                "none" if one.trained is None else f"{one.trained:g}", shown(one.predicted),
                f"{shown(one.low)} to {shown(one.high)}", f"{one.predicted / one.theory:.2f}",
            )
            for one in found
        ],
    )  # fmt: skip
    beyond = [one for one in found if one.theory > widest]
    off = np.exp(np.abs(np.log([one.predicted / one.theory for one in beyond])))
    yield ""
    yield (
        f"Of the {len(beyond)} tasks that need more than {widest:g}, the law is off by a factor of "
        f"{np.median(off):.2f} (median) and at most {off.max():.2f}; the interval of "
        f"{sum(one.inside for one in beyond)} holds the theory's width."
    )


def exponent_said(forecast: Forecast, span: Span, mixture: Mixture, skill: float) -> str:
    """How steeply the just learned frequency falls with width, for the median task."""
    middle = mixture.tasks // 2
    drawn = forecast.exponents(
        float(mixture.complexities()[middle]), span, float(mixture.priors()[middle]), skill
    )
    low, high = interval_90(drawn)
    return (
        f"From width {span[0]:g} to {span[1]:g} the frequency that is just learned falls with its power "
        f"{np.median(drawn):.2f} ({low:.2f} to {high:.2f})."
    )


def backtest_said(tested: Tested) -> Iterator[str]:
    """The default forecast and why; left-out widths as `mixplan fit` shows them."""
    yield f"{default_said(tested.choice.weights, tested.choice.reason)}."
    yield f"{tested.backtest.verdict}."
    for table in backtest_tables(tested.backtest):
        yield from ("", f"{table.title}:", "")
        rows = [[cell(value) for value in row] for row in table.rows]
        yield from markdown(table.columns, rows)
    yield ""


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table."""
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def shown(width: float) -> str:
    """A width, or that none within reach is enough."""
    return f"{width:.3g}" if np.isfinite(width) else "∞"


def cell(value: Any) -> str:
    """A number, text or nothing."""
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
