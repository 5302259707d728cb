"""The findings of arXiv 2605.29548 as rows of a measurements folder, as Markdown.

    python benchmarks/reproduction.py MEASUREMENTS

A trend in size is a line through the means of the runs, one in frequency or gap the mean of the runs' own
slopes within kinds of task; each with its 95 % t-interval: "seen" where that lies on the paper's side of
zero, "the opposite" where it lies on the other, "not shown" where it holds zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from mixplan.documents import read_measurements
from mixplan.documents.measurements import STANDARD, Measurements
from mixplan.documents.protocols import protocols_of
from mixplan.documents.table import Table

_KEPT_FROM_PEAK = 0.2
"""Nats of gain below which a share of it is noise."""


def main() -> None:
    """Print every finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("measurements", type=Path)
    measured = read_measurements(parser.parse_args().measurements)
    for finding in (frequency_and_size, gaps, retention, interference, features, peel_off):
        print("\n".join(finding(measured)), end="\n\n")


def frequency_and_size(measured: Measurements) -> Iterable[str]:
    """Rarer and harder cells need larger sizes."""
    table = _at_the_end(_standard(measured.learning))
    yield "## Rarer and harder cells need larger sizes"
    yield ""
    yield "Skill at the end, mean over seeds; cells that all seeds learned (skill ≥ "
    yield f"{measured.learned_skill:g}) in bold."
    rungs = _rungs(table)
    for family in dict.fromkeys(table["family"]):
        own = table.where(table["family"] == family)
        yield ""
        yield from _markdown(
            [family, "frequency", *rungs],
            [
                [f"{complexity:g}", f"{frequency:.2g}"]
                + [_skill(cell.where(cell["rung"] == rung), measured.learned_skill) for rung in rungs]
                for (complexity, frequency), cell in _groups(own, ("complexity", "frequency"))
            ],
        )
    yield ""
    learned = table["skill"] >= measured.learned_skill
    yield from _markdown(
        ["cells learned", *rungs],
        [
            [f"seed {seed:g}"]
            + [str(int(learned[(table["rung"] == rung) & (table["seed"] == seed)].sum())) for rung in rungs]
            for seed in np.unique(table["seed"])
        ],
    )
    yield ""
    yield _trend("Skill against ln size", table, "block_params", "skill", +1)
    yield _trend("Skill against ln frequency", table, "frequency", "skill", +1)
    smaller = [
        own.where(own["complexity"] == level)["skill"].mean()
        - own.where(own["complexity"] == below)["skill"].mean()
        for _, own in _groups(table, ("family",))
        for below, level in _neighbours(np.unique(own["complexity"]))
    ]
    if smaller:
        yield f"Mean change of skill from one complexity to the next, by family: {_list(smaller)}"


def gaps(measured: Measurements) -> Iterable[str]:
    """Matched-frequency gaps hurt small sizes more."""
    yield "## Matched-frequency gaps hurt small sizes more"
    yield ""
    table = _at_the_end(measured.learning)
    if "gap_tokens" not in table or not (table["gap_tokens"] > 0).any():
        yield "No gaps in this ladder."
        return
    burst = table.where((table["gap_tokens"] > 0) & _only_gap(table))
    kinds = {key for key, _ in _groups(burst, ("family", "complexity", "frequency_requested"))}
    same = _standard(table)
    keep = [
        (f, c, q) in kinds
        for f, c, q in zip(same["family"], same["complexity"], same["frequency_requested"], strict=True)
    ]
    both = [(0.0, same.where(np.array(keep))), *((g[0], rows) for g, rows in _groups(burst, ("gap_tokens",)))]
    rungs = _rungs(burst)
    yield f"Skill at the end at equal frequency, mean over seeds and {len(kinds)} kinds of cells."
    yield ""
    yield from _markdown(
        ["gap, tokens", *rungs],
        [[f"{gap:.3g}", *(f"{rows.where(rows['rung'] == rung)['skill'].mean():.2f}" for rung in rungs)]
         for gap, rows in both],
    )  # fmt: skip
    yield ""
    longest = both[-1][1]
    lost = []
    for (seed, size), rows in _groups(longest, ("seed", "block_params")):
        even = both[0][1]
        even = even.where((even["seed"] == seed) & (even["block_params"] == size))
        lost.append((seed, size, even["skill"].mean() - rows["skill"].mean()))
    columns = np.array(lost).T
    made = Table({"seed": columns[0], "block_params": columns[1], "lost": columns[2]})
    yield _trend("Skill lost to the longest gap against ln size", made, "block_params", "lost", -1)
    yield _trend("Skill against ln gap, gaps only", burst, "gap_tokens", "skill", -1)


def retention(measured: Measurements) -> Iterable[str]:
    """After an injection larger sizes keep more."""
    yield "## After an injection larger sizes keep more"
    yield ""
    if measured.retention is None:
        yield "No retention probe in this ladder."
        return
    table = measured.retention
    for column, what in (("gain", "choice NLL"), ("answer_gain", "full-vocabulary NLL")):
        if column not in table:
            continue
        kept = _kept(table, column)
        if not len(kept):
            yield f"{what}: no probe gained more than {_KEPT_FROM_PEAK:g} nats."
            continue
        rungs, delays = _rungs(kept), np.unique(kept["delay_tokens"])
        shown = delays[delays > 0][-6:]
        yield f"Share of the peak gain that is left, {what}, mean over seeds, injections and probe tasks:"
        yield ""
        yield from _markdown(
            ["delay, tokens", *rungs],
            [[f"{delay:.3g}", *_by_rung(at, "share", rungs)]
             for delay, at in ((d, kept.where(kept["delay_tokens"] == d)) for d in shown)],
        )  # fmt: skip
        yield ""
        for delay in _common_delays(kept)[-3:]:
            at = kept.where(kept["delay_tokens"] == delay)
            yield _trend(
                f"Share left after {delay:.3g} tokens against ln size", at, "block_params", "share", +1
            )
        yield ""


def interference(measured: Measurements) -> Iterable[str]:
    """Interference falls with size."""
    yield "## Interference falls with size"
    yield ""
    if measured.interference is None:
        yield "No interference probe in this ladder."
        return
    table = _standard(measured.interference)
    rungs = _rungs(table)
    columns = [
        name
        for name in (
            "cosine",
            "cosine_all",
            "cosine_top_neurons",
            "cosine_own",
            "common_grad_norm",
            "loss_change",
        )
        if name in table
    ]
    absolute = Table({**table.columns, **{name: np.abs(table[name]) for name in columns}})
    yield "Mean absolute value over tasks, points and seeds:"
    yield ""
    yield from _markdown(["", *rungs], [[name, *_by_rung(absolute, name, rungs, 3)] for name in columns])
    yield ""
    for name in columns:
        if name.startswith("cosine") and name != "cosine_own":
            yield _trend(f"|{name}| against ln size", absolute, "block_params", name, -1)


def features(measured: Measurements) -> Iterable[str]:
    """Read-outs of the mechanism rise with size and frequency."""
    yield "## The features themselves rise with size and frequency"
    yield ""
    table = measured.features
    if table is None:
        yield "No feature probe in this ladder."
        return
    table = _at_the_end(_standard(table))
    for (feature,), own in _groups(table, ("feature",)):
        best = _best_layer(own)
        rungs = _rungs(best)
        null = _mean(best, "null")
        yield f"{feature}, layer with the largest value, mean over seeds (mean of its null: {null}):"
        yield ""
        yield from _markdown(
            ["complexity", "frequency", *rungs],
            [[f"{c:g}", f"{f:.2g}", *_by_rung(cell, "value", rungs)]
             for (c, f), cell in _groups(best, ("complexity", "frequency"))],
        )  # fmt: skip
        yield ""
        yield _trend(f"{feature} against ln size", best, "block_params", "value", +1)
        yield _trend(f"{feature} against ln frequency", best, "frequency", "value", +1)
        yield ""


def peel_off(measured: Measurements) -> Iterable[str]:
    """Small sizes leave the common trajectory of task loss against LM loss at low frequencies."""
    yield "## Peel-off: at low frequency small sizes leave the common trajectory"
    yield ""
    table = measured.peel_off
    if table is None:
        yield "No peel-off table in this folder."
        return
    table = table.where(np.isfinite(table["excess_nll"]))
    latest = _latest(table)
    rungs = [rung for rung in _rungs(latest)]
    yield "Task loss (choice NLL) above the largest rung's at the same LM loss, at the last such point, nats:"
    yield ""
    yield from _markdown(
        ["family", "frequency", *rungs],
        [[f, f"{q:.2g}", *_by_rung(cell, "excess_nll", rungs)]
         for (f, q), cell in _groups(latest, ("family", "frequency"))],
    )  # fmt: skip
    yield ""
    yield _trend("Excess against ln size", latest, "block_params", "excess_nll", -1)
    yield _trend("Excess against ln frequency", latest, "frequency", "excess_nll", -1)


def _trend(what: str, table: Table, x: str, y: str, sign: int) -> str:
    keep = np.isfinite(table[y])
    table = table.where(keep)
    runs = [rows for _, rows in _groups(table, ("block_params", "seed"))]
    if x == "block_params":
        size = np.log([rows[x][0] for rows in runs])
        mean, error, degrees = _line(size, np.array([rows[y].mean() for rows in runs]))
    else:
        slopes = [slope for rows in runs if not np.isnan(slope := _within_kinds(rows, x, y))]
        if len(slopes) < 2:
            return f"- {what}: nothing to compare"
        mean, degrees = float(np.mean(slopes)), len(slopes) - 1
        error = float(np.std(slopes, ddof=1) / np.sqrt(len(slopes)))
    half = float(student.ppf(0.975, degrees)) * error
    verdict = "seen" if sign * mean > half else "the opposite" if sign * mean < -half else "not shown"
    return f"- {what}: slope {mean:+.3g} ± {half:.2g} over {len(runs)} runs: **{verdict}**"


def _within_kinds(rows: Table, x: str, y: str) -> float:
    """Slope of y on ln x within families and complexities, which start at different levels; else NaN."""
    kinds = [own for _, own in _groups(rows, ("family", "complexity"))]
    centred = [np.log(own[x]) - np.log(own[x]).mean() for own in kinds]
    spread = sum(float(c @ c) for c in centred)
    return (
        sum(float(c @ own[y]) for c, own in zip(centred, kinds, strict=True)) / spread if spread else np.nan
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, int]:
    """Slope of y on x, its standard error, degrees of freedom."""
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    left = y - y.mean() - slope * centred
    return slope, float(np.sqrt(left @ left / (len(x) - 2) / (centred @ centred))), len(x) - 2


def _standard(table: Table) -> Table:
    return table.where(protocols_of(table) == STANDARD)


def _only_gap(table: Table) -> np.ndarray:
    return np.array([str(p).startswith("gap") and "," not in str(p) for p in table["protocol"]])


def _at_the_end(table: Table) -> Table:
    last = {key: rows["tokens"].max() for key, rows in _groups(table, ("run_id",))}
    return table.where(
        np.array([t == last[(r,)] for r, t in zip(table["run_id"], table["tokens"], strict=True)])
    )


def _latest(table: Table) -> Table:
    keys = ("rung", "seed", "task")
    last = {key: rows["tokens"].max() for key, rows in _groups(table, keys)}
    at = zip(*(table[name] for name in keys), table["tokens"], strict=True)
    return table.where(np.array([tokens == last[(r, s, t)] for r, s, t, tokens in at]))


def _kept(table: Table, column: str) -> Table:
    rows = []
    if "decaying" in table:
        table = table.where(table["decaying"] == 0)
    for (_, _), series in _groups(table, ("run_id", "task")):
        peak = int(np.argmax(series[column]))
        if series[column][peak] < _KEPT_FROM_PEAK:
            continue
        for index in range(len(series)):
            if series["delay_tokens"][index] > series["delay_tokens"][peak]:
                rows.append(
                    (series["rung"][index], series["seed"][index], series["block_params"][index],
                     series["delay_tokens"][index], series[column][index] / series[column][peak])
                )  # fmt: skip
    if not rows:
        return Table({"share": np.array([])})
    names = ("rung", "seed", "block_params", "delay_tokens", "share")
    return Table(
        {
            n: np.array(c, dtype=object if n == "rung" else float)
            for n, c in zip(names, zip(*rows, strict=True), strict=True)
        }
    )


def _common_delays(kept: Table) -> list[float]:
    """The delays that every rung and seed has, shortest first."""
    held = [set(rows["delay_tokens"]) for _, rows in _groups(kept, ("rung", "seed"))]
    return sorted(float(delay) for delay in set.intersection(*held))


def _best_layer(table: Table) -> Table:
    best = []
    for _, rows in _groups(
        Table({**table.columns, "row": np.arange(len(table)).astype(float)}), ("run_id", "task")
    ):
        indices = rows["row"].astype(int)
        best.append(indices[int(np.argmax(table["value"][indices]))])
    return table.where(np.array(best))


def _groups(table: Table, names: Sequence[str]) -> list[tuple[tuple, Table]]:
    keys = list(zip(*(table[name] for name in names), strict=True))
    order = sorted(set(keys)) if all(table[n].dtype != object for n in names) else list(dict.fromkeys(keys))
    place = {key: index for index, key in enumerate(order)}
    at = np.array([place[key] for key in keys])
    return [(key, table.where(at == index)) for key, index in place.items()]


def _neighbours(levels: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True))


def _rungs(table: Table) -> list[str]:
    sizes = {str(rung): float(size) for rung, size in zip(table["rung"], table["block_params"], strict=True)}
    return sorted(sizes, key=sizes.__getitem__)


def _skill(cell: Table, learned: float) -> str:
    text = _mean(cell, "skill")
    return f"**{text}**" if len(cell) and (cell["skill"] >= learned).all() else text


def _by_rung(table: Table, column: str, rungs: Sequence[str], digits: int = 2) -> list[str]:
    return [_mean(table.where(table["rung"] == rung), column, digits) for rung in rungs]


def _mean(table: Table, column: str, digits: int = 2) -> str:
    values = table[column][np.isfinite(table[column])] if len(table) else np.array([])
    return f"{values.mean():.{digits}f}" if len(values) else "–"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:+.2f}" for value in values)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    for row in [header, ["---"] * len(header), *rows]:
        yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    main()
