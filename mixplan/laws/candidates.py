"""The candidates for the learning law, and how the measured retention enters them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.laws import learning, retention
from mixplan.laws.baselines import BoostedTrees, Copy
from mixplan.laws.evidence import Evidence
from mixplan.laws.forms import FORMS, Form
from mixplan.laws.protocol import LearningLaw
from mixplan.laws.surface import Surface

LEAST_EXPONENT = 0.05
"""A half-life that does not grow with size is taken to grow this little: the prior is of a logarithm."""
DOUBT = 0.3
"""Standard deviation, of the logarithm, by which the time constant of learning may grow faster or slower with
size than the half-life of a burst: one is not the other."""


@dataclass(frozen=True)
class Parametric:
    """A form, with what the retention table says of its time constant."""

    form: Form
    time_exponent: tuple[float, float] | None = None
    baseline: bool = False

    @property
    def name(self) -> str:
        """The form's."""
        return self.form.name

    def document(self, evidence: Evidence, draws: int, generator: np.random.Generator) -> FittedLaw:
        """The fitted form as a document."""
        return learning.fit(self.form, evidence, draws, generator, self.time_exponent)

    def fit(self, evidence: Evidence, draws: int, generator: np.random.Generator) -> Surface:
        """The fitted form, ready to answer."""
        return Surface(self.document(evidence, draws, generator))


def parametric(time_exponent: tuple[float, float] | None) -> list[Parametric]:
    """All forms."""
    return [Parametric(form, time_exponent) for form in FORMS.values()]


def candidates(time_exponent: tuple[float, float] | None) -> list[LearningLaw]:
    """All forms, then the baselines."""
    return [*parametric(time_exponent), Copy(), BoostedTrees()]


def time_exponent(table: Table | None, largest_block_params: float = np.inf) -> tuple[float, float] | None:
    """Mean and standard deviation of the prior of ln time_constant_exponent, from how the half-life of a
    burst's gain grows with size; None where that was not measured.

    Args:
        table: the retention table.
        largest_block_params: larger rungs are not looked at, as a backtest must not.
    """
    if table is None:
        return None
    table = table.where(table["block_params"] <= largest_block_params)
    if len(np.unique(table["block_params"])) < 2:
        return None
    law, _ = retention.fit(table, DRAWS, np.random.default_rng(0))
    if law is None or len(law.draws) < 2:
        return None
    at = law.parameters.index(retention.EXPONENT)
    drawn = np.array([draw[at] for draw in law.draws])
    exponent = max(law.values[at], LEAST_EXPONENT)
    return float(np.log(exponent)), float(np.hypot(DOUBT, min(drawn.std() / exponent, 2.0)))


DRAWS = 40
