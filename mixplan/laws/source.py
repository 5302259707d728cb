"""The source law: held-out bits per byte of a rare source against its share, size, tokens and epochs.

Forms and their parameters: source_forms.py. Which rows: source_rows.py. The logarithm of the bits scatters
around the form in three nested levels (nested_noise.py): where the form does not fit, between seeds, within
a run. Parameters and standard deviations are drawn together from their posterior (source_posterior.py);
priors are wide, but for the exponents and the repetition discount: what the runs leave open stays open.

The form is chosen by the log density of what it did not see: configurations (size and share, all seeds
together) left out in turn, and, with three or more sizes, the largest size left out.

Shape legend: C = parameter vectors, P = coordinates, D = draws, n = rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw, Range
from mixplan.errors import InputError
from mixplan.laws.drawn import interval_90, rounded
from mixplan.laws.evidence import FloatArray
from mixplan.laws.posterior import curvature
from mixplan.laws.source_forms import FORMS, NOISE, Centre, Form, log_bits, named, prior
from mixplan.laws.source_posterior import SourcePosterior
from mixplan.laws.source_rows import SourceRows, choose, contradictions, source_names

FOLDS = 6
"""Into how many parts the configurations are dealt for the choice of the form."""
HELD_OUT, LARGEST = "held_out_log_density", "largest_size_log_density"
"""Settings of a law, each with the name of a form: mean log density of a left-out ln(bits per byte)."""
TELLING = 0.8
"""A parameter's interval wider than this part of its prior's says that the runs hardly spoke of it."""


def fit_sources(
    sources: Table, draws: int, generator: np.random.Generator, forms: Sequence[Form] = tuple(FORMS.values())
) -> tuple[list[FittedLaw], list[str]]:
    """A law for every source that its rows support; and why not for the others.

    Args:
        sources: the table `sources`, keeping the rules of its columns.
        draws: posterior draws, at least 20.
        generator: of the draws. Every source gets the same stream, so names do not matter.
        forms: to choose among.

    Raises:
        InputError: rows of the table contradict each other.
    """
    problems = contradictions(sources)
    if problems:
        raise InputError(problems)
    seed = int(generator.integers(2**63))
    laws, said = [], []
    for name in source_names(sources):
        rows, found = choose(sources, name)
        if rows is None:
            said += found
            continue
        laws.append(_fit(name, rows, forms, draws, np.random.default_rng(seed), found))
    return laws, said


def _fit(
    name: str,
    rows: SourceRows,
    forms: Sequence[Form],
    draws: int,
    generator: np.random.Generator,
    said: list[str],
) -> FittedLaw:
    centre = rows.centre
    each = {form.name: SourcePosterior(form, rows, centre) for form in forms}
    modes = {form: one.mode() for form, one in each.items()}
    scores: dict[str, dict[str, float]] = {forms[0].name: {}}
    if len(forms) > 1:
        scores = {form: _scores(one, modes[form], generator) for form, one in each.items()}
    best = FORMS[max(scores, key=lambda form: sum(scores[form].values()))]
    point = modes[best.name]
    drawn = each[best.name].draws(point, draws, generator)
    names = [*best.parameters, *NOISE]
    values, table = (
        np.column_stack([found[one] for one in names])
        for found in (named(best, point[None], centre), named(best, drawn, centre))
    )
    at = rows.inputs
    residual = log_bits(best, named(best, point[None], centre), at)[0] - rows.log_bits
    return FittedLaw(
        law=best.name,
        subject=name,
        formula=f"{best.formula}; g = 1 up to one epoch, then (1 + R·(1 − exp(−(epochs − 1)/R)))/epochs",
        source=best.source,
        parameters=names,
        values=values[0].tolist(),
        draws=rounded(table),
        ranges={
            "block_params": _range(at.block_params),
            "tokens": _range(at.tokens),
            "share": _range(at.share),
            "epochs": _range(at.epochs),
        },
        settings={
            f"{what}[{form}]": value for form, found in scores.items() for what, value in found.items()
        },
        rows=len(rows.log_bits),
        runs=len(rows.levels.configuration),
        residual=float(np.sqrt(np.mean(residual**2))),
        warnings=[*said, *_unknown(name, best, centre, drawn)],
    )


def _scores(one: SourcePosterior, mode: FloatArray, generator: np.random.Generator) -> dict[str, float]:
    """Mean log density of left-out rows: of configurations dealt into FOLDS, and of the largest size."""
    rows = one.rows
    root = np.linalg.cholesky(curvature(one.log_density, mode))
    fold = rows.levels.configuration[rows.levels.run] % FOLDS
    within = [one.left_out(fold == k, mode, root, generator) for k in range(FOLDS) if (fold == k).any()]
    found = {HELD_OUT: sum(within) / len(fold)}
    sizes = np.unique(rows.inputs.block_params)
    if len(sizes) >= 3:
        part = rows.inputs.block_params == sizes[-1]
        found[LARGEST] = one.left_out(part, mode, root, generator) / int(part.sum())
    return found


def _range(values: FloatArray) -> Range:
    return Range(low=float(values.min()), high=float(values.max()))


def _unknown(name: str, form: Form, centre: Centre, drawn: FloatArray) -> list[str]:
    """Which exponents and constants rest on their priors."""
    _, spread = prior(form, centre)
    open_ = []
    for index, parameter in enumerate(form.parameters):
        low, high = interval_90(drawn[:, index])
        if high - low > TELLING * 2 * 1.645 * spread[index]:
            open_.append(parameter)
    if not open_:
        return []
    return [
        f"source {name}: these runs hardly determine {', '.join(open_)} of its law, whose intervals are "
        "about those that were assumed; forecasts inside the measured ranges do not hang on it, those beyond "
        "do"
    ]
