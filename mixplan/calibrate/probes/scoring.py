"""How likely a model finds each possible answer. Used by every probe that asks.

Shape legend: n = instances, C = choices (of the instance that has most), R = rows in a forward pass, P =
tokens of a row after its context, K = tokens of an answer, A = answers read off one row, X = contexts, V =
vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mixplan.calibrate.probes import CONTEXT_TOKENS
from mixplan.calibrate.probes.contexts import Contexts
from mixplan.calibrate.tasks.base import Instance, chance

_LOGITS_AT_ONCE = {"cpu": 2**19, "cuda": 2**27}
"""2 MiB, which stays in a core's caches; 512 MiB of a GPU's memory."""


@dataclass(frozen=True)
class Scores:
    """Per instance, shape (n,)."""

    correct: np.ndarray
    """1.0 where the right choice is the likeliest; where several are equally likely, its share of them: bf16
    often makes them so, and the first of a user's choices may well be the right one in every row."""
    choice_nll: np.ndarray
    """NLL of the answer among the instance's choices, nats."""
    answer_nll: np.ndarray
    """NLL of the answer over the whole vocabulary, nats."""


@dataclass(frozen=True)
class _Rows:
    """Rows of one length, from which as many answers of as many tokens are read."""

    context_R: torch.Tensor
    tokens_RP: torch.Tensor
    """Prompt and answer, less the answer's last token."""
    answers_RKA: torch.Tensor
    """Token ids of the answers."""
    places_RA: torch.Tensor
    """Where an answer stands in the table of (instance, choice), counted along its rows."""


class Questions:
    """Instances as tensors: made once, asked often.

    Instances whose choices are single tokens need one row each, others one row per choice.
    """

    def __init__(self, groups: Sequence[Sequence[Instance]], contexts: np.ndarray, device: Any) -> None:
        """Instances in groups; the i-th of its group stands after context i mod X.

        Args:
            groups: of instances; results come in their order, one group after the other.
            contexts: shape (X, CONTEXT_TOKENS).
            device: where the tensors go.
        """
        asked = [(place, one) for group in groups for place, one in enumerate(group)]
        self.groups = [len(group) for group in groups]
        self.chances = [chance(group) for group in groups]
        self.choices = max((len(one.choices) for _, one in asked), default=1)
        used = min(len(contexts), max(self.groups, default=1))
        self.contexts_X8 = torch.from_numpy(contexts[:used]).to(device)
        self.answers_n = torch.tensor([one.answer for _, one in asked], device=device)
        # (tokens after the context, answer's tokens, answers a row) → (context, tokens, answers, places)
        alike: dict[tuple[int, int, int], list[tuple[int, list[int], list[Any], list[int]]]] = defaultdict(
            list
        )
        for index, (place, one) in enumerate(asked):
            context, first = place % len(contexts), index * self.choices
            if all(len(choice) == 1 for choice in one.choices):
                answers = [[choice[0] for choice in one.choices]]
                places = list(range(first, first + len(one.choices)))
                alike[len(one.prompt), 1, len(places)].append((context, [*one.prompt], answers, places))
                continue
            for number, choice in enumerate(one.choices):
                tokens = [*one.prompt, *choice[:-1]]
                row = (context, tokens, [[token] for token in choice], [first + number])
                alike[len(tokens), len(choice), 1].append(row)
        self.rows = [
            _Rows(*(torch.tensor(column, device=device) for column in zip(*rows, strict=True)))
            for rows in alike.values()
        ]


def choice_logprobs(model: Any, questions: Questions, precision: str) -> torch.Tensor:
    """log P(choice | context, prompt), differentiable, shape (n, C); −∞ where an instance has fewer choices.

    Choices of several tokens score the sum over their tokens, without length normalisation.
    """
    contexts = Contexts(model, questions.contexts_X8, precision)
    vocab_size = model.get_output_embeddings().weight.shape[0]
    values, places = [], []
    limit = _LOGITS_AT_ONCE["cpu" if questions.answers_n.device.type == "cpu" else "cuda"]
    for rows in questions.rows:
        length, keep = rows.tokens_RP.shape[1], rows.answers_RKA.shape[1]
        at_once = max(64, limit // max(keep * vocab_size, (CONTEXT_TOKENS + length) * 64))
        for first in range(0, len(rows.tokens_RP), at_once):
            part = slice(first, first + at_once)
            logits_RKV = contexts.logits(rows.context_R[part], rows.tokens_RP[part], keep)
            chosen_RKA = logits_RKV.gather(-1, rows.answers_RKA[part])
            logprobs_RA = (chosen_RKA - logits_RKV.logsumexp(-1, keepdim=True)).sum(1)
            values.append(logprobs_RA.reshape(-1))
            places.append(rows.places_RA[part].reshape(-1))
    count = len(questions.answers_n)
    table = values[0].new_full((count * questions.choices,), -torch.inf)
    return table.index_put((torch.cat(places),), torch.cat(values)).view(count, questions.choices)


def choice_nll(logprobs_nC: torch.Tensor, questions: Questions) -> torch.Tensor:
    """NLL of the right choice among the choices, nats, shape (n,)."""
    right = logprobs_nC.gather(1, questions.answers_n[:, None])[:, 0]
    return logprobs_nC.logsumexp(1) - right


@torch.no_grad()
def score(model: Any, questions: Questions, precision: str) -> Scores:
    """Score instances without gradients."""
    logprobs_nC = choice_logprobs(model, questions, precision)
    right = logprobs_nC.gather(1, questions.answers_n[:, None])[:, 0]
    best = logprobs_nC.amax(1)
    return Scores(
        correct=((right == best).double() / (logprobs_nC == best[:, None]).sum(1)).cpu().numpy(),
        choice_nll=choice_nll(logprobs_nC, questions).double().cpu().numpy(),
        answer_nll=(-right).double().cpu().numpy(),
    )


def by_group(values_n: np.ndarray, questions: Questions) -> list[np.ndarray]:
    """Values per instance as one array per group."""
    return np.split(values_n, np.cumsum(questions.groups)[:-1])
