"""verify stops in the middle, takes the loader up again, and compares with the uninterrupted order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixplan.recipes import mixture_verifying, resuming
from mixplan.recipes.reading import Reading
from mixplan.recipes.replay import Planned
from mixplan.recipes.verifying import How, verify

pytest_plugins = ["recipes_verifying"]


def test_resumes_where_it_stopped(small: Path, here: None) -> None:
    found = verify(small / "out")
    assert found.problems == []
    resumed = found.resumption
    assert resumed is not None and resumed.same_order and resumed.other_state_refused
    assert 0 < resumed.stopped_at_samples < 180
    assert resumed.samples == resumed.samples_left == 180 - resumed.stopped_at_samples


def test_reads_on_as_far_as_asked(small: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "RESUMED_SAMPLES", 30)
    part, whole = verify(small / "out").resumption, verify(small / "out", How(resume_to_end=True)).resumption
    assert part is not None and whole is not None
    assert 30 <= part.samples < part.samples_left == whole.samples
    assert part.same_order and whole.same_order


def test_a_loader_that_takes_other_mixtures_states_is_found(
    small: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streaming import StreamingDataset

    from mixplan.recipes.loader import MixtureDataset

    def careless(self: Any, obj: dict[str, Any]) -> None:
        StreamingDataset.load_state_dict(self, {k: v for k, v in obj.items() if k != "mixture"})

    monkeypatch.setattr(MixtureDataset, "load_state_dict", careless)
    found = verify(small / "out")
    assert found.problems == ["the loader takes a state of another mixture, instead of refusing it"]
    assert found.resumption is not None and not found.resumption.other_state_refused


def test_a_loader_that_repeats_samples_is_found(
    small: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streaming import StreamingDataset

    from mixplan.recipes.loader import MixtureDataset

    right = MixtureDataset.state_dict

    def late(self: Any, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        return {**right(self, num_samples, from_beginning), "sample_in_epoch": num_samples - 3}

    assert issubclass(MixtureDataset, StreamingDataset)
    monkeypatch.setattr(MixtureDataset, "state_dict", late)
    (problem,) = verify(small / "out").problems
    assert "are not those of the uninterrupted order: samples would be lost or repeated" in problem


def test_a_resumed_reader_that_ends_early_is_found(
    small: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = resuming.read_mixture

    def short(*given: Any, **more: Any) -> Reading:
        reading = right(*given, **more)
        return replace(reading, records=reading.records[:-1])

    monkeypatch.setattr(resuming, "read_mixture", short)
    (problem,) = verify(small / "out").problems
    assert "resumed after" in problem and "reading ended after" in problem


def test_another_order_than_planned_is_found(
    small: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = mixture_verifying.planned_order

    def other(*given: Any, **more: Any) -> Planned:
        planned = right(*given, **more)
        ids = np.concatenate([planned.sample_ids[:7], planned.sample_ids[:6:-1]])
        return replace(planned, sample_ids=ids)

    monkeypatch.setattr(mixture_verifying, "planned_order", other)
    found = verify(small / "out")
    (problem,) = found.problems
    assert not found.order_as_planned
    assert "is not the one that Streaming's functions plan" in problem and "first number 7 " in problem
