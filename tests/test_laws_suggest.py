"""Which runs next: what they would tell, what they cost, and what the suggested calibration asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suggesting import KINDS, SKILL, Truth, fitted, half_widths, spec, together

from mixplan.calibrate.cost import price
from mixplan.calibrate.runs import plan_runs
from mixplan.calibrate.tasks import reserved_symbols
from mixplan.documents import Calibration, Measurements, Plan, load, read_measurements
from mixplan.documents.calibration_spec import CalibrationSpec, Horizons
from mixplan.documents.references import resolve
from mixplan.documents.shapes import PRESETS, ModelShape
from mixplan.documents.spec_paths import missing, moved
from mixplan.errors import InputError, NoAnswer
from mixplan.laws import suggest_candidates as candidates
from mixplan.laws.evidence import Evidence, collect_evidence
from mixplan.laws.forms import COMBINED, LOGISTIC
from mixplan.laws.hierarchy import Estimate, derivatives, estimate
from mixplan.laws.protocol import Cells
from mixplan.laws.suggest import Suggestion, suggest
from mixplan.laws.suggest_budget import Limit, parse_limit
from mixplan.laws.suggest_information import Knowledge
from mixplan.laws.suggest_search import openness
from mixplan.laws.suggest_targets import Target, affordable_tokens, as_targets, plan_targets
from mixplan.laws.suggest_words import suggestion_sentences, suggestion_tables
from mixplan.laws.surface import Surface

ROOT = Path(__file__).resolve().parent.parent
NEVER = ("modular_addition", 9.0)
BRACKETED = [Target(kind, "cpu_74k", 74160.0, 3276800.0) for kind in KINDS if kind != NEVER]


@pytest.fixture(scope="module")
def measured() -> Measurements:
    return together(Truth(1).learning(spec()))


@pytest.fixture(scope="module")
def calibration(measured: Measurements) -> Calibration:
    return fitted(measured)


@pytest.fixture(scope="module")
def suggested(measured: Measurements, calibration: Calibration) -> Suggestion:
    return suggest(measured, calibration, spec(), None, Limit(share=0.5))


def found(measured: Measurements, form: Any = COMBINED) -> tuple[Estimate, Evidence]:
    evidence = collect_evidence(measured.learning)
    return estimate(form, evidence), evidence


def test_a_run_to_come_adds_what_a_measured_run_had_added(measured: Measurements) -> None:
    """A table's information is that without one of its runs, and that of the same run as a candidate."""
    fit, evidence = found(measured)
    rows, layout = fit.rows, fit.layout
    priors = fit.information - derivatives(fit.form, layout, rows, fit.weights, fit.theta)[1]
    theta = fit.theta.copy()
    theta[layout.v :] = 0.0  # a run to come has no effect yet
    every = derivatives(fit.form, layout, rows, fit.weights, theta)[1]
    last = evidence.run_ids.index("cpu_74k-3276800t-s1")
    keep = rows.run != last
    others = derivatives(fit.form, layout, rows.where(keep), fit.weights[keep], theta)[1]
    whole = Knowledge(replace(fit, theta=theta, information=every + priors), evidence, [], 6)
    less = Knowledge(replace(fit, theta=theta, information=others + priors), evidence, [], 6)
    cells = candidates.grid_cells(spec().tasks)
    run = candidates.Run(PRESETS["cpu_74k"], (3276800.0,), tuple(cells))
    added = less.information(run)
    np.testing.assert_allclose(less.measured + added, whole.measured, rtol=1e-8, atol=1e-8)
    assert np.linalg.eigvalsh(added).min() > -1e-8


def test_threshold_and_its_gradient(measured: Measurements) -> None:
    fit, evidence = found(measured)
    knowledge, targets = Knowledge(fit, evidence, [], 6), as_targets(BRACKETED)
    at = knowledge.thresholds(targets, SKILL)
    ceilings = fit.theta[fit.layout.ceiling : fit.layout.finished]
    for target, log_frequency in zip(BRACKETED, at.log_frequency, strict=True):
        skill = knowledge.expected_skill(
            target.kind, float(np.exp(log_frequency)), target.block_params, target.tokens
        )
        ceiling = 1.0 / (1.0 + np.exp(-ceilings[evidence.kinds.index(target.kind)]))
        assert skill == pytest.approx(SKILL * ceiling, rel=1e-9)
    for index in range(fit.layout.u):
        step = np.zeros(len(fit.theta))
        step[index] = 1e-5
        up, down = (
            Knowledge(replace(fit, theta=fit.theta + sign * step), evidence, [], 6)
            .thresholds(targets, SKILL)
            .log_frequency
            for sign in (1.0, -1.0)
        )
        np.testing.assert_allclose(at.gradient[index], (up - down) / 2e-5, rtol=1e-5, atol=1e-7)


def test_intervals_are_those_of_the_forecast(measured: Measurements) -> None:
    """As wide as the draws of the calibration say, inside what was measured and beyond it."""
    targets = [*BRACKETED, *(replace(one, block_params=3e5, tokens=1e7) for one in BRACKETED)]
    expected = half_widths(measured, targets, COMBINED.name)
    law = fitted(measured, COMBINED.name, draws=2000).learning
    surface, drawn_values = Surface(law), dict(zip(law.parameters, np.array(law.draws).T, strict=True))
    fit, evidence = found(measured)
    at = Knowledge(fit, evidence, [], 6).thresholds(as_targets(targets), SKILL)
    axes = np.exp(at.log_axes).T
    cells = Cells.of(
        [one.kind[0] for one in targets], [one.kind[1] for one in targets], axes[1], axes[2], axes[0]
    )
    ceiling = np.array(
        [drawn_values[f"ceiling[{family}, {level:g}]"] for family, level in (one.kind for one in targets)]
    )
    slope = np.array([drawn_values[f"frequency_slope[{family}]"] for family in cells.family])
    share = surface.mean(cells) / ceiling
    drawn = (COMBINED.link.inverse(share) - COMBINED.link.inverse(np.array(SKILL))) / slope
    low, high = np.quantile(drawn, [0.05, 0.95], axis=1)
    np.testing.assert_allclose((high - low) / 2.0, expected, rtol=0.25)


def test_document_holds_only_further_runs(suggested: Suggestion) -> None:
    document, design = suggested.document, suggested.design
    assert not set(document.seeds) & {0, 1}
    assert design.runs == len(document.ladder) * len(document.seeds)
    assert design.flops <= 0.5 * suggested.spent_flops
    assert (suggested.after <= suggested.before + 1e-12).all()
    assert openness(suggested.after) < openness(suggested.before)
    measured_names = {cell.name for grid in spec().tasks for cell in grid.cells()}
    names = {cell.name for grid in document.tasks for cell in grid.cells()}
    assert measured_names <= names
    assert names - measured_names == {cell.task for cell in suggested.added}
    assert document.probes == spec().probes
    assert document.dependence is None


def test_order_of_rows_does_not_matter(
    measured: Measurements, calibration: Calibration, suggested: Suggestion
) -> None:
    order = np.random.default_rng(0).permutation(len(measured.learning))
    shuffled = Measurements(measured.learning.where(order))
    again = suggest(shuffled, calibration, spec(), None, Limit(share=0.5))
    assert again.document == suggested.document
    np.testing.assert_array_equal(again.after, suggested.after)


def test_costs_what_plan_says(measured: Measurements, calibration: Calibration) -> None:
    """`mixplan plan` knows steps and symbols exactly; the suggestion comes near from the tables alone."""
    asked = suggest(measured, calibration, spec(), None, Limit(runs=4))
    exact = price(asked.document, Path())
    assert len(exact.runs) == asked.design.runs
    assert asked.design.flops == pytest.approx(sum(run.flops for run in exact.runs), rel=0.1)


def test_more_money_tells_more(measured: Measurements, calibration: Calibration) -> None:
    widths = [
        openness(suggest(measured, calibration, spec(), None, Limit(share=share)).after)
        for share in (0.1, 0.5, 2.0)
    ]
    assert widths[0] > widths[1] > widths[2]


def test_never_learned_gets_a_higher_frequency(suggested: Suggestion) -> None:
    higher = [cell for cell in suggested.added if cell.kind == NEVER]
    assert higher
    assert min(cell.frequency for cell in higher) > 0.004
    said = [text for text in suggestion_sentences(suggested) if text.startswith("modular_addition of compl")]
    assert len(said) == 1
    assert "was never learned: the new frequency" in said[0]


def test_a_kind_that_was_never_finished_counts_as_neither(
    measured: Measurements, calibration: Calibration
) -> None:
    tasks = [
        task.model_copy(update={"status": "never finished", "cells": 0, "learned": 0})
        if (task.family, task.complexity) == NEVER
        else task
        for task in calibration.tasks
    ]
    asked = suggest(measured, calibration.model_copy(update={"tasks": tasks}), spec(), None, Limit(runs=4))
    assert NEVER not in [one.kind for one in asked.censored]


def test_always_learned_gets_a_lower_frequency() -> None:
    table = together(Truth(2, {**KINDS, ("comparison", 4.0): 9.0}).learning(spec()))
    asked = suggest(table, fitted(table), spec(), None, Limit(share=0.5))
    assert any(cell.kind == ("comparison", 4.0) and cell.frequency < 0.00025 for cell in asked.added)
    assert any(
        "comparison of complexity 4 was always learned" in text for text in suggestion_sentences(asked)
    )


def test_added_cells_leave_room(suggested: Suggestion) -> None:
    measured_share = sum(cell.frequency for cell in candidates.grid_cells(spec().tasks))
    assert sum(cell.frequency for cell in suggested.added) <= 0.5 * measured_share


def test_nothing_within_the_budget(measured: Measurements, calibration: Calibration) -> None:
    with pytest.raises(NoAnswer, match="no further run is within the budget of 1e\\+06 training FLOPs"):
        suggest(measured, calibration, spec(), None, Limit(flops=1e6))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("25%", Limit(share=0.25)),
        ("2e15", Limit(flops=2e15)),
        ("6 runs", Limit(runs=6)),
        ("1run", Limit(runs=1)),
    ],
)
def test_budgets(text: str, limit: Limit) -> None:
    assert parse_limit(text) == limit


@pytest.mark.parametrize("text", ["", "0%", "-3", "2.5 runs", "much", "1.2.3", "nan", "6 hours", "0"])
def test_no_budgets(text: str) -> None:
    with pytest.raises(InputError, match="--suggest-budget"):
        parse_limit(text)


def plan(**changes: Any) -> Plan:
    given = {
        "sources": [{"name": "web", "role": "common", "tokens_available": 1e8}],
        "tasks": [{"name": "x", "density": {"web": 0.01}, "family": "comparison", "complexity": 16}],
        "sizes": ["cpu_132k", "cpu_296k"],
        "sequence_length": 128,
        "budget": {"tokens": 8e6},
    }
    return Plan.model_validate({**given, **changes})


def test_targets_of_a_plan(measured: Measurements, calibration: Calibration) -> None:
    asked = suggest(measured, calibration, spec(), plan(), Limit(share=0.5))
    assert asked.targets == [
        Target(("comparison", 16.0), name, float(PRESETS[name].block_params), 8e6)
        for name in ("cpu_132k", "cpu_296k")
    ]
    assert not [cell for cell in asked.added if cell.kind == NEVER], "the plan does not ask for it"


def test_a_plan_needs_measured_kinds() -> None:
    tasks = [
        {"name": "a", "density": {"web": 0.01}, "family": "comparison", "complexity": 5},
        {"name": "b", "density": {"web": 0.01}, "family": "comparisons", "complexity": 4},
    ]
    with pytest.raises(InputError) as raised:
        plan_targets(plan(tasks=tasks), sorted(KINDS))
    assert len(raised.value.problems) == 2
    assert (
        "complexity 5 of family 'comparison' was not calibrated (calibrated: 4, 16)"
        in raised.value.problems[0]
    )
    assert "did you mean 'comparison'" in raised.value.problems[1]


def test_all_limits_of_a_plan_hold() -> None:
    shape = PRESETS["cpu_132k"]
    per_token = shape.flops_per_token(257, 128)
    hardware = {"peak_flops_per_second": 1e12, "mfu": 0.5, "price_per_device_hour": 2.0}
    for budget, flops in (
        ({"flops": 1e15}, 1e15),
        ({"gpu_hours": 2, "flops": 1e17}, 2 * 3600 * 5e11),
        ({"money": 1, "gpu_hours": 2}, 1800 * 5e11),
    ):
        asked = plan(budget=budget, hardware=hardware)
        assert affordable_tokens(asked, shape) == pytest.approx(flops / per_token)


def test_rungs_between_and_above(measured: Measurements) -> None:
    names = [shape.name for shape in candidates.rungs(spec(), collect_evidence(measured.learning))]
    assert names == ["cpu_8k", "cpu_19k", "cpu_33k", "cpu_74k", "cpu_132k", "cpu_296k"]


def test_a_rung_above_the_last_preset_is_grown() -> None:
    shape = candidates.grown(PRESETS["cpu_296k"])
    assert (shape.name, shape.d_model, shape.d_ffn) == ("cpu_296k_d144", 144, 576)
    assert candidates.grown(shape).name == "cpu_296k_d216"
    narrow = ModelShape(name="mine", d_model=8, layers=1, heads=4, d_ffn=32)
    assert candidates.grown(narrow).d_model > 8


def test_a_rung_of_unknown_shape(measured: Measurements) -> None:
    table = measured.learning
    columns = dict(table.columns)
    columns["block_params"] = np.where(table["block_params"] == 74160.0, 74161.0, table["block_params"])
    columns["rung"] = np.where(table["rung"] == "cpu_74k", "odd", table["rung"])
    evidence = collect_evidence(type(table)(columns))
    with pytest.raises(InputError, match="rung odd of 74161 block parameters is neither"):
        candidates.rungs(spec(), evidence)


def test_horizons_to_choose_from() -> None:
    shown = [one.tokens for one in candidates.horizon_choices(Horizons(tokens=[100, 400]))]
    assert shown == [[100], [100, 400], [100, 400, 800]]
    single = [
        one.tokens_per_20_params for one in candidates.horizon_choices(Horizons(tokens_per_20_params=[1]))
    ]
    assert single == [[0.5], [1], [1, 2]]


def test_spent_flops_counts_branches(measured: Measurements) -> None:
    one = spec(horizons={"tokens": [1638400, 3276800]}, ladder=["cpu_8k"], seeds=[0])
    evidence = collect_evidence(Truth(3).learning(one))
    vocabulary = 257 + reserved_symbols(one)
    per_token = PRESETS["cpu_8k"].flops_per_token(vocabulary, 128)
    assert candidates.measured_vocabulary(one, evidence.table) == vocabulary
    spent = candidates.spent_flops(one, evidence, float(vocabulary))
    assert spent == pytest.approx(per_token * (3276800 + 0.1 * 1638400))


def test_cells_of_other_protocols_are_left_out(measured: Measurements) -> None:
    grid = {"family": "comparison", "complexities": [4], "frequencies": [0.001], "gaps_steps": [8]}
    both = {"family": "comparison", "complexities": [16], "frequencies": [0.004], "gaps_steps": [1, 8]}
    asked = spec(tasks=[grid, both])
    kept = candidates.kept_grids(asked, collect_evidence(measured.learning))
    assert [cell.name for one in kept for cell in one.cells()] == ["comparison-16@0.004"]


def test_own_tasks_and_sources_cost_their_runs() -> None:
    asked = spec(
        user_tasks=[{"name": "mine", "path": "mine.jsonl", "frequencies": [0.001, 0.002, 0.004]}],
        user_sources=[{"name": "law", "data": {"paths": ["law"]}, "shares": [0.1, 0.2]}],
    )
    runs = candidates.runs_of_a_seed(asked, PRESETS["cpu_8k"], asked.horizons, [])
    assert [[cell.task for cell in run.cells] for run in runs] == [
        ["mine", "law@0.1"], ["mine", "law@0.2"], ["mine", "law@0.1"], ["mine"], [],
    ]  # fmt: skip
    assert [run.cells[0].frequency for run in runs[:3]] == [0.001, 0.002, 0.004]
    separate = asked.model_copy(update={"horizons": Horizons(tokens=[100, 200], branches=False)})
    assert len(candidates.runs_of_a_seed(separate, PRESETS["cpu_8k"], separate.horizons, [])) == 10


def test_as_many_runs_as_calibrate_would_train() -> None:
    source = {"name": "law", "data": {"paths": ["law"]}, "shares": [0.1, 0.2]}
    for asked in (
        spec(),
        spec(user_sources=[source]),
        spec(horizons={"tokens": [409600, 819200, 1638400], "branches": True}),
        spec(horizons={"tokens": [409600, 819200], "branches": False}),
    ):
        exact = plan_runs(asked, 300)
        runs = [
            run
            for shape in asked.shapes()
            for _ in asked.seeds
            for run in candidates.runs_of_a_seed(asked, shape, asked.horizons, [])
        ]
        flops = [candidates.training_flops(asked, run.shape, run.ends, 300) for run in runs]
        assert len(runs) == len(exact)
        assert sum(flops) == pytest.approx(sum(run.flops for run in exact), rel=0.01)


def test_paths_lead_where_they_did(tmp_path: Path) -> None:
    (tmp_path / "a" / "text").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "own.jsonl").touch()
    asked = spec(user_tasks=[{"name": "own", "path": "own.jsonl", "frequencies": [0.001]}])
    there = moved(asked, tmp_path / "a", tmp_path / "b")
    assert there.corpus.paths == ["../a/text"]
    assert there.user_tasks[0].path == "../a/own.jsonl"
    assert missing(there, tmp_path / "b") == []
    assert missing(asked, tmp_path / "b") == ["text", "own.jsonl"]
    assert moved(asked, tmp_path / "a", tmp_path / "a") == asked
    absolute = spec(corpus={"paths": [str(tmp_path / "a" / "te*")]})
    assert moved(absolute, tmp_path / "a", tmp_path / "b").corpus.paths == absolute.corpus.paths
    assert missing(absolute, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["examples/measurements/quickstart", "ref:cpu-manuals"])
def test_shipped_measurements(name: str) -> None:
    tables = read_measurements(resolve(Path(name) if ":" in name else ROOT / name).path)
    asked = CalibrationSpec.model_validate(tables.provenance["calibration"])
    starter = load(ROOT / "mixplan" / "documents" / "starter" / "plan.yaml", Plan)
    found = suggest(tables, fitted(tables, LOGISTIC.name), asked, starter, Limit(share=0.25))
    exact = price(found.document, Path())
    assert found.design.flops == pytest.approx(sum(run.flops for run in exact.runs), rel=0.05)
    assert found.design.flops <= 0.25 * found.spent_flops
    assert (found.after < found.before).all()
    assert suggestion_tables(found)[0].title.startswith("Suggested: ")
