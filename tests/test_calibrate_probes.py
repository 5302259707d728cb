"""The probes against plain recomputation on a tiny model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from mixplan.calibrate.model import build_model, build_optimizer, token_loss
from mixplan.calibrate.probes import interference, learning
from mixplan.calibrate.probes.retention import RetentionProbe
from mixplan.calibrate.probes.scoring import choice_logprobs, choice_nll, held_out_contexts, score
from mixplan.calibrate.tasks import FAMILIES, Cell
from mixplan.calibrate.tasks.base import Instance, Task
from mixplan.documents.calibration_spec import Retention, Training
from mixplan.documents.shapes import ModelShape

VOCAB = 64
SHAPE = ModelShape(name="t", d_model=8, layers=1, heads=2, d_ffn=16)


@pytest.fixture
def model():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    built = build_model(SHAPE, VOCAB, 32)
    # Untrained weights are so small that all answers look alike.
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.mul_(20)
    return built


CONTEXTS = np.random.default_rng(0).integers(0, 40, size=(3, 8))
ONE_TOKEN = [Instance((41, 42), ((50,), (51,), (52,)), n % 3) for n in range(5)]
SEVERAL = [Instance((41, 43), ((50, 51), (52,), (53, 54, 55)), n % 3) for n in range(4)]


@torch.no_grad()
def by_hand(model, instance: Instance, context: np.ndarray) -> list[float]:
    found = []
    for choice in instance.choices:
        row = [*context.tolist(), *instance.prompt, *choice]
        logprobs = torch.log_softmax(model(torch.tensor([row])).logits[0].double(), -1)
        first = len(row) - len(choice)
        found.append(sum(float(logprobs[first + n - 1, token]) for n, token in enumerate(choice)))
    return found


def test_scores_equal_a_plain_recomputation(model) -> None:
    instances = [*ONE_TOKEN, *SEVERAL]
    scores = score(model, instances, CONTEXTS, "fp32")
    for n, instance in enumerate(instances):
        logprobs = np.array(by_hand(model, instance, CONTEXTS[n % 3]))
        nll = np.log(np.exp(logprobs).sum()) - logprobs[instance.answer]
        assert scores.choice_nll[n] == pytest.approx(nll, abs=1e-4)
        assert scores.answer_nll[n] == pytest.approx(-logprobs[instance.answer], abs=1e-4)
        assert scores.correct[n] == (logprobs.argmax() == instance.answer)


def test_guessing_has_skill_zero_and_knowing_has_skill_one(model) -> None:
    task = FAMILIES["modular_addition"].make("t", 5, np.arange(45, 50), np.random.default_rng(0))
    row = learning.skills(model, [Cell(task, 0.1)], CONTEXTS, 256, "fp32")[0]
    assert row["skill"] == pytest.approx((row["accuracy"] - 0.2) / 0.8)
    context = [CONTEXTS[n % 3] for n in range(len(task.test))]
    known = tuple(
        Instance(i.prompt, i.choices, int(np.argmax(by_hand(model, i, c))))
        for i, c in zip(task.test, context, strict=True)
    )
    sure = Task("t", "modular_addition", 5, task.train, known)
    assert learning.skills(model, [Cell(sure, 0.1)], CONTEXTS, 256, "fp32")[0]["skill"] == 1.0


def test_lm_loss_is_the_mean_over_held_out_sequences(model) -> None:
    held_out = np.random.default_rng(1).integers(0, VOCAB, size=70 * 16 + 5).astype(np.int32)
    tokens = torch.from_numpy(held_out[: 70 * 16].reshape(70, 16).astype(np.int64))
    with torch.no_grad():
        expected = token_loss(model, tokens, "fp32").item()
    assert learning.lm_loss(model, held_out, 16, 10**6, "fp32") == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        part = token_loss(model, tokens[:4], "fp32").item()
    assert learning.lm_loss(model, held_out, 16, 64, "fp32") == pytest.approx(part, rel=1e-5)


def trained(model) -> torch.optim.AdamW:
    """A few steps, so that AdamW has second moments."""
    optimizer = build_optimizer(model, 1e-3, Training(batch_sequences=1))
    generator = np.random.default_rng(2)
    for _ in range(5):
        batch = torch.from_numpy(generator.integers(0, VOCAB, size=(4, 16)))
        optimizer.zero_grad(set_to_none=True)
        token_loss(model, batch, "fp32").backward()
        optimizer.step()
    return optimizer


def test_loss_change_is_what_a_small_preconditioned_common_step_does(model) -> None:
    optimizer = trained(model)
    task = Task("t", "comparison", 4, tuple(ONE_TOKEN), tuple(SEVERAL))
    common = np.random.default_rng(3).integers(0, VOCAB, size=(4, 16))
    small = 1e-5
    row = interference.measure(model, optimizer, [Cell(task, 0.1)], common, CONTEXTS, small, "fp32")[0]
    instances = [*task.train, *task.test]

    def task_loss(m) -> float:
        with torch.no_grad():
            return float(
                choice_nll(choice_logprobs(m, instances, CONTEXTS, "fp32"), instances).double().mean()
            )

    moved = copy.deepcopy(model).double()
    loss = token_loss(model, torch.from_numpy(common), "fp32")
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    with torch.no_grad():
        for old, new, gradient in zip(model.parameters(), moved.parameters(), gradients, strict=True):
            state = optimizer.state[old]
            v = state["exp_avg_sq"] / (1 - 0.95 ** float(state["step"]))
            new -= small * gradient / (v.sqrt() + 1e-8)
    change = task_loss(moved) - task_loss(copy.deepcopy(model).double())
    assert change == pytest.approx(row["loss_change"], rel=0.05)
    assert -1 <= row["cosine"] <= 1 and row["task_grad_norm"] > 0 and row["common_grad_norm"] > 0


def test_the_task_gradient_is_that_of_its_choice_nll(model) -> None:
    """With the whole vocabulary as choices, the choice NLL is the LM loss of one position."""
    everything = tuple((token,) for token in range(VOCAB))
    instances = [Instance((7,), everything, 9)]
    row = torch.tensor([[*CONTEXTS[0].tolist(), 7]])
    expected = torch.autograd.grad(
        torch.nn.functional.cross_entropy(model(row).logits[:, -1], torch.tensor([9])),
        list(model.parameters()),
    )
    loss = choice_nll(choice_logprobs(model, instances, CONTEXTS, "fp32"), instances).mean()
    found = torch.autograd.grad(loss, list(model.parameters()))
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_retention_bursts_every_instance_and_measures_at_the_delays() -> None:
    spec = Retention(at_fraction=0.5, instances=12, burst_steps=3, replicas=2, delays_steps=[0, 2, 5])
    tasks = [
        FAMILIES["comparison"].make(
            f"p{n}", 4, np.arange(300 + 10 * n, 306 + 10 * n), np.random.default_rng(n)
        )
        for n in range(2)
    ]
    probe = RetentionProbe(spec, tasks, 256, steps=40)
    bursts = {step: probe.burst(step) for step in range(40)}
    assert [step for step, b in bursts.items() if b] == [20, 21, 22]
    injected = [document for b in bursts.values() for document in b]
    assert len(injected) == 12 * 2
    assert set(injected) == {i.document(256) for task in tasks for i in task.train}
    assert [step for step in range(40) if probe.starts_at(step)] == [20]
    assert [step for step in range(40) if probe.delay_after(step) is not None] == [22, 24, 27]
    probe.before = [[2.0, 5.0], [1.0, 4.0]]
    rows = probe.rows([[0.5, 1.0], [1.5, 2.0]], 2, tokens_per_step=100)
    assert [row["gain"] for row in rows] == [1.5, -0.5]
    assert {row["delay_tokens"] for row in rows} == {200}
    assert {row["injected_at_tokens"] for row in rows} == {2300}


def test_contexts_are_pieces_of_held_out_text() -> None:
    held_out = np.arange(100, dtype=np.int32)
    contexts = held_out_contexts(held_out, np.random.default_rng(0), count=20)
    assert (np.diff(contexts, axis=1) == 1).all()
    assert len({row[0] for row in contexts.tolist()}) > 5
