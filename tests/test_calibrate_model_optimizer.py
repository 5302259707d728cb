"""The update that would be made is the update that is made, and asking for it changes nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mixplan.calibrate.model import build_model, build_optimizer, token_loss
from mixplan.calibrate.optimizer import real_update
from mixplan.documents.calibration_spec import Training
from mixplan.documents.shapes import PRESETS

RATE, CLIP = 3e-3, 0.5


def _trained(steps: int) -> tuple[Any, torch.optim.Optimizer, torch.Tensor]:
    torch.manual_seed(0)
    model = build_model(PRESETS["cpu_8k"], 40, 16)
    optimizer = build_optimizer(model, 1e-2, Training())
    tokens = torch.randint(40, (4, 16), generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        _step(model, optimizer, tokens)
    return model, optimizer, tokens


def _step(model: Any, optimizer: torch.optim.Optimizer, tokens: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    token_loss(model, tokens, "fp32").backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()


@pytest.mark.parametrize("steps", [0, 3])
def test_it_is_the_step_that_training_makes(steps: int) -> None:
    model, optimizer, tokens = _trained(steps)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(token_loss(model, tokens, "fp32"), parameters)
    assert float(torch.stack([g.norm() for g in gradients]).norm()) > CLIP, "clipping must matter here"
    update = real_update(model, optimizer, gradients, RATE, CLIP)
    before = [p.detach().clone() for p in parameters]
    for group in optimizer.param_groups:
        group["lr"] = RATE
    _step(model, optimizer, tokens)
    for old, new, delta in zip(before, parameters, update, strict=True):
        assert torch.equal(new.detach() - old, delta)
        assert delta.abs().max() > 0


@pytest.mark.parametrize("steps", [0, 3])
def test_asking_leaves_no_trace(steps: int) -> None:
    model, optimizer, tokens = _trained(steps)
    other, untouched, _ = _trained(steps)
    gradients = [torch.ones_like(p) for p in model.parameters()]
    held = [p.grad for p in model.parameters()]
    state = copy.deepcopy(optimizer.state_dict())
    real_update(model, optimizer, gradients, RATE, CLIP)
    assert all(p.grad is g for p, g in zip(model.parameters(), held, strict=True))
    assert str(optimizer.state_dict()) == str(state)
    for m, o in ((model, optimizer), (other, untouched)):
        _step(m, o, tokens)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_one_gradient_per_parameter() -> None:
    model, optimizer, _ = _trained(1)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="shorter"):
        real_update(model, optimizer, [torch.ones_like(next(model.parameters()))], RATE, CLIP)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
