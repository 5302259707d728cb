"""Columns of the learning table in other units than theirs: what cannot be, and what is only strange.

A law of logarithms fits a column in thousands as well as one in ones, so no misfit gives a wrong unit away,
and every answer in numbers is then wrong by that factor. What follows from the other columns does: nobody
learns from fewer than two examples, a step has at least one token, a run has no more instances than tokens.

Shape legend: n = rows, R = runs.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents import Table
from mixplan.laws.evidence import BoolArray, FloatArray, IntArray
from mixplan.units import number

LEAST_EXPOSURES = 2.0
"""Instances of a task that nobody learns it from."""
LUCKY_CELLS, LUCKY_SHARE = 2, 0.02
"""So many such cells, and such a share of them, may look learned by luck, on few test instances."""
FEW_EXPOSURES = 20.0
"""Fewer at the middle learned cell are strange: the ladders that ship with mixplan need 500 and more."""
SMALL_MODEL, SMALL_TOTAL = 1000, 100
"""Fewer block parameters are strange in a model of language; fewer of all, in any."""
MOST_EMBEDDINGS = 1e4
"""Total over block parameters that no transformer reaches: a vocabulary of 400,000 at width 8 has 8,333."""
COUNTED = 1e5
"""Below this a count of tokens or parameters is written to the last one."""
SMALL_STEP = 16
"""Fewer tokens in a step are strange."""
OTHER_EXPOSURES, ROUNDED_EXPOSURES = 3.0, 10.0
"""Ratio of exposures to frequency × tokens that contradicts them, and exposures below which it may be
rounding."""
OTHER_BATCH = 100.0
"""Ratio of the tokens in a step between runs of a size that is strange."""
_SAME = 0.02
OWN_UNIT = "Forecasts are in the table's own unit"


def impossible(learning: Table, standard: Table, learned_skill: float) -> list[str]:
    """Problems for which there is no reading of the table but another unit.

    Args:
        learning: all rows, whose columns keep their rules.
        standard: those of one protocol: of bursts, exposures follow another course.
        learned_skill: the threshold.
    """
    return [
        *_sizes(learning),
        *_steps(learning),
        *_tokens_in_a_step(learning)[0],
        *_too_frequent(learning),
        *_exposures(standard),
        *_learned_from_nothing(standard, learned_skill),
    ]


def _too_frequent(learning: Table) -> list[str]:
    """Runs with more injected instances than tokens; cells of all protocols take place in a run."""
    names, run = _runs(learning)
    moments, moment = np.unique(np.column_stack([run, learning["step"]]), axis=0, return_inverse=True)
    totals = np.bincount(moment.reshape(-1), weights=learning["frequency"])
    runs = {names[int(moments[k, 0])]: totals[k] for k in np.flatnonzero(totals > 1.0 + _SAME)}
    if not runs:
        return []
    first = min(runs)
    return [
        f"learning: the frequencies of all cells of run {first!r} add up to {runs[first]:.3g} instances per "
        f"training token{_others(len(runs), 'run')}, and more than 1 cannot be; is frequency per sequence "
        "(divide by the sequence length) or in percent (divide by 100)?"
    ]


def strange(learning: Table, learned_skill: float) -> list[str]:
    """What may be right, and is another unit more often than not. Arguments as of `impossible`."""
    found = []
    for column in ("block_params", "tokens"):
        values = learning[column]
        broken = np.flatnonzero((values < COUNTED) & (np.abs(values - np.round(values)) > 1e-6 * values))
        if len(broken):
            found.append(
                f"{column} is no whole number in {len(broken)} row(s), first row {broken[0] + 1} with "
                f"{values[broken[0]]:g}; is it in thousands or millions? {OWN_UNIT}"
            )
    block = learning["block_params"]
    small = _known(learning, "total_params", np.where(block < SMALL_MODEL, 0.0, block)) < SMALL_TOTAL
    if small.any():
        found.append(
            f"the smallest model has {block[small].min():g} block parameters; are sizes in thousands or "
            f"millions? {OWN_UNIT}"
        )
    if "total_params" in learning:
        equal = learning["total_params"] == learning["block_params"]
        if equal.any():
            rungs = sorted({str(name) for name in learning["rung"][equal]})
            found.append(
                f"block_params equals total_params on {', '.join(rungs)}; block_params leaves out the input "
                "embedding and the unembedding, which are most of a small model: with them, what size does "
                "is underestimated"
            )
    per_step = learning["tokens"] / np.maximum(learning["step"], 1.0)
    middle = float(np.median(per_step))
    if middle < SMALL_STEP:
        how = "tokens equals step" if middle == 1 else f"a training step has {middle:.3g} tokens"
        found.append(f"{how}; is tokens in steps, sequences or thousands? {OWN_UNIT}")
    found += _tokens_in_a_step(learning)[1]
    learned = learning["skill"] >= learned_skill
    exposures = learning["frequency"] * learning["tokens"]
    if learned.any() and np.median(exposures[learned]) < FEW_EXPOSURES:
        found.append(
            f"the middle learned cell has seen {np.median(exposures[learned]):.2g} instances (frequency × "
            f"tokens); are tokens and frequency in ones? {OWN_UNIT}"
        )
    return [f"learning: {text}" for text in found]


def _known(table: Table, name: str, otherwise: FloatArray) -> FloatArray:
    """A column that may be missing or have empty fields, shape (n,)."""
    if name not in table:
        return otherwise
    return np.where(np.isfinite(table[name]), table[name], otherwise)


def _sizes(learning: Table) -> list[str]:
    block = learning["block_params"]
    found = []
    if (block < 1.0).any():
        row = int(np.argmax(block < 1.0))
        found.append(
            f"learning: block_params of {block[row]:g} (row {row + 1}) is less than one parameter; write "
            "ones, not millions"
        )
    total = _known(learning, "total_params", block)
    for wrong, says in (
        (block > total, "which is more than all parameters; are the columns swapped, or in different units?"),
        (total > MOST_EMBEDDINGS * block, "which no vocabulary explains; are they in different units?"),
    ):
        if wrong.any() and (block >= 1.0).all():
            row = int(np.argmax(wrong))
            found.append(
                f"learning: row {row + 1} ({learning['rung'][row]}) has block_params {number(block[row])} of "
                f"total_params {number(total[row])}, {says}"
            )
    return found


def _steps(learning: Table) -> list[str]:
    step, tokens = learning["step"], learning["tokens"]
    found = []
    few = np.flatnonzero(tokens < step * (1.0 - 1e-9))
    if len(few):
        row = few[0]
        found.append(
            f"learning: {len(few)} row(s) have fewer tokens than steps, first row {row + 1} with "
            f"{tokens[row]:g} tokens at step {step[row]:g}; tokens counts training tokens, in ones"
        )
    _, run = _runs(learning)
    order = np.lexsort((tokens, step, run))
    for rows in np.split(order, np.flatnonzero(np.diff(run[order])) + 1):
        # The most tokens at any earlier step; rows of one step are not held against each other.
        start = np.searchsorted(step[rows], step[rows], side="left")
        most = np.maximum.accumulate(tokens[rows])
        back = np.flatnonzero((start > 0) & (tokens[rows] < most[start - 1] * (1.0 - 1e-9)))
        if len(back):
            row = rows[back[0]]
            found.append(
                f"learning: tokens of run {learning['run_id'][row]!r} fall to {number(tokens[row])} at step "
                f"{step[row]:g}, after {number(most[start[back[0]] - 1])}; are some rows in another unit?"
            )
            break
    return found


def tokens_per_step(learning: Table) -> dict[str, float]:
    """Tokens in a step of every run in which that is one number, above 1."""
    names, run = _runs(learning)
    stepped = np.flatnonzero(learning["step"] > 0)
    ratio = np.full((2, len(names)), np.nan)
    per_step = learning["tokens"][stepped] / learning["step"][stepped]
    np.fmin.at(ratio[0], run[stepped], per_step)
    np.fmax.at(ratio[1], run[stepped], per_step)
    low, high = ratio
    return {names[k]: float(low[k]) for k in np.flatnonzero((high < low * 1.01) & (low > 1.0))}


def thousands(ratio: float) -> bool:
    """Whether a ratio is 10³, 10⁶ or 10⁹, either way round."""
    return any(abs(max(ratio, 1.0 / ratio) / unit - 1.0) < _SAME for unit in (1e3, 1e6, 1e9))


def _tokens_in_a_step(learning: Table) -> tuple[list[str], list[str]]:
    """Runs of one size whose steps differ as only units do, or as no team's would."""
    rung = {str(run): str(name) for run, name in zip(learning["run_id"], learning["rung"], strict=True)}
    wrong: list[str] = []
    odd: list[str] = []
    per_step = tokens_per_step(learning)
    for name in sorted(set(rung.values())):
        mine = sorted((value, run) for run, value in per_step.items() if rung[run] == name)
        if len(mine) < 2 or mine[-1][0] < OTHER_BATCH * mine[0][0]:
            continue
        (low, first), (high, second) = mine[0], mine[-1]
        text = (
            f"of rung {name!r}, run {first!r} has {low:.4g} tokens in a step and run {second!r} {high:.4g}; "
            "are tokens or steps of some runs in another unit?"
        )
        (wrong if thousands(high / low) else odd).append(text)
    return [f"learning: {text}" for text in wrong], odd


def _exposures(learning: Table) -> list[str]:
    """Runs whose exposures are not frequency × tokens."""
    if "exposures" not in learning:
        return []
    implied = learning["frequency"] * learning["tokens"]
    said = learning["exposures"]
    sure = np.isfinite(said) & (np.maximum(said, implied) >= ROUNDED_EXPOSURES)
    names, run_of = _runs(learning)
    ratios = said / implied
    found = []
    order = np.flatnonzero(sure)[np.argsort(run_of[sure], kind="stable")]
    for rows in np.split(order, np.flatnonzero(np.diff(run_of[order])) + 1):
        ratio = float(np.median(ratios[rows])) if len(rows) else 1.0
        if not 1.0 / OTHER_EXPOSURES < ratio < OTHER_EXPOSURES:
            found.append((names[run_of[rows[0]]], ratio))
    if not found:
        return []
    run, ratio = found[0]
    return [
        f"learning: exposures is frequency × tokens, and in run {run!r} it is {number(ratio)} times "
        f"that{_others(len(found), 'run')}; one of the three is in another unit (frequency: instances per "
        "training token; tokens: in ones). Correct it, or leave exposures out if that is the wrong one"
    ]


def _learned_from_nothing(learning: Table, learned_skill: float) -> list[str]:
    rows = _last(learning)
    exposures = (learning["frequency"] * learning["tokens"])[rows]
    few = exposures < LEAST_EXPOSURES
    learned = few & (learning["skill"][rows] >= learned_skill)
    if learned.sum() <= max(LUCKY_CELLS, LUCKY_SHARE * few.sum()):
        return []
    row = int(np.flatnonzero(rows)[np.flatnonzero(learned)[0]])
    cell = f"{learning['task'][row]} in run {learning['run_id'][row]}"
    return [
        f"learning: {int(learned.sum())} cells count as learned after fewer than {LEAST_EXPOSURES:g} "
        f"instances (frequency × tokens), first {cell} (skill {learning['skill'][row]:.2f} after "
        f"{learning['frequency'][row] * learning['tokens'][row]:.2g}); are tokens in thousands or "
        "millions? If the runs' own text teaches the task, no injected frequency says when it is learned: "
        "leave it out"
    ]


def _last(learning: Table) -> BoolArray:
    """Rows at the last step of their run, shape (n,)."""
    names, run = _runs(learning)
    last = np.full(len(names), -np.inf)
    np.maximum.at(last, run, learning["step"])
    return np.asarray(learning["step"] == last[run])


def _runs(learning: Table) -> tuple[list[str], IntArray]:
    """Names of the runs, and each row's index among them, shape (n,)."""
    names, run = np.unique(learning["run_id"].astype(str), return_inverse=True)
    return [str(name) for name in names], run.reshape(-1)


def _others(count: int, noun: str) -> str:
    return f" (and {count - 1} more {noun}{'s' if count > 2 else ''})" if count > 1 else ""
