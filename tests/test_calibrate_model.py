"""The fast functions give the numbers of transformers' own forward and backward pass."""

from __future__ import annotations

import shutil
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mixplan.calibrate import fast_cpu, fast_loss, fast_plain
from mixplan.calibrate.model import TokenLoss, build_model, logits_of, token_loss
from mixplan.documents.shapes import ModelShape
from mixplan.errors import InputError

VOCAB = 70
SHAPES = [
    ModelShape(name="narrow", d_model=16, layers=2, heads=4, d_ffn=40),
    ModelShape(name="one_head", d_model=12, layers=1, heads=1, d_ffn=8),
    ModelShape(name="deep", d_model=48, layers=5, heads=2, d_ffn=32),
]
LENGTHS = [2, 13, 64, 65, 150]


def model_of(shape: ModelShape, architecture: str = "olmo2", length: int = 200) -> Any:
    """A model with weights large enough that attention and every gain matter."""
    torch.manual_seed(3)
    model = build_model(shape, VOCAB, length, architecture=architecture)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.3 * noise if parameter.ndim == 1 else 0.3 * noise)
    return model


def tokens_of(rows: int, length: int) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(length))


def reference_loss(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), tokens[:, 1:].reshape(-1))


def assert_same_gradients(model: Any, found: torch.Tensor, expected: torch.Tensor) -> None:
    parameters = dict(model.named_parameters())
    ours = torch.autograd.grad(found, list(parameters.values()))
    theirs = torch.autograd.grad(expected, list(parameters.values()))
    for name, a, b in zip(parameters, ours, theirs, strict=True):
        assert b.norm() > 0, name
        assert (a - b).norm() <= 2e-5 * b.norm(), name


@pytest.mark.parametrize("architecture", ["olmo2", "olmo3"])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_loss_and_gradients_are_those_of_transformers(
    shape: ModelShape, length: int, architecture: str
) -> None:
    model, tokens = model_of(shape, architecture), tokens_of(5, length)
    expected = reference_loss(model, tokens)
    found = token_loss(model, tokens, "fp32")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    if length == 2:  # one position sees itself alone, so keys and queries of its loss have no gradient
        return
    assert_same_gradients(model, found, expected)


@pytest.mark.parametrize("path", [fast_cpu, fast_plain], ids=lambda path: path.__name__.split(".")[-1])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_both_ways_through_the_blocks(shape: ModelShape, path: Any) -> None:
    model, tokens = model_of(shape), tokens_of(3, 70)
    expected = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    found = path.hidden_states(model, tokens)
    if path is fast_cpu:
        found = found.view(-1, 3, 70).permute(1, 2, 0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    seen = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    body = model.model
    for a, b in zip(
        torch.autograd.grad((found * seen).sum(), list(body.parameters())),
        torch.autograd.grad((expected * seen).sum(), list(body.parameters())),
        strict=True,
    ):
        assert (a - b).norm() <= 2e-5 * b.norm()


@pytest.mark.parametrize("numbers", [1, 7_000, 30_000])
def test_pieces_that_do_not_divide(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens, heads and queries in pieces of any size, the last ones smaller."""
    model, tokens = model_of(SHAPES[2]), tokens_of(5, 75)
    expected = reference_loss(model, tokens)
    monkeypatch.setattr(fast_cpu, "_CACHED_NUMBERS", numbers)
    monkeypatch.setattr(fast_cpu, "_QUERIES_AT_ONCE", 20)
    monkeypatch.setitem(fast_loss._LOGITS_AT_ONCE, "cpu", numbers)
    assert_same_gradients(model, token_loss(model, tokens, "fp32"), expected)


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_logits(keep: int) -> None:
    model, tokens = model_of(SHAPES[0]), tokens_of(4, 11)
    expected = model(input_ids=tokens, use_cache=False, logits_to_keep=keep).logits
    torch.testing.assert_close(logits_of(model, tokens, "fp32", keep), expected, rtol=1e-4, atol=1e-4)


def token_losses(model: Any, tokens_BT: torch.Tensor, precision: str) -> torch.Tensor:
    """NLL of every token but the first in nats, fp32, shape (B, T−1); their mean is `token_loss`."""
    logits = logits_of(model, tokens_BT, precision)[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens_BT[:, 1:].flatten(), reduction="none"
    )
    return losses.view(len(tokens_BT), -1)


def test_losses_of_tokens_and_their_mean() -> None:
    model, tokens = model_of(SHAPES[0]), tokens_of(4, 30)
    losses = token_losses(model, tokens, "fp32")
    assert losses.shape == (4, 29)
    one = token_losses(model, tokens[1:2], "fp32")
    torch.testing.assert_close(one[0], losses[1])
    found = token_loss(model, tokens, "fp32")
    torch.testing.assert_close(losses.mean(), found)
    assert_same_gradients(model, losses.mean(), found)


def test_bf16_keeps_the_residual_stream_in_fp32() -> None:
    """As transformers under autocast: the same loss to bf16's rounding, gradients in fp32."""
    model, tokens = model_of(SHAPES[0]), tokens_of(4, 30)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = fast_plain.hidden_states(model, tokens)
        theirs = model.model(input_ids=tokens, use_cache=False).last_hidden_state
        expected = reference_loss(model, tokens)
    assert hidden.dtype == theirs.dtype == torch.float32
    found = token_loss(model, tokens, "bf16")
    assert found.dtype == torch.float32
    exact = token_loss(model, tokens, "fp32")
    assert abs(found - exact) <= 3 * abs(expected - exact) + 1e-3
    gradients = torch.autograd.grad(found, list(model.parameters()))
    for a, b in zip(gradients, torch.autograd.grad(exact, list(model.parameters())), strict=True):
        assert a.dtype == torch.float32
        assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


def test_a_window_shorter_than_the_sequence() -> None:
    shape = ModelShape(name="four", d_model=16, layers=4, heads=2, d_ffn=16)
    model, tokens = model_of(shape, "olmo3"), tokens_of(2, 40)
    whole = token_loss(model, tokens, "fp32")
    model.config.sliding_window = 8
    for layer in model.model.layers:
        if layer.self_attn.sliding_window is not None:
            layer.self_attn.sliding_window = 8
    expected = reference_loss(model, tokens)
    found = token_loss(model, tokens, "fp32")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert abs(whole - found) > 1e-4, "the window must matter here"
    assert_same_gradients(model, found, expected)


def test_three_of_four_layers_of_olmo3_slide() -> None:
    shape = ModelShape(name="eight", d_model=8, layers=8, heads=2, d_ffn=8)
    model = build_model(shape, VOCAB, 16, architecture="olmo3")
    assert [layer.self_attn.sliding_window for layer in model.model.layers] == [4096, 4096, 4096, None] * 2


def test_an_architecture_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(__version__="4.50.0", Olmo2Config=object, Olmo2ForCausalLM=object)
    monkeypatch.setitem(sys.modules, "transformers", old)
    with pytest.raises(
        InputError, match=r"architecture olmo3: transformers 4\.50\.0 .* transformers>=4\.57, or"
    ):
        build_model(SHAPES[0], VOCAB, 16, architecture="olmo3")


@pytest.mark.parametrize("at_once", [1, 64, 1000])
def test_the_loss_in_parts_is_the_loss(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from zero, where probabilities of targets underflow, as well."""
    monkeypatch.setitem(fast_loss._LOGITS_AT_ONCE, "cpu", at_once * VOCAB)
    monkeypatch.setattr(fast_loss, "_FEWEST_TOKENS", 1)
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.randn(150, 8, generator=generator) * 30).requires_grad_()
    weight = (torch.randn(VOCAB, 8, generator=generator) * 3).requires_grad_()
    targets = torch.randint(VOCAB, (150,), generator=generator)
    weights = torch.rand(150, generator=generator)
    losses = torch.nn.functional.cross_entropy(hidden @ weight.t(), targets, reduction="none")
    assert losses.mean() > 120, "many targets below the smallest fp32 probability"
    expected = losses @ weights
    found = fast_loss.weighted_nll(hidden, weight, targets, weights, torch.float32)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(3 * found, [hidden, weight]),
        torch.autograd.grad(3 * expected, [hidden, weight], retain_graph=True),
        strict=True,
    ):
        assert (a - b).norm() <= 1e-5 * b.norm()
    with torch.no_grad():
        again = fast_loss.weighted_nll(hidden, weight, targets, weights, torch.float32)
    assert torch.equal(again, found)
    lying = hidden.detach().t().contiguous().t().requires_grad_()
    other = fast_loss.weighted_nll(lying, weight, targets, weights, torch.float32)
    torch.testing.assert_close(
        torch.autograd.grad(other, lying)[0], torch.autograd.grad(expected, hidden)[0], rtol=1e-4, atol=1e-4
    )


def test_the_same_numbers_again() -> None:
    model, tokens = model_of(SHAPES[2]), tokens_of(6, 100)
    first, second = (
        torch.autograd.grad(token_loss(model, tokens, "fp32"), list(model.parameters())) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_loss_as_a_module_has_the_models_parameters() -> None:
    model, tokens = model_of(SHAPES[0]), tokens_of(3, 20)
    loss = TokenLoss(model, "fp32")
    assert [id(p) for p in loss.parameters()] == [id(p) for p in model.parameters()]
    assert torch.equal(loss(tokens), token_loss(model, tokens, "fp32"))


def test_hooks_run() -> None:
    model, tokens = model_of(SHAPES[0]), tokens_of(3, 20)
    expected = token_loss(model, tokens, "fp32")
    seen: list[torch.Size] = []
    model.model.layers[1].mlp.register_forward_hook(lambda _, __, out: seen.append(out.shape))
    found = token_loss(model, tokens, "fp32")
    assert seen == [(3, 20, 16)]
    assert_same_gradients(model, found, expected)


def test_sequences_too_long_for_the_cache() -> None:
    model, tokens = model_of(SHAPES[0], length=1100), tokens_of(1, fast_cpu.MAX_SEQUENCE + 1)
    assert_same_gradients(model, token_loss(model, tokens, "fp32"), reference_loss(model, tokens))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs")
def test_compiled() -> None:
    model, tokens = model_of(SHAPES[1], length=20), tokens_of(2, 20)
    found = TokenLoss(model, "fp32", compiled=True)(tokens)
    assert_same_gradients(model, found, token_loss(model, tokens, "fp32"))
