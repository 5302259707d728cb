"""Ladders with known truth for tests of what to run next: a calibration's runs, simulated from a law."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import simulate
from scipy.special import logit
from scipy.stats import beta as beta_distribution

from mixplan.calibrate.tasks import reserved_symbols
from mixplan.documents import Calibration, Measurements, Table
from mixplan.documents.calibration_spec import CalibrationSpec, Horizons
from mixplan.documents.measurements import TEXT_COLUMNS
from mixplan.documents.shapes import PRESETS
from mixplan.documents.table import from_rows
from mixplan.laws import learning
from mixplan.laws import suggest_candidates as candidates
from mixplan.laws.evidence import Evidence, collect_evidence, coverage, standard_rows
from mixplan.laws.forms import FORMS, LOGISTIC
from mixplan.laws.hierarchy import estimate
from mixplan.laws.suggest import Suggestion, as_known, suggest
from mixplan.laws.suggest_budget import Limit
from mixplan.laws.suggest_information import Knowledge
from mixplan.laws.suggest_targets import Target, as_targets

SKILL = 0.8
NEVER = ("modular_addition", 9.0)
RUN_EFFECT, TASK_EFFECT, PRECISION, INSTANCES = 0.15, 0.2, 8.0, 256
KINDS = {
    ("comparison", 4.0): 3.0,
    ("comparison", 16.0): 1.0,
    ("modular_addition", 5.0): 0.0,
    NEVER: -5.0,
}
"""Log-odds at the middle of tests/simulate.py; the last kind is out of reach."""


def spec(**changes: Any) -> CalibrationSpec:
    """A small ladder."""
    grid = {"frequencies": [0.004, 0.001, 0.00025]}
    given = {
        "name": "small",
        "corpus": {"paths": ["text"]},
        "ladder": ["cpu_8k", "cpu_33k", "cpu_74k"],
        "horizons": {"tokens": [3276800]},
        "seeds": [0, 1],
        "tasks": [
            {"family": "comparison", "complexities": [4, 16], **grid},
            {"family": "modular_addition", "complexities": [5, 9], **grid},
        ],
        "probes": {"evaluations": 6},
    }
    return CalibrationSpec.model_validate({**given, **changes})


class Truth:
    """Effects of tasks, which stay the same whichever runs are trained."""

    def __init__(self, seed: int, kinds: Mapping[tuple[str, float], float] = KINDS) -> None:
        self._seed, self._kinds = seed, kinds
        self._tasks: dict[str, float] = {}
        self._generator = np.random.default_rng([seed, 0])

    def learning(self, document: CalibrationSpec) -> Table:
        """The learning table of a calibration's runs."""
        cells = candidates.grid_cells(document.tasks)
        rows: list[dict[str, Any]] = []
        for shape in document.shapes():
            for seed in document.seeds:
                for run in candidates.runs_of_a_seed(document, shape, document.horizons, cells):
                    rows += self._run(run, seed, document)
        return from_rows(rows, TEXT_COLUMNS)

    def _run(self, run: candidates.Run, seed: int, document: CalibrationSpec) -> list[dict[str, Any]]:
        size, end = run.shape.block_params, run.ends[-1]
        generator = np.random.default_rng([self._seed, size, round(end), seed])
        shift = generator.normal(0.0, RUN_EFFECT)
        checkpoints = document.probes.evaluations
        tokens = np.union1d(end * np.arange(1, checkpoints + 1) / checkpoints, run.ends)
        rows = []
        for cell in run.cells:
            if cell.task not in self._tasks:
                self._tasks[cell.task] = self._generator.normal(0.0, TASK_EFFECT)
            effects = {cell.kind: self._kinds[cell.kind] + shift + self._tasks[cell.task]}
            means = np.array(
                [simulate.mean_skill(*cell.kind, size, t, cell.frequency, effects) for t in tokens]
            )
            means = np.clip(means, 1e-9, 1 - 1e-9)
            skills = beta_distribution.ppf(generator.uniform(), means * PRECISION, (1 - means) * PRECISION)
            chance = simulate.chance_of(*cell.kind)
            accuracies = generator.binomial(INSTANCES, chance + (1 - chance) * skills) / INSTANCES
            for step, (at, accuracy) in enumerate(zip(tokens, accuracies, strict=True), start=1):
                rows.append({
                    "run_id": f"{run.shape.name}-{round(end)}t-s{seed}",
                    "rung": run.shape.name,
                    "block_params": size,
                    "total_params": run.shape.total_params(257 + reserved_symbols(document)),
                    "seed": seed,
                    "step": step,
                    "tokens": at,
                    "task": cell.task,
                    "family": cell.kind[0],
                    "complexity": cell.kind[1],
                    "frequency": cell.frequency,
                    "accuracy": accuracy,
                    "chance": chance,
                    "skill": (accuracy - chance) / (1 - chance),
                    "decayed": float(at in run.ends),
                })  # fmt: skip
        return rows

    def log_thresholds(self, targets: list[Target]) -> np.ndarray:
        """ln of the frequency at which the mean over tasks and runs reaches SKILL, shape (targets,)."""
        found = []
        for target in targets:
            odds = self._kinds[target.kind]
            for axis, value in (("block_params", target.block_params), ("tokens", target.tokens)):
                odds += simulate.SLOPES[axis] * np.log(value / simulate.CENTRE[axis])
            wanted = (logit(SKILL) - odds) / simulate.SLOPES["frequency"]
            found.append(np.log(simulate.CENTRE["frequency"]) + wanted)
        return np.array(found)


def together(*tables: Table) -> Measurements:
    """Runs of several calibrations as one ladder's measurements."""
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0].columns}
    return Measurements(Table(columns))


def fitted(measurements: Measurements, law: str = LOGISTIC.name, draws: int = 20) -> Calibration:
    """A calibration with nothing but the learning law, in a fraction of the time of all laws."""
    evidence = collect_evidence(standard_rows(measurements.learning, "learning")[0])
    return Calibration(
        learned_skill=SKILL,
        learning=learning.fit(FORMS[law], evidence, draws, np.random.default_rng(0)),
        tasks=coverage(evidence, SKILL),
    )


def half_widths(measurements: Measurements, targets: list[Target], law: str = LOGISTIC.name) -> np.ndarray:
    """Half the 90 % intervals of the targets' ln threshold frequencies, after a fit."""
    evidence: Evidence = collect_evidence(measurements.learning)
    knowledge = Knowledge(estimate(FORMS[law], evidence), evidence, [], 1)
    known = as_known(knowledge, evidence, targets, SKILL)
    return known.shown_half_widths(knowledge, as_targets(targets), None)


class Followed(NamedTuple):
    """Mean half-widths of ln threshold frequency over the kinds within reach."""

    before: float
    expected: float
    observed: float
    elsewhere: float
    """Observed after other runs of the same cost."""
    covered: float
    """Share of true thresholds within the interval before."""


def follow(seed: int, law: str) -> Followed:
    """Simulate a ladder, ask what to run next, simulate that and something else instead."""
    truth = Truth(seed)
    first = truth.learning(spec())
    found = suggest(together(first), fitted(together(first), law), spec(), None, Limit(share=0.5))
    within = np.array([target.kind != NEVER for target in found.targets])
    other = alternative(found, np.random.default_rng(seed), collect_evidence(first))
    observed, elsewhere = (
        half_widths(together(first, truth.learning(document)), found.targets, law)[within].mean()
        for document in (found.document, other)
    )
    off = np.abs(np.log(found.threshold) - truth.log_thresholds(found.targets))
    return Followed(
        found.before[within].mean(),
        found.after[within].mean(),
        observed,
        elsewhere,
        float((off < found.before)[within].mean()),
    )


def alternative(found: Suggestion, generator: np.random.Generator, evidence: Evidence) -> CalibrationSpec:
    """Any product of rungs, horizons and seeds whose FLOPs are within 15 % of the suggestion's."""
    base = spec()

    def cost(names: tuple[str, ...], horizons: Horizons, seeds: int) -> float:
        ends = [candidates.ends_of(PRESETS[name], horizons) for name in names]
        return seeds * sum(
            candidates.training_flops(base, PRESETS[name], end, 300)
            for name, end in zip(names, ends, strict=True)
        )

    rungs = [shape.name for shape in candidates.rungs(base, evidence)]
    offers = [
        (names, horizons, seeds)
        for horizons in candidates.horizon_choices(base.horizons)
        for count in (1, 2, 3)
        for names in combinations(rungs, count)
        for seeds in (1, 2, 3)
        if abs(cost(names, horizons, seeds) / found.design.flops - 1.0) < 0.15
    ]
    names, horizons, seeds = offers[generator.integers(len(offers))]
    return spec(ladder=list(names), horizons=horizons.model_dump(), seeds=list(range(2, 2 + seeds)))
