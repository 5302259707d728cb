"""verify --plan-only: what reading would show, without reading; and how even is even."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes_making import write_recipe
from recipes_verifying import rewrite
from typer.testing import CliRunner

from mixplan.cli import app
from mixplan.errors import InputError
from mixplan.recipes.comparing import UNEVEN_FROM, SourceReading, is_uneven, uneven_by_chance
from mixplan.recipes.emitting import emit
from mixplan.recipes.encounters import encounters, median_gap
from mixplan.recipes.evenness import evenness
from mixplan.recipes.verifying import How, verify

pytest_plugins = ["recipes_verifying"]
PLAN = How(plan_only=True)


def test_the_plan_says_what_reading_shows(sources: Path, tmp_path: Path, here: None) -> None:
    (tmp_path / "mds").symlink_to(sources / "mds")
    choose = {"code": 900, "rare": 500, "s97": 250, "s17": 0}
    emit(write_recipe(tmp_path, choose, ("rare", "s97")), tmp_path / "out")
    planned, read = verify(tmp_path / "out", PLAN), verify(tmp_path / "out")
    assert planned.problems == read.problems == []
    assert planned.sources == read.sources and len(read.sources) == 3
    assert (planned.checked, planned.samples, planned.shards_hashed) == ("plan", 1650, 0)
    assert (read.checked, read.samples) == ("reading", 1650)
    assert read.shards_hashed == read.shards_checked == planned.shards_checked
    assert read.order_as_planned and planned.order_as_planned is None
    met = read.sources[1].encounters
    assert met is not None and met.median_gap_tokens == 16 * met.median_gap_samples
    assert met.longest_gap_tokens == 16 * met.longest_gap_samples


def test_the_plan_looks_at_sizes_and_not_into_shards(small: Path) -> None:
    path = small / "mds" / "s40" / "shard.00003.mds"
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x10
    path.write_bytes(bytes(data))
    found = CliRunner().invoke(app, ["verify", str(small / "out"), "--plan-only"])
    assert found.exit_code == 0, found.output
    assert "what is in them was not read" in found.output
    path.write_bytes(bytes(data[:-7]))
    found = CliRunner().invoke(app, ["verify", str(small / "out"), "--plan-only", "--json"])
    assert found.exit_code == 1
    problems = json.loads(found.stdout)["problems"]
    assert len(problems) == 1 and problems[0].startswith(f"source 's40': {path} has ")


def test_remote_sources_are_planned_from_their_index(small: Path) -> None:
    whole = verify(small / "out", PLAN)

    def move(data: dict[str, Any]) -> None:
        stream = data["streams"]["s97"]
        stream["remote"], stream["local"] = stream["local"], str(small / "cache")

    rewrite(small / "out", move)
    assert verify(small / "out", PLAN).sources == whole.sources
    assert not (small / "cache").exists()
    index = small / "mds" / "s97" / "index.json"
    index.write_text(index.read_text() + " ")
    assert "'s97': the index in" in verify(small / "out", PLAN).problems[0]
    index.unlink()
    (problem,) = verify(small / "out", PLAN).problems
    assert problem.startswith(f"source 's97': {small}/mds/s97/index.json")


def test_ranks_that_do_not_divide_the_samples(small: Path) -> None:
    even = verify(small / "out", How(plan_only=True, ranks=4, workers=2))
    assert even.passed and even.samples == 180 and even.warnings == []
    odd = verify(small / "out", How(plan_only=True, ranks=7))
    assert odd.problems == []
    assert (odd.samples, odd.padding_samples) == (182, 2)
    assert "do not divide among 7 ranks, and Streaming repeats 2" in odd.warnings[0]


@pytest.mark.parametrize("ranks", [97, 128, 179, 180])
def test_padding_may_repeat_what_it_repeats(small: Path, ranks: int) -> None:
    """Nearly as many samples again as the run has: a sample may come more than its epochs say."""
    found = verify(small / "out", How(plan_only=True, ranks=ranks))
    assert found.problems == []
    assert found.samples == -(-180 // ranks) * ranks


def test_more_ranks_than_samples_are_refused(small: Path) -> None:
    with pytest.raises(InputError, match=r"--ranks 181: the mixture has 180 samples.* give 180 at most"):
        verify(small / "out", How(plan_only=True, ranks=181))


def test_more_than_the_recipe_is_a_problem(small: Path) -> None:
    """One sample more of one source and one less of another: the total hides it, the counts do not."""

    def swap(data: dict[str, Any]) -> None:
        data["streams"]["s97"]["choose"], data["streams"]["s40"]["choose"] = 149, 31

    rewrite(small / "out", swap)
    assert verify(small / "out", PLAN).problems == [
        "source 's97': streams.yaml takes 149 samples, the recipe says 150",
        "source 's40': streams.yaml takes 31 samples, the recipe says 30",
    ]


@pytest.fixture
def long(sources: Path, tmp_path: Path) -> Path:
    """40 rare samples among 4,000."""
    (tmp_path / "mds").symlink_to(sources / "mds")
    emit(write_recipe(tmp_path, {"code": 3_960, "s40": 40}, ("s40",)), tmp_path / "out")
    return tmp_path


def test_an_order_without_shuffling_is_in_bursts(long: Path) -> None:
    def unshuffled(data: dict[str, Any]) -> None:
        data["dataset"]["shuffle"] = False

    rewrite(long / "out", unshuffled)
    (problem,) = verify(long / "out", PLAN).problems
    assert "source 's40' comes in bursts" in problem and "--allow-uneven" in problem
    allowed = CliRunner().invoke(app, ["verify", str(long / "out"), "--plan-only", "--allow-uneven"])
    assert allowed.exit_code == 0 and "warning: source 's40' comes in bursts" in allowed.output


# --- gaps ---


@pytest.mark.parametrize(("n", "m"), [(7, 1), (8, 3), (9, 2), (6, 6)])
def test_gaps_are_those_of_all_placements(n: int, m: int) -> None:
    """Every placement of m among n, counted out."""
    gaps, empty = [], []
    for places in itertools.combinations(range(n), m):
        gaps.append(np.diff([-1, *places, n]))
        empty.append(n - m)  # windows of one sample
    everything = np.concatenate(gaps)
    smallest = min(g for g in range(1, n + 2) if (everything > g).mean() <= 0.5)
    assert median_gap(n, m) == smallest
    met = encounters(np.arange(m), n, 4)
    assert met.empty_windows_iid == pytest.approx(np.mean(empty))
    assert met.median_gap_iid_tokens == 4 * smallest


def test_random_orders_have_the_expected_gaps() -> None:
    rng = np.random.default_rng(0)
    n, m = 20_000, 60
    found = [encounters(np.sort(rng.choice(n, m, False)), n, 1) for _ in range(200)]
    expected = found[0]
    # the median of 61 nearly exponential gaps has a standard error of 13 %; of 200 of them, 1 %
    assert np.mean([one.median_gap_samples for one in found]) == pytest.approx(
        expected.median_gap_iid_samples, rel=0.04
    )
    order = np.zeros(n, int)
    empty = []
    for _ in range(200):
        order[:] = 0
        order[rng.choice(n, m, False)] = 1
        empty.append(evenness(order, 1).empty_windows)
    assert np.mean(empty) == pytest.approx(expected.empty_windows_iid, abs=4 * np.std(empty) / math.sqrt(200))


@pytest.mark.parametrize("m", [3, 20, 200, 5000])
def test_random_orders_are_not_called_uneven(m: int) -> None:
    """1,000 random orders: one in 100,000 may be."""
    rng = np.random.default_rng(m)
    n = 20_000
    beyond = 0
    for _ in range(1000):
        order = np.zeros(n, np.int8)
        order[rng.choice(n, m, False)] = 1
        spread = evenness(order, 1)
        beyond += spread.cv_ratio > UNEVEN_FROM
        assert not is_uneven(spread, m)
    if m == 20:
        assert beyond > 0  # so few samples vary more than 1.3 by chance


def test_bursts_are_uneven() -> None:
    """Ten shards of 20 samples, each within 1 % of the run; and a source of 5 samples in one place."""
    order = np.zeros(20_000, int)
    for start in range(0, 20_000, 2000):
        order[start : start + 200 : 10] = 1
    assert is_uneven(evenness(order, 1), 200)
    order[:] = 0
    order[100:105] = 1
    assert is_uneven(evenness(order, 1), 5)


def test_few_samples_uneven_by_chance_are_a_warning() -> None:
    """Two samples in the same window of 100: with probability 0.01 in a random order."""
    order = np.zeros(20_000, int)
    order[[30, 170]] = 1
    spread = evenness(order, 1)
    assert spread.cv_ratio > UNEVEN_FROM and not is_uneven(spread, 2)
    read = SourceReading("few", "rare", 2, 2, 32, 32, 0.0001, 5, 2, 0.4, 0.4, 1, spread)
    (warning,) = uneven_by_chance([read, replace(read, role="common")])
    assert "'few'" in warning and "can be chance: another shuffle_seed helps" in warning
    order[[180, 190, 195, 199]] = 1
    assert uneven_by_chance([replace(read, samples=6, spread=evenness(order, 1))]) == []  # a problem
