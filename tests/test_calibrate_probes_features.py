"""The feature probe finds what was planted and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixplan.calibrate.model import build_model
from mixplan.calibrate.probes.features import FeatureProbe, fourier_modes, order_r2
from mixplan.calibrate.tasks import FAMILIES
from mixplan.calibrate.tasks.base import Task
from mixplan.documents.calibration_spec import Features
from mixplan.documents.shapes import ModelShape

CONTEXTS = np.random.default_rng(0).integers(0, 20, size=(4, 8))
ITEMS, MODULUS = 24, 11


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def line(items: int, width: int, noise: float) -> np.ndarray:
    """Items along one direction in their order, in noise."""
    direction = generator().normal(size=width)
    return np.linspace(-1, 1, items)[:, None] * direction + noise * np.random.default_rng(1).normal(
        size=(items, width)
    )


def circles(modulus: int, modes: list[int], width: int) -> np.ndarray:
    """Residues on one circle per mode, each in a plane of its own."""
    states = np.zeros((modulus, width))
    for n, mode in enumerate(modes):
        angle = 2 * np.pi * mode * np.arange(modulus) / modulus
        states[:, 2 * n], states[:, 2 * n + 1] = np.cos(angle), np.sin(angle)
    return states @ np.linalg.qr(generator().normal(size=(width, width)))[0] + 3.0


@pytest.mark.parametrize(("items", "width"), [(24, 8), (64, 32), (12, 64)])
def test_a_planted_order_is_read(items: int, width: int) -> None:
    value, null = order_r2(line(items, width, 0.05), 50, generator())
    assert value > 0.95
    assert null < 0.2


@pytest.mark.parametrize(("items", "width"), [(24, 8), (64, 32), (12, 64)])
def test_no_order_is_read_where_there_is_none(items: int, width: int) -> None:
    states = [np.random.default_rng(seed).normal(size=(items, width)) for seed in range(20)]
    found = [order_r2(one, 50, generator()) for one in states]
    # Left-out items are read worse than by the mean; items that the read-out has seen would give R² near 1.
    assert np.mean([value for value, _ in found]) < 0.1
    assert np.mean([value - null for value, null in found]) == pytest.approx(0, abs=0.35)


def test_an_order_that_is_hidden_below_the_leading_components_is_not_read() -> None:
    states = line(24, 8, 0.0) * 0.01
    states[:, 0] += np.random.default_rng(3).normal(size=24)
    assert order_r2(states, 1, generator())[0] < 0.3
    assert order_r2(states, 8, generator())[0] > 0.9


def test_states_that_do_not_differ_hold_no_order() -> None:
    value, null = order_r2(np.ones((8, 4)), 50, generator())
    assert value <= 0 and null <= 0


@pytest.mark.parametrize(
    ("modulus", "modes"), [(11, [1]), (11, [2, 5]), (13, [1, 3]), (23, [1]), (23, [2, 5]), (23, [1, 3, 11])]
)
def test_planted_modes_are_counted(modulus: int, modes: list[int]) -> None:
    assert fourier_modes(circles(modulus, modes, 12), generator())[0] == len(modes)


def test_the_last_mode_of_an_even_modulus_has_no_mirror_image() -> None:
    sign = np.tile([1.0, -1.0], 5)[:, None] * np.ones((1, 3))
    assert fourier_modes(sign, generator())[0] == 1
    # All modes with what noise gives them: none stands out.
    delta = np.eye(10)
    assert fourier_modes(delta, generator())[0] == 0


def test_modes_of_noise_are_those_of_the_null() -> None:
    found = [fourier_modes(np.random.default_rng(n).normal(size=(23, 32)), generator()) for n in range(30)]
    assert np.mean([value for value, _ in found]) == pytest.approx(
        np.mean([null for _, null in found]), abs=0.2
    )
    assert fourier_modes(np.ones((11, 4)), generator())[0] == 0


def tasks() -> list[Task]:
    made = [
        FAMILIES["comparison"].make("c", ITEMS, np.arange(20, 20 + ITEMS + 2), generator()),
        FAMILIES["table_lookup"].make(
            "t", 3, np.arange(80, 80 + FAMILIES["table_lookup"].symbols(3)), generator()
        ),
        FAMILIES["modular_addition"].make("m", MODULUS, np.arange(60, 60 + MODULUS), generator()),
    ]
    return made


def test_tasks_tell_the_order_behind_their_symbols() -> None:
    comparison, lookup, addition = tasks()
    assert lookup.order is None and comparison.order is not None and addition.order is not None
    assert len(set(comparison.order)) == ITEMS
    rank = {symbol: n for n, symbol in enumerate(comparison.order)}
    for one in (*comparison.train, *comparison.test):
        assert (rank[one.prompt[0]] < rank[one.prompt[1]]) == (one.answer == 0)
    value = {symbol: n for n, symbol in enumerate(addition.order)}
    for one in (*addition.train, *addition.test):
        assert value[one.choices[one.answer][0]] == sum(value[s] for s in one.prompt) % MODULUS


def test_features_planted_in_the_embeddings_are_found_at_layer_0() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = build_model(ModelShape(name="t", d_model=16, layers=2, heads=2, d_ffn=32), 128, 32)
    comparison, lookup, addition = tasks()
    assert comparison.order is not None and addition.order is not None
    embedding = model.model.embed_tokens.weight
    with torch.no_grad():
        embedding[list(comparison.order)] = torch.tensor(line(ITEMS, 16, 0.05), dtype=torch.float32)
        embedding[list(addition.order)] = torch.tensor(circles(MODULUS, [2, 3], 16), dtype=torch.float32)
    probe = FeatureProbe(Features(contexts=3), [comparison, lookup, addition], CONTEXTS, 0, "cpu")
    order, nothing, modes = probe.measure(model, "fp32")
    assert nothing == []
    assert [row["layer"] for row in order] == [row["layer"] for row in modes] == [0, 1, 2]
    assert {row["feature"] for row in order} == {"order_r2"}
    assert order[0]["value"] > 0.95 > order[0]["null"] + 0.5
    assert modes[0]["value"] == 2 and {row["feature"] for row in modes} == {"fourier_modes"}
    assert probe.measure(model, "fp32") == [order, nothing, modes]


def test_without_a_task_that_has_an_order_nothing_is_measured() -> None:
    probe = FeatureProbe(Features(), [tasks()[1]], CONTEXTS, 0, "cpu")
    assert probe.measure(None, "fp32") == [[]]
