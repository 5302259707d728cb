"""The interference probe: the split adds up, and its forecasts are what a real step does."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from mixplan.calibrate.model import build_model, build_optimizer, token_loss
from mixplan.calibrate.probes import interference
from mixplan.calibrate.probes.interference import Flat, Step
from mixplan.calibrate.probes.scoring import choice_logprobs, choice_nll
from mixplan.calibrate.tasks import FAMILIES, Cell
from mixplan.documents.calibration_spec import Training
from mixplan.documents.shapes import ModelShape

VOCAB = 64
SHAPE = ModelShape(name="t", d_model=8, layers=2, heads=2, d_ffn=16)
CONTEXTS = np.random.default_rng(0).integers(0, 40, size=(3, 8))
CELLS = [
    Cell(FAMILIES["comparison"].make(f"t{n}", 4, np.arange(first, first + 6), np.random.default_rng(n)), 0.1)
    for n, first in enumerate((45, 51, 57))
]
CLIP = 1.0


def batch_with_owners() -> tuple[np.ndarray, np.ndarray]:
    """Six sequences; cell 0 twice (once where a sequence begins), cell 1 once, cell 2 never, one burst."""
    generator = np.random.default_rng(3)
    batch = generator.integers(0, 40, size=(6, 16))
    owners = np.full(batch.shape, -1, dtype=np.int32)
    for cell, row, at in ((0, 0, 0), (0, 2, 5), (1, 2, 11), (-2, 4, 3)):
        document = CELLS[max(cell, 0)].task.train[1].document(44)
        batch[row, at : at + len(document)] = document
        owners[row, at : at + len(document)] = cell
    return batch, owners


@pytest.fixture
def trained() -> tuple[torch.nn.Module, torch.optim.AdamW]:
    """A model that has moved away from its beginning, and an optimizer with momentum."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = build_model(SHAPE, VOCAB, 32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    optimizer = build_optimizer(model, 1e-3, Training(batch_sequences=1))
    generator = np.random.default_rng(2)
    for _ in range(5):
        batch = torch.from_numpy(generator.integers(0, VOCAB, size=(4, 16)))
        optimizer.zero_grad(set_to_none=True)
        token_loss(model, batch, "fp32").backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model, optimizer


def measured(model, optimizer, learning_rate: float = 1e-4, top: int = 4) -> list[dict[str, float | None]]:
    asked = interference.references(CELLS, CONTEXTS, "cpu")
    step = Step(learning_rate, CLIP, "fp32")
    return interference.measure(model, optimizer, asked, *batch_with_owners(), step, top)


def marked_gradient(model, mark: np.ndarray) -> list[torch.Tensor]:
    """Gradient of the losses on marked tokens, over the number of all targets: the plain way."""
    tokens = torch.from_numpy(batch_with_owners()[0])
    logprobs = torch.log_softmax(model(tokens).logits[:, :-1], -1)
    losses = -logprobs.gather(-1, tokens[:, 1:, None])[..., 0]
    loss = (losses * torch.from_numpy(mark[:, 1:])).sum() / losses.numel()
    return list(torch.autograd.grad(loss, list(model.parameters())))


def test_own_and_other_parts_add_up_to_the_gradient_of_the_batch(trained) -> None:
    model, _ = trained
    batch, owners = batch_with_owners()
    flat = Flat(model)
    tokens = torch.from_numpy(batch)
    whole = flat.gradient(token_loss(model, tokens, "fp32"))
    for cell in (0, 1):
        own = interference.own_part(model, flat, tokens, owners == cell, "fp32")
        assert own is not None
        other = flat.join(marked_gradient(model, owners != cell))
        assert torch.allclose(own, flat.join(marked_gradient(model, owners == cell)), atol=1e-5)
        assert torch.allclose(own + other, whole, atol=1e-5)
        assert own.norm() > 100 * 1e-5
    assert interference.own_part(model, flat, tokens, owners == 2, "fp32") is None


def test_a_token_that_nothing_predicts_has_no_gradient(trained) -> None:
    model, _ = trained
    batch, owners = batch_with_owners()
    first = np.zeros_like(owners, dtype=bool)
    first[:, 0] = True
    assert interference.own_part(model, Flat(model), torch.from_numpy(batch), first, "fp32") is None


def test_cosines_and_norms_are_those_of_the_plain_gradients(trained) -> None:
    model, optimizer = trained
    rows = measured(model, optimizer, top=3)
    _, owners = batch_with_owners()
    names = [name for name, _ in model.named_parameters()]
    inside = [n for n, name in enumerate(names) if "embed_tokens" not in name and "lm_head" not in name]
    asked = interference.references(CELLS, CONTEXTS, "cpu")

    def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))

    def vector(tensors: list[torch.Tensor], keep: list[int]) -> torch.Tensor:
        return torch.cat([tensors[n].reshape(-1) for n in keep])

    for cell, (row, questions) in enumerate(zip(rows, asked, strict=True)):
        loss = choice_nll(choice_logprobs(model, questions, "fp32"), questions).mean()
        task = list(torch.autograd.grad(loss, list(model.parameters())))
        other = marked_gradient(model, owners != cell)
        everything = list(range(len(names)))
        assert row["cosine"] == pytest.approx(cosine(vector(task, inside), vector(other, inside)), abs=1e-3)
        assert row["cosine_all"] == pytest.approx(
            cosine(vector(task, everything), vector(other, everything)), abs=1e-3
        )
        assert row["task_grad_norm"] == pytest.approx(float(vector(task, inside).norm()), rel=1e-3)
        assert row["common_grad_norm"] == pytest.approx(float(vector(other, inside).norm()), rel=1e-3)
        mlp = [names.index(f"model.layers.0.mlp.{kind}_proj.weight") for kind in ("gate", "up", "down")]

        def neuron(tensors: list[torch.Tensor], n: int, mlp: list[int] = mlp) -> torch.Tensor:
            gate, up, down = (tensors[index] for index in mlp)
            return torch.cat([gate[n], up[n], down[:, n]])

        norms = [float(neuron(task, n).norm()) for n in range(SHAPE.d_ffn)]
        top = sorted(range(SHAPE.d_ffn), key=lambda n: -norms[n])[:3]
        assert row["cosine_top_neurons"] == pytest.approx(
            cosine(torch.cat([neuron(task, n) for n in top]), torch.cat([neuron(other, n) for n in top])),
            abs=1e-3,
        )
    assert rows[2]["cosine_own"] is None and rows[2]["own_grad_norm"] is None
    own = marked_gradient(model, owners == 0)
    assert rows[0]["own_grad_norm"] == pytest.approx(float(vector(own, inside).norm()), rel=1e-3)


def task_loss(model, cell: int) -> float:
    model = copy.deepcopy(model).double()
    questions = interference.references(CELLS, CONTEXTS, "cpu")[cell]
    with torch.no_grad():
        logprobs = choice_logprobs(model, questions, "fp32").double()
        return float(choice_nll(logprobs, questions).mean())


@pytest.mark.parametrize("cell", [0, 2])
def test_loss_change_is_what_one_real_step_on_the_others_tokens_does(trained, cell: int) -> None:
    model, optimizer = trained
    small = 1e-5
    row = measured(model, optimizer, small)[cell]
    before = task_loss(model, cell)
    for group in optimizer.param_groups:
        group["lr"] = small
    _, owners = batch_with_owners()
    for parameter, gradient in zip(model.parameters(), marked_gradient(model, owners != cell), strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    change = task_loss(model, cell) - before
    assert abs(change) > 1e-6
    assert row["loss_change"] == pytest.approx(change, rel=0.05)


def test_loss_change_gradient_only_is_a_step_along_the_preconditioned_gradient(trained) -> None:
    model, optimizer = trained
    small = 1e-5
    row = measured(model, optimizer, small)[0]
    _, owners = batch_with_owners()
    gradients = marked_gradient(model, owners != 0)
    norm = float(torch.cat([g.reshape(-1) for g in gradients]).norm())
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for old, new, gradient in zip(model.parameters(), moved.parameters(), gradients, strict=True):
            state = optimizer.state[old]
            v = state["exp_avg_sq"] / (1 - 0.95 ** float(state["step"]))
            new -= small * min(1.0, CLIP / norm) * gradient / (v.sqrt() + 1e-8)
    change = task_loss(moved, 0) - task_loss(model, 0)
    assert row["loss_change_gradient_only"] == pytest.approx(change, rel=0.05)


def test_measuring_leaves_no_trace(trained) -> None:
    model, optimizer = trained
    weights = copy.deepcopy(model.state_dict())
    state = copy.deepcopy(optimizer.state_dict())
    first = measured(model, optimizer)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    after = optimizer.state_dict()
    assert after["param_groups"] == state["param_groups"]
    for key, values in state["state"].items():
        assert all(torch.equal(values[name], after["state"][key][name]) for name in values)
    assert measured(model, optimizer) == first


def test_a_task_tested_on_what_it_taught_is_asked_once() -> None:
    task = CELLS[0].task
    taught = Cell(type(task)("t", "x", 1, task.train, task.train), 0.1)
    assert interference.references([taught], CONTEXTS, "cpu")[0].groups == [len(task.train)]
