"""Learning tables simulated from each form of the law and fitted again, for benchmarks/law_recovery.py.

Truths are drawn anew in every repetition, where the law's own priors put most of theirs: the average family
from the form's priors (mixplan.laws.forms), families about it with half of what the form allows between
them, difficulty ~ N(0, 1.5), ln ceiling/(1 − ceiling) ~ N(5, 1). The form is given, not chosen.

Shape legend: n = rows, k = task kinds, p = parameters of a form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import beta as beta_distribution
from scipy.stats import norm

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.laws import learning
from mixplan.laws.beta_noise import BELOW, UNIT_WIDTH, interval, to_unit
from mixplan.laws.drawn import interval_90
from mixplan.laws.evidence import Evidence, FloatArray, IntArray, collect_evidence
from mixplan.laws.forms import FORMS, FREQUENCY_SLOPE, Form
from mixplan.laws.protocol import Cells
from mixplan.laws.surface import Surface

Trials = dict[str, tuple[float, float, float, float]]
"""By quantity: estimate, both ends of its 90 % interval, truth."""


class Noise(NamedTuple):
    """How runs scatter about the truth."""

    precision: float
    """Of a cell's skill about its run's mean."""
    run: float
    """Standard deviation between runs, of η."""
    task: float
    """The same between tasks of one kind."""


NOISES = (Noise(40.0, 0.05, 0.1), Noise(12.0, 0.1, 0.2), Noise(4.0, 0.3, 0.3))
KINDS = [("a", 2.0), ("a", 4.0), ("a", 8.0), ("b", 2.0), ("b", 8.0), ("c", 3.0)]
FREQUENCIES = np.array([2.5e-4, 1e-3, 4e-3, 1.6e-2])
SIZES = np.array([8e3, 2e4, 5e4, 1.3e5, 3e5])
HORIZONS = np.array([1e6, 2e6, 4e6, 8e6])
SEEDS = 2
LADDER = "5 sizes × 2 seeds × 4 horizons, 3 families of 3, 2, 1 kinds × 4 frequencies"
BEFORE_END, LAG = 0.9, 0.5
"""Every horizon has a checkpoint at this share of it, and there η lags behind by so much."""
CORRELATION = 0.5
"""Of the checkpoints of one cell in one run, in normal quantiles."""
CENTRES = np.array([
    np.log(FREQUENCIES).mean(),
    np.log(SIZES).mean(),
    np.log(HORIZONS).mean() + np.log(BEFORE_END) / 2.0,
])  # fmt: skip
"""Mean log frequency, size and tokens over the rows, about which the law's parameters are stated."""
SKILL = 0.8
"""At which threshold frequencies are compared."""


@dataclass(frozen=True)
class Truth:
    """What a table is made from."""

    form: Form
    average: FloatArray
    """Unbounded parameters of the average family, shape (p,)."""
    families: dict[str, FloatArray]
    difficulty: FloatArray
    """Shape (k,), in the order of KINDS."""
    ceiling: FloatArray

    def shown(self, family: str) -> FloatArray:
        """Parameters of a family as the formula has them, shape (p,)."""
        own = zip(self.form.parameters, self.families[family], strict=True)
        return np.array([parameter.shown(value) for parameter, value in own])

    def eta(self, kind: int, log_axes: FloatArray) -> FloatArray:
        """η less the difficulty, of finished runs; log_axes has shape (m, 3), the answer (m,)."""
        f, n, t = (log_axes - CENTRES).T
        eta = self.form.eta(self.shown(KINDS[kind][0])[:, None], f, n, t)
        return np.asarray(eta - self.difficulty[kind], dtype=np.float64)

    def skill(self, kind: int | IntArray, eta: FloatArray) -> FloatArray:
        """Mean skill at η less the difficulty, any one shape."""
        return np.asarray(self.ceiling[kind] * self.form.link.share(eta), dtype=np.float64)


def draw_truth(form: Form, generator: np.random.Generator) -> Truth:
    """A truth as the module's first lines state it."""
    average = np.array([p.mean + p.spread * generator.normal() for p in form.parameters])
    between = np.array([0.5 * p.between for p in form.parameters])
    families = {
        name: average + between * generator.normal(size=len(average))
        for name in sorted({family for family, _ in KINDS})
    }
    difficulty = generator.normal(0.0, 1.5, size=len(KINDS))
    return Truth(form, average, families, difficulty, expit(generator.normal(5.0, 1.0, size=len(KINDS))))


def simulate(truth: Truth, noise: Noise, generator: np.random.Generator) -> Evidence:
    """One learning table; every row a checkpoint of one cell in one run."""
    cells = list(product(range(len(SIZES)), range(SEEDS), range(len(KINDS)), range(len(FREQUENCIES))))
    size, seed, kind, frequency = (np.repeat(column, 2 * len(HORIZONS)) for column in np.transpose(cells))
    horizon = np.tile(np.repeat(np.arange(len(HORIZONS)), 2), len(cells))
    decayed = np.tile([0.0, 1.0], len(cells) * len(HORIZONS))
    tokens = HORIZONS[horizon] * np.where(decayed == 1, 1.0, BEFORE_END)
    log_axes = np.log(np.column_stack([FREQUENCIES[frequency], SIZES[size], tokens]))
    eta = np.empty(len(log_axes))
    for index in range(len(KINDS)):
        eta[kind == index] = truth.eta(index, log_axes[kind == index])
    task_effect = generator.normal(0.0, noise.task, size=(len(KINDS), len(FREQUENCIES)))
    run_effect = generator.normal(0.0, noise.run, size=(len(SIZES), SEEDS))
    eta += task_effect[kind, frequency] + run_effect[size, seed] - LAG * (1.0 - decayed)
    shared = np.repeat(generator.normal(size=len(cells)), 2 * len(HORIZONS))
    quantile = np.sqrt(CORRELATION) * shared + np.sqrt(1.0 - CORRELATION) * generator.normal(size=len(eta))
    skill = scattered(truth.skill(kind, eta), noise.precision, norm.cdf(quantile))
    return collect_evidence(
        Table({
            "run_id": np.array([f"{SIZES[n]:g}-{s}" for n, s in zip(size, seed, strict=True)], dtype=object),
            "rung": np.array([f"{SIZES[n]:g}" for n in size], dtype=object),
            "block_params": SIZES[size],
            "seed": seed.astype(np.float64),
            "step": 2.0 * horizon + 1.0 + decayed,
            "tokens": tokens,
            "task": np.array([f"{k}-{f}" for k, f in zip(kind, frequency, strict=True)], dtype=object),
            "family": np.array([KINDS[k][0] for k in kind], dtype=object),
            "complexity": np.array([KINDS[k][1] for k in kind]),
            "frequency": FREQUENCIES[frequency],
            "accuracy": 0.5 + 0.5 * skill,
            "chance": np.full(len(skill), 0.5),
            "skill": skill,
            "decayed": decayed,
        })
    )  # fmt: skip


def scattered(mean: FloatArray, precision: float, level: FloatArray) -> FloatArray:
    """Measured skill around a run's mean as mixplan.laws.beta_noise has it, at quantiles `level`, at most 1
    but not cut at 0; all of shape (n,)."""
    centre = to_unit(mean)
    unit = beta_distribution.ppf(level, centre * precision, (1.0 - centre) * precision)
    return np.minimum(unit * UNIT_WIDTH - BELOW, 1.0)


def recovered(repetitions: int, draws: int) -> Iterator[tuple[str, str, str, list[Trials]]]:
    """By configuration: truth, noise and ladder in words, and what each repetition found."""
    for number, (form, noise) in enumerate(product(FORMS.values(), NOISES)):
        said = f"precision {noise.precision:g}, runs {noise.run:g} and tasks {noise.task:g} of η"
        found = [
            repetition(form, noise, draws, np.random.default_rng([number, index]))
            for index in range(repetitions)
        ]
        yield form.name, said, LADDER, found


def repetition(form: Form, noise: Noise, draws: int, generator: np.random.Generator) -> Trials:
    """One truth, one table, one fit. Of families, kinds and cells, one drawn at random speaks for all."""
    truth = draw_truth(form, generator)
    law = learning.fit(form, simulate(truth, noise, generator), draws, generator)
    return {**_parameters(law, truth, generator), **_predictions(law, truth, noise, generator)}


def _parameters(law: FittedLaw, truth: Truth, generator: np.random.Generator) -> Trials:
    family = str(generator.choice(sorted(truth.families)))
    table = np.array([law.values, *law.draws])
    found: Trials = {}
    for index, parameter in enumerate(truth.form.parameters):
        for name, shown in (
            (f"{parameter.name}, one family", truth.shown(family)[index]),
            (f"{parameter.name}, average family", float(parameter.shown(truth.average[index]))),
        ):
            own = parameter.name if "average" in name else learning.family_name(parameter.name, family)
            column = table[:, law.parameters.index(own)]
            found[name] = (column[0], *interval_90(column[1:]), shown)
    return found


def _predictions(law: FittedLaw, truth: Truth, noise: Noise, generator: np.random.Generator) -> Trials:
    """At cells inside the ladder, the mean and one new run's skill where the true mean is between 0.1 and
    0.9, and ln f_crit where its truth lies within the measured frequencies; the first such cell in an order
    drawn at random."""
    every = [
        (kind, np.log([f, n, t]))
        for kind in range(len(KINDS))
        for f in FREQUENCIES
        for n in SIZES
        for t in HORIZONS
    ]
    every = [every[index] for index in generator.permutation(len(every))]
    found: Trials = {}
    surface = Surface(law)
    for kind, log_axes in every:
        eta = truth.eta(kind, log_axes[None])
        mean = float(truth.skill(kind, eta)[0])
        if not 0.1 <= mean <= 0.9:
            continue
        cells = Cells([KINDS[kind][0]], np.array([KINDS[kind][1]]), log_axes[None])
        drawn = surface.mean(cells)[0]
        found["mean skill"] = (drawn.mean(), *interval_90(drawn), mean)
        another = eta + generator.normal(0.0, np.hypot(noise.run, noise.task))
        skill = scattered(truth.skill(kind, another), noise.precision, generator.uniform(size=1))
        run = surface.new_run(cells)
        low, high = interval(run.mean, run.precision)
        found["skill of a new run"] = (
            run.mean.mean(),
            float(low[0]),
            float(high[0]),
            float(np.clip(skill[0], 0.0, 1.0)),
        )
        break
    slope = [parameter.name for parameter in truth.form.parameters].index(FREQUENCY_SLOPE)
    for kind, log_axes in every:
        if truth.ceiling[kind] <= SKILL:
            continue
        wanted = truth.form.link.inverse(SKILL / truth.ceiling[kind]) - truth.eta(kind, log_axes[None])[0]
        crossing = log_axes[0] + wanted / truth.shown(KINDS[kind][0])[slope]
        if not np.log(FREQUENCIES[0]) <= crossing <= np.log(FREQUENCIES[-1]):
            continue
        cells = Cells([KINDS[kind][0]], np.array([KINDS[kind][1]]), log_axes[None])
        drawn = surface.log_threshold_frequency(cells, SKILL)[0]
        low, middle, high = np.quantile(drawn, [0.05, 0.5, 0.95], method="nearest")
        found["ln threshold frequency"] = (float(middle), float(low), float(high), float(crossing))
        break
    return found
