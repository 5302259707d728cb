"""Which runs next: the cheapest that narrow the threshold frequencies which a plan hangs on.

A threshold frequency is where the mean skill of a finished run reaches `learned_skill` of what its kind
levels off at; its interval is that of the learning law with the largest share in the forecasts, and widens
beyond the measured ranges as forecasts do. What further runs would add: mixplan.laws.suggest_information.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixplan.documents import Calibration, Measurements
from mixplan.documents.calibration_spec import CalibrationSpec, TaskGrid
from mixplan.documents.plan import Plan
from mixplan.documents.shapes import PRESETS
from mixplan.errors import InputError, NoAnswer
from mixplan.laws import suggest_candidates as to_come
from mixplan.laws.calibration import checked_evidence
from mixplan.laws.candidates import time_exponent
from mixplan.laws.evidence import Evidence, FloatArray, Kind, ordered
from mixplan.laws.forms import FORMS
from mixplan.laws.hierarchy import Estimate, estimate
from mixplan.laws.suggest_budget import Limit
from mixplan.laws.suggest_candidates import Cell
from mixplan.laws.suggest_information import Knowledge, Thresholds
from mixplan.laws.suggest_search import Design, Known, Offers, designs, search
from mixplan.laws.suggest_targets import Target, as_targets, plan_targets, top_targets

MORE_INJECTED = 0.5
"""Further cells may take this much of the text, relative to what the measured ones take."""
SEVERAL = (2.0, 4.0)
"""Steps beyond a kind's measured frequencies."""
SAME_FREQUENCY = 1.3
"""Frequencies within this factor of a measured one are no others."""


@dataclass(frozen=True)
class Suggestion:
    """Runs to train next, and what they are expected to settle."""

    document: CalibrationSpec
    """The additional runs only."""
    design: Design
    added: list[Cell]
    """Cells that were not measured before."""
    law: str
    targets: list[Target]
    threshold: FloatArray
    """Threshold frequencies at the mode, one a target."""
    before: FloatArray
    after: FloatArray
    """Half the 90 % interval of their natural logarithms: as measured, and expected."""
    spent_flops: float
    """Of training, so far."""
    censored: list[Censored]


@dataclass(frozen=True)
class Censored:
    """A kind that was never learned, or always, and what the suggestion does about it."""

    kind: Kind
    status: str
    own: bool
    """A task or source of the team's own, whose frequencies are runs of their own."""
    frequency: float
    """The most telling of the suggestion: the highest of a kind never learned, the lowest of the other."""
    new: bool
    """Whether that frequency was not measured before."""
    rung: str
    tokens: float
    expected_skill: float
    """There: on the largest rung of the suggestion (always learned: on the smallest)."""
    threshold: float
    """Threshold frequency on that rung, at the mode."""


def suggest(
    measurements: Measurements,
    calibration: Calibration,
    spec: CalibrationSpec,
    plan: Plan | None,
    limit: Limit,
) -> Suggestion:
    """The runs that a budget is best spent on.

    Args:
        measurements: tables as fitted.
        calibration: fitted to them.
        spec: the calibration that was run.
        plan: whose cells are to be forecast; None: every kind on the largest rung and on the one above.
        limit: what the runs may cost.

    Raises:
        InputError: a measured rung has no known shape, or the plan needs a kind that was not measured.
        NoAnswer: no run is within the limit.
    """
    evidence = checked_evidence(measurements, calibration.learned_skill, len(calibration.learning.draws))
    targets = plan_targets(plan, evidence.kinds) if plan else _top(spec, evidence)
    vocabulary = to_come.measured_vocabulary(spec, evidence.table)
    spent = to_come.spent_flops(spec, evidence, vocabulary)
    grids = to_come.kept_grids(spec, evidence)
    cells = to_come.grid_cells(grids)
    runs = to_come.runs_of_a_seed(spec, spec.shapes()[0], spec.horizons, cells)
    everything = list(dict.fromkeys(cell for run in runs for cell in run.cells))
    found = _fitted(calibration, measurements, evidence)
    wanted = Knowledge(found, evidence, [], 1).thresholds(as_targets(targets), calibration.learned_skill)
    extra = _more_cells(grids, evidence, cells, targets, wanted)
    knowledge = Knowledge(found, evidence, [*everything, *extra], spec.probes.evaluations)
    known = as_known(knowledge, evidence, targets, calibration.learned_skill)
    offers = Offers(spec, knowledge, cells, vocabulary)
    shapes = to_come.rungs(spec, evidence)
    choices = [
        [offers.option(shape, horizons, []) for shape in shapes]
        for horizons in to_come.horizon_choices(spec.horizons)
    ]
    allowed = limit.of(spent)
    candidates = list(designs(choices, allowed.holds))
    if not candidates:
        cheapest = min((one for options in choices for one in options), key=lambda one: one.flops)
        raise NoAnswer(
            f"no further run is within the budget of {allowed.words}; the cheapest ({cheapest.shape.name}, "
            f"{cheapest.runs} run(s)) takes {cheapest.flops:.3g} training FLOPs: raise --suggest-budget"
        )
    room = MORE_INJECTED * sum(cell.frequency for cell in cells)
    sure = _unbound(calibration, extra, {target.kind for target in targets}, room)
    design, added = search(known, offers, candidates, sure, extra, room)
    return Suggestion(
        document=_document(spec, design, grids, added, evidence),
        design=design,
        added=added,
        law=calibration.learning.law,
        targets=targets,
        threshold=np.exp(known.thresholds.log_frequency),
        before=known.shown_half_widths(knowledge, as_targets(targets), None),
        after=known.shown_half_widths(knowledge, as_targets(targets), design),
        spent_flops=spent,
        censored=_censored(calibration, knowledge, design, everything, added, {cell.kind for cell in cells}),
    )


def check(measurements: Measurements, spec: CalibrationSpec, plan: Plan | None) -> None:
    """What `suggest` would refuse, before anything is fitted.

    Raises:
        InputError: as `suggest`, all problems at once.
    """
    table, problems = measurements.learning, []
    kinds = sorted({(str(f), float(c)) for f, c in zip(table["family"], table["complexity"], strict=True)})
    try:
        to_come.measured_shapes(spec, table)
    except InputError as error:
        problems += error.problems
    try:
        plan_targets(plan, kinds) if plan else None
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)


def as_known(knowledge: Knowledge, evidence: Evidence, targets: list[Target], learned_skill: float) -> Known:
    """What a fit says about targets."""
    thresholds = knowledge.thresholds(as_targets(targets), learned_skill)
    axes = evidence.log_axes
    return Known(thresholds, knowledge.measured, axes.min(axis=0), axes.max(axis=0))


def _fitted(calibration: Calibration, measurements: Measurements, evidence: Evidence) -> Estimate:
    """The fit behind the calibration's first learning law, with what its document does not hold."""
    forgotten = measurements.retention
    if forgotten is not None:
        forgotten = forgotten.where(ordered(forgotten, tuple(sorted(forgotten.columns))))
    return estimate(FORMS[calibration.learning.law], evidence, time_exponent(forgotten))


def _top(spec: CalibrationSpec, evidence: Evidence) -> list[Target]:
    """Targets without a plan, after the longest measured training; where horizons follow size, they do."""
    largest = float(evidence.table["block_params"].max())
    shapes = [shape for shape in to_come.rungs(spec, evidence) if shape.block_params >= largest][:2]
    longest = {float(shape.block_params): to_come.ends_of(shape, spec.horizons)[-1] for shape in shapes}
    return top_targets(evidence.kinds, shapes, longest)


def _more_cells(
    grids: Sequence[TaskGrid],
    evidence: Evidence,
    cells: Sequence[Cell],
    targets: list[Target],
    thresholds: Thresholds,
) -> list[Cell]:
    """Frequencies beyond the measured ones of every synthetic kind, and where its thresholds are expected."""
    expected: dict[Kind, set[float]] = {}
    for target, log_frequency in zip(targets, thresholds.log_frequency, strict=True):
        expected.setdefault(target.kind, set()).add(float(np.exp(log_frequency)))
    found = []
    for kind in evidence.kinds:
        measured = sorted(cell.frequency for cell in cells if cell.kind == kind)
        if not measured:
            continue
        asked = {measured[-1] * step for step in SEVERAL} | {measured[0] / step for step in SEVERAL}
        asked |= expected.get(kind, set())
        lowest, highest = measured[0] / SEVERAL[-1], measured[-1] * SEVERAL[-1]
        others: list[float] = []
        for frequency in sorted(float(f"{one:.2g}") for one in asked):
            near = any(max(frequency / one, one / frequency) < SAME_FREQUENCY for one in [*measured, *others])
            if not near and lowest <= frequency <= highest:
                others.append(frequency)
        grid = to_come.at_frequency(grids, kind, others) if others else None
        found += to_come.grid_cells([grid]) if grid is not None else []
    return found


def _unbound(calibration: Calibration, extra: Sequence[Cell], wanted: set[Kind], room: float) -> list[Cell]:
    """For every targeted kind that was never learned its highest further frequency, for those always learned
    the lowest: only that can end the censoring, whatever the law says. Rarest first, as far as there is room.
    """
    status = {(task.family, float(task.complexity)): task.status for task in calibration.tasks}
    chosen: list[Cell] = []
    highest = {kind: max((c.frequency for c in extra if c.kind == kind), default=0.0) for kind in wanted}
    for kind in sorted(wanted, key=lambda one: (highest[one], one)):
        left = room - sum(cell.frequency for cell in chosen)
        own = sorted((c for c in extra if c.kind == kind and c.frequency <= left), key=lambda c: c.frequency)
        if own and status.get(kind) in ("never learned", "always learned"):
            chosen.append(own[-1] if status[kind] == "never learned" else own[0])
    return chosen


def _document(
    spec: CalibrationSpec,
    design: Design,
    grids: Sequence[TaskGrid],
    added: Sequence[Cell],
    evidence: Evidence,
) -> CalibrationSpec:
    """The calibration.yaml of the additional runs: new seeds, since a seed repeated is a run repeated."""
    used = {*spec.seeds, *(int(seed) for seed in evidence.table["seed"])}
    first = max(used) + 1
    more: dict[Kind, list[float]] = {}
    for cell in added:
        more.setdefault(cell.kind, []).append(cell.frequency)
    further = [to_come.at_frequency(grids, kind, sorted(more[kind])) for kind in sorted(more)]
    shapes = [option.shape for option in design.options]
    ladder = [shape.name if PRESETS.get(shape.name) == shape else shape for shape in shapes]
    changed = spec.model_copy(
        update={
            "name": f"{spec.name}-next"[:100],
            "ladder": ladder,
            "horizons": design.horizons,
            "seeds": list(range(first, first + design.seeds)),
            "tasks": [*grids, *(grid for grid in further if grid is not None)],
            "dependence": None,
        }
    )
    return CalibrationSpec.model_validate(changed.model_dump())


def _censored(
    calibration: Calibration,
    knowledge: Knowledge,
    design: Design,
    cells: Sequence[Cell],
    added: Sequence[Cell],
    synthetic: set[Kind],
) -> list[Censored]:
    """Kinds that were never learned, or always, as the runs of the design will see them."""
    found = []
    for task in calibration.tasks:
        kind = (task.family, float(task.complexity))
        own = [cell for cell in [*cells, *added] if cell.kind == kind]
        if task.status not in ("never learned", "always learned") or not own:
            continue
        never = task.status == "never learned"
        cell = (max if never else min)(own, key=lambda one: one.frequency)
        option = design.options[-1 if never else 0]
        end, size = option.ends[-1 if never else 0], float(option.shape.block_params)
        at = as_targets([Target(kind, option.shape.name, size, end)])
        threshold = knowledge.thresholds(at, calibration.learned_skill).log_frequency[0]
        found.append(
            Censored(
                kind=kind,
                status=task.status,
                own=kind not in synthetic,
                frequency=cell.frequency,
                new=cell in added,
                rung=option.shape.name,
                tokens=end,
                expected_skill=knowledge.expected_skill(kind, cell.frequency, size, end),
                threshold=float(np.exp(threshold)),
            )
        )
    return found
