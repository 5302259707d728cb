"""Tables that cannot be right are refused with what is wrong; thin ones are fitted and say what they cannot.

Everything through the command line, as a team meets it.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commanding import mixplan
from simulate import LADDER, simulate_measurements

from mixplan.documents import Calibration, Measurements, Table, load, read_measurements, write_measurements
from mixplan.laws import tables_agree, thin_tables, units_check
from mixplan.laws.censoring import quantile
from mixplan.laws.evidence import standard_rows

ROOT = Path(__file__).parents[1]
KINDS = {("comparison", 4.0): 3.0, ("comparison", 16.0): 1.0, ("modular_addition", 5.0): 0.0}
FREQUENCIES = (2.3e-4, 9.4e-4, 3.9e-3)
HORIZONS = (1.6384e6, 3.2768e6)
STEP = 4096
Column = Callable[[Table], np.ndarray]


def ladder(rungs: int = 3, seeds: int = 2, **more: object) -> Measurements:
    """A small table: rungs × seeds × horizons runs of nine cells, two checkpoints each."""
    given = {"horizons": HORIZONS, "intercepts": KINDS, "checkpoints": 2, "frequencies": FREQUENCIES, **more}
    return simulate_measurements(rungs=dict(list(LADDER.items())[:rungs]), seeds=seeds, **given)  # type: ignore[arg-type]


BASE = ladder()
BARE = replace(BASE, retention=None, interference=None)
"""A learning table alone, with nothing to hold it against."""
EASY = replace(
    ladder(intercepts={kind: 2.0 + level for kind, level in KINDS.items()}), retention=None, interference=None
)
"""Likewise, of tasks that few instances teach."""


def altered(given: Measurements, table: str = "learning", **columns: Column | None) -> Measurements:
    """The tables with columns of one of them computed anew, or left out."""
    old: Table = getattr(given, table)
    new = dict(old.columns)
    for name, column in columns.items():
        if column is None:
            new.pop(name, None)
        else:
            new[name] = column(old)
    return replace(given, **{table: Table(new)})


def first_run(table: Table) -> np.ndarray:
    return table["run_id"] == table["run_id"][0]


def scaled(name: str, by: float) -> Column:
    return lambda table: table[name] * by


def scaled_in_one_run(name: str, by: float) -> Column:
    return lambda table: np.where(first_run(table), table[name] * by, table[name])


def doubled(given: Measurements) -> Measurements:
    """Every row twice."""
    table = given.learning
    return replace(given, learning=table.where(np.repeat(np.arange(len(table)), 2)))


def copied_run(given: Measurements) -> Measurements:
    """A run's rows again, under another name and seed."""
    table = given.learning
    rows = np.flatnonzero(first_run(table))
    longer = table.where(np.concatenate([np.arange(len(table)), rows]))
    names, seeds = longer["run_id"].copy(), longer["seed"].copy()
    names[len(table) :], seeds[len(table) :] = "copy", 9
    return replace(given, learning=Table({**longer.columns, "run_id": names, "seed": seeds}))


REFUSED: dict[str, tuple[Callable[[], Measurements], tuple[str, ...]]] = {
    "one rung": (lambda: ladder(rungs=1), ("at least two rungs are needed", "add runs of another size")),
    "one rung and one seed": (lambda: ladder(rungs=1, seeds=1), ("at least two rungs are needed",)),
    "rows twice": (lambda: doubled(BASE), ("rows 1 and 2 measure the same cell", "keep one")),
    "a copied run": (lambda: copied_run(BASE), ("'copy' hold the same numbers in all 18 rows", "keep one")),
    "NaN": (
        lambda: altered(BASE, skill=lambda t: np.where(np.arange(len(t)) == 3, np.nan, t["skill"])),
        ("column 'skill' is empty, NaN", "first row 4"),
    ),
    "negative sizes": (
        lambda: altered(BASE, block_params=scaled("block_params", -1)), ("'block_params' must be > 0",),
    ),
    "frequency 0": (
        lambda: altered(BASE, frequency=scaled("frequency", 0)),
        ("'frequency' must be > 0", "Injected instances per training token"),
    ),
    "frequency above 1": (
        lambda: altered(BASE, frequency=scaled("frequency", 4096)), ("'frequency' must be ≤ 1",),
    ),
    "no run has an end": (
        lambda: altered(BASE, decayed=lambda t: np.zeros(len(t))), ("`decayed` is 1 in no row",),
    ),
    "tokens in thousands": (
        lambda: altered(BASE, tokens=scaled("tokens", 1e-3)),
        ("exposures is frequency × tokens", "it is 1K times that (and 11 more runs)"),
    ),
    "tokens in thousands, without exposures": (
        lambda: altered(EASY, tokens=scaled("tokens", 1e-3), exposures=None),
        ("count as learned after fewer than 2 instances", "are tokens in thousands or millions?"),
    ),
    "tokens in millions": (
        lambda: altered(BARE, tokens=scaled("tokens", 1e-6), exposures=None),
        ("fewer tokens than steps",),
    ),
    "tokens in thousands in one run": (
        lambda: altered(BARE, tokens=scaled_in_one_run("tokens", 1e-3), exposures=None),
        ("has 4.096 tokens in a step", "4096; are tokens or steps of some runs in another unit?"),
    ),
    "tokens in thousands in some rows of a run": (
        lambda: altered(
            BARE, exposures=None,
            tokens=lambda t: np.where(first_run(t) & (t["step"] == 400), t["tokens"] / 1e3, t["tokens"]),
        ),
        ("tokens of run '8k-t1.64e+06-s0' fall to 1.64K at step 400, after 819K",),
    ),
    "tokens of the learning table alone in thousands": (
        lambda: altered(BASE, tokens=scaled("tokens", 1e-3), exposures=None),
        ("interference: tokens of run", "both are training tokens, in ones"),
    ),
    "block_params in millions": (
        lambda: altered(BARE, block_params=scaled("block_params", 1e-6), total_params=None),
        ("block_params of 0.008336 (row 1) is less than one parameter",),
    ),
    "large block_params in millions, total_params in ones": (
        lambda: altered(
            BARE, block_params=scaled("block_params", 1e-3),
            total_params=lambda t: t["block_params"] * 1e3,
        ),
        ("which no vocabulary explains",),
    ),
    "more block_params than total_params": (
        lambda: altered(BARE, total_params=scaled("block_params", 0.5)),
        ("which is more than all parameters", "are the columns swapped"),
    ),
    "frequency per sequence": (
        lambda: altered(BARE, frequency=scaled("frequency", 128), exposures=None),
        ("add up to 1.95 instances per training token", "divide by the sequence length"),
    ),
    "frequency per sequence, of a few cells": (
        lambda: altered(BARE, frequency=scaled("frequency", 16)),
        ("exposures is frequency × tokens", "it is 0.0625 times that"),
    ),
    "frequency in percent": (
        lambda: altered(BARE, frequency=scaled("frequency", 100), exposures=None), ("divide by 100",),
    ),
    "skill in percent": (
        lambda: altered(BASE, skill=scaled("skill", 100)),
        ("'skill' must be ≤ 1", "if it is in percent, divide by 100"),
    ),
    "sizes of the retention table in thousands": (
        lambda: altered(BASE, "retention", block_params=scaled("block_params", 1e-3)),
        ("retention: rung '19k' has block_params 18.648, in the learning table 18648",),
    ),
    "total_params given as block_params in one table": (
        lambda: altered(BASE, block_params=lambda t: t["total_params"]),
        ("retention: rung '19k' has block_params 18648, in the learning table 35032",),
    ),
    "delay in steps": (
        lambda: altered(BASE, "retention", delay_tokens=scaled("delay_tokens", 1 / STEP)),
        ("first row 2 with 1 where a step of its run has 4096 tokens", "in steps or thousands?"),
    ),
    "position in steps": (
        lambda: altered(BASE, "retention", injected_at_tokens=scaled("injected_at_tokens", 1 / STEP)),
        ("shorter than a training step",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_by_fit_and_backtest(name: str, tmp_path: Path) -> None:
    make, says = REFUSED[name]
    write_measurements(make(), tmp_path / "m")
    for command in (("fit", tmp_path / "m", "-o", tmp_path / "c.json"), ("backtest", tmp_path / "m")):
        found = mixplan(*command)
        assert found.returncode == 2 and not found.stdout, found.stdout
        assert "Traceback" not in found.stderr
        for part in says:
            assert part in found.stderr, found.stderr
    assert not (tmp_path / "c.json").exists()


STRANGE: dict[str, tuple[Callable[[], Measurements], str]] = {
    "tokens in thousands, with nothing to tell": (
        lambda: altered(BARE, tokens=scaled("tokens", 1e-3), exposures=None),
        "a training step has 4.1 tokens; is tokens in steps, sequences or thousands?",
    ),
    "embeddings counted in": (
        lambda: altered(BARE, block_params=lambda t: t["total_params"]),
        "block_params equals total_params on 19k, 33k, 8k",
    ),
    "sizes in thousands": (
        lambda: altered(BARE, block_params=scaled("block_params", 1e-3), total_params=None),
        "block_params is no whole number",
    ),
    "few and small": (
        lambda: altered(BARE, block_params=lambda t: t["block_params"] // 1000, total_params=None),
        "the smallest model has 8 block parameters",
    ),
    "steps that are tokens": (
        lambda: altered(BARE, step=lambda t: t["tokens"]), "tokens equals step; is tokens in steps",
    ),
    "another batch in one run": (
        lambda: altered(BARE, step=scaled_in_one_run("step", 200)), "has 20.48 tokens in a step",
    ),
    "a few examples taught it": (
        lambda: altered(BARE, frequency=scaled("frequency", 0.0012), exposures=None,
                        skill=lambda t: np.where(t["frequency"] > 1e-3, t["skill"], 0.0),
                        accuracy=lambda t: np.where(t["frequency"] > 1e-3, t["accuracy"], t["chance"])),
        "the middle learned cell has seen",
    ),
    "tables of other models": (
        lambda: altered(BASE, "retention", block_params=scaled("block_params", 1e3),
                        rung=lambda t: np.array([f"big {name}" for name in t["rung"]], dtype=object)),
        "retention: block_params 8.34M to 33.1M, in the learning table 8.34K to 33.1K",
    ),
    "delays between steps": (
        lambda: altered(BASE, "retention", delay_tokens=scaled("delay_tokens", 1.5)),
        "no whole number of training steps, first 6144 tokens",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_strange_is_told_and_fitted(name: str, tmp_path: Path) -> None:
    make, says = STRANGE[name]
    write_measurements(make(), tmp_path / "m")
    measured = read_measurements(tmp_path / "m")
    assert not units_check.impossible(measured.learning, measured.learning, 0.8)
    assert not tables_agree.disagreements(measured)
    told = [*units_check.strange(measured.learning, 0.8), *tables_agree.oddities(measured)]
    assert any(says in text for text in told), told
    assert not any("{" in text for text in told), told


def test_a_strange_table_is_fitted_with_the_warning(tmp_path: Path) -> None:
    write_measurements(STRANGE["embeddings counted in"][0](), tmp_path / "m")
    for command in (("fit", tmp_path / "m", "-o", tmp_path / "c.json"), ("backtest", tmp_path / "m")):
        found = mixplan(*command, "--draws", 20)
        assert found.returncode == 0 and "warning: learning: block_params equals total_params" in found.stderr


@pytest.mark.parametrize("name", ["plain", "examples", "cpu-manuals", "quickstart"])
def test_right_tables_raise_nothing(name: str, tmp_path: Path) -> None:
    if name == "plain":
        measured = BASE
    elif name == "examples":
        measured = read_measurements(ROOT / "examples/measurements/quickstart")
    else:
        for path in (ROOT / "mixplan/references" / name).glob("*.csv.gz"):
            (tmp_path / path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))
        measured = read_measurements(tmp_path)
    rows, _ = standard_rows(measured.learning, "learning")
    assert units_check.impossible(measured.learning, rows, measured.learned_skill) == []
    assert tables_agree.disagreements(measured) == [] and thin_tables.copies(rows) == []
    assert units_check.strange(measured.learning, measured.learned_skill) == []
    assert tables_agree.oddities(measured) == []


def test_a_solvable_mixture_in_samples_raises_nothing() -> None:
    """Widths instead of parameters, tasks that fill every sample: unusual and right."""
    table = BARE.learning
    widths = {"8k": 8.0, "19k": 32.0, "33k": 128.0}
    size = np.array([widths[name] for name in table["rung"]])
    share = table["frequency"] / table["frequency"][:18:2].sum()
    measured = altered(
        BARE, block_params=lambda t: size, total_params=lambda t: size * 2048, frequency=lambda t: share,
        exposures=lambda t: share * t["tokens"],
    )  # fmt: skip
    assert units_check.impossible(measured.learning, measured.learning, 0.8) == []
    assert units_check.strange(measured.learning, 0.8) == []


THIN: dict[str, tuple[Callable[[], Measurements], tuple[str, ...]]] = {
    "two rungs": (lambda: ladder(rungs=2), ("no backtest: a backtest needs at least 3 rungs", "add a rung")),
    "one seed": (lambda: ladder(seeds=1), ("one seed at every size", "a second seed")),
    "one frequency": (
        lambda: ladder(frequencies=(9.4e-4,)), ("what other values do cannot be said", "frequency=0.00094"),
    ),
    "one horizon": (lambda: ladder(horizons=HORIZONS[-1:]), ("every run ends at 3.28M tokens",)),
    "two rows": (
        lambda: replace(BARE, learning=BARE.learning.where(np.array([0, len(BARE.learning) - 1]))),
        ("2 final cells for a law of", "no backtest", "one seed at every size"),
    ),
    "a run without its end": (
        lambda: altered(BASE, decayed=lambda t: np.where(
            first_run(t), 0.0, (t["tokens"] >= HORIZONS[0]) & ((t["step"] == 800) | (t["step"] == 400)),
        )),
        ("1 of 12 runs have no end", "first 8k-t1.64e+06-s0"),
    ),
    "all learned": (
        lambda: ladder(intercepts=dict.fromkeys(KINDS, 30.0)),
        ("every final cell of every task was learned",
         "comparison of complexity 4: censored, learned in all 36 final cells; at 8.34K block parameters and "
         "1.64M tokens its threshold frequency is below 0.000"),
    ),
    "none learned": (
        lambda: ladder(intercepts=dict.fromkeys(KINDS, -30.0)),
        ("no final cell of any task was learned",
         "comparison of complexity 4: censored, learned in none of 36 final cells; at 33.1K block parameters "
         "and 3.28M tokens its threshold frequency is above 0.00"),
    ),
}  # fmt: skip
CELLS = "block_params,tokens,frequency,family,complexity\n18648,3.2768e6,9.4e-4,{0}\n{1},{0}\n"
BEYOND = {"all learned": "18648,3.2768e6,9.4e-6", "none learned": "18648,3.2768e6,0.094"}
"""Where a law knows from its assumptions alone; of other tables a tenfold size."""


@pytest.mark.parametrize("name", THIN)
def test_thin_tables_say_what_they_cannot_and_stay_in_doubt(name: str, tmp_path: Path) -> None:
    make, says = THIN[name]
    write_measurements(make(), tmp_path / "m")
    found = mixplan("fit", tmp_path / "m", "-o", tmp_path / "c.json", "--draws", 60)
    assert found.returncode == 0, found.stderr
    for part in says:
        assert part in found.stderr, found.stderr
    laws = load(tmp_path / "c.json", Calibration)
    assert all(any(part in text for text in laws.warnings) for part in says)
    beyond = BEYOND.get(name, "186480,3.2768e6,9.4e-4")
    cells, out = tmp_path / "cells.csv", tmp_path / "o.csv"
    cells.write_text(CELLS.format("modular_addition,5", beyond))
    asked = mixplan("predict", tmp_path / "c.json", "--cells", cells, "-o", out)
    assert asked.returncode == 0 and "1 of them outside what was measured" in asked.stdout
    with out.open() as file:
        inside, outside = csv.DictReader(file)
    assert (inside["extrapolated"], outside["extrapolated"]) == ("0", "1")
    assert " the largest fitted" in outside["why_extrapolated"] or "smallest" in outside["why_extrapolated"]
    for row in (inside, outside):
        low, mean_low, skill, mean_high, high = (
            float(row[column]) for column in ("skill_low", "mean_low", "skill", "mean_high", "skill_high")
        )
        assert 0 <= low <= mean_low <= skill <= mean_high <= high <= 1
    assert float(outside["skill_high"]) - float(outside["skill_low"]) > 0.3
    if name in BEYOND:
        assert "learned on the ladder, so its threshold is unknown" in outside["why_extrapolated"]
        assert float(outside["mean_high"]) - float(outside["mean_low"]) > 0.3
        assert 0.02 < float(outside["p_learned"]) < 0.98


def bounds(warnings: list[str], side: str) -> list[float]:
    """Threshold frequencies in the one-sided statements."""
    found = (re.search(rf"threshold frequency is {side} ([0-9.e-]+) [(]95 %[)]", text) for text in warnings)
    return [float(match[1]) for match in found if match]


def test_one_sided_bounds_claim_no_more_than_was_measured(tmp_path: Path) -> None:
    """Never learned: at most the largest measured frequency; always: at least the smallest. A kind that was
    nearly learned is bounded less tightly than one that was far from it."""
    hard, near = ("modular_addition", 5.0), ("comparison", 16.0)
    for side, intercepts in (("above", {hard: -30.0, near: -4.5}), ("below", {hard: 30.0, near: 7.0})):
        measured = ladder(intercepts={**intercepts, ("comparison", 4.0): 3.0}, precision=40.0)
        write_measurements(measured, tmp_path / side)
        found = mixplan("fit", tmp_path / side, "-o", tmp_path / f"{side}.json", "--draws", 100)
        assert found.returncode == 0, found.stderr
        said = [text for text in load(tmp_path / f"{side}.json", Calibration).warnings if "censored" in text]
        assert len(said) == 2, said
        loose, tight = bounds(said, side)
        if side == "above":
            assert 0.1 * FREQUENCIES[-1] < loose <= tight <= FREQUENCIES[-1]
        else:
            assert FREQUENCIES[0] <= tight <= loose < 10 * FREQUENCIES[0]


def test_a_quantile_of_a_mixture_is_one_of_its_draws_and_knows_infinity() -> None:
    draws = np.arange(64.0)
    assert quantile([(draws, 1.0)], 4 / 64) == 3.0 and quantile([(draws, 1.0)], 60 / 64) == 59.0
    assert quantile([(draws, 0.5), (np.full(8, np.inf), 0.5)], 60 / 64) == np.inf
    assert quantile([(draws, 15 / 16), (np.full(8, np.inf), 1 / 16)], 7 / 8) < 63.0
    assert quantile([(draws, 0.5), (draws + 1000.0, 0.5)], 4 / 64) == 7.0


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("0.033,3.2768e6,1e-3", "'block_params' counts in ones; less than 1 in row 1: is it in millions?"),
        ("-33056,3.2768e6,1e-3", "'block_params' must be a number above 0"),
        ("33056,nan,1e-3", "'tokens' must be a number above 0"),
        ("33056,3.2768e6,0", "'frequency' must be a number above 0"),
        ("33056,3.2768e6,12.8", "frequency is instances per training token, at most 1"),
    ],
)  # fmt: skip
def test_cells_in_other_units_are_refused(row: str, says: str, tmp_path: Path) -> None:
    cells = tmp_path / "cells.csv"
    cells.write_text(f"block_params,tokens,frequency,family,complexity\n{row},comparison,8\n")
    found = mixplan("predict", "ref:quickstart", "--cells", cells, "-o", tmp_path / "o.csv")
    assert found.returncode == 2 and says in found.stderr and not (tmp_path / "o.csv").exists(), found.stderr


def test_gaps_refuses_sizes_that_are_none() -> None:
    for size in ("0.008", "-8336", "nan"):
        found = mixplan("gaps", "ref:quickstart", "--small", size)
        assert found.returncode == 2 and "must be a number of block parameters, in ones" in found.stderr


def test_gaps_without_a_loss_law_says_so(tmp_path: Path) -> None:
    write_measurements(altered(BARE, lm_loss=None), tmp_path / "m")
    fitted = mixplan("fit", tmp_path / "m", "-o", tmp_path / "c.json", "--draws", 20)
    assert fitted.returncode == 0 and "no lm_loss in the learning table" in fitted.stderr
    found = mixplan("gaps", tmp_path / "c.json")
    assert found.returncode == 1 and "lm_loss" in found.stderr and not found.stdout
