"""Skill on unseen instances and LM loss on held-out text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mixplan.calibrate.model import token_loss
from mixplan.calibrate.probes.scoring import Questions, by_group, score
from mixplan.calibrate.tasks import Cell

_SEQUENCES_AT_ONCE = 32


@torch.no_grad()
def lm_loss(model: Any, held_out: np.ndarray, sequence_length: int, max_tokens: int, precision: str) -> float:
    """Mean NLL of held-out text in nats per token, over at most `max_tokens` tokens."""
    rows = min(len(held_out), max(max_tokens, sequence_length)) // sequence_length
    tokens = torch.from_numpy(
        held_out[: rows * sequence_length].reshape(rows, sequence_length).astype(np.int64)
    )
    device = next(model.parameters()).device
    total = 0.0
    for part in tokens.split(_SEQUENCES_AT_ONCE):
        total += token_loss(model, part.to(device), precision).item() * len(part)
    return total / rows


def unseen(cells: list[Cell], max_instances: int, contexts: np.ndarray, device: Any) -> Questions:
    """What `skills` asks: at most so many unseen instances of every cell."""
    return Questions([cell.task.test[:max_instances] for cell in cells], contexts, device)


def skills(model: Any, questions: Questions, precision: str) -> list[dict[str, float]]:
    """Accuracy, chance, skill and choice NLL of every cell on the questions of `unseen`."""
    scores = score(model, questions, precision)
    found = zip(
        questions.chances,
        by_group(scores.correct, questions),
        by_group(scores.choice_nll, questions),
        strict=True,
    )
    rows = []
    for guessing, correct, choice_nll in found:
        accuracy = float(correct.mean())
        rows.append(
            {
                "accuracy": accuracy,
                "chance": guessing,
                "skill": (accuracy - guessing) / (1 - guessing),
                "choice_nll": float(choice_nll.mean()),
            }
        )
    return rows
