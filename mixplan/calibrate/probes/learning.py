"""Skill on unseen instances and LM loss on held-out text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mixplan.calibrate.model import token_loss
from mixplan.calibrate.probes.scoring import score
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


def skills(
    model: Any, cells: list[Cell], contexts: np.ndarray, max_instances: int, precision: str
) -> list[dict[str, float]]:
    """Accuracy, chance, skill and choice NLL of every cell on its unseen instances."""
    tested = [cell.task.test[:max_instances] for cell in cells]
    scores = score(model, [instance for test in tested for instance in test], contexts, precision)
    rows = []
    first = 0
    for cell, test in zip(cells, tested, strict=True):
        part = slice(first, first + len(test))
        first += len(test)
        accuracy, chance = float(scores.correct[part].mean()), cell.task.chance
        rows.append(
            {
                "accuracy": accuracy,
                "chance": chance,
                "skill": (accuracy - chance) / (1 - chance),
                "choice_nll": float(scores.choice_nll[part].mean()),
            }
        )
    return rows
