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
    """One law: named parameters, their point estimate, and draws (rows) from what is not known of them."""

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
    """Draws from the posterior, each in the order of `parameters`."""
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
    status: Literal["bracketed", "never learned", "always learned", "never finished"]
    """bracketed: some cells learned and some not. never learned, always learned: censored, the threshold lies
    outside. never finished: no final cell; measured before the ends of runs only."""


class BacktestScore(Part):
    """How one forecast did on a left-out rung, final checkpoints."""

    forecast: str
    baseline: bool = False
    """A forecast without a law, to be beaten."""
    brier: Number
    """Mean squared error of the probability that a cell is learned."""
    skill_brier: Number
    """Mean squared error of the predicted skill."""
    auroc: Fraction | None
    """Area under the ROC curve of learned against not; empty when only one kind occurred."""
    coverage_90: Fraction | None
    """Share of left-out cells inside the 90 % interval; empty where the forecast has none."""
    log_score: Number | None = None
    """Mean logarithm of the probability given to the tenth of the skill scale that was measured; nats, higher
    is better."""
    width_90: Number | None = None
    """Mean width of the 90 % intervals, in skill."""
    threshold_ratio: Number | None = None
    """Median, over the series (task kind at one training length) that the left-out rung brackets, of
    predicted and measured threshold frequency, the larger over the smaller; a crossing that is not predicted
    counts as infinitely far."""
    thresholds: Whole = 0
    """Bracketed series."""
    thresholds_near: Whole = 0
    """Of these, predicted within a factor of 1.5."""
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


class RungBacktest(Part):
    """One rung predicted from some smaller ones."""

    fitted_rungs: list[str]
    left_out_rung: str
    left_out_block_params: Positive
    rungs_ahead: Whole
    size_ratio: Positive
    """Left-out over largest fitted block parameters."""
    seed_noise_skill: Number | None = None
    """Half the mean squared difference in skill between seeds; empty with one seed."""
    seed_noise_learned: Number | None = None
    """The same of learned (1) or not (0)."""
    scores: list[BacktestScore]


class Backtest(Part):
    """Leaves out the largest rung, fits on the rest, predicts it; `rolling` does so from every rung on."""

    left_out_rung: str
    left_out_block_params: Positive
    fitted_rungs: list[str]
    scores: list[BacktestScore]
    cells: list[BacktestCell]
    seed_noise_brier: Number | None = None
    """Half the mean squared difference in skill between seeds at the left-out rung; empty with one seed."""
    verdict: str
    """In words: does the law beat copying the largest fitted rung?"""
    rolling: list[RungBacktest] = []
    """Every left-out rung, predicted from every set of smaller rungs."""
    choice: str = ""
    """Why the default forecast is the one it is."""


class Calibration(Document):
    """calibration.json."""

    name: str = "calibration"
    learned_skill: OpenFraction = 0.8
    learning: FittedLaw
    """The law behind the forecasts, or the one with the largest share in them."""
    other_learning: list[FittedLaw] = []
    """The other candidates; with draws where they have a share in the forecasts."""
    weights: dict[str, Fraction] = {}
    """Share of each law in the forecasts; empty: all of it is `learning`'s."""
    retention: FittedLaw | None = None
    interference: FittedLaw | None = None
    lm_loss: FittedLaw | None = None
    sources: list[FittedLaw] = []
    """Held-out bits per byte of each of the team's own sources."""
    tasks: list[TaskCoverage] = []
    backtest: Backtest | None = None
    warnings: list[str] = []
    provenance: Provenance = {}
