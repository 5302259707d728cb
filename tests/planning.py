"""Plans and a forecast in closed form, for tests of recommend.

The forecast: logit p = a(family, complexity) + shift + b·ln(f/f0) + c·ln(N/N0) + d·ln(D/D0); LM loss 1.5 +
9/N^0.28 + 200/D^0.45.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from mixplan.documents import Plan, Recipe
from mixplan.documents.forecast import Goal, GoalForecast
from mixplan.recommend import recommend

KINDS = {("comparison", 4.0): 3.0, ("comparison", 8.0): 2.0, ("modular_addition", 5.0): 0.0}
F0, N0, D0 = 1.35e-3, 33_056.0, 3.3e6


class Logistic:
    """Known to the last digit; `loss=False` stands for a calibration without an LM-loss law.

    With `spread` above 0 the intercept is uncertain: nine draws, its normal quantiles times `spread`.
    """

    def __init__(
        self, b: float = 1.15, c: float = 0.65, d: float = 2.4, loss: bool = True, spread: float = 0.0
    ) -> None:
        self.b, self.c, self.d, self.loss = b, c, d, loss
        self.shift = spread * norm.ppf((np.arange(9) + 0.5) / 9) if spread else np.zeros(1)
        self.calls = 0

    def families(self) -> dict[str, list[float]]:
        return {"comparison": [4.0, 8.0], "modular_addition": [5.0]}

    def sources(self) -> list[str]:
        return []

    def log_odds(self, family, complexity, block_params, tokens, frequency):
        a = np.array([KINDS[name, float(level)] for name, level in zip(family, complexity, strict=True)])
        logs = [np.log(np.asarray(x) / x0) for x, x0 in ((frequency, F0), (block_params, N0), (tokens, D0))]
        return a + self.b * logs[0] + self.c * logs[1] + self.d * logs[2]

    def p_learned(self, *cells):
        """Mean over the draws."""
        return expit(self.log_odds(*cells)[:, None] + self.shift).mean(axis=1)

    def reached(self, goals, goal, *columns):
        self.calls += 1
        cells = [goals[at].family for at in goal], [goals[at].complexity for at in goal], *columns
        return expit(self.log_odds(*cells)[:, None] + self.shift)

    def told(self, goals, goal, block_params, tokens, frequency):
        p = self.reached(goals, goal, block_params, tokens, frequency).mean(axis=1)
        beyond = [["tokens above the largest fitted"] if count > 2e7 else [] for count in tokens]
        return GoalForecast(p, 0.8 * p, np.minimum(1.1 * p, 1.0), beyond)

    def parameters(self, goals):
        return ["intercept"], self.shift[:, None]

    def lm_loss(self, block_params, tokens, common_share=None):
        if not self.loss:
            return None
        return 1.5 + 9.0 / np.asarray(block_params) ** 0.28 + 200.0 / np.asarray(tokens) ** 0.45

    def lm_loss_draws(self, block_params, tokens):
        return None

    def tokens_needed(self, kind, block_params: float, frequency: float, target: float) -> float:
        """D at which p reaches `target` when the frequency does not depend on D."""
        rest = math.log(target / (1 - target)) - KINDS[kind]
        rest -= self.b * math.log(frequency / F0) + self.c * math.log(block_params / N0)
        return D0 * math.exp(rest / self.d)


BASE: dict[str, Any] = {
    "sources": [
        {"name": "web", "role": "common", "tokens_available": 1e8},
        {"name": "code", "role": "common", "tokens_available": 2e7},
        {"name": "r1", "role": "rare", "tokens_available": 3e4},
        {"name": "r2", "role": "rare", "tokens_available": 6e4},
    ],
    "tasks": [
        {"name": "t1", "density": {"r1": 0.05}, "family": "comparison", "complexity": 8},
        {"name": "t2", "density": {"r2": 0.1, "r1": 0.02}, "family": "modular_addition", "complexity": 5},
    ],
    "sizes": ["cpu_8k", "cpu_33k", "cpu_132k", "cpu_296k"],
    "sequence_length": 128,
    "budget": {"tokens": 5e7},
    "constraints": {"max_common_loss_increase_nats": 0.01},
    "search": {"trials": 12},
}


def plan_dict(**changes: Any) -> dict[str, Any]:
    """BASE with top-level keys replaced."""
    return {**copy.deepcopy(BASE), **changes}


def run(plan: dict[str, Any], forecast: Any = None, **more: Any) -> Recipe:
    return recommend(Plan.model_validate(plan), forecast or Logistic(), Path("."), **more)


def changed(plan: dict[str, Any], changes: dict[str, float | None]) -> dict[str, Any]:
    """A plan with limits moved by their names, as remedies and bindings write them; None leaves the task
    out."""
    plan = copy.deepcopy(plan)
    for name, value in changes.items():
        head, *rest = name.split(".")
        if head in ("budget", "constraints"):
            plan[head][rest[0]] = value
        elif value is None:
            plan[head] = [item for item in plan[head] if item["name"] != rest[0]]
        else:
            next(item for item in plan[head] if item["name"] == rest[0])[rest[1]] = value
    return plan


def violations(plan: dict[str, Any], recipe: Recipe, forecast: Logistic) -> list[str]:
    """Every limit of the plan that the recipe's own integers break, computed independently of
    mixplan.recommend."""
    document = Plan.model_validate(plan)
    found = []
    tokens = recipe.samples * recipe.sequence_length
    worth = {}
    for source in document.sources:
        part = next(one for one in recipe.sources if one.name == source.name)
        drawn, unique = part.choose * recipe.sequence_length, part.tokens_available
        if drawn > source.max_epochs * unique * (1 + 1e-9):
            found.append(f"{source.name}: {drawn / unique} epochs")
        share = part.choose / recipe.samples
        if not source.min_share - 1e-9 <= share <= source.max_share + 1e-9:
            found.append(f"{source.name}: share {share}")
        worth[source.name] = discounted(drawn, unique, source.repetition_half_life_epochs)
    for group in document.groups:
        chosen = sum(part.choose for part in recipe.sources if part.name in group.sources)
        if not group.min_share - 1e-9 <= chosen / recipe.samples <= group.max_share + 1e-9:
            found.append(f"{group.name}: share {chosen / recipe.samples}")
    for task in document.tasks if document.objective in ("cheapest", "common_loss") else ():
        frequency = sum(density * worth[name] for name, density in task.density.items()) / tokens
        drawn = forecast.reached(
            [Goal(task.family or "", task.complexity or 0.0)],
            np.zeros(1, dtype=int),
            np.array([float(recipe.block_params)]),
            np.array([float(tokens)]),
            np.array([max(frequency, 1e-300)]),
        )[0]
        p = float(drawn.mean())
        if task.confidence is not None:  # the draw at which so many, and no fewer, are at least as good
            p = sorted(drawn)[::-1][math.ceil(task.confidence * len(drawn) - 1e-9) - 1]
        if p < task.target_probability - 1e-8:
            found.append(f"{task.name}: p {p}")
    flops = tokens * recipe.size.flops_per_token(document.vocabulary, document.sequence_length)
    budget, hardware = document.budget, document.hardware
    hours = flops / (hardware.peak_flops_per_second * hardware.mfu * 3600) if hardware else 0.0
    spent = {
        "tokens": tokens,
        "flops": flops,
        "gpu_hours": hours,
        "money": hours * (hardware.price_per_device_hour if hardware else 0.0),
    }
    for name, value in spent.items():
        limit = getattr(budget, name)
        if limit is not None and value > limit * (1 + 1e-9):
            found.append(f"budget.{name}: {value}")
    bound = document.constraints.max_common_loss_increase_nats
    if bound is not None:
        common = [source for source in document.sources if source.role == "common"]
        natural = {part.name: part.natural_share for part in recipe.sources}
        unique = {part.name: part.tokens_available for part in recipe.sources}
        usual = sum(
            discounted(natural[s.name] * tokens, unique[s.name], s.repetition_half_life_epochs)
            for s in common
        )
        params = float(recipe.block_params)
        here = sum(worth[s.name] for s in common)
        increase = forecast.lm_loss(params, here) - forecast.lm_loss(params, usual)
        if increase > bound + 1e-8:
            found.append(f"common loss: {increase}")
    return found


def discounted(drawn: float, unique: float, half_life: float) -> float:
    """arXiv 2305.16264, eq. 5, written out for one source."""
    if drawn <= unique:
        return drawn
    return unique + unique * half_life * (1 - math.exp(-(drawn / unique - 1) / half_life))
