"""Scoring, skill, LM loss and retention against plain recomputation on a tiny model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ladders import TINY, write_ladder

from mixplan.calibrate.model import build_model, token_loss
from mixplan.calibrate.prepared import prepare
from mixplan.calibrate.probes import learning
from mixplan.calibrate.probes.bursts import burst_problems
from mixplan.calibrate.probes.contexts import Contexts, held_out_contexts
from mixplan.calibrate.probes.retention import RetentionProbe, retention_probes
from mixplan.calibrate.probes.scoring import Questions, by_group, choice_logprobs, choice_nll, score
from mixplan.calibrate.tasks import FAMILIES, Cell
from mixplan.calibrate.tasks.base import Instance, Task
from mixplan.documents import CalibrationSpec, load
from mixplan.documents.calibration_spec import Retention
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


def ask(*groups: list[Instance]) -> Questions:
    return Questions(groups, CONTEXTS, "cpu")


def test_scores_equal_a_plain_recomputation(model) -> None:
    instances = [*ONE_TOKEN, *SEVERAL, Instance((41,), ((50,), (51, 52)), 1)]
    scores = score(model, ask(instances), "fp32")
    assert len(scores.correct) == len(instances)
    for n, instance in enumerate(instances):
        logprobs = np.array(by_hand(model, instance, CONTEXTS[n % 3]))
        nll = np.log(np.exp(logprobs).sum()) - logprobs[instance.answer]
        assert scores.choice_nll[n] == pytest.approx(nll, abs=1e-4)
        assert scores.answer_nll[n] == pytest.approx(-logprobs[instance.answer], abs=1e-4)
        assert scores.correct[n] == (logprobs.argmax() == instance.answer)


def test_instances_that_start_sequences_are_asked_after_nothing(model) -> None:
    held_out = np.arange(40, dtype=np.int32)
    contexts = held_out_contexts(held_out, np.random.default_rng(0), "start")
    assert contexts.shape == (64, 0)
    instances = [*ONE_TOKEN, *SEVERAL]
    scores = score(model, Questions([instances], contexts, "cpu"), "fp32")
    expected = [-by_hand(model, one, contexts[0])[one.answer] for one in instances]
    assert scores.answer_nll == pytest.approx(expected, abs=1e-4)
    hidden = Contexts(model, torch.from_numpy(contexts), "fp32").hidden
    with torch.no_grad():
        found = hidden(torch.tensor([1, 0]), torch.tensor([[41], [43]]))
        assert torch.allclose(found[0, :, :], model.model.embed_tokens.weight[[41, 43]])


def test_parts_of_a_forward_pass_change_nothing(model, monkeypatch) -> None:
    instances = [
        Instance((41 + n % 5, 46 + n % 3), ((50,), (51,), (52,)), n % 3) for n in range(70)
    ]  # two parts of at least 64 rows
    whole = score(model, ask(instances), "fp32")
    monkeypatch.setattr("mixplan.calibrate.probes.scoring._LOGITS_AT_ONCE", {"cpu": 1})
    parts = score(model, ask(instances), "fp32")
    assert parts.choice_nll == pytest.approx(whole.choice_nll, abs=1e-5)
    assert (parts.correct == whole.correct).all()


def test_groups_are_asked_as_if_they_were_alone(model) -> None:
    together = ask(ONE_TOKEN, SEVERAL)
    scores = score(model, together, "fp32")
    for group, found in zip((ONE_TOKEN, SEVERAL), by_group(scores.choice_nll, together), strict=True):
        assert found == pytest.approx(score(model, ask(group), "fp32").choice_nll, abs=1e-5)


def test_hidden_states_after_a_context_are_those_of_reading_both(model) -> None:
    contexts = Contexts(model, torch.from_numpy(CONTEXTS), "fp32")
    with torch.no_grad():
        found = contexts.hidden(torch.tensor([2, 0]), torch.tensor([[41], [43]]))
        for row, (context, token) in enumerate(((2, 41), (0, 43))):
            tokens = torch.tensor([[*CONTEXTS[context].tolist(), token]])
            expected = model.model(tokens, output_hidden_states=True).hidden_states
            # The last of transformers' states has gone through the final norm; the stream itself has not.
            assert torch.allclose(found[0, row], expected[0][0, -1], atol=1e-5)
            assert torch.allclose(model.model.norm(found[1, row]), expected[1][0, -1], atol=1e-4)


def skills(model, task: Task) -> list[dict[str, float]]:
    cells = [Cell(task, 0.1)]
    return learning.skills(model, learning.unseen(cells, 256, CONTEXTS, "cpu"), "fp32")


def test_guessing_has_skill_zero_and_knowing_has_skill_one(model) -> None:
    task = FAMILIES["modular_addition"].make("t", 5, np.arange(45, 50), np.random.default_rng(0))
    (row,) = skills(model, task)
    assert row["skill"] == pytest.approx((row["accuracy"] - 0.2) / 0.8)
    context = [CONTEXTS[n % 3] for n in range(len(task.test))]
    known = tuple(
        Instance(i.prompt, i.choices, int(np.argmax(by_hand(model, i, c))))
        for i, c in zip(task.test, context, strict=True)
    )
    sure = Task("t", "modular_addition", 5, task.train, known)
    assert skills(model, sure)[0]["skill"] == 1.0


def test_equally_likely_choices_are_a_guess_whichever_stands_first(model) -> None:
    with torch.no_grad():
        model.lm_head.weight.zero_()
    right_first = [Instance((41, n), ((50,), (51,), (52,)), 0) for n in range(4)]
    right_last = [Instance((41, n), ((50, 51), (51, 52)), 1) for n in range(4)]
    assert score(model, ask(right_first), "fp32").correct == pytest.approx(1 / 3)
    both = score(model, ask(right_last, right_first), "fp32").correct
    assert both == pytest.approx([1 / 2] * 4 + [1 / 3] * 4)


def test_chance_is_that_of_the_instances_that_are_asked(model) -> None:
    two, four = ((50,), (51,)), ((50,), (51,), (52,), (53,))
    test = tuple(Instance((41, 42), two if n < 3 else four, 0) for n in range(6))
    cells = [Cell(Task("t", "own", 1, ONE_TOKEN, test), 0.1)]
    with torch.no_grad():
        model.lm_head.weight.zero_()  # a guess
    for asked, chance in ((3, 1 / 2), (6, 3 / 8)):
        (row,) = learning.skills(model, learning.unseen(cells, asked, CONTEXTS, "cpu"), "fp32")
        assert row["chance"] == row["accuracy"] == pytest.approx(chance)
        assert row["skill"] == pytest.approx(0)


def test_lm_loss_is_the_mean_over_held_out_sequences(model) -> None:
    held_out = np.random.default_rng(1).integers(0, VOCAB, size=70 * 16 + 5).astype(np.int32)
    tokens = torch.from_numpy(held_out[: 70 * 16].reshape(70, 16).astype(np.int64))
    with torch.no_grad():
        expected = token_loss(model, tokens, "fp32").item()
    assert learning.lm_loss(model, held_out, 16, 10**6, "fp32") == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        part = token_loss(model, tokens[:4], "fp32").item()
    assert learning.lm_loss(model, held_out, 16, 64, "fp32") == pytest.approx(part, rel=1e-5)


def test_the_task_gradient_is_that_of_its_choice_nll(model) -> None:
    """With the whole vocabulary as choices, the choice NLL is the LM loss of one position."""
    everything = tuple((token,) for token in range(VOCAB))
    instances = [Instance((7,), everything, 9)]
    row = torch.tensor([[*CONTEXTS[0].tolist(), 7]])
    expected = torch.autograd.grad(
        torch.nn.functional.cross_entropy(model(row).logits[:, -1], torch.tensor([9])),
        list(model.parameters()),
    )
    asked = ask(instances)
    loss = choice_nll(choice_logprobs(model, asked, "fp32"), asked).mean()
    found = torch.autograd.grad(loss, list(model.parameters()))
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def probe_tasks() -> list[Task]:
    return [
        FAMILIES["comparison"].make(f"p{n}", 4, np.arange(40 + 6 * n, 46 + 6 * n), np.random.default_rng(n))
        for n in range(2)
    ]


def test_retention_bursts_every_instance_and_measures_at_the_delays() -> None:
    spec = Retention(at_fractions=[0.5], instances=12, burst_steps=3, replicas=2, delays_steps=[0, 2, 5])
    tasks = probe_tasks()
    probe = RetentionProbe(spec, tasks, 256, first=20)
    bursts = {step: probe.burst(step) for step in range(40)}
    assert [step for step, b in bursts.items() if b] == [20, 21, 22]
    injected = [document for b in bursts.values() for document in b]
    assert len(injected) == 12 * 2
    assert set(injected) == {i.document(256) for task in tasks for i in task.train}
    assert [step for step in range(40) if probe.starts_at(step)] == [20]
    assert [step for step in range(40) if probe.delay_after(step) is not None] == [22, 24, 27]
    probe.before = [[2.0, 5.0], [1.0, 4.0]]
    rows = probe.rows([[0.5, 1.0], [1.5, 2.0]], 2, tokens_per_step=100, decaying=False)
    assert [row["gain"] for row in rows] == [1.5, -0.5]
    assert [row["answer_gain"] for row in rows] == [4.0, 2.0]
    assert {row["delay_tokens"] for row in rows} == {200}
    assert {row["injected_at_tokens"] for row in rows} == {2300}
    assert {row["decaying"] for row in rows} == {0}


def test_retention_measures_no_instance_that_it_did_not_inject(model) -> None:
    spec = Retention(instances=5, burst_steps=3, replicas=2)  # one a step: three of the five
    tasks = probe_tasks()
    probe = RetentionProbe(spec, tasks, 63, first=0)
    taught = [task.train[:3] for task in tasks]
    bursts = [document for step in range(3) for document in probe.burst(step)]
    assert sorted(bursts) == sorted(one.document(63) for group in taught for one in group)
    scores = score(model, ask(*taught), "fp32").choice_nll
    found = probe.measure(model, CONTEXTS, "fp32")
    assert [nll for nll, _ in found] == pytest.approx([scores[:3].mean(), scores[3:].mean()], abs=1e-5)
    probe.before = found
    assert {row["instances"] for row in probe.rows(found, 0, 10, decaying=False)} == {3}


def test_retention_measures_each_task_as_if_it_were_alone(model) -> None:
    spec = Retention(instances=12, burst_steps=1, replicas=2)
    tasks = probe_tasks()
    found = RetentionProbe(spec, tasks, 63, first=0).measure(model, CONTEXTS, "fp32")
    for task, (choice, answer) in zip(tasks, found, strict=True):
        nll = []
        full = []
        for n, instance in enumerate(task.train[:12]):
            logprobs = np.array(by_hand(model, instance, CONTEXTS[n % 3]))
            nll.append(np.log(np.exp(logprobs).sum()) - logprobs[instance.answer])
            full.append(-logprobs[instance.answer])
        assert choice == pytest.approx(np.mean(nll), abs=1e-4)
        assert answer == pytest.approx(np.mean(full), abs=1e-4)


def test_every_injection_has_tasks_and_steps_of_its_own(tmp_path) -> None:
    spec = load(
        write_ladder(tmp_path, probes={"retention": {"at_fractions": [0.6, 0.25], "burst_steps": 4}}),
        CalibrationSpec,
    )
    probes = retention_probes(spec, 0, 257, 256, steps=40)
    assert [(probe.first, probe.last) for probe in probes] == [(10, 13), (24, 27)]
    names = [task.name for probe in probes for task in probe.tasks]
    assert len(set(names)) == len(names) == 8
    symbols = [{t for i in task.train for t in i.prompt} for probe in probes for task in probe.tasks]
    assert all(not a & b for n, a in enumerate(symbols) for b in symbols[:n])


def test_bursts_that_overlap_or_meet_the_decay_are_told_before_training() -> None:
    assert burst_problems(Retention(at_fractions=[0.2, 0.4], burst_steps=8), 40, 4, "run") == []
    (message,) = burst_problems(Retention(at_fractions=[0.2, 0.4], burst_steps=9), 40, 4, "run")
    assert "at 0.2 of 40 steps" in message and "into the next" in message
    (message,) = burst_problems(Retention(at_fractions=[0.75], burst_steps=7), 40, 4, "run")
    assert "at 0.75 of 40 steps" in message and "after step 36" in message


def test_a_burst_in_the_decay_of_a_branch_is_said(tmp_path) -> None:
    # Branches leave after 18 and 36 of 80 steps and end after 20 and 40; bursts last two steps.
    horizons = {"tokens": [20 * 256, 40 * 256, 80 * 256]}
    for fractions, ends in (([0.2, 0.25, 0.425, 0.5], []), ([0.2125], [20]), ([0.2375, 0.4875], [20, 40])):
        retention = {"at_fractions": fractions, "instances": 4, "burst_steps": 2, "replicas": 1}
        path = write_ladder(tmp_path / str(fractions[0]), horizons=horizons, ladder=[TINY],
                            probes={"retention": retention, "interference": None})  # fmt: skip
        _, notes = prepare(load(path, CalibrationSpec), path.parent, path.parent / "out")
        said = [note for note in notes if "retention burst" in note]
        assert len(said) == len(ends)
        assert all(f"ends after step {end}," in note for end, note in zip(ends, said, strict=True))


def test_contexts_are_pieces_of_held_out_text() -> None:
    held_out = np.arange(100, dtype=np.int32)
    contexts = held_out_contexts(held_out, np.random.default_rng(0), count=20)
    assert (np.diff(contexts, axis=1) == 1).all()
    assert len({row[0] for row in contexts.tolist()}) > 5
