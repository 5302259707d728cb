"""One run of the worked example: trained as the ladder trained, measured with the ladder's own probes.

    python train.py FOLDER SIZE SAMPLES.npy SEED OUT.json

Beside OUT.json, own_text.json holds the skills when asked behind text of the source that holds the task.

Shape legend: n = samples, L = sequence length, B = sequences a step.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.calibrate import ladder
from mixplan.calibrate.runs import RunSpec
from mixplan.documents import CalibrationSpec, Plan, load
from mixplan.documents.atomic import write_json
from mixplan.documents.shapes import PRESETS

sys.path.insert(0, str(Path(__file__).resolve().parent))
import sources


def run_spec(spec: CalibrationSpec, size: str, samples: int, seed: int, length: int) -> RunSpec:
    """Steps, batch, learning rate and schedule by the ladder's rules, for a run of so many samples."""
    shape, training = PRESETS[size], spec.training
    batch = ladder.batch_sequences(shape, training, length)
    steps = samples // batch
    tokens_per_step = batch * length
    shortest = [tokens // tokens_per_step for tokens in ladder.horizon_tokens(shape, spec)]
    return RunSpec(
        run_id=f"{size}-{seed}",
        shape=shape,
        seed=seed,
        sequence_length=length,
        batch_sequences=batch,
        steps=steps,
        warmup_steps=ladder.warmup_steps(shortest, training),
        decay_steps=ladder.decay_steps(steps, training),
        learning_rate=ladder.learning_rate(shape, training),
        vocab_size=sources.vocabulary_of(spec),
    )


def train(spec: CalibrationSpec, run: RunSpec, samples: np.ndarray, end_of_document_id: int) -> Any:
    """A model trained on the samples (n, L) in their order, once; the last n mod B are left out."""
    import torch

    from mixplan.calibrate.model import TokenLoss, build_optimizer, seeded_model

    torch.set_num_threads(1)
    model = seeded_model(run, end_of_document_id, spec.architecture)
    loss_of = TokenLoss(model, spec.training.precision)
    optimizer = build_optimizer(model, run.learning_rate, spec.training)
    batches = samples[: run.steps * run.batch_sequences].reshape(run.steps, run.batch_sequences, -1)
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = run.learning_rate * run.learning_rate_factor(step, None)
        loss = loss_of(torch.from_numpy(batch.astype(np.int64)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.training.grad_clip)
        optimizer.step()
    return model


def measure(model: Any, spec: CalibrationSpec, plan: Plan, held_out: np.ndarray, seed: int) -> dict[str, Any]:
    """Skill of every task on unseen instances, and the LM loss on the ladder's held-out text (nats a token).

    Associative recall asks for the taught facts themselves behind other text: there is nothing unseen to ask.
    """
    import torch

    from mixplan.calibrate.probes import learning
    from mixplan.calibrate.probes.contexts import held_out_contexts
    from mixplan.calibrate.tasks import Cell

    tasks = sources.make_tasks(plan)
    contexts = held_out_contexts(held_out, np.random.default_rng([seed, 4]), spec.injection.placement)
    cells = [Cell(task, 0.0) for task in tasks.values()]
    questions = learning.unseen(cells, spec.probes.max_instances, contexts, torch.device("cpu"))
    rows = learning.skills(model, questions, spec.training.precision)
    loss = learning.lm_loss(
        model, held_out, plan.sequence_length, spec.probes.lm_loss_tokens, spec.training.precision
    )
    return {"lm_loss": loss, "skill": {name: row["skill"] for name, row in zip(tasks, rows, strict=True)}}


def asked_behind_own_text(
    model: Any, spec: CalibrationSpec, plan: Plan, contexts: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Skill of every task when its questions stand behind text of the first source that holds it.

    Args:
        contexts: of each rare source, int64 (contexts, tokens).
    """
    import torch

    from mixplan.calibrate.probes import learning
    from mixplan.calibrate.tasks import Cell

    skills = {}
    for (name, task), asked in zip(sources.make_tasks(plan).items(), plan.tasks, strict=True):
        own, most = contexts[next(iter(asked.density))], spec.probes.max_instances
        questions = learning.unseen([Cell(task, 0.0)], most, own, torch.device("cpu"))
        skills[name] = learning.skills(model, questions, spec.training.precision)[0]["skill"]
    return skills


def main(arguments: list[str]) -> int:
    """Train, measure, write OUT.json."""
    folder, size, samples_path, seed, out = arguments
    plan, spec = load(Path(folder) / "plan.yaml", Plan), sources.ladder()
    samples = np.load(samples_path)
    held_out = np.load(Path(folder) / "held_out.npy")
    run = run_spec(spec, size, len(samples), int(seed), plan.sequence_length)
    started = time.monotonic()
    model = train(spec, run, samples, sources.END_OF_DOCUMENT)
    seconds = time.monotonic() - started
    found = measure(model, spec, plan, held_out, int(seed))
    with np.load(Path(folder) / "contexts.npz") as contexts:
        write_json(
            Path(out).with_name("own_text.json"), asked_behind_own_text(model, spec, plan, dict(contexts))
        )
    cost = {"size": size, "seed": int(seed), "tokens": run.tokens, "flops": run.flops}
    write_json(Path(out), {**cost, "seconds": round(seconds, 1), **found})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
