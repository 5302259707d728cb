"""How likely a model finds each possible answer. Used by every probe.

Shape legend: R = rows in a forward pass, K = positions scored, V = vocabulary, n = instances.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mixplan.calibrate.model import logits_of
from mixplan.calibrate.probes import CONTEXT_TOKENS
from mixplan.calibrate.tasks.base import Instance

_LOGITS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Scores:
    """Per instance, shape (n,)."""

    correct: np.ndarray
    """1.0 where the right choice is the likeliest."""
    choice_nll: np.ndarray
    """NLL of the answer among the instance's choices, nats."""
    answer_nll: np.ndarray
    """NLL of the answer over the whole vocabulary, nats."""


def held_out_contexts(held_out: np.ndarray, generator: np.random.Generator, count: int = 64) -> np.ndarray:
    """Pieces of held-out text to put before a prompt, as in training, shape (count, CONTEXT_TOKENS)."""
    starts = generator.integers(0, len(held_out) - CONTEXT_TOKENS + 1, size=count)
    return np.stack([held_out[start : start + CONTEXT_TOKENS] for start in starts]).astype(np.int64)


def choice_logprobs(
    model: Any, instances: Sequence[Instance], contexts: np.ndarray, precision: str
) -> list[torch.Tensor]:
    """log P(choice | context, prompt) of every choice of every instance; differentiable.

    Instances whose choices are single tokens need one row each, others one row per choice. Choices of several
    tokens score the sum over their tokens, without length normalisation.
    """
    device = next(model.parameters()).device
    # (row length, positions needed at its end) → (instance, choice or -1 for all of them, row)
    rows: dict[tuple[int, int], list[tuple[int, int, list[int]]]] = defaultdict(list)
    for index, instance in enumerate(instances):
        start = [*contexts[index % len(contexts)].tolist(), *instance.prompt]
        if all(len(choice) == 1 for choice in instance.choices):
            rows[len(start), 1].append((index, -1, start))
        else:
            for number, choice in enumerate(instance.choices):
                rows[len(start) + len(choice), len(choice) + 1].append((index, number, [*start, *choice]))
    found: list[dict[int, torch.Tensor]] = [{} for _ in instances]
    vocab_size = model.get_output_embeddings().weight.shape[0]
    for (length, keep), alike in rows.items():
        at_once = max(1, _LOGITS_AT_ONCE // max(keep * vocab_size, length * 64))
        for first in range(0, len(alike), at_once):
            part = alike[first : first + at_once]
            tokens_RT = torch.tensor([row for _, _, row in part], device=device)
            logits = logits_of(model, tokens_RT, precision, logits_to_keep=keep)
            logprobs_RKV = torch.log_softmax(logits.float(), dim=-1)
            for place, (index, number, _) in enumerate(part):
                choices = instances[index].choices
                if number < 0:
                    found[index][-1] = logprobs_RKV[place, 0, [choice[0] for choice in choices]]
                else:
                    answer = choices[number]
                    found[index][number] = logprobs_RKV[place, list(range(len(answer))), list(answer)].sum()
    return [
        scores[-1] if -1 in scores else torch.stack([scores[number] for number in sorted(scores)])
        for scores in found
    ]


def choice_nll(logprobs: Sequence[torch.Tensor], instances: Sequence[Instance]) -> torch.Tensor:
    """NLL of the right choice among the choices, nats, shape (n,)."""
    return torch.stack(
        [torch.logsumexp(p, 0) - p[i.answer] for p, i in zip(logprobs, instances, strict=True)]
    )


@torch.no_grad()
def score(model: Any, instances: Sequence[Instance], contexts: np.ndarray, precision: str) -> Scores:
    """Score instances without gradients."""
    logprobs = [p.cpu() for p in choice_logprobs(model, instances, contexts, precision)]
    pairs = list(zip(logprobs, instances, strict=True))
    return Scores(
        correct=np.array([float(p.argmax().item() == i.answer) for p, i in pairs]),
        choice_nll=choice_nll(logprobs, instances).double().numpy(),
        answer_nll=np.array([-p[i.answer].item() for p, i in pairs]),
    )
