"""What is not known behind a forecast, in words for the engineer who reads which of it matters.

Shape legend: D = draws, K = what is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mixplan.laws.forms import (
    ALPHA,
    FREQUENCY_SLOPE,
    LOG_BALANCE,
    LOG_SIZE,
    LOG_TIME,
    SIZE_SLOPE,
    TIME_EXPONENT,
    TOKENS_SLOPE,
)
from mixplan.laws.source_goals import FloatArray, SourceGoals
from mixplan.laws.surface import Kind, Surface

OF_FAMILY = {
    FREQUENCY_SLOPE: "effect of frequency in {}",
    TOKENS_SLOPE: "effect of training length in {}",
    SIZE_SLOPE: "effect of model size in {}",
    LOG_TIME: "training length from which on more of it stops helping in {}",
    TIME_EXPONENT: "growth of that length with model size in {}",
    LOG_SIZE: "model size from which on more of it stops helping in {}",
    ALPHA: "effect of model size on the frequency needed in {}",
    LOG_BALANCE: "whether model size or exposures limit {}",
}
"""Parameters of mixplan.laws.forms."""
OF_SOURCE = {
    "E": "bits per byte of {} that nothing lowers",
    "A": "bits per byte of {} that model size lowers",
    "alpha": "effect of model size on {}",
    "B": "bits per byte of {} that training length lowers",
    "beta": "effect of training length on {}",
    "S": "bits per byte of {} that its own text lowers",
    "H": "amount of its own text that {} needs",
    "gamma": "effect of its own text on {}",
    "tau": "what other text is worth to {}",
    "K": "bits per byte of {} that size and training length lower",
}
"""Parameters of mixplan.laws.source_forms but R: repeats are discounted before these laws are asked."""
_AXES = ("frequencies", "model sizes", "training lengths", "complexities")
_SOURCE_AXES = ("model sizes", "training lengths", "shares")

Named = dict[str, FloatArray]


def in_words(
    surfaces: Sequence[Surface], kinds: Sequence[Kind], sources: Mapping[str, SourceGoals]
) -> tuple[list[str], FloatArray]:
    """K names and their values in every draw, shape (D, K); only what differs between draws.

    With several laws, which of them a draw is from is named too, and a parameter that a draw's law does not
    have stands at the mean of its law's.

    Args:
        surfaces: laws, with the draws that they give to the mixture.
        kinds: that the goals are about; their order does not matter.
        sources: laws of the sources that the goals are about, by name.
    """
    found: Named = {}
    if kinds:
        parts = [_of_law(surface, sorted(set(kinds))) for surface in surfaces]
        lengths = [len(surface.run_spread) for surface in surfaces]
        for at, (surface, part) in enumerate(zip(surfaces, parts, strict=True)):
            after = "" if len(surfaces) == 1 else f" (law: {surface.form.name})"
            if at:
                found[f"whether the law is {surface.form.name}"] = _spread(
                    np.ones(lengths[at]), 0.0, at, lengths
                )
            for name, values in part.items():
                found[name + after] = _spread(values, float(values.mean()), at, lengths)
    for source in sorted(sources):
        found |= _of_source(source, sources[source])
    varying = {name: values for name, values in found.items() if np.ptp(values) > 0}
    columns = list(varying.values())
    draws = sum(len(surface.run_spread) for surface in surfaces)
    return list(varying), np.column_stack(columns) if columns else np.empty((draws, 0))


def _spread(values: FloatArray, elsewhere: float, at: int, lengths: list[int]) -> FloatArray:
    """One law's values at its place among all draws, shape (D,)."""
    return np.concatenate([
        values if index == at else np.full(length, elsewhere) for index, length in enumerate(lengths)
    ])  # fmt: skip


def _of_law(surface: Surface, kinds: list[Kind]) -> Named:
    own = surface.about(kinds)
    found: Named = {}
    for at, (family, complexity) in enumerate(kinds):
        of = own.family[at]
        for index, parameter in enumerate(surface.form.parameters):
            found[OF_FAMILY[parameter.name].format(family)] = surface.psi[index, of]
        found[f"difficulty of {family} {complexity:g}"] = own.difficulty[at]
        found[f"ceiling of {family} {complexity:g}"] = own.ceiling[at]
        # The higher the precision, the less runs scatter.
        found[f"scatter of measured skill in {family}"] = 1.0 / np.sqrt(1.0 + own.precision[at])
    found["differences between runs"] = surface.run_spread
    found["differences between tasks of one kind"] = surface.task_shift
    beyond = [surface.beyond_measured(*kind) for kind in kinds]
    for axis, values in zip(_AXES, surface.doubt, strict=True):
        if axis != _AXES[-1] or any(beyond):
            found[f"doubt beyond the fitted {axis}"] = values
    for axis, values in zip(_AXES, surface.gain, strict=False):
        found[f"gain beyond the fitted {axis}, where the law levels off"] = values
    return found


def _of_source(source: str, law: SourceGoals) -> Named:
    found = {OF_SOURCE[name].format(source): law.named[name] for name in law.named if name in OF_SOURCE}
    found[f"misfit of the law of {source}"] = law.misfit
    found[f"scatter of runs on {source}"] = law.scatter
    for axis, values in zip(_SOURCE_AXES, law.doubt, strict=True):
        found[f"doubt beyond the fitted {axis} of {source}"] = values
    return found
