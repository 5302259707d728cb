"""Which further runs there could be: rungs, horizons and cells that a calibration.yaml can ask for.

FLOPs are of training: 6·(matrix-product parameters + V·d) + 12·L·d·T a token (mixplan.documents.shapes), for
the run to its longest horizon and the decays of its shorter ones; probes come on top (`mixplan plan`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixplan.documents import Table
from mixplan.documents.calibration_spec import CalibrationSpec, Horizons, TaskGrid
from mixplan.documents.shapes import PRESETS, ModelShape
from mixplan.errors import InputError
from mixplan.laws.evidence import Evidence, Kind

LARGER = 2
"""How many rungs above the largest measured one are considered."""
GROWTH = 1.5
"""Width of a rung above the largest where no preset follows: 2.25 times the block parameters."""
BYTES_VOCABULARY = 257


@dataclass(frozen=True)
class Cell:
    """One task at one frequency."""

    task: str
    """As the learning table names it."""
    kind: Kind
    frequency: float


@dataclass(frozen=True)
class Run:
    """One training."""

    shape: ModelShape
    ends: tuple[float, ...]
    """Tokens at which it, and the branches of it, end; the longest last."""
    cells: tuple[Cell, ...]


def rungs(spec: CalibrationSpec, evidence: Evidence) -> list[ModelShape]:
    """The measured rungs, the presets of their series between them, and LARGER ones above; smallest first.

    Raises:
        InputError: a measured rung has no shape in the specification and is no preset.
    """
    measured = measured_shapes(spec, evidence.table)
    found = {shape.block_params: shape for shape in measured}
    smallest, largest = min(found), max(found)
    series = {_series(shape) for shape in measured if PRESETS.get(shape.name) == shape}
    siblings = sorted(
        (s for s in PRESETS.values() if _series(s) in series), key=lambda shape: shape.block_params
    )
    above = [shape for shape in siblings if shape.block_params > largest][:LARGER]
    while len(above) < LARGER:
        above.append(grown(above[-1] if above else found[largest]))
    between = [shape for shape in siblings if smallest < shape.block_params < largest]
    for shape in [*between, *above]:
        found.setdefault(shape.block_params, shape)
    return sorted(found.values(), key=lambda shape: shape.block_params)


def measured_shapes(spec: CalibrationSpec, table: Table) -> list[ModelShape]:
    """The shapes of the table's rungs, smallest first.

    Raises:
        InputError: a rung has none.
    """
    known = {shape.block_params: shape for shape in [*PRESETS.values(), *spec.shapes()]}
    sizes = np.unique(table["block_params"])
    lost = [size for size in sizes.tolist() if size not in known]
    if lost:
        names = [str(table["rung"][table["block_params"] == size][0]) for size in lost]
        raise InputError(
            f"rung {name} of {size:.0f} block parameters is neither in the calibration's ladder nor a "
            "preset, so what a run of it costs is not known; give the calibration.yaml that was run: --spec"
            for name, size in zip(names, lost, strict=True)
        )
    return [known[size] for size in sizes.tolist()]


def grown(shape: ModelShape) -> ModelShape:
    """A shape GROWTH times as wide, of the same depth and number of heads."""
    even = 2 * shape.heads
    width = max(even * round(GROWTH * shape.d_model / even), shape.d_model + even)
    ffn = round(shape.d_ffn * width / shape.d_model)
    name = re.sub(r"_d\d+$", "", shape.name) + f"_d{width}"
    return ModelShape(name=name, d_model=width, layers=shape.layers, heads=shape.heads, d_ffn=ffn)


def _series(shape: ModelShape) -> str:
    return shape.name.partition("_")[0]


def horizon_choices(given: Horizons) -> list[Horizons]:
    """The shortest of the measured horizons, ever more of them, and all with one twice as long; with a single
    one, also half of it alone."""
    field = "tokens" if given.tokens else "tokens_per_20_params"
    values = sorted(given.tokens or given.tokens_per_20_params)
    lists = [values[:count] for count in range(1, len(values) + 1)] + [[*values, 2 * values[-1]]]
    if len(values) == 1:
        lists.insert(0, [max(values[0] // 2, 1) if field == "tokens" else values[0] / 2])
    return [given.model_copy(update={field: chosen}) for chosen in lists]


def ends_of(shape: ModelShape, horizons: Horizons) -> list[float]:
    """Training tokens at which a rung's runs, or their branches, end; shortest first."""
    if horizons.tokens:
        return sorted(float(tokens) for tokens in horizons.tokens)
    return sorted(20.0 * shape.block_params * multiple for multiple in horizons.tokens_per_20_params)


def kept_grids(spec: CalibrationSpec, evidence: Evidence) -> list[TaskGrid]:
    """The grids whose cells the law was fitted to, less the gaps and unique instances that it was not.

    Where the table names none of the cells (another tool wrote it), all of them.
    """
    measured = {str(task) for task in evidence.table["task"]}
    kept = []
    for grid in spec.tasks:
        cells = [cell for cell in grid.cells() if cell.name in measured]
        if cells:
            unique = {cell.unique_instances for cell in cells}
            update: dict[str, object] = {"gaps_steps": sorted({cell.gap_steps for cell in cells})}
            if grid.unique_instances is not None:
                update["unique_instances"] = [u for u in grid.unique_instances if u in unique]
            kept.append(grid.model_copy(update=update))
    return kept or list(spec.tasks)


def grid_cells(grids: Sequence[TaskGrid]) -> list[Cell]:
    """The grids' cells."""
    return [
        Cell(cell.name, (cell.family, float(cell.complexity)), cell.frequency)
        for grid in grids
        for cell in grid.cells()
    ]


def at_frequency(grids: Sequence[TaskGrid], kind: Kind, frequencies: Sequence[float]) -> TaskGrid | None:
    """A grid of one synthetic kind at other frequencies, all else as in the first grid that has it."""
    for grid in grids:
        if grid.family == kind[0] and kind[1] in grid.complexities:
            update = {"complexities": [int(kind[1])], "frequencies": sorted(frequencies, reverse=True)}
            return grid.model_copy(update=update)
    return None


def runs_of_a_seed(
    spec: CalibrationSpec, shape: ModelShape, horizons: Horizons, synthetic: Sequence[Cell]
) -> list[Run]:
    """The runs that calibrate trains for one rung and seed: variants of the team's own tasks and sources, and
    the sources' anchors. A saturated source has another base text: such a run has no cell of the law's."""
    ends = ends_of(shape, horizons)
    lives = [tuple(ends)] if horizons.branches else [(end,) for end in ends]
    counts = [len(task.frequencies) for task in spec.user_tasks]
    counts += [len(source.shares) for source in spec.user_sources]
    mixes = []
    for variant in range(max(counts, default=1)):
        shares = [
            Cell(f"{s.name}@{share:g}", (s.family or s.name, float(s.complexity)), share)
            for s in spec.user_sources
            for share in [s.shares[variant % len(s.shares)]]
        ]
        mixes.append((*synthetic, *_own_tasks(spec, variant), *shares))
    if spec.user_sources:
        mixes += [(*synthetic, *_own_tasks(spec, 0)), *[()] * len(spec.user_sources)]
    return [Run(shape, life, tuple(mix)) for life in lives for mix in mixes]


def _own_tasks(spec: CalibrationSpec, variant: int) -> list[Cell]:
    return [
        Cell(task.name, (task.family or task.name, float(task.complexity)), frequency)
        for task in spec.user_tasks
        for frequency in [task.frequencies[variant % len(task.frequencies)]]
    ]


def training_flops(
    spec: CalibrationSpec, shape: ModelShape, ends: Sequence[float], vocabulary: float
) -> float:
    """Of one run and its branches."""
    decays = spec.training.decay_fraction * (sum(ends) - max(ends))
    return shape.flops_per_token(round(vocabulary), spec.sequence_length) * (max(ends) + decays)


def measured_vocabulary(spec: CalibrationSpec, table: Table) -> float:
    """Size of the vocabulary, reserved symbols included, from total and block parameters; where the table has
    no totals, that of the tokenizer (257, that of bytes, where it does not say)."""
    base = float(spec.tokenizer.vocab_size or BYTES_VOCABULARY)
    if "total_params" not in table:
        return base
    width = {float(shape.block_params): shape.d_model for shape in measured_shapes(spec, table)}
    d_model = np.array([width[size] for size in table["block_params"].tolist()])
    implied = (table["total_params"] - table["block_params"]) / (2.0 * d_model)
    implied = implied[np.isfinite(implied) & (implied >= 1.0)]
    return float(np.median(implied)) if len(implied) else base


def spent_flops(spec: CalibrationSpec, evidence: Evidence, vocabulary: float) -> float:
    """Training FLOPs of all measured runs."""
    table = evidence.table
    shapes = {float(shape.block_params): shape for shape in measured_shapes(spec, table)}
    total = 0.0
    for index in range(len(evidence.run_ids)):
        rows = np.flatnonzero(evidence.run == index)
        ends = set(table["tokens"][rows[evidence.finished[rows]]].tolist()) | {
            float(table["tokens"][rows].max())
        }
        shape = shapes[float(table["block_params"][rows[0]])]
        total += training_flops(spec, shape, sorted(ends), vocabulary)
    return total
