"""The page: its numbers against the data's, what it says of what is missing, the same bytes every time."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reporting import ATTACKS, TruthForecast, calibration_of, fill, hostile, recipe, verification
from simulate import LADDER, mean_skill, simulate_measurements

from mixplan.documents import Measurements, Recipe, Table
from mixplan.documents.calibration import TaskCoverage
from mixplan.documents.measurements import TEXT_COLUMNS
from mixplan.documents.table import from_rows
from mixplan.documents.verification import Verified
from mixplan.report import Inputs, find_inputs, render
from mixplan.report.cells import ladder_of
from mixplan.report.figures import backtest, heat, interference, learning, loss, mixture, retention, skills
from mixplan.report.figures import cost as price
from mixplan.report.figures import verification as verified_figure
from mixplan.report.figures.base import MOST_ROWS, Sizes, table
from mixplan.report.laws import thresholds
from mixplan.report.summary import sentences
from mixplan.report.text import NARROW, one_in

NOT_A_NUMBER = re.compile(r"\b(nan|inf)\b", re.IGNORECASE)


class Reader(HTMLParser):
    """Tags in order with their attributes, the text outside script and style; every tag must be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def bare(**given: Any) -> Inputs:
    empty: dict[str, Any] = {
        "name": "w",
        "measurements": None,
        "calibration": None,
        "recipe": None,
        "verified": None,
        "missing": [],
        "files": [],
    }
    return Inputs(**{**empty, **given})


def sizes_of(*tables: Table) -> Sizes:
    rungs = {(str(t["rung"][i]), float(t["block_params"][i])) for t in tables for i in range(len(t))}
    return Sizes(sorted(rungs, key=lambda rung: rung[1]))


def figures_in(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)" class="figure">', page)


def test_every_figure_is_on_the_page_with_a_finding_and_a_named_drawing(tmp_path: Path) -> None:
    fill(tmp_path)
    page = render(find_inputs(tmp_path), TruthForecast())
    assert figures_in(page) == [
        "frequency",
        "size",
        "retention",
        "interference",
        "backtest",
        "mixture",
        "skills",
        "cost",
        "verification",
        "loss",
    ]
    reader = Reader(page)
    drawings = [attributes for name, attributes in reader.tags if name == "svg"]
    assert len(drawings) == 26
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)
    for finding in re.findall(r"<h2>(.*?)</h2>", page)[:-1]:
        assert re.search(r"\d", finding), finding


def test_nothing_on_the_page_points_outside(tmp_path: Path) -> None:
    fill(tmp_path)
    page = render(find_inputs(tmp_path), TruthForecast())
    assert not re.search(r"https?://|//[a-z]|url\(|@import|srcset|<iframe|<object|<embed", page)
    for name, attributes in Reader(page).tags:
        for key in ("src", "href", "xlink:href"):
            value = attributes.get(key)
            assert value is None or value.startswith("#") or (name == "link" and value == "data:,")


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    fill(tmp_path)
    first = render(find_inputs(tmp_path), TruthForecast())
    assert render(find_inputs(tmp_path), TruthForecast()) == first
    moved = tmp_path.parent / "elsewhere" / tmp_path.name
    moved.mkdir(parents=True)
    fill(moved)
    assert render(find_inputs(moved), TruthForecast()) == first


def test_the_order_of_rows_does_not_matter() -> None:
    measured = simulate_measurements(seed=3)
    order = np.random.default_rng(0).permutation(len(measured.learning))
    mixed = replace(measured, learning=measured.learning.where(order))
    first, second = (render(bare(measurements=m), TruthForecast()) for m in (measured, mixed))
    assert figures_in(first) == figures_in(second)
    numbers = [re.findall(r"<td[^>]*>([^<]*)</td>", page) for page in (first, second)]
    assert numbers[0] == numbers[1]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    hostile(tmp_path)
    page = render(find_inputs(tmp_path), None)
    reader = Reader(page)
    assert [name for name, _ in reader.tags].count("script") == 1
    assert "img" not in {name for name, _ in reader.tags}
    assert not any(key.startswith("on") for _, attributes in reader.tags for key in attributes)
    for attack in ATTACKS:
        assert attack.replace("_", " ") in reader.text or attack in reader.text


def test_the_counts_are_those_of_the_table() -> None:
    measured = simulate_measurements(seed=5)
    final = measured.learning.where(measured.learning["tokens"] == measured.learning["tokens"].max())
    means: dict[tuple[str, float, float, str], list[float]] = {}
    for family, level, frequency, rung, skill in zip(
        final["family"], final["complexity"], final["frequency"], final["rung"], final["skill"], strict=True
    ):
        means.setdefault((family, level, frequency, rung), []).append(skill)
    wanted = {
        rung: sum(np.mean(v) >= 0.8 for key, v in means.items() if key[3] == rung) for rung in ("8k", "296k")
    }
    finding = heat.figure(ladder_of(measured.learning, 0.8), {}).finding
    assert (
        finding == f"At 296{NARROW}K block parameters {wanted['296k']} of 36 cells were learned, "
        f"at 8.34{NARROW}K {wanted['8k']} of 36."
    )


def test_the_reach_is_the_ratio_of_lowest_learned_frequencies() -> None:
    rows = [
        {
            "run_id": rung,
            "rung": rung,
            "block_params": params,
            "seed": 0,
            "step": 1,
            "tokens": 10,
            "task": "t",
            "family": "f",
            "complexity": 1,
            "frequency": frequency,
            "accuracy": 0.5,
            "chance": 0.0,
            "skill": skill,
        }
        for rung, params, learned_from in (("s", 10, 8e-3), ("l", 20, 2e-3))
        for frequency in (1e-3, 2e-3, 4e-3, 8e-3)
        for skill in [0.9 if frequency >= learned_from else 0.1]
    ]
    ladder = ladder_of(from_rows(rows, TEXT_COLUMNS), 0.8)
    found = learning.figure(ladder, Sizes([("s", 10.0), ("l", 20.0)]), None).finding
    assert "4 times lower frequencies" in found
    swapped = ladder_of(
        from_rows([{**r, "block_params": 30 - r["block_params"]} for r in rows], TEXT_COLUMNS), 0.8
    )
    found = learning.figure(swapped, Sizes([("l", 10.0), ("s", 20.0)]), None).finding
    assert "4 times higher frequencies" in found  # nothing here assumes that larger is better


def test_thresholds_are_where_the_law_crosses_one_half() -> None:
    ladder = ladder_of(simulate_measurements().learning, 0.8)
    found = thresholds(TruthForecast(), ladder)
    assert {limit.where for row in found.values() for limit in row} == {"inside", "below", "above"}
    for kind in ladder.kinds:
        for rung, limit in zip(ladder.rungs, found[kind.name], strict=True):
            skill = mean_skill(kind.family, kind.complexity, rung.block_params, rung.tokens, limit.frequency)
            if limit.where == "inside":  # the truth's chance is one half at a skill of 0.8
                assert skill == pytest.approx(0.8, abs=0.002)
            else:
                assert (skill >= 0.8) == (limit.where == "below")


def test_the_summary_quotes_a_threshold_pair_that_exists() -> None:
    ladder = ladder_of(simulate_measurements().learning, 0.8)
    limits = thresholds(TruthForecast(), ladder)
    said = next(s for s in sentences(ladder, None, limits, None) if s.startswith("The law puts"))
    pairs = {
        name: f"from {one_in(row[0].frequency)} to {one_in(row[-1].frequency)}"
        for name, row in limits.items()
        if row[0].where == row[-1].where == "inside"
    }
    assert any(f"for {name} it goes {pair}" in said for name, pair in pairs.items())


def test_the_summary_names_kinds_outside_the_ladder_and_kinds_without_an_end() -> None:
    measured = simulate_measurements()
    law = calibration_of(measured)
    kinds = [("first", "never learned"), ("second", "never finished"), ("third", "bracketed")]
    tasks = [
        TaskCoverage.model_validate(
            {"family": name, "complexity": 4, "cells": 0, "learned": 0, "status": status}
        )
        for name, status in kinds
    ]
    said = sentences(None, law.model_copy(update={"tasks": tasks}), None, None)
    (outside,) = (one for one in said if "does not bracket" in one)
    (unfinished,) = (one for one in said if one.startswith("No run measured"))
    assert "first" in outside and "second" not in outside
    assert "second" in unfinished and "first" not in unfinished and "third" not in outside + unfinished


def test_retention_says_what_is_left_of_the_peak() -> None:
    base = {
        "family": "f",
        "complexity": 1,
        "instances": 8,
        "injected_at_tokens": 5,
        "choice_nll_before": 1,
        "seed": 0,
    }
    gains = {("s", 10): [0.5, 1.0, -0.2], ("l", 20): [0.5, 2.0, 1.0]}
    rows = [
        {
            **base,
            "run_id": rung,
            "rung": rung,
            "block_params": params,
            "task": f"p{probe}",
            "delay_tokens": delay,
            "choice_nll": 1 - gain,
            "gain": gain + offset,
        }
        for (rung, params), course in gains.items()
        for delay, gain in zip((0, 1000, 4000), course, strict=True)
        for probe, offset in enumerate((-0.02, 0.02))
    ]
    found = retention.figure(from_rows(rows, TEXT_COLUMNS), Sizes([("s", 10.0), ("l", 20.0)])).finding
    assert (
        found
        == f"4{NARROW}K tokens after a burst the 20 size keeps 50{NARROW}% of its peak gain, the 10 size"
        " keeps none and is worse than before the burst."
    )


def test_retention_without_a_gain_is_not_a_share() -> None:
    rows = [
        {
            "run_id": "a",
            "rung": "s",
            "block_params": 10,
            "task": "p",
            "family": "f",
            "complexity": 1,
            "instances": 8,
            "injected_at_tokens": 5,
            "seed": 0,
            "delay_tokens": delay,
            "choice_nll_before": 1,
            "choice_nll": 1.1,
            "gain": -0.1,
        }
        for delay in (0, 100)
    ]
    figure = retention.figure(from_rows(rows, TEXT_COLUMNS), Sizes([("s", 10.0)]))
    assert figure.finding == "100 tokens after a burst the 10 size had gained nothing beyond noise."


def test_retention_does_not_make_words_of_noise() -> None:
    rows = [
        {
            "run_id": f"r{probe}",
            "rung": "s",
            "block_params": 10,
            "task": "p",
            "family": "f",
            "complexity": 1,
            "instances": 8,
            "injected_at_tokens": 5,
            "seed": probe,
            "delay_tokens": delay,
            "choice_nll_before": 1,
            "choice_nll": 1,
            "gain": gain + noise,
        }
        for delay, gain, spread in ((0, 1.0, 0.1), (100, -0.05, 0.1))
        for probe, noise in enumerate((-spread, spread))
    ]
    (curve,) = retention.decays(from_rows(rows, TEXT_COLUMNS))
    assert curve.error.tolist() == pytest.approx([0.1, 0.1])  # two probes 0.1 to either side of their mean
    figure = retention.figure(from_rows(rows, TEXT_COLUMNS), Sizes([("s", 10.0)]))
    assert figure.finding == "100 tokens after a burst the 10 size keeps none."
    quiet = [{**row, "gain": row["gain"] - 0.9 * (row["delay_tokens"] == 0)} for row in rows]
    figure = retention.figure(from_rows(quiet, TEXT_COLUMNS), Sizes([("s", 10.0)]))
    assert "nothing beyond noise" in figure.finding


def test_interference_reports_the_means_of_the_table() -> None:
    measured = simulate_measurements(seed=2)
    assert measured.interference is not None
    values = measured.interference
    small, large = (values["rung"] == "8k", values["rung"] == "296k")
    finding = interference.figure(values, sizes_of(values)).finding
    quoted = [float(q) for q in re.findall(r"by (0\.\d+)", finding)]
    assert quoted == pytest.approx(
        [values["loss_change"][large].mean(), values["loss_change"][small].mean()], rel=0.06
    )


def test_the_backtest_counts_what_lies_inside() -> None:
    found = calibration_of(simulate_measurements(seed=1)).backtest
    assert found is not None
    figure = backtest.figure(found)
    assert figure is not None
    within = sum(c.low <= c.observed <= c.high for c in found.cells)
    off = np.mean([abs(c.observed - c.predicted) for c in found.cells])
    copied = np.mean([abs(c.observed - c.copied) for c in found.cells if c.copied is not None])
    assert f"off by {off:.2f}" in figure.finding and f"was off by {copied:.2f}" in figure.finding
    assert f"{within} of {len(found.cells)} cells" in figure.finding
    assert figure.body.count('class="dot inside"') == within
    assert figure.body.count('class="dot outside"') == len(found.cells) - within


def test_a_backtest_without_copies_or_cells() -> None:
    found = calibration_of(simulate_measurements(seed=1)).backtest
    assert found is not None
    alone = found.model_copy(update={"cells": [c.model_copy(update={"copied": None}) for c in found.cells]})
    figure = backtest.figure(alone)
    assert figure is not None and "copying" not in figure.finding and "Copied from" not in figure.body
    bare_scores = backtest.figure(found.model_copy(update={"cells": []}))
    assert bare_scores is not None and "svg" not in bare_scores.body and "<table" in bare_scores.body
    assert backtest.figure(found.model_copy(update={"cells": [], "scores": []})) is None


def test_the_backtest_shows_every_forecast_rung_and_reason() -> None:
    found = calibration_of(simulate_measurements(seed=1)).backtest
    assert found is not None
    figure = backtest.figure(found, {"combined": 0.75, "logistic": 0.25})
    assert figure is not None
    for said in ("default forecast", "combined", "copy the largest fitted rung", "baseline", "noise floor"):
        assert said in figure.body
    assert f"combined (75{NARROW}%) and logistic (25{NARROW}%)" in figure.caption
    assert found.choice in figure.caption
    tables = re.findall(r"<table>.*?</table>", figure.body)
    assert len(tables) == 2
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", tables[1])[1:]]
    assert len(cells) == len(found.rolling) == 2
    for shown, one in zip(cells, found.rolling, strict=True):
        assert shown[:3] == [
            one.left_out_rung, f"up to {one.fitted_rungs[-1]}", f"{one.rungs_ahead} ({one.size_ratio:.1f}×)"
        ]  # fmt: skip
        assert one.seed_noise_skill is not None and shown[3] == f"{one.seed_noise_skill:.4f}"
        assert shown[4 : 4 + len(one.scores)] == [f"{score.skill_brier:.4f}" for score in one.scores]
    assert cells[0][-1] == "4 of 6"
    single = backtest.figure(found.model_copy(update={"rolling": [], "choice": ""}))
    assert single is not None and single.body.count("<table") == 1 and "Why:" not in single.caption


def test_the_recipe_figures_quote_the_recipe() -> None:
    given = recipe()
    assert (
        mixture.figure(given).finding
        == f"Rare sources go from 1.5{NARROW}% to 12{NARROW}% of the tokens; the most upsampled, sums, comes"
        " ×11.5 as often and is seen 3.68 times."
    )
    assert (
        skills.figure(given).finding
        == "1 of 2 tasks reach the target probability with this mixture, 0 with the natural one; 1 of these"
        " forecasts reach beyond what was measured."
    )
    assert "604M is 2× above" in skills.figure(given).body
    found = price.figure(given)
    assert (
        found.finding
        == f"cpu_132k on 12.8{NARROW}M tokens costs 1.2·10¹³ FLOPs (1.50 USD) and changes the common loss by"
        " +0.0123 nats per token; sources.sums.max_epochs binds."
    )
    assert "2.213 nats per token" in found.body and "orders over its cap" in found.body


def test_a_source_that_the_mixture_leaves_out_is_drawn_without_a_point() -> None:
    given = recipe().model_dump()
    for source, choose in zip(given["sources"], (100_000, 0, 0), strict=True):
        share = choose / 100_000
        source.update(choose=choose, share=share, rate=share, tokens=choose * 128, epochs=share)
    figure = mixture.figure(Recipe.model_validate(given))
    assert figure.body.count("<svg") == 2
    assert not NOT_A_NUMBER.search(figure.body)


def test_the_loss_figure_is_drawn_with_gaps_and_left_out_without_any() -> None:
    learned = simulate_measurements(seed=1, seeds=1).learning
    gaps = learned["lm_loss"].copy()
    gaps[(learned["rung"] == "33k") | (learned["tokens"] < 1e6)] = np.nan
    some, none = (
        Table({**learned.columns, "lm_loss": values}) for values in (gaps, np.full(len(gaps), np.nan))
    )
    ladder = ladder_of(some, 0.8)
    figure = loss.figure(some, ladder, sizes_of(some), TruthForecast())
    assert figure is not None and not NOT_A_NUMBER.search(figure.body)
    for rung in ("8k", "296k"):
        own = some.where((some["rung"] == rung) & (some["tokens"] == some["tokens"].max()))["lm_loss"][0]
        assert f"{own:.2f}" in figure.finding
    assert loss.figure(none, ladder, sizes_of(none), TruthForecast()) is None
    without = Table({name: column for name, column in learned.columns.items() if name != "lm_loss"})
    assert loss.figure(without, ladder, sizes_of(without), None) is None


def test_verification_names_what_fell_short() -> None:
    complete = verified_figure.figure(Verified.model_validate(verification()))
    assert (
        complete.finding
        == "Every source delivers exactly the recipe's samples (100,000 in all); the least even rare source,"
        " orders, varies 2 times as much as a random order."
    )
    given = verification()
    given["sources"][1]["samples"] -= 40
    given.update(samples=given["samples"] - 40, passed=False, problems=["source 'sums' falls short"])
    short = verified_figure.figure(Verified.model_validate(given))
    assert short.finding.startswith("sums differs from the recipe: 99,960 of 100,000 samples were read")
    assert short.finding.endswith("Verification failed with 1 problem.")
    assert "−40" in short.body and "falls short" in short.body
    broken = verified_figure.figure(
        Verified.model_validate({**given, "sources": [], "problems": ["a shard is cut short"]})
    )
    assert broken.finding == "The mixture could not be read: 1 problem."


@pytest.mark.parametrize("rungs", [{"8k": 8_336}, dict(list(LADDER.items())[:2])])
def test_one_or_two_sizes_are_enough_for_a_page(rungs: dict[str, int]) -> None:
    measured = simulate_measurements(rungs=rungs, seeds=1, checkpoints=2)
    page = render(bare(measurements=measured), None)
    assert figures_in(page) == ["frequency", "size", "retention", "interference", "loss"]
    assert ("size measured" in page) == (len(rungs) == 1)
    assert not NOT_A_NUMBER.search(page)


def test_one_frequency_and_one_evaluation_are_enough_for_a_page() -> None:
    measured = simulate_measurements(frequencies=(1e-3,), checkpoints=1, seeds=1)
    assert not NOT_A_NUMBER.search(render(bare(measurements=measured), TruthForecast()))


def test_a_table_without_retention_says_so(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "measurements" / "retention.csv").unlink()
    page = render(find_inputs(tmp_path), TruthForecast())
    assert "retention" not in figures_in(page) and "interference" in figures_in(page)
    assert "The retention table" in Reader(page).text


def test_documents_that_do_not_belong_together_are_called_out(tmp_path: Path) -> None:
    fill(tmp_path)
    inputs = find_inputs(tmp_path)
    assert "do not belong together" not in Reader(render(inputs, None)).text
    assert inputs.calibration is not None and inputs.recipe is not None and inputs.verified is not None
    others = simulate_measurements(intercepts={("sorting", 4): 0.0})
    text = Reader(render(replace(inputs, measurements=others), None)).text
    assert "measured but not fitted: sorting (4)" in text
    fewer = inputs.calibration.model_copy(update={"provenance": {"tables": {"learning": {"rows": 7}}}})
    assert "table of 7 rows" in Reader(render(replace(inputs, calibration=fewer), None)).text
    other = inputs.recipe.model_copy(update={"provenance": {"calibration_sha256": "0" * 64}})
    assert "another calibration.json" in Reader(render(replace(inputs, recipe=other), None)).text
    longer = inputs.verified.model_copy(update={"samples_expected": 5})
    assert "mixture of 5 samples" in Reader(render(replace(inputs, verified=longer), None)).text


def test_a_law_that_does_not_cover_a_kind_is_not_drawn_for_it() -> None:
    measured = simulate_measurements(intercepts={("sorting", 4): 0.0, ("comparison", 8): 0.0})
    ladder = ladder_of(measured.learning, 0.8)
    assert list(thresholds(TruthForecast(), ladder)) == ["comparison (8)"]
    assert figures_in(render(bare(measurements=measured), TruthForecast()))


def test_a_long_table_is_cut_and_says_so() -> None:
    rows = [[str(i)] for i in range(MOST_ROWS + 5)]
    drawn = table(["n"], rows, "Numbers.")
    assert drawn.count("<tr>") == MOST_ROWS + 1
    assert f"First {MOST_ROWS} of {MOST_ROWS + 5} rows" in drawn


def test_a_hundred_thousand_rows_become_a_page_of_the_same_size() -> None:
    measured = simulate_measurements(seeds=1, checkpoints=2)
    times = 100_000 // len(measured.learning) + 1
    columns = {}
    for name, column in measured.learning.columns.items():
        columns[name] = np.tile(column, times)
    copies = np.repeat(np.arange(times), len(measured.learning)).astype(str)
    columns["run_id"] = columns["run_id"] + np.array([f"-{copy}" for copy in copies], dtype=object)
    large = Measurements(Table(columns), measured.retention, measured.interference)
    assert len(large.learning) >= 100_000
    small_ladder, large_ladder = (ladder_of(m.learning, 0.8) for m in (measured, large))
    for one, other in zip(small_ladder.kinds, large_ladder.kinds, strict=True):
        np.testing.assert_allclose(one.skill, other.skill)
    page = render(bare(measurements=large), None)
    assert page.count("<circle") < 3_000
