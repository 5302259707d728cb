"""The grid of final cells: what is averaged, what is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixplan.documents.measurements import TEXT_COLUMNS
from mixplan.documents.table import Table, from_rows
from mixplan.errors import InputError
from mixplan.laws.evidence import collect_evidence, standard_rows
from mixplan.report.cells import ladder_of
from mixplan.report.choice import common_rows, ended, final_rows, protocol_notes
from mixplan.report.grouping import SAME, codes, groups, rungs_of


def learning(rows: list[dict[str, Any]]) -> Table:
    common = {
        "seed": 0,
        "step": 1,
        "task": "t",
        "family": "sums",
        "complexity": 3,
        "accuracy": 0.5,
        "chance": 0.0,
    }
    return from_rows([{**common, **row} for row in rows], TEXT_COLUMNS)


def row(
    rung: str, params: float, run: str, tokens: float, frequency: float, skill: float, **more: Any
) -> dict[str, Any]:
    size = {"rung": rung, "block_params": params}
    return {**size, "run_id": run, "tokens": tokens, "frequency": frequency, "skill": skill, **more}


def test_a_cell_is_the_mean_of_the_last_evaluations_with_its_range() -> None:
    table = learning([
        row("small", 10, "a", 50, 1e-3, 0.9),  # not the last evaluation of its run
        row("small", 10, "a", 100, 1e-3, 0.2),
        row("small", 10, "b", 100, 1e-3, 0.4),
        row("large", 20, "c", 100, 1e-3, 1.0),
    ])  # fmt: skip
    ladder = ladder_of(table, 0.8)
    assert [(r.name, r.block_params, r.tokens, r.runs) for r in ladder.rungs] == [
        ("small", 10, 100, 2), ("large", 20, 100, 1),
    ]  # fmt: skip
    (kind,) = ladder.kinds
    np.testing.assert_allclose(kind.skill, [[0.3, 1.0]])
    np.testing.assert_allclose(kind.low, [[0.2, 1.0]])
    np.testing.assert_allclose(kind.high, [[0.4, 1.0]])
    assert kind.measured.tolist() == [[2, 1]]
    assert [counted.tolist() for counted in ladder.counts()] == [[0, 1], [1, 1]]


def test_a_run_that_ended_early_is_left_out_and_counted() -> None:
    table = learning([row("r", 10, "whole", 100, 1e-3, 0.5), row("r", 10, "short", 60, 1e-3, 0.9)])
    final, shorter = final_rows(table)
    assert list(final["run_id"]) == ["whole"]
    assert shorter == 1
    assert ladder_of(table, 0.8).shorter_ends == 1


def test_each_rung_has_its_own_longest_training() -> None:
    table = learning([row("s", 10, "a", 100, 1e-3, 0.5), row("l", 20, "b", 900, 1e-3, 0.5)])
    ladder = ladder_of(table, 0.8)
    assert [rung.tokens for rung in ladder.rungs] == [100, 900]
    assert ladder.shorter_ends == 0


def test_a_cell_that_nobody_measured_is_a_gap_and_not_learned() -> None:
    table = learning([row("s", 10, "a", 100, 1e-3, 0.9), row("l", 20, "b", 100, 2e-3, 0.9)])
    (kind,) = ladder_of(table, 0.8).kinds
    assert np.isnan(kind.skill).tolist() == [[False, True], [True, False]]
    assert kind.learned(0.8).tolist() == [[True, False], [False, True]]
    assert np.isnan(kind.low).tolist() == np.isnan(kind.skill).tolist()


def test_realised_frequencies_of_one_nominal_value_are_one_cell() -> None:
    table = learning([row("s", 10, "a", 100, 1.00e-3, 0.2), row("l", 20, "b", 100, 1.01e-3, 0.4)])
    (kind,) = ladder_of(table, 0.8).kinds
    assert kind.frequency == pytest.approx([np.sqrt(1.00e-3 * 1.01e-3)])
    np.testing.assert_allclose(kind.skill, [[0.2, 0.4]])


def test_two_sizes_of_one_name_stay_apart() -> None:
    named, at = rungs_of(learning([row("x", 20, "a", 1, 1e-3, 0), row("x", 10, "b", 1, 1e-3, 0)]))
    assert named == [("x", 10.0), ("x", 20.0)]
    assert at.tolist() == [1, 0]


def test_kinds_are_ordered_by_family_and_complexity() -> None:
    table = learning([
        row("s", 10, "a", 1, 1e-3, 0, family=family, complexity=level)
        for family, level in (("b", 16), ("b", 4), ("a", 8))
    ])  # fmt: skip
    assert [(k.family, k.complexity) for k in ladder_of(table, 0.8).kinds] == [("a", 8), ("b", 4), ("b", 16)]


@settings(deadline=None)
@given(st.lists(st.floats(1e-8, 1.0), min_size=1, max_size=40))
def test_groups_keep_order_and_hold_only_neighbours(values: list[float]) -> None:
    given_values = np.array(values)
    means, which = groups(given_values)
    assert (np.diff(means) > 0).all()
    assert set(which.tolist()) == set(range(len(means)))
    for k in range(len(means)):
        members = given_values[which == k]
        assert members.max() <= members.min() * SAME * (1 + 1e-12)
        assert members.min() * (1 - 1e-9) <= means[k] <= members.max() * (1 + 1e-9)


def test_groups_keep_zero() -> None:
    means, which = groups(np.array([0.0, 4096.0, 0.0]))
    assert means.tolist() == [0.0, 4096.0]
    assert which.tolist() == [0, 1, 0]


def test_codes_name_combinations() -> None:
    code = codes(np.array(["a", "b", "a", "a"], dtype=object), np.array([1.0, 1.0, 2.0, 1.0]))
    assert code[0] == code[3]
    assert len(set(code.tolist())) == 3


def test_a_branch_ends_where_it_decayed_and_the_trunk_between_is_no_end() -> None:
    table = learning([
        row("r", 10, "a", tokens, 1e-3, skill, decayed=decayed)
        for tokens, skill, decayed in ((50, 0.1, 0), (100, 0.6, 1), (150, 0.2, 0), (200, 0.9, 1))
    ])  # fmt: skip
    assert ended(table).tolist() == [False, True, False, True]
    ladder = ladder_of(table, 0.8)
    np.testing.assert_allclose(ladder.kinds[0].skill, [[0.9]])
    assert (ladder.rungs[0].tokens, ladder.shorter_ends) == (200, 1)


def test_a_run_that_went_on_without_a_decay_has_no_end_there() -> None:
    """A trunk's last row, undecayed, is not taken for the end of a training."""
    table = learning([
        row("r", 10, "a", 100, 1e-3, 0.6, decayed=1),
        row("r", 10, "a", 200, 1e-3, 0.1, decayed=0),
        row("r", 10, "b", 100, 1e-3, 0.8, decayed=1),
    ])  # fmt: skip
    np.testing.assert_allclose(ladder_of(table, 0.8).kinds[0].skill, [[0.7]])


def test_a_run_that_says_nothing_of_decays_ends_with_its_last_row() -> None:
    table = learning([
        row("r", 10, "a", 100, 1e-3, 0.6, decayed=1),
        row("r", 10, "b", 50, 1e-3, 0.1),
        row("r", 10, "b", 100, 1e-3, 0.8),
    ])  # fmt: skip
    assert ended(table).tolist() == [True, False, True]


PROTOCOLS = (
    ["standard", "gap 8 steps", ""],
    ["poisson", "gap 8 steps, poisson", "poisson"],
    ["gap 8 steps", "gap 16 steps", "gap 8 steps"],
    ["poisson, start", "poisson", "4 unique instances, poisson, start"],
)


@pytest.mark.parametrize("protocols", PROTOCOLS)
def test_figures_and_laws_use_the_same_rows(protocols: list[str]) -> None:
    """Same protocol, same ends: what a figure shows is what a law was fitted to."""
    table = learning([
        row("r", 10, "a", tokens, f, f, protocol=protocol, decayed=float(tokens > 50))
        for tokens in (50, 100)
        for f, protocol in zip((1e-3, 2e-3, 4e-3), protocols, strict=True)
    ])  # fmt: skip
    own = common_rows(table)
    try:
        fitted, said = standard_rows(table, "learning")
    except InputError:
        assert own is None
        assert "no common ground" in protocol_notes(table)[0]
        return
    assert own is not None
    assert own["frequency"].tolist() == fitted["frequency"].tolist()
    evidence = collect_evidence(own)
    ends = [
        list(zip(t["frequency"], t["tokens"], strict=True))
        for t in (own.where(ended(own)), evidence.table.where(evidence.finished))
    ]
    assert sorted(ends[0]) == sorted(ends[1])
    notes = " ".join(protocol_notes(table))
    assert bool(said) == bool(notes)
    assert f"{len(set(table['frequency'])) - len(set(own['frequency']))} cell" in notes


def test_a_source_is_named_by_its_share() -> None:
    table = learning([
        row("s", 10, "a", 100, 0.025, 0.5, task="law@0.025", family="legal"),
        row("s", 10, "a", 100, 1e-3, 0.5, task="sums-3@0.001"),
    ])  # fmt: skip
    source, task = ladder_of(table, 0.8, frozenset({"law"})).kinds
    assert (source.family, source.source, task.source) == ("legal", True, False)
    assert source.often(0.025) == "2.5\u202f% of the tokens"
    assert task.often(1e-3) == "1 in 1\u202fK tokens"
