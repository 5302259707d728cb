"""What the forecasts are worth on measured ladders: every rung from every set of smaller ones, as Markdown.

    python benchmarks/forecast.py MEASUREMENTS... [--write docs/forecast.md]

MEASUREMENTS: folders or ref:NAME. With --write, what stands in that file below its marker is replaced.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mixplan.console import resolved
from mixplan.documents import read_measurements
from mixplan.documents.atomic import write_text
from mixplan.documents.calibration import BacktestScore, RungBacktest
from mixplan.laws.backtest import DEFAULT, NEAR, Tested, backtest
from mixplan.laws.calibration import checked_evidence
from mixplan.laws.evidence import Evidence
from mixplan.laws.loss_backtest import LossPrediction, backtest_lm_loss
from mixplan.laws.loss_rows import loss_rows
from mixplan.laws.rolling import Crossing, Fold, Said, crossings
from mixplan.laws.scores import ratio_error
from mixplan.units import number

MARKER = "<!-- Everything below is the output of benchmarks/forecast.py. -->"
DRAWS, SEED, RESAMPLES = 200, 0, 1000
NOISE_GOAL, COVERAGE_GOAL, AHEAD_OF = 1.15, (0.80, 0.97), ("logistic", "gradient-boosted trees")


def main() -> None:
    """Backtest every table, print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("measurements", type=Path, nargs="+")
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    text = "\n".join(line for path in asked.measurements for line in about(path))
    if asked.write is None:
        print(text)
    else:
        above = asked.write.read_text().split(MARKER)[0]
        write_text(asked.write, f"{above}{MARKER}\n\n{text}\n")


def about(path: Path) -> Iterator[str]:
    """All tables of one ladder."""
    tables = read_measurements(resolved(path))
    evidence = checked_evidence(tables, tables.learned_skill, DRAWS)
    tested = backtest(evidence, tables.learned_skill, DRAWS, SEED, tables.retention)
    yield f"## {path}"
    yield ""
    yield f"Chosen: {tested.backtest.choice}."
    yield ""
    yield from goals(tested, tables.learned_skill)
    yield ""
    yield "Squared error of the mean skill, in units of the noise floor (in the second column, with its 90 %"
    yield "interval over cells):"
    yield ""
    yield from skill_errors(tested)
    yield ""
    yield "The default forecast's other scores:"
    yield ""
    yield from other_scores(tested)
    yield ""
    yield "Log score (nats, higher is better):"
    yield ""
    yield from log_scores(tested)
    unique = tables.provenance.get("corpus_train_tokens")
    rows = loss_rows(evidence, tables.sources, unique if isinstance(unique, int | float) else None)
    if rows is not None:
        yield ""
        yield from losses(backtest_lm_loss(rows, DRAWS, SEED))
    yield ""


def goals(tested: Tested, learned_skill: float) -> Iterator[str]:
    """Each goal, met or by how much not."""
    rows: list[Sequence[str]] = []
    for one, (fold, said) in zip(tested.backtest.rolling, tested.told, strict=True):
        scores = {score.forecast: score for score in one.scores}
        default = scores[DEFAULT]
        if one.rungs_ahead == 1 and one.seed_noise_skill:
            ratio = default.skill_brier / one.seed_noise_skill
            low, high = ratio_interval(fold, said)
            rows.append((
                f"one rung ahead, {title(one)}: squared error ≤ {NOISE_GOAL} × noise floor",
                f"{ratio:.2f} ({low:.2f}–{high:.2f})",
                verdict(ratio <= NOISE_GOAL),
            ))  # fmt: skip
        if one.rungs_ahead == 2:
            rivals = [(name, scores[name].skill_brier) for name in AHEAD_OF]
            said_of = ", ".join(f"{name} {value:.4f}" for name, value in rivals)
            rows.append((
                f"two rungs ahead, {title(one)}: no worse than logistic and trees",
                f"{default.skill_brier:.4f} against {said_of}",
                verdict(all(default.skill_brier <= value for _, value in rivals)),
            ))  # fmt: skip
    every = [next(s for s in one.scores if s.forecast == DEFAULT) for one in tested.backtest.rolling]
    cells = sum(score.cells for score in every)
    covered = sum((score.coverage_90 or 0.0) * score.cells for score in every) / cells
    rows.append((
        f"90 % intervals cover {COVERAGE_GOAL[0]:.0%} to {COVERAGE_GOAL[1]:.0%}, all {len(every)} pairs",
        f"{covered:.1%} of {cells}",
        verdict(COVERAGE_GOAL[0] <= covered <= COVERAGE_GOAL[1]),
    ))  # fmt: skip
    outside = [
        one for one, s in zip(tested.backtest.rolling, every, strict=True)
        if not COVERAGE_GOAL[0] <= (s.coverage_90 or 0.0) <= COVERAGE_GOAL[1]
    ]  # fmt: skip
    rows.append((
        "the same in every pair",
        "; ".join(title(one) for one in outside) or "all",
        verdict(not outside),
    ))  # fmt: skip
    next_rung = [s for s, one in zip(every, tested.backtest.rolling, strict=True) if one.rungs_ahead == 1]
    near_ones, bracketed = sum(s.thresholds_near for s in next_rung), sum(s.thresholds for s in next_rung)
    replicated, seeds = seed_thresholds(tested, learned_skill)
    rows.append((
        "one rung ahead: f_crit within 1.5× where the rung brackets it",
        f"{near_ones} of {bracketed} (one seed against the others: {replicated} of {seeds})",
        verdict(near_ones == bracketed),
    ))  # fmt: skip
    yield from markdown(("goal", "measured", ""), rows)


def skill_errors(tested: Tested) -> Iterator[str]:
    """Every pair of rungs, every forecast."""
    names = list(dict.fromkeys(s.forecast for one in tested.backtest.rolling for s in one.scores))
    rows = []
    for one, (fold, _) in zip(tested.backtest.rolling, tested.told, strict=True):
        floor = one.seed_noise_skill
        own = {score.forecast: score.skill_brier / floor for score in one.scores} if floor else {}
        low, high = floor_interval(fold)
        rows.append((
            title(one), "–" if floor is None else f"{floor:.4f} ({low:.4f}–{high:.4f})",
            *(f"{own[name]:.2f}" if name in own else "–" for name in names),
        ))  # fmt: skip
    yield from markdown(("fitted → left out", "noise floor", *names), rows)


def other_scores(tested: Tested) -> Iterator[str]:
    """What else is known of the default forecast."""
    rows = []
    for one in tested.backtest.rolling:
        score = next(s for s in one.scores if s.forecast == DEFAULT)
        rows.append((
            title(one), shown(score.brier, 3), shown(one.seed_noise_learned, 3), shown(score.auroc, 3),
            shown(score.coverage_90, 2), shown(score.width_90, 2), near(score),
            shown(score.threshold_ratio, 2), str(score.cells),
        ))  # fmt: skip
    columns = (
        "fitted → left out", "Brier, learned or not", "its noise floor", "AUROC", "coverage of 90 %",
        "width of 90 %", "f_crit within 1.5×", "median ratio", "cells",
    )  # fmt: skip
    yield from markdown(columns, rows)


def log_scores(tested: Tested) -> Iterator[str]:
    """Every pair of rungs, every forecast."""
    names = list(dict.fromkeys(s.forecast for one in tested.backtest.rolling for s in one.scores))
    rows = []
    for one in tested.backtest.rolling:
        own = {score.forecast: score.log_score for score in one.scores}
        rows.append((title(one), *("–" if own.get(name) is None else f"{own[name]:.2f}" for name in names)))
    yield from markdown(("fitted → left out", *names), rows)


def losses(predictions: Sequence[LossPrediction]) -> Iterator[str]:
    """The LM-loss law, left-out sizes."""
    yield "LM loss on common data at the ends of runs, left-out sizes:"
    yield ""
    rows = []
    pairs = sorted({(one.fitted_sizes, one.block_params) for one in predictions})
    for fitted, size in pairs:
        own = [one for one in predictions if (one.fitted_sizes, one.block_params) == (fitted, size)]
        relative = [one.predicted / one.observed - 1.0 for one in own]
        inside = sum(one.low <= one.observed <= one.high for one in own)
        rows.append((str(fitted), number(size), f"{np.mean(relative):+.1%}", f"{inside} of {len(own)}"))
    yield from markdown(("fitted sizes", "left out", "mean error", "inside the 90 % interval"), rows)


def title(one: RungBacktest) -> str:
    """A pair of rungs."""
    fitted = f"{len(one.fitted_rungs)} rungs to {one.fitted_rungs[-1]}"
    return f"{fitted} → {one.left_out_rung} ({one.size_ratio:.1f}×)"


def shown(value: float | None, digits: int) -> str:
    """A number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def near(score: BacktestScore) -> str:
    """How many thresholds were met."""
    return f"{score.thresholds_near} of {score.thresholds}" if score.thresholds else "–"


def verdict(met: bool) -> str:
    """A goal's mark."""
    return "met" if met else "**missed**"


def ratio_interval(fold: Fold, said: Said) -> tuple[float, float]:
    """90 % interval of squared error over noise floor, resampling cells."""
    error, noise = by_cell(fold, said)
    picks = np.random.default_rng(SEED).integers(0, len(error), size=(RESAMPLES, len(error)))
    low, high = np.quantile(error[picks].mean(axis=1) / noise[picks].mean(axis=1), [0.05, 0.95])
    return float(low), float(high)


def floor_interval(fold: Fold) -> tuple[float, float]:
    """90 % interval of the noise floor, resampling cells."""
    _, noise = by_cell(fold, None)
    picks = np.random.default_rng(SEED).integers(0, len(noise), size=(RESAMPLES, len(noise)))
    low, high = np.quantile(noise[picks].mean(axis=1), [0.05, 0.95])
    return float(low), float(high)


def by_cell(fold: Fold, said: Said | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error and variance between seeds of every cell of several seeds."""
    groups = cells(fold.left_out)
    error = np.zeros(len(fold.observed))
    if said is not None:
        error[said.known] = (said.skill - fold.observed[said.known]) ** 2
    return (
        np.array([error[rows].mean() for rows in groups]),
        np.array([fold.observed[rows].var(ddof=1) for rows in groups]),
    )


def seed_thresholds(tested: Tested, learned_skill: float) -> tuple[int, int]:
    """How often one seed's threshold frequency is within 1.5× of the other seeds', in the same series that
    the next rung brackets, and of how many that both bracket."""
    near_ones, every = 0, 0
    for fold, _ in tested.told:
        if fold.rungs_ahead != 1:
            continue
        rung = fold.left_out
        for seed in np.unique(rung.table["seed"]):
            own = rung.table["seed"] == seed
            if own.all():
                continue
            rest = {where(one): one for one in crossings(rung.where(~own), learned_skill)}
            for one in crossings(rung.where(own), learned_skill):
                if where(one) in rest:
                    off = ratio_error(one.threshold_frequency, rest[where(one)].threshold_frequency)
                    every += 1
                    near_ones += bool(off <= NEAR)
    return near_ones, every


def where(one: Crossing) -> tuple[str, float, float]:
    """A series: task kind and training length."""
    return one.family, one.complexity, round(float(np.log(one.tokens)), 2)


def cells(rung: Evidence) -> list[np.ndarray]:
    """Rows of one task at one training length, over seeds."""
    keys = [
        f"{k}|{t}|{n:.0f}"
        for k, t, n in zip(rung.kind, rung.table["task"], rung.table["tokens"], strict=True)
    ]
    _, group = np.unique(keys, return_inverse=True)
    found = [np.flatnonzero(group == one) for one in range(group.max() + 1)]
    return [rows for rows in found if len(rows) > 1]


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()
