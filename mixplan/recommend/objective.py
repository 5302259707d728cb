"""What a plan wants most: one number a mixture, lower is better.

Shape legend: B = candidate mixtures, T = tasks.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents.forecast import FloatArray
from mixplan.recommend.evaluate import TOLERANCE, Outcome
from mixplan.recommend.problem import Problem


def primary(problem: Problem, outcome: Outcome) -> FloatArray:
    """What the plan's objective minimises, shape (B,).

    cheapest: FLOPs of training and inference. most_tasks: minus the value of the tasks whose target is met.
    common_loss: nats per token. value: minus the sum of value × probability.
    """
    if problem.objective == "cheapest":
        return problem.cost(outcome.size, outcome.tokens)
    if problem.objective == "common_loss":
        return np.nan_to_num(outcome.common_loss, nan=np.inf)
    worth = met(problem, outcome) if problem.objective == "most_tasks" else outcome.p_learned
    return -(worth @ problem.value)


def met(problem: Problem, outcome: Outcome) -> np.ndarray:
    """Whether each task's target is met, bool, shape (B, T)."""
    return outcome.p_learned >= problem.wanted - TOLERANCE
