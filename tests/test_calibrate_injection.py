"""Injection: exact frequencies, even spacing, no overlap, the same after a resume."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixplan.calibrate import ladder
from mixplan.calibrate.injection import Injector
from mixplan.calibrate.placement import place
from mixplan.calibrate.stream import BaseStream
from mixplan.calibrate.tasks.base import Instance, Task


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
