"""The batched students: gradients, optimizer and measures against plain ones, and training against theory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixplan.documents.measurements import ROWS, TEXT_COLUMNS, check_table
from mixplan.documents.table import from_rows
from mixplan.testbed import batches, measures, theory
from mixplan.testbed.findings import findings, rank_correlation
from mixplan.testbed.mixture import Mixture
from mixplan.testbed.optimizer import AdamW, Schedule
from mixplan.testbed.parts import GAPS, LONG, SWEEP, Part, preset
from mixplan.testbed.rows import Rows
from mixplan.testbed.students import (
    Students,
    expected_gradients,
    fresh,
    sampled_gradients,
    stacks,
    targets,
)
from mixplan.testbed.training import train

SMALL = Mixture(3, 2, 10, 1.0, (2.0, 0.5, 1.0))
SCHEDULE = Schedule(0.01, 20, 0.01)


def weight_of(mixture: Mixture) -> torch.Tensor:
    return torch.from_numpy(np.repeat(mixture.priors(), mixture.block)).float()


def part(**changes: object) -> Part:
    base = Part(SWEEP, SMALL, (1, 2, 4), (0, 1), 12, 16, SCHEDULE, sampled=False)
    return replace(base, **changes)  # type: ignore[arg-type]


def trained(of: Part) -> Rows:
    return train(of, "cpu", lambda step, rows: None)


def test_expected_gradients_are_those_of_the_loss() -> None:
    students, target = fresh(SMALL, [2, 3], 1, [0, 1], "cpu"), targets(SMALL, 0, "cpu")
    encoder, decoder = (p.clone().double().requires_grad_() for p in (students.encoder, students.decoder))
    missed = decoder @ encoder.mT - target.readout.double()
    (weight_of(SMALL).double()[:, None] * missed**2).sum().backward()
    found = expected_gradients(students, target, weight_of(SMALL))
    for gradient, wanted in zip(found, (encoder.grad, decoder.grad), strict=True):
        assert wanted is not None
        torch.testing.assert_close(gradient.double(), wanted, atol=1e-6, rtol=1e-5)


def test_sampled_gradients_are_those_of_the_samples_of_each_setting() -> None:
    students, target = fresh(SMALL, [2, 3], 2, [0, 1], "cpu"), targets(SMALL, 0, "cpu")
    counts, generator = [3, 0, 2], torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 5, SMALL.dim, generator=generator)
    seen = torch.tensor([[0.2, 0.2, 0.0, 0.2, 0.0], [0.2, 0.2, 0.2, 0.0, 0.2]])
    weight = seen[list(students.settings)]
    found = sampled_gradients(students, target, inputs, counts, weight)
    encoder, decoder = (p.clone().requires_grad_() for p in (students.encoder, students.decoder))
    loss = torch.zeros(())
    for i, task in enumerate([0, 0, 0, 2, 2]):
        rows = slice(task * SMALL.block, (task + 1) * SMALL.block)
        for s in range(2):
            for r in range(4):
                said = decoder[s, r, rows] @ encoder[s, r].T @ inputs[s, i]
                loss = loss + weight[r, i] * (target.readout[rows] @ inputs[s, i] - said).square().sum()
    loss.backward()
    for gradient, wanted in zip(found, (encoder.grad, decoder.grad), strict=True):
        assert wanted is not None
        torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-4)


def test_each_model_is_stepped_as_by_torch_alone() -> None:
    students = fresh(SMALL, [2, 4], 1, [0], "cpu")
    optimizer = AdamW((students.encoder, students.decoder))
    alone = []
    for r in range(2):
        own = [torch.nn.Parameter(p[0, r].clone()) for p in (students.encoder, students.decoder)]
        alone.append((own, torch.optim.AdamW(own, lr=1.0, weight_decay=SCHEDULE.weight_decay)))
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 41):
        # Of very different sizes: one model's gradient must not clip another's.
        scale = torch.tensor([0.01, 30.0])[None, :, None, None]
        gradients = tuple(
            torch.randn(p.shape, generator=generator) * scale for p in (students.encoder, students.decoder)
        )
        for r, (own, plain) in enumerate(alone):
            for parameter, gradient in zip(own, gradients, strict=True):
                parameter.grad = gradient[0, r].clone()
            torch.nn.utils.clip_grad_norm_(own, 1.0)
            plain.param_groups[0]["lr"] = 0.01 * min(step / 20, (20 / step) ** 0.5)
            plain.step()
        optimizer.step((students.encoder, students.decoder), gradients, step, SCHEDULE)
    for r, (own, _) in enumerate(alone):
        torch.testing.assert_close(students.encoder[0, r], own[0].data, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(students.decoder[0, r], own[1].data, atol=1e-5, rtol=1e-4)


def test_the_step_that_is_foretold_is_the_one_that_is_made() -> None:
    students, target = fresh(SMALL, [3], 1, [0], "cpu"), targets(SMALL, 0, "cpu")
    optimizer, still = AdamW((students.encoder, students.decoder)), replace(SCHEDULE, weight_decay=0.0)
    for step in range(1, 4):
        before = students.encoder.clone()
        gradients = expected_gradients(students, target, weight_of(SMALL))
        foretold = optimizer.would_move(gradients, step, still)
        optimizer.step((students.encoder, students.decoder), gradients, step, still)
        torch.testing.assert_close(students.encoder - before, foretold[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("sampled", [False, True])
def test_a_narrow_model_trains_beside_wide_ones_as_it_would_alone(sampled: bool) -> None:
    together, alone = (
        trained(part(widths=widths, sampled=sampled, gaps=(3, 4))) for widths in ((2, 3, 4), (2,))
    )
    of_two = [row for row in together.learning if row["block_params"] == 2]
    assert len(of_two) == len(alone.learning) > 0
    for a, b in zip(of_two, alone.learning, strict=True):
        assert a["run_id"] == b["run_id"] and a["task"] == b["task"]
        assert a["choice_nll"] == pytest.approx(b["choice_nll"], abs=1e-5)


def test_padding_stays_zero() -> None:
    assert stacks([2, 3, 4, 9, 5, 16]) == [[2, 3, 4], [5, 9], [16]]
    students, target = fresh(SMALL, [2, 4], 1, [0], "cpu"), targets(SMALL, 0, "cpu")
    optimizer = AdamW((students.encoder, students.decoder))
    for step in range(1, 20):
        gradients = expected_gradients(students, target, weight_of(SMALL))
        optimizer.step((students.encoder, students.decoder), gradients, step, SCHEDULE)
    assert not students.encoder[0, 0, :, 2:].any() and not students.decoder[0, 0, :, 2:].any()
    assert students.encoder[0, 1, :, 2:].all()


def test_students_start_orthonormal_and_depend_on_seed_and_width_alone() -> None:
    students = fresh(SMALL, [3, 5], 2, [4, 7], "cpu")
    torch.testing.assert_close(students.encoder[1, 2].T @ students.encoder[1, 2], torch.eye(5))
    assert students.widths == (3, 3, 5, 5) and students.settings == (0, 1, 0, 1)
    assert torch.equal(students.encoder[:, 0], students.encoder[:, 1])
    assert not torch.equal(students.encoder[0], students.encoder[1])
    assert torch.equal(fresh(SMALL, [5], 1, [7], "cpu").encoder[0, 0], students.encoder[1, 2])
    assert students.decoder.abs().amax() <= 3**-0.5


def test_signals_are_those_of_the_span() -> None:
    target = targets(SMALL, 0, "cpu")
    basis, rotation = target.basis, torch.randn(3, 3, dtype=torch.float64)
    mixed = basis[[0, 3, 4]].T @ rotation
    # A fourth column inside the span of the others adds nothing, and a padded one nothing either.
    encoder = torch.cat([mixed, mixed[:, :1] * 2, torch.zeros(SMALL.dim, 1)], dim=1)
    students = Students(encoder[None, None], torch.zeros(1, 1, 6, 5), (5,), (0,))
    share = measures.signals(students, target)
    assert share.flatten().tolist() == pytest.approx([1, 0, 0, 1, 1, 0], abs=1e-9)
    spectra = SMALL.spectra()
    wanted = [spectra[0, 0], spectra[1, 1], spectra[2, 0]]
    assert measures.task_signals(share, target).flatten().tolist() == pytest.approx(wanted)


def test_losses_are_squared_errors_over_the_mean_predictors() -> None:
    students, target = fresh(SMALL, [3], 1, [0], "cpu"), targets(SMALL, 0, "cpu")
    said = students.decoder[0, 0].double() @ students.encoder[0, 0].double().T - target.readout.double()
    wanted = said.square().sum(dim=1).unflatten(0, (3, 2)).sum(dim=1)
    assert measures.losses(students, target)[0, 0].tolist() == pytest.approx(wanted.tolist(), rel=1e-6)
    silent = replace(students, decoder=torch.zeros_like(students.decoder))
    assert measures.losses(silent, target)[0, 0].tolist() == pytest.approx([1, 1, 1])


def test_conflicts_against_autograd_and_a_small_step() -> None:
    students, target = fresh(SMALL, [3], 1, [0], "cpu"), targets(SMALL, 0, "cpu")
    optimizer, priors = AdamW((students.encoder, students.decoder)), torch.from_numpy(SMALL.priors()).float()
    gentle = Schedule(1e-4, 1, 0.0)
    gradients = expected_gradients(students, target, weight_of(SMALL))
    optimizer.step((students.encoder, students.decoder), gradients, 1, gentle)
    found = measures.conflicts(students, target, priors, 2, optimizer, 2, gentle)

    def gradient(task: int) -> torch.Tensor:
        encoder = students.encoder.clone().double().requires_grad_()
        missed = students.decoder.double() @ encoder.mT - target.readout.double()
        missed[..., task * 2 : task * 2 + 2, :].square().sum().backward()
        assert encoder.grad is not None
        return encoder.grad

    own, common = gradient(2), SMALL.priors()[0] * gradient(0) + SMALL.priors()[1] * gradient(1)
    cosine = (own * common).sum() / own.norm() / common.norm()
    assert found.cosine[0, 0, 2].item() == pytest.approx(cosine.item(), abs=1e-5)
    assert found.task_norm[0, 0, 2].item() == pytest.approx(own.norm().item(), rel=1e-5)
    assert found.common_norm[0, 0, 2].item() == pytest.approx(common.norm().item(), rel=1e-5)

    before = measures.losses(students, target)[0, 0]
    weight = weight_of(SMALL) * torch.tensor([1, 1, 1, 1, 0, 0])
    optimizer.step(
        (students.encoder, students.decoder), expected_gradients(students, target, weight), 2, gentle
    )
    change = measures.losses(students, target)[0, 0] - before
    assert found.loss_change[0, 0].tolist() == pytest.approx(change.tolist(), rel=0.02, abs=2e-6)


@given(st.integers(1, 40), st.integers(1, 30), st.floats(0.001, 0.02))
@settings(deadline=None)
def test_injections_keep_the_frequency(gap: int, times: int, frequency: float) -> None:
    batch = 64
    sizes = [batches.injected(gap, step, batch, frequency) for step in range(1, gap * times + 1)]
    assert sum(sizes) == int(gap * times * batch * frequency + 1e-9)
    assert not any(size for step, size in enumerate(sizes, 1) if step % gap)
    assert max(sizes) <= gap * batch * frequency + 1


def test_a_batch_has_its_size_whatever_is_injected() -> None:
    mixture, generator = Mixture(4, 1, 8, 2.0, (1.0,)), np.random.default_rng(0)
    priors, gaps = mixture.priors(), (batches.SPREAD, 5, 10)
    rare = np.zeros(3)
    for step in range(1, 2001):
        batch = batches.draw(priors, gaps, 32, step, generator)
        assert batch.seen.shape == (3, batch.counts.sum())
        assert batch.seen.sum(axis=1) == pytest.approx(1)
        rare += (batch.seen[:, batch.counts[:-1].sum() :] > 0).sum(axis=1)
        shares = batches.weights(priors, gaps, 32, step)
        assert shares.sum(axis=1) == pytest.approx(1) and (shares >= 0).all()
    # 64,000 samples: the two gaps to the sample, the natural one within four standard deviations.
    expected = 64_000 * priors[-1]
    assert rare[1] == rare[2] == int(expected)
    assert abs(rare[0] - expected) < 4 * expected**0.5


@given(st.integers(2, 500), st.integers(1, 499))
@settings(deadline=None)
def test_what_is_followed_lies_within_the_run(steps: int, gap: int) -> None:
    if gap >= steps:
        return
    of = part(steps=steps, gaps=(gap,))
    for step in of.injections(gap):
        assert step % gap == 0 and step >= gap
        assert step + of.delays(gap)[-1] <= steps
    assert of.injections(gap) or 2 * gap - 1 > steps
    assert of.evaluations()[-1] == steps and of.evaluations()[0] >= 1


def test_training_finds_the_critical_widths() -> None:
    mixture = Mixture(5, 1, 24, 1.0, (1.0,))
    of = part(mixture=mixture, widths=(1, 2, 3, 4, 5, 6), steps=800)
    rows = trained(of)
    found = findings(of, rows)
    assert [row["critical_width"] for row in found["transitions"]] == [1, 2, 3, 4, 5]
    assert [row["steps_off"] for row in found["transitions"]] == [0, 0, 0, 0, 0]
    assert found["order"]["width_by_utility"] == pytest.approx(1)
    final = [row for row in rows.learning if row["step"] == 800]
    for row in final:
        learned = row["block_params"] >= row["first_critical_width"]
        assert row["skill"] > 0.9 if learned else row["skill"] <= 0.0, row
        share = theory.captured(mixture, int(row["block_params"]))[int(row["task"][5:]) - 1, 0]
        assert row["choice_nll"] == pytest.approx(1 - share, abs=0.05)


def test_a_longer_run_does_not_bring_back_what_does_not_fit() -> None:
    mixture = Mixture(5, 1, 24, 1.0, (1.0,))
    of = part(name=LONG, mixture=mixture, widths=(2, 3), seeds=(0,), steps=2000)
    found = findings(of, trained(of))["evicted"]
    assert [row["tasks"] for row in found] == [[3, 4, 5], [4, 5]]
    assert all(row["highest_skill"] <= 0 for row in found)


def test_tables_keep_the_rules_of_their_columns() -> None:
    rows = trained(part(name=GAPS, sampled=True, gaps=(batches.SPREAD, 2, 3)))
    for name in ("learning", "retention", "interference"):
        found = getattr(rows, name)
        table = from_rows(found, TEXT_COLUMNS, list(ROWS[name].model_fields))
        assert len(table) and check_table(table, name, name) == []
    gaps = {row["protocol"] for row in rows.learning if row["task"] == "task_3"}
    assert gaps == {"standard", "gap 2 steps", "gap 3 steps"}
    # Of a gap of 3 in 12 steps of 16 samples, injections after 3, 6 and 9 steps are followed for 2 steps.
    own = [row for row in rows.retention if row["run_id"] == "gaps3-w4-s1"]
    assert sorted({row["injected_at_tokens"] for row in own}) == [48, 96, 144]
    assert sorted({row["delay_tokens"] for row in own}) == [0, 16, 32]


def test_gains_are_those_of_the_injection() -> None:
    of = part(name=GAPS, sampled=False, gaps=(5,), steps=24, widths=(4,), seeds=(0,))
    rows = trained(of)
    assert {5 - 1, 20 + 4} <= set(of.evaluations()), "else nothing is compared"
    first = [row for row in rows.retention if row["injected_at_tokens"] == 5 * 16]
    assert first and first[0]["loss"] < first[0]["loss_before"], "the injected task is better than before"
    assert first[0]["instances"] == batches.injected(5, 5, 16, float(SMALL.priors()[-1]))
    # What is followed agrees with what is evaluated after as many steps.
    evaluated = {row["step"]: row for row in rows.learning if row["task"] == "task_3"}
    for row in rows.retention:
        now = evaluated.get((row["injected_at_tokens"] + row["delay_tokens"]) / 16)
        if now is not None:
            assert row["skill"] == pytest.approx(now["skill"])
            assert 1 - row["choice_nll"] == pytest.approx(now["accuracy"])
            assert row["loss"] == pytest.approx(now["choice_nll"])
        before = evaluated.get(row["injected_at_tokens"] / 16 - 1)
        if before is not None:
            assert row["choice_nll_before"] == pytest.approx(1 - before["accuracy"])


def test_the_same_seeds_give_the_same_rows() -> None:
    assert trained(part(sampled=True)) == trained(part(sampled=True))


def test_presets_can_run_and_the_quick_one_is_small() -> None:
    for name in ("quick", "paper"):
        assert [problem for one in preset(name) for problem in one.check()] == []
    one = preset("paper")[0]
    assert (one.mixture.tasks, one.mixture.block, one.mixture.dim, one.steps, one.batch) == (
        32,
        32,
        1024,
        100_000,
        1024,
    )


def test_rank_correlation() -> None:
    rising = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(rising, rising**3) == pytest.approx(1)
    assert rank_correlation(rising, -rising) == pytest.approx(-1)
    # Ties take mean ranks: Spearman of (1, 2, 3, 4) with (1, 1, 2, 2) is 2/√5.
    assert rank_correlation(rising, np.array([1.0, 1.0, 2.0, 2.0])) == pytest.approx(2 / 5**0.5)
