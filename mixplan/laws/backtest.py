"""What a forecast is worth: rungs that were left out, predicted by every candidate from smaller ones.

The default forecast is scored as it would have been chosen without the rung it is scored on.

Shape legend: n = left-out final cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mixplan.documents import Table
from mixplan.documents.calibration import Backtest, BacktestCell, BacktestScore, RungBacktest
from mixplan.errors import InputError
from mixplan.laws import scores
from mixplan.laws.baselines import Copy
from mixplan.laws.candidates import candidates, time_exponent
from mixplan.laws.choice import Choice, choose
from mixplan.laws.evidence import Evidence, FloatArray
from mixplan.laws.protocol import mixed
from mixplan.laws.rolling import DRAWS, Fold, Said, distribution, folds

DEFAULT = "default forecast"
MIN_RUNGS = 3
SEED_FREQUENCY = 1.05
"""Largest ratio of two realised frequencies that were meant to be the same."""
NEAR = 1.5
"""A threshold frequency within this ratio of the measured one counts as predicted."""


@dataclass(frozen=True)
class Tested:
    """The document, and what the default forecast is to be."""

    backtest: Backtest
    choice: Choice
    told: list[tuple[Fold, Said]]
    """Every fold, with what the default forecast said; in the order of `backtest.rolling`."""


def backtest(
    evidence: Evidence, learned_skill: float, draws: int, seed: int, retention: Table | None = None
) -> Tested:
    """Leave out rung after rung.

    Args:
        evidence: rows of one protocol.
        learned_skill: the threshold.
        draws: of every law's parameters.
        seed: of the draws.
        retention: the retention table; of it too, only fitted rungs are looked at.

    Raises:
        InputError: fewer than three rungs, or no left-out rung holds a cell that the others can speak about.
    """
    sizes = np.unique(evidence.table["block_params"])
    if len(sizes) < MIN_RUNGS:
        raise InputError(
            f"a backtest needs at least {MIN_RUNGS} rungs (one left out, two to fit size on); these "
            f"measurements have {len(sizes)} (block_params {', '.join(f'{size:g}' for size in sizes)}): add "
            "a rung"
        )
    found = list(
        folds(
            evidence,
            lambda largest: candidates(time_exponent(retention, largest)),
            learned_skill,
            draws,
            seed,
        )
    )
    last = [fold for fold in found if fold.rungs_ahead == 1 and _size(fold) == sizes[-1]]
    if not last:
        raise InputError(
            "no task of the largest rung was measured on smaller ones, so there is nothing to predict"
        )
    names = {float(size): _rung_name(evidence, size) for size in sizes}
    told = [(fold, _default(fold, found, learned_skill)) for fold in found]
    rolling = [_scored(fold, default, names, learned_skill) for fold, default in told]
    (final, default), scored = next(
        (pair, one) for pair, one in zip(told, rolling, strict=True) if pair[0] is last[0]
    )
    choice = choose(found)
    document = Backtest(
        left_out_rung=names[_size(final)],
        left_out_block_params=_size(final),
        fitted_rungs=[names[size] for size in final.fitted],
        scores=scored.scores,
        cells=_cells(final, default),
        seed_noise_brier=scored.seed_noise_skill,
        verdict=_verdict(final, default, learned_skill),
        rolling=rolling,
        choice=choice.reason,
    )
    return Tested(document, choice, told)


def seed_noise(left_out: Evidence, values: FloatArray) -> float | None:
    """Half the mean squared difference in `values` (n,) between two seeds of the same cell; None with one
    seed.

    No forecast of the mean alone can have a smaller mean squared error than this. Cells are the same up to
    SEED_FREQUENCY: a user's task has one name at all its frequencies. Runs of one seed (with other shares of
    a source, say) start from the same weights and are not held against each other.
    """
    table = left_out.table
    same: dict[tuple[str, str, float, float], list[int]] = {}
    for row in range(len(table)):
        key = (str(table["task"][row]), str(table["family"][row]), float(table["complexity"][row]))
        same.setdefault((*key, float(table["tokens"][row])), []).append(row)
    frequency, seed = left_out.log_axes[:, 0], table["seed"]
    halves = []
    for rows in same.values():
        ordered = np.array(rows)[np.argsort(frequency[rows])]
        starts = [0]
        for at in range(1, len(ordered)):
            if frequency[ordered[at]] > frequency[ordered[starts[-1]]] + np.log(SEED_FREQUENCY):
                starts.append(at)
        for cell in np.split(ordered, starts[1:]):
            one, other = np.triu_indices(len(cell), 1)
            differ = seed[cell[one]] != seed[cell[other]]
            if differ.any():
                squares = (values[cell[one]] - values[cell[other]]) ** 2
                halves.append(0.5 * float(squares[differ].mean()))
    return float(np.mean(halves)) if halves else None


def forecast(fold: Fold, weights: dict[str, float], learned_skill: float) -> Said:
    """What a mixture of the fold's laws says."""
    parts = [(next(one for one in fold.said if one.name == name), w) for name, w in weights.items()]
    if len(parts) == 1:
        return replace(parts[0][0], name=DEFAULT)
    found = mixed([(one.found, weight) for one, weight in parts], DRAWS)
    thresholds: list[float | None] = []
    for column in zip(*(one.thresholds for one, _ in parts), strict=True):
        known = [(w, np.log(value)) for value, (_, w) in zip(column, parts, strict=True) if value is not None]
        share = sum(weight for weight, _ in known)
        # The middle of the mixture: none where most of it has none.
        thresholds.append(float(np.exp(sum(w * v for w, v in known) / share)) if share > 0.5 else None)
    return Said(DEFAULT, False, **distribution(found, learned_skill), thresholds=thresholds)


def _default(fold: Fold, every: list[Fold], learned_skill: float) -> Said:
    """The default forecast, chosen on the folds that know nothing of the rung."""
    size = _size(fold)
    others = [other for other in every if _size(other) != size and size not in other.fitted]
    return forecast(fold, choose(others).weights, learned_skill)


def _scored(fold: Fold, default: Said, names: dict[float, str], learned_skill: float) -> RungBacktest:
    return RungBacktest(
        fitted_rungs=[names[size] for size in fold.fitted],
        left_out_rung=names[_size(fold)],
        left_out_block_params=_size(fold),
        rungs_ahead=fold.rungs_ahead,
        size_ratio=_size(fold) / fold.fitted[-1],
        seed_noise_skill=seed_noise(fold.left_out, fold.observed),
        seed_noise_learned=seed_noise(fold.left_out, (fold.observed >= learned_skill).astype(np.float64)),
        scores=[_score(fold, said, learned_skill) for said in (default, *fold.said) if said.known.any()],
    )


def _score(fold: Fold, said: Said, learned_skill: float) -> BacktestScore:
    observed = fold.observed[said.known]
    learned = observed >= learned_skill
    predicted = np.array([np.inf if one is None else one for one in said.thresholds])
    off = scores.ratio_error(predicted, np.array([one.threshold_frequency for one in fold.crossed]))
    middle = float(np.median(off)) if len(off) else np.inf
    return BacktestScore(
        forecast=said.name,
        baseline=said.baseline,
        brier=scores.brier(said.p_learned, learned),
        skill_brier=scores.brier(said.skill, observed),
        auroc=scores.auroc(learned, said.p_learned),
        coverage_90=scores.coverage(said.low, said.high, observed),
        log_score=float(said.log_scores(fold.observed).mean()),
        width_90=float(np.mean(said.high - said.low)),
        threshold_ratio=middle if np.isfinite(middle) else None,
        thresholds=len(off),
        thresholds_near=int((off <= NEAR).sum()),
        cells=len(observed),
    )


def _cells(fold: Fold, default: Said) -> list[BacktestCell]:
    copied = next(said for said in fold.said if said.name == Copy.name)
    copies = np.full(len(fold.observed), np.nan)
    copies[copied.known] = copied.skill
    table = fold.left_out.table
    return [
        BacktestCell(
            family=str(table["family"][row]),
            complexity=float(table["complexity"][row]),
            frequency=float(table["frequency"][row]),
            block_params=float(table["block_params"][row]),
            tokens=float(table["tokens"][row]),
            seed=int(table["seed"][row]),
            observed=float(fold.observed[row]),
            predicted=float(default.skill[at]),
            low=float(default.low[at]),
            high=float(default.high[at]),
            p_learned=float(default.p_learned[at]),
            copied=float(copies[row]) if np.isfinite(copies[row]) else None,
        )
        for at, row in enumerate(np.flatnonzero(default.known))
    ]


def _size(fold: Fold) -> float:
    return float(fold.left_out.table["block_params"][0])


def _rung_name(evidence: Evidence, size: float) -> str:
    return ", ".join(sorted(set(evidence.table["rung"][evidence.table["block_params"] == size])))


def _verdict(fold: Fold, default: Said, learned_skill: float) -> str:
    """In words, on the cells that were measured on the largest fitted rung too."""
    copied = next(said for said in fold.said if said.name == Copy.name)
    both = copied.known & default.known
    if not both.any():
        return "no cell of the left-out rung was measured on the largest fitted one: nothing to copy"
    observed = fold.observed[both]
    learned = observed >= learned_skill
    inside_default = both[default.known]
    inside_copied = both[copied.known]
    law = scores.brier(default.p_learned[inside_default], learned)
    copy = scores.brier(copied.p_learned[inside_copied], learned)
    law_skill = scores.brier(default.skill[inside_default], observed)
    copy_skill = scores.brier(copied.skill[inside_copied], observed)
    numbers = (
        f"Brier {law:.3f} against {copy:.3f} on learned or not, {law_skill:.3f} against {copy_skill:.3f} on "
        f"skill, {len(observed)} cells"
    )
    if law < copy and law_skill < copy_skill:
        return f"the law beats copying the largest fitted rung: {numbers}"
    if law > copy and law_skill > copy_skill:
        return f"the law does NOT beat copying the largest fitted rung: {numbers}"
    return f"the law and copying the largest fitted rung each win one score or tie: {numbers}"
