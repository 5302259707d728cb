"""calibration.json: the fitted laws, with what is needed to predict without the runs."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from mixplan.documents.base import Document, Fraction, Number, OpenFraction, Part, Positive, Provenance, Whole


class Range(Part):
    """Smallest and largest value that a law was fitted on."""

    low: Number
    high: Number


class FittedLaw(Part):
    """One law: named parameters, their point estimate, and bootstrap draws (rows) over runs."""

    law: str
    """Name of the functional form."""
    subject: str = ""
    """What it speaks about where there are several of its kind, e.g. the name of a source."""
    formula: str
    """The form, in words and symbols."""
    source: str = ""
    """Where the form comes from (arXiv id and equation)."""
    parameters: list[str]
    values: list[Number]
    """Point estimate, in the order of `parameters`."""
    draws: list[list[Number]] = []
    """Bootstrap draws over runs, each in the order of `parameters`."""
    ranges: dict[str, Range] = {}
    """What it was fitted on, e.g. block_params, tokens, frequency."""
    settings: dict[str, Number] = {}
    """Constants of the form that are not fitted (centres, scales)."""
    rows: Whole
    """Measurements it was fitted on."""
    runs: Whole
    """Runs these came from."""
    residual: Number | None = None
    """Root mean square residual, in the law's own units."""
    warnings: list[str] = []
    """What cannot be said from these measurements."""

    @model_validator(mode="after")
    def _same_length(self) -> FittedLaw:
        wrong = [len(draw) for draw in self.draws if len(draw) != len(self.parameters)]
        if len(self.values) != len(self.parameters) or wrong:
            raise ValueError(f"values and draws need {len(self.parameters)} numbers each, one per parameter")
        return self


class TaskCoverage(Part):
    """How far the ladder pins a task down."""

    family: str
    complexity: Positive
    cells: Whole
    """Final cells measured."""
    learned: Whole
    """Of these, learned."""
    status: Literal["bracketed", "never learned", "always learned"]
    """bracketed: some cells learned and some not. The other two are censored: the threshold lies outside."""


class BacktestScore(Part):
    """How one forecast did on the left-out rung, final checkpoints."""

    forecast: str
    brier: Number
    """Mean squared error of the probability that a cell is learned."""
    skill_brier: Number
    """Mean squared error of the predicted skill."""
    auroc: Fraction | None
    """Area under the ROC curve of learned against not; empty when only one kind occurred."""
    coverage_90: Fraction | None
    """Share of left-out cells inside the 90 % interval; empty where the forecast has none."""
    cells: Whole


class BacktestCell(Part):
    """One left-out cell: predicted against observed."""

    family: str
    complexity: Positive
    frequency: Positive
    block_params: Positive
    tokens: Positive
    seed: Whole
    observed: Number
    predicted: Number
    low: Number
    high: Number
    p_learned: Fraction
    copied: Number | None = None
    """The same cell at the largest fitted rung."""


class Backtest(Part):
    """Leaves out the largest rung, fits on the rest, predicts it."""

    left_out_rung: str
    left_out_block_params: Positive
    fitted_rungs: list[str]
    scores: list[BacktestScore]
    cells: list[BacktestCell]
    seed_noise_brier: Number | None = None
    """Half the mean squared difference in skill between seeds at the left-out rung; empty with one seed."""
    verdict: str
    """In words: does the law beat copying the largest fitted rung?"""


class Calibration(Document):
    """calibration.json."""

    name: str = "calibration"
    learned_skill: OpenFraction = 0.8
    learning: FittedLaw
    retention: FittedLaw | None = None
    interference: FittedLaw | None = None
    lm_loss: FittedLaw | None = None
    sources: list[FittedLaw] = []
    """Held-out bits per byte of each of the team's own sources."""
    tasks: list[TaskCoverage] = []
    backtest: Backtest | None = None
    warnings: list[str] = []
    provenance: Provenance = {}
