"""Batches made ahead are those that would have been made on the spot, whatever the order of steps."""

from __future__ import annotations

import numpy as np
import pytest

from mixplan.calibrate.prefetch import Feed


def tokens(step: int) -> np.ndarray:
    if step > 90:
        raise ValueError("too far")
    return np.random.default_rng(step).integers(0, 50, size=(3, 7))


@pytest.mark.parametrize("ahead", [False, True])
def test_every_step_gets_its_own_batch(ahead: bool) -> None:
    feed = Feed(tokens, "cpu", ahead)
    for step in [0, 1, 2, 3, 2, 3, 4, 40, 41, 0, 90]:
        assert (feed.at(step).numpy() == tokens(step)).all()


@pytest.mark.parametrize("ahead", [False, True])
def test_what_goes_wrong_is_told_at_its_own_step(ahead: bool) -> None:
    feed = Feed(tokens, "cpu", ahead)
    feed.at(90)  # makes 91 ahead, which fails: that is not this step's business
    with pytest.raises(ValueError, match="too far"):
        feed.at(91)
    assert (feed.at(5).numpy() == tokens(5)).all()


def test_the_next_batch_is_made_before_it_is_asked_for() -> None:
    made: list[int] = []

    def note(step: int) -> np.ndarray:
        made.append(step)
        return tokens(step)

    feed = Feed(note, "cpu", ahead=True)
    feed.at(3)
    assert feed._next is not None
    feed._next[1].result()
    assert made == [3, 4]
