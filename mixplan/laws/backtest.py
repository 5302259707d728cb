"""Leave out the largest rung, fit on the rest, predict it: what a forecast one rung up is worth.

Shape legend: n = left-out cells (final checkpoints of the largest rung), m = final cells of the largest
fitted rung.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixplan.documents import Calibration
from mixplan.documents.calibration import Backtest, BacktestCell, BacktestScore
from mixplan.errors import InputError
from mixplan.laws import logistic
from mixplan.laws.evidence import BoolArray, Evidence, FloatArray, coverage
from mixplan.laws.predict import LawForecast
from mixplan.laws.scores import SAME_FREQUENCY, auroc

LAW, COPY = "law", "copy the largest fitted rung"
MIN_RUNGS = 3
_TIE = 0.01


def backtest(evidence: Evidence, learned_skill: float, draws: int, seed: int) -> Backtest:
    """Score the law on the left-out rung against copying the same cell from the largest fitted rung.

    Raises:
        InputError: fewer than three rungs, or the left-out rung holds no cell that the others can speak
        about.
    """
    sizes = np.unique(evidence.table["block_params"])
    if len(sizes) < MIN_RUNGS:
        raise InputError(
            f"a backtest needs at least {MIN_RUNGS} rungs (one left out, two to fit size on); these "
            f"measurements have {len(sizes)} (block_params {', '.join(f'{size:g}' for size in sizes)}): add "
            "a rung"
        )
    largest = evidence.table["block_params"] == sizes[-1]
    fitted, left_out = evidence.where(~largest), evidence.where(largest & evidence.finished)
    forecast = LawForecast(learning_only(fitted, learned_skill, draws, seed))
    table = left_out.table
    unknown = {index for index, _ in forecast.problems(list(table["family"]), table["complexity"])}
    left_out = left_out.where(np.array([index not in unknown for index in range(len(table))]))
    if not len(left_out.table):
        raise InputError(
            "no task of the largest rung was measured on smaller ones, so there is nothing to predict"
        )
    table = left_out.table
    predicted = forecast.skill(
        list(table["family"]), table["complexity"], table["block_params"], table["tokens"], table["frequency"]
    )
    observed = np.clip(left_out.skill, 0.0, 1.0)
    copied = copy_forecast(fitted, left_out)
    outcome = _Outcome(observed, observed >= learned_skill)
    inside = (predicted.skill_low <= observed) & (observed <= predicted.skill_high)
    law = outcome.score(LAW, predicted.p_learned, predicted.skill, predicted.p_learned, inside)
    scores, verdict = (
        [law],
        "no cell of the left-out rung was measured on the largest fitted one: nothing to copy",
    )
    have = np.isfinite(copied)
    if have.any():
        part = _Outcome(observed[have], outcome.learned[have])
        same = part.score(
            LAW, predicted.p_learned[have], predicted.skill[have], predicted.p_learned[have], inside[have]
        )
        other = part.score(
            COPY, (copied[have] >= learned_skill).astype(float), copied[have], copied[have], None
        )
        scores.append(other)
        verdict = _verdict(same, other)
    cells = [
        BacktestCell(
            family=str(table["family"][i]),
            complexity=float(table["complexity"][i]),
            frequency=float(table["frequency"][i]),
            block_params=float(table["block_params"][i]),
            tokens=float(table["tokens"][i]),
            seed=int(table["seed"][i]),
            observed=float(observed[i]),
            predicted=float(predicted.skill[i]),
            low=float(predicted.skill_low[i]),
            high=float(predicted.skill_high[i]),
            p_learned=float(predicted.p_learned[i]),
            copied=float(copied[i]) if have[i] else None,
        )
        for i in range(len(table))
    ]
    return Backtest(
        left_out_rung=", ".join(sorted(set(table["rung"]))),
        left_out_block_params=float(sizes[-1]),
        fitted_rungs=[_rung_name(fitted, size) for size in sizes[:-1]],
        scores=scores,
        cells=cells,
        seed_noise_brier=seed_noise(left_out),
        verdict=verdict,
    )


def learning_only(evidence: Evidence, learned_skill: float, draws: int, seed: int) -> Calibration:
    """A calibration with the learning law and the task coverage alone."""
    return Calibration(
        learned_skill=learned_skill,
        learning=logistic.fit(evidence, draws, np.random.default_rng([seed, 0])),
        tasks=coverage(evidence, learned_skill),
    )


def copy_forecast(fitted: Evidence, left_out: Evidence) -> FloatArray:
    """Mean final skill of the same cell at the largest fitted rung, NaN where it was not measured; shape
    (n,).

    The same cell: same family and complexity, nearest frequency (within SAME_FREQUENCY), then nearest token
    count; ties are averaged over seeds.
    """
    table = fitted.table
    top = fitted.finished & (table["block_params"] == table["block_params"].max())
    skill = np.clip(fitted.skill[top], 0.0, 1.0)
    family, complexity = table["family"][top].astype(str), table["complexity"][top]
    frequency, _, tokens = fitted.log_axes[top].T
    copied = np.full(len(left_out.table), np.nan)
    for index, (wanted_frequency, _, wanted_tokens) in enumerate(left_out.log_axes):
        same = (family == str(left_out.table["family"][index])) & (
            complexity == left_out.table["complexity"][index]
        )
        same &= np.abs(frequency - wanted_frequency) <= np.log(SAME_FREQUENCY)
        same = _nearest(same, np.abs(frequency - wanted_frequency))
        same = _nearest(same, np.abs(tokens - wanted_tokens))
        if same.any():
            copied[index] = skill[same].mean()
    return copied


def seed_noise(left_out: Evidence) -> float | None:
    """Half the mean squared difference in final skill between two seeds of the same cell; None with one seed.

    No forecast of the mean alone can have a smaller mean squared error than this. Cells are the same up to
    SAME_FREQUENCY: a user's task has one name at all its frequencies. Runs of one seed (with other shares of
    a source, say) start from the same weights and are not held against each other.
    """
    table = left_out.table
    same: dict[tuple[str, str, float, float], list[int]] = {}
    for row in range(len(table)):
        key = (str(table["task"][row]), str(table["family"][row]), float(table["complexity"][row]))
        same.setdefault((*key, float(table["tokens"][row])), []).append(row)
    skill, frequency, seed = np.clip(left_out.skill, 0.0, 1.0), left_out.log_axes[:, 0], table["seed"]
    halves = []
    for rows in same.values():
        ordered = np.array(rows)[np.argsort(frequency[rows])]
        apart = np.flatnonzero(np.diff(frequency[ordered]) > np.log(SAME_FREQUENCY)) + 1
        for cell in np.split(ordered, apart):
            one, other = np.triu_indices(len(cell), 1)
            differ = seed[cell[one]] != seed[cell[other]]
            if differ.any():
                squares = (skill[cell[one]] - skill[cell[other]]) ** 2
                halves.append(0.5 * float(squares[differ].mean()))
    return float(np.mean(halves)) if halves else None


@dataclass(frozen=True)
class _Outcome:
    skill: FloatArray
    learned: BoolArray

    def score(
        self,
        name: str,
        probability: FloatArray,
        skill: FloatArray,
        ranking: FloatArray,
        inside: BoolArray | None,
    ) -> BacktestScore:
        return BacktestScore(
            forecast=name,
            brier=float(np.mean((probability - self.learned) ** 2)),
            skill_brier=float(np.mean((skill - self.skill) ** 2)),
            auroc=auroc(self.learned, ranking),
            coverage_90=None if inside is None else float(inside.mean()),
            cells=len(self.skill),
        )


def _nearest(candidates: BoolArray, distance: FloatArray) -> BoolArray:
    if not candidates.any():
        return candidates
    return candidates & (distance <= distance[candidates].min() + _TIE)


def _rung_name(evidence: Evidence, size: float) -> str:
    return ", ".join(sorted(set(evidence.table["rung"][evidence.table["block_params"] == size])))


def _verdict(law: BacktestScore, copy: BacktestScore) -> str:
    numbers = (
        f"Brier {law.brier:.3f} against {copy.brier:.3f} on learned or not, {law.skill_brier:.3f} against "
        f"{copy.skill_brier:.3f} on skill, {law.cells} cells"
    )
    better, worse = law.brier < copy.brier, law.brier > copy.brier
    better_skill, worse_skill = law.skill_brier < copy.skill_brier, law.skill_brier > copy.skill_brier
    if better and better_skill:
        return f"the law beats copying the largest fitted rung: {numbers}"
    if worse and worse_skill:
        return f"the law does NOT beat copying the largest fitted rung: {numbers}"
    return f"the law and copying the largest fitted rung each win one score or tie: {numbers}"
