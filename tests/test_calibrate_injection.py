"""Injection: exact frequencies, even spacing, no overlap, the same after a resume."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ladders import TINY, write_ladder

from mixplan.calibrate import ladder
from mixplan.calibrate.batches import Batches
from mixplan.calibrate.cost import price
from mixplan.calibrate.injection import Injector
from mixplan.calibrate.placement import overfull, place
from mixplan.calibrate.prepared import prepare
from mixplan.calibrate.stream import BaseStream
from mixplan.calibrate.tasks.base import Instance, Task
from mixplan.documents import CalibrationSpec, load
from mixplan.errors import InputError


def task(first: int, instances: int = 5) -> Task:
    own = tuple(
        Instance((first, first + 1 + n), ((first + 50,), (first + 51,)), n % 2) for n in range(instances)
    )
    return Task(f"t{first}", "comparison", 5, own, own)


frequencies = st.lists(st.floats(1e-4, 2e-2), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(frequencies=frequencies, seed=st.integers(0, 99), steps=st.integers(3, 60))
def test_frequency_is_exact_and_evenly_spaced(frequencies: list[float], seed: int, steps: int) -> None:
    tasks = [task(1000 + 100 * n) for n in range(len(frequencies))]
    injector = Injector(tasks, frequencies, 256, 4, 128, steps, seed)
    counts = np.array([injector.seen(s + 1) - injector.seen(s) for s in range(steps)])
    asked = np.array([round(f * steps * 4 * 128) for f in frequencies])
    assert (injector.seen(steps) == asked).all()
    assert (counts.sum(axis=0) == asked).all()
    assert injector.realised_frequencies * steps * 512 == pytest.approx(asked)
    # Even: no step has more than its fair share, rounded up or down.
    assert (counts <= np.ceil(asked / steps)).all()
    assert (counts >= np.floor(asked / steps)).all()


@settings(max_examples=50, deadline=None)
@given(frequencies=frequencies, seed=st.integers(0, 99))
def test_what_is_injected_is_found_whole_and_the_rest_is_text(frequencies: list[float], seed: int) -> None:
    tasks = [task(1000 + 100 * n) for n in range(len(frequencies))]
    injector = Injector(tasks, frequencies, 256, 4, 128, 20, seed)
    batch = np.random.default_rng(seed).integers(0, 256, size=(4, 128))
    for step in range(20):
        wanted, _ = injector.documents_at(step)
        out, _ = injector.inject(step, batch)
        assert (injector.inject(step, batch)[0] == out).all()
        assert (out != batch).sum() <= 4 * len(wanted)
        starts = [(r, c) for r, c in zip(*np.nonzero((out >= 1000) & (out % 100 == 0)), strict=True)]
        found = sorted(tuple(int(t) for t in out[r, c : c + 4]) for r, c in starts)
        assert found == sorted(wanted)


def test_all_instances_come_before_any_comes_again() -> None:
    injector = Injector([task(1000, instances=7)], [0.01], 256, 4, 128, 40, seed=3)
    order = [document for step in range(40) for document in injector.documents_at(step)[0]]
    for first in range(0, len(order) - 6, 7):
        assert len(set(order[first : first + 7])) == 7


def test_place_fills_to_the_last_token_and_refuses_more() -> None:
    batch = np.zeros((2, 8), dtype=np.int64)
    documents = [(1, 2, 3, 4)] * 4
    assert (place(batch, documents, [0] * 4, np.random.default_rng(0))[0] > 0).all()
    with pytest.raises(ValueError, match="do not fit"):
        place(batch, [*documents, (1,)], [0] * 5, np.random.default_rng(0))
    assert (batch == 0).all()


def test_stream_reads_every_sequence_once_a_pass_in_an_order_of_the_seed() -> None:
    tokens = np.arange(100, dtype=np.int32)
    stream = BaseStream(tokens, 10, seed=1)
    passes = [np.concatenate([stream.batch(s, 5) for s in (p, p + 1)])[:, 0] for p in (0, 2)]
    for firsts in passes:
        assert sorted(firsts) == list(range(0, 100, 10))
    assert list(passes[0]) != list(passes[1])
    assert (BaseStream(tokens, 10, seed=1).batch(3, 5) == stream.batch(3, 5)).all()
    assert (BaseStream(tokens, 10, seed=2).batch(0, 10) != BaseStream(tokens, 10, seed=1).batch(0, 10)).any()
    # Rungs with other batch sizes read the same text in the same order.
    assert (stream.batch(0, 10) == np.concatenate([stream.batch(s, 2) for s in range(5)])).all()


def test_schedule_warms_up_stays_and_decays() -> None:
    factors = [ladder.schedule(step, 100, 10, 20) for step in range(100)]
    assert factors[9] == factors[79] == 1.0
    assert factors[0] == pytest.approx(0.1)
    assert all(a <= b for a, b in pairwise(factors[:10]))
    assert all(a > b for a, b in pairwise(factors[79:]))
    assert 0 < factors[99] < 0.1


def injector(frequencies: list[float], steps: int, seed: int, **how: Any) -> Injector:
    tasks = [task(1000 + 100 * n) for n in range(len(frequencies))]
    return Injector(tasks, frequencies, 256, 8, 64, steps, seed, **how)


@settings(max_examples=60, deadline=None)
@given(
    frequency=st.floats(2e-4, 2e-2),
    gap=st.integers(1, 25),
    steps=st.integers(25, 90),
    seed=st.integers(0, 99),
)
def test_a_gap_has_the_frequency_of_even_spacing_within_one_burst(
    frequency: float, gap: int, steps: int, seed: int
) -> None:
    even = injector([frequency], steps, seed)
    gapped = injector([frequency], steps, seed, gaps=[gap])
    counts = np.array([int(gapped.seen(s + 1)[0] - gapped.seen(s)[0]) for s in range(steps)])
    bursts = np.flatnonzero(counts)
    assert (np.diff(bursts) % gap == 0).all()
    for step in bursts:
        # Right after a burst nothing is owed: the same instances have been seen as with even spacing.
        assert gapped.seen(step + 1) == even.seen(step + 1)
    owed = even.seen(steps) - gapped.seen(steps)
    assert 0 <= owed <= np.ceil(even.schedule.totals * gap / steps)
    assert gapped.realised_frequencies * steps * 512 == pytest.approx(counts.sum())
    if gap == 1:
        assert owed == 0
    assert sum(len(gapped.documents_at(s)[0]) for s in range(steps)) == counts.sum()


def test_bursts_of_many_cells_do_not_all_meet() -> None:
    many = injector([0.001] * 40, 64, 5, gaps=[16] * 40)
    per_step = np.array([(many.seen(s + 1) - many.seen(s)).sum() for s in range(64)])
    assert per_step.max() < per_step.sum() / 4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_poisson_counts_are_a_function_of_the_step_and_exactly_kept(seed: int) -> None:
    one = injector([0.004, 0.02], 60, seed, spacing="poisson")
    counts = np.array([one.seen(s + 1) - one.seen(s) for s in range(60)])
    assert (counts >= 0).all() and (one.seen(0) == 0).all()
    assert one.realised_frequencies == pytest.approx(counts.sum(axis=0) / (60 * 512))
    again = injector([0.004, 0.02], 60, seed, spacing="poisson")
    # Asked in another order, as after a resume.
    assert [again.documents_at(s) for s in (37, 3)] == [one.documents_at(s) for s in (37, 3)]
    batch = np.zeros((8, 64), dtype=np.int64)
    assert (again.inject(41, batch)[0] == one.inject(41, batch)[0]).all()


def test_poisson_counts_are_poisson() -> None:
    frequency, steps = 0.01, 20_000
    one = injector([frequency], steps, 1, spacing="poisson")
    counts = np.diff(one.schedule.seen(np.arange(steps + 1))[:, 0])
    mean = frequency * 512
    # Standard errors of the mean and of the variance of 20,000 draws: 0.016 and 0.054.
    assert counts.mean() == pytest.approx(mean, abs=0.08)
    assert counts.var() == pytest.approx(mean, abs=0.3)
    # Independent: no step knows of the one before.
    assert abs(np.corrcoef(counts[:-1], counts[1:])[0, 1]) < 0.03


@settings(max_examples=60, deadline=None)
@given(
    placement=st.sampled_from(["anywhere", "aligned", "start"]),
    spacing=st.sampled_from(["even", "poisson"]),
    gap=st.sampled_from([1, 4]),
    extra=st.integers(0, 2),
    seed=st.integers(0, 999),
)
def test_every_placement_writes_whole_instances_that_never_overlap(
    placement: Any, spacing: Any, gap: int, extra: int, seed: int
) -> None:
    one = injector(
        [0.001, 0.002], 20, seed, placement=placement, spacing=spacing, gaps=[1, gap], longest_extra=5
    )
    burst = [(7001, 7002, 7003, 7004, 256)] * extra
    for step in range(20):
        text = np.full((8, 64), 5, dtype=np.int64)
        documents, owners = one.documents_at(step)
        if placement == "start" and len(documents) + extra > 8:
            with pytest.raises(ValueError, match="do not fit"):
                one.inject(step, text, burst)
            continue
        batch, owned = one.inject(step, text, burst)
        expected = sum(map(len, documents)) + 5 * extra
        assert ((owned != -1) == (batch != 5)).all() and (owned != -1).sum() == expected
        assert (owned == -2).sum() == 5 * extra
        for cell in (0, 1):
            assert (owned == cell).sum() == 4 * owners.count(cell)
            assert ((batch // 100 == 10 + cell) <= (owned == cell)).all()
        starts = [(int(r), int(c)) for r, c in np.argwhere((batch % 100 == 0) & (batch >= 1000))]
        starts += [(int(r), int(c)) for r, c in np.argwhere(batch == 7001)]
        assert len(starts) == len(documents) + extra
        if placement == "aligned":
            assert all(c % 5 == 0 for _, c in starts)
        if placement == "start":
            assert all(c == 0 for _, c in starts) and len({r for r, _ in starts}) == len(starts)


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    counts=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    seed=st.integers(0, 999),
)
def test_what_is_not_overfull_can_be_placed(lengths: list[int], counts: list[int], seed: int) -> None:
    own = np.array([counts[: len(lengths)]])
    documents = [(9,) * n for n, times in zip(lengths, own[0], strict=True) for _ in range(times)]
    batch = np.zeros((3, 12), dtype=np.int64)
    for placement, grid in (("anywhere", 1), ("aligned", max(lengths)), ("start", 1)):
        full = overfull(own, np.array(lengths), 3, 12, placement, grid)[0]
        generator = np.random.default_rng(seed)
        if not full:
            placed, _ = place(batch, documents, [0] * len(documents), generator, placement, grid)
            assert (placed > 0).sum() == sum(map(len, documents))
        elif placement != "anywhere" or sum(map(len, documents)) > 36:
            with pytest.raises(ValueError, match="do not fit"):
                place(batch, documents, [0] * len(documents), generator, placement, grid)


def test_full_batches_of_equal_instances_are_not_refused() -> None:
    assert not overfull(np.array([[6]]), np.array([4]), 2, 12, "anywhere", 4)[0]
    assert overfull(np.array([[7]]), np.array([4]), 2, 12, "anywhere", 4)[0]


@pytest.mark.parametrize(
    ("grid", "injection", "message"),
    [
        # A third of the tokens on average; but the two bursts, of 41 and 43 instances, meet in some run.
        ({"frequencies": [0.02, 0.021], "gaps_steps": [1, 8]}, {}, "do not fit 4 sequences of 64 tokens"),
        ({"frequencies": [0.02]}, {"placement": "start"}, "placement start"),
        ({"frequencies": [0.01], "gaps_steps": [1, 41]}, {}, "a gap of 41 steps does not fit the 40 steps"),
        ({"frequencies": [1.2e-4], "gaps_steps": [30]}, {}, "none of its instances is injected"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(
    tmp_path: Path, grid: dict, injection: dict, message: str
) -> None:
    tasks = [{"family": "comparison", "complexities": [6], **grid}]
    path = write_ladder(tmp_path, tasks=tasks, injection=injection, seeds=list(range(12)))
    with pytest.raises(InputError, match=message):
        price(load(path, CalibrationSpec), tmp_path)


def test_the_worst_step_is_found_where_bursts_meet(tmp_path: Path) -> None:
    """The fullest step that the check reckons with is the fullest that is trained."""
    grid = {"family": "comparison", "complexities": [6], "frequencies": [0.015, 0.0151], "gaps_steps": [4]}
    path = write_ladder(tmp_path, ladder=[TINY], tasks=[grid], seeds=list(range(12)))
    prepared, _ = prepare(load(path, CalibrationSpec), tmp_path, tmp_path / "out")
    met = []
    for run in prepared.runs():
        batches = Batches(prepared, run, prepared.cells(run), [])
        trained = max(int((batches.with_owners(step)[1] >= 0).sum()) for step in range(run.steps))
        expected = max(int(counts.sum(axis=1).max()) for _, counts in batches.injector.schedule.counts())
        assert trained == 4 * expected
        met.append(expected)
    # A burst of one cell is 15 or 16 instances: in some runs two of them meet.
    assert min(met) < 20 < 29 < max(met)
