"""Measurements with known truth, for tests of whatever reads them. The slopes are those of real tiny ladders.

Shape legend: S = checkpoints of a run. All logarithms are natural.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import beta as beta_distribution

from mixplan.documents import Measurements
from mixplan.documents.measurements import TEXT_COLUMNS
from mixplan.documents.table import from_rows

LADDER = {"8k": 8_336, "19k": 18_648, "33k": 33_056, "74k": 74_160, "132k": 131_648, "296k": 295_776}
FREQUENCIES = (2.3e-4, 4.7e-4, 9.4e-4, 1.95e-3, 3.9e-3, 7.8e-3)
INTERCEPTS: dict[tuple[str, float], float] = {
    ("comparison", 4): 3.0,
    ("comparison", 8): 2.0,
    ("comparison", 16): 1.0,
    ("modular_addition", 3): 1.5,
    ("modular_addition", 5): 0.0,
    ("modular_addition", 9): -1.5,
}
"""Log-odds of the mean skill of a finished run at CENTRE, per task kind."""
SLOPES = {"frequency": 1.15, "block_params": 0.65, "tokens": 2.4}
CENTRE = {"frequency": 1.35e-3, "block_params": 33_056.0, "tokens": 3.3e6}
STEP_TOKENS = 4096
RETENTION = {"at_centre": 0.40, "per_log_params": -0.12}
"""kept = 1 − (at_centre + per_log_params·ln(N/centre))·ln(delay/peak)."""
PEAK_STEPS = 8
INTERFERENCE = {"cosine": (0.10, -0.02), "loss_change": (4e-3, -8e-4)}
"""Value at the centre size and slope per unit of ln N."""
LM_LOSS = {"E": 1.5, "A": 9.0, "alpha": 0.28, "B": 200.0, "beta": 0.45, "before_decay": 0.05}


def mean_skill(
    family: str,
    complexity: float,
    block_params: float,
    tokens: float,
    frequency: float,
    intercepts: Mapping[tuple[str, float], float] = INTERCEPTS,
    slopes: Mapping[str, float] = SLOPES,
) -> float:
    """The truth: mean skill of finished runs."""
    given = {"frequency": frequency, "block_params": block_params, "tokens": tokens}
    eta = intercepts[family, complexity] + sum(slopes[k] * np.log(given[k] / CENTRE[k]) for k in slopes)
    return float(expit(eta))


def chance_of(family: str, complexity: float) -> float:
    """Accuracy of guessing: comparison names one of two answers, modular addition one of `complexity`."""
    return 0.5 if family == "comparison" else 1.0 / complexity


def true_lm_loss(block_params: float, tokens: float) -> float:
    """LM loss of a finished run, nats per token."""
    law = LM_LOSS
    return law["E"] + law["A"] / block_params ** law["alpha"] + law["B"] / tokens ** law["beta"]


def simulate_measurements(
    seed: int = 0,
    rungs: Mapping[str, float] = LADDER,
    seeds: int = 2,
    horizons: Sequence[float] = (3.2768e6,),
    frequencies: Sequence[float] = FREQUENCIES,
    intercepts: Mapping[tuple[str, float], float] = INTERCEPTS,
    slopes: Mapping[str, float] = SLOPES,
    checkpoints: int = 10,
    precision: float = 4.0,
    run_effect: float = 0.0,
    instances: int = 128,
    replicas: int = 4,
    before_decay: float = 0.0,
) -> Measurements:
    """A measurements folder's tables from the laws above.

    Args:
        seed: of everything random here.
        rungs: rung name to block parameters.
        seeds: training seeds per rung and horizon.
        horizons: token counts at which runs end; every one is a run of its own.
        precision: of the Beta distribution of a run's skill around its mean (larger: less noise; below 1 a
            skill is mostly learned or not). One quantile per run and cell, so a run's skill grows steadily.
        run_effect: standard deviation of a shift of all of a run's log-odds.
        instances: unseen instances scored per cell (binomial measurement noise).
        replicas: retention probe tasks per run.
        before_decay: log-odds by which checkpoints before the last one lag behind a run that ends there.
    """
    generator = np.random.default_rng(seed)
    learning: list[dict[str, Any]] = []
    retention: list[dict[str, Any]] = []
    interference: list[dict[str, Any]] = []
    for rung, params in rungs.items():
        for horizon in horizons:
            for run_seed in range(seeds):
                steps = np.unique(
                    np.round(np.linspace(0, horizon / STEP_TOKENS, checkpoints + 1)[1:]).astype(int)
                )
                run = {
                    "run_id": f"{rung}-t{horizon:.3g}-s{run_seed}",
                    "rung": rung,
                    "block_params": params,
                    "seed": run_seed,
                }
                shift = generator.normal(0.0, run_effect) if run_effect else 0.0
                lm_losses = _lm_losses(generator, params, steps)
                for (family, complexity), intercept in intercepts.items():
                    for frequency in frequencies:
                        task = {
                            "task": f"{family}_{complexity:g}_{frequency:g}",
                            "family": family,
                            "complexity": complexity,
                            "frequency": frequency,
                        }
                        means = [
                            mean_skill(
                                family,
                                complexity,
                                params,
                                step * STEP_TOKENS,
                                frequency,
                                {
                                    (family, complexity): intercept
                                    + shift
                                    - before_decay * (step != steps[-1])
                                },
                                slopes,
                            )
                            for step in steps
                        ]
                        rows = _learn(
                            generator, np.array(means), precision, instances, chance_of(family, complexity)
                        )
                        for step, row, lm_loss in zip(steps, rows, lm_losses, strict=True):
                            tokens = step * STEP_TOKENS
                            learning.append(
                                {
                                    **run,
                                    "total_params": params + 16_384,
                                    "step": step,
                                    "tokens": tokens,
                                    **task,
                                    "exposures": frequency * tokens,
                                    **row,
                                    "lm_loss": lm_loss,
                                }
                            )
                        interference += _interfere(generator, run, task, steps)
                retention += _forget(generator, run, int(steps[-1]) // 2 * STEP_TOKENS, replicas)
    return Measurements(
        from_rows(learning, TEXT_COLUMNS),
        from_rows(retention, TEXT_COLUMNS) if retention else None,
        from_rows(interference, TEXT_COLUMNS),
        {"simulated": True, "seed": seed},
    )


def _learn(
    generator: np.random.Generator, means: np.ndarray, precision: float, instances: int, chance: float
) -> list[dict[str, float]]:
    """Accuracy, skill and choice NLL at S checkpoints; means has shape (S,)."""
    means = np.clip(means, 1e-9, 1 - 1e-9)
    skills = beta_distribution.ppf(generator.uniform(), means * precision, (1 - means) * precision)
    rows = []
    for skill in np.nan_to_num(skills):
        accuracy = generator.binomial(instances, chance + (1 - chance) * skill) / instances
        nll = -np.log(np.clip(chance + (1 - chance) * skill, 1e-3, 0.999))
        rows.append(
            {
                "accuracy": accuracy,
                "chance": chance,
                "skill": (accuracy - chance) / (1 - chance),
                "choice_nll": nll,
            }
        )
    return rows


def _lm_losses(generator: np.random.Generator, params: float, steps: np.ndarray) -> list[float]:
    losses = []
    for step in steps:
        raised = 0.0 if step == steps[-1] else LM_LOSS["before_decay"]
        losses.append(
            (true_lm_loss(params, step * STEP_TOKENS) + raised) * float(np.exp(generator.normal(0, 0.004)))
        )
    return losses


def _forget(
    generator: np.random.Generator, run: dict[str, Any], at: int, replicas: int
) -> list[dict[str, Any]]:
    """The gain grows for PEAK_STEPS steps (optimizer momentum), then shrinks linearly in log delay."""
    log_size = np.log(run["block_params"] / CENTRE["block_params"])
    loss_rate = RETENTION["at_centre"] + RETENTION["per_log_params"] * log_size
    rows = []
    for replica in range(replicas):
        before = 1.2 + abs(generator.normal(0, 0.1))
        peak = 0.5 + 0.08 * log_size + generator.normal(0, 0.03)
        for delay_steps in (0, 1, 2, 4, 8, 16, 32, 64, 128):
            if delay_steps < PEAK_STEPS:
                kept = 0.5 + 0.5 * np.log1p(delay_steps) / np.log1p(PEAK_STEPS)
            else:
                kept = 1.0 - loss_rate * np.log(delay_steps / PEAK_STEPS)
            nll = max(0.0, before - peak * kept + generator.normal(0, 0.01))
            rows.append(
                {
                    **run,
                    "task": f"probe_{replica}",
                    "family": "comparison",
                    "complexity": 4,
                    "instances": 64,
                    "injected_at_tokens": at,
                    "delay_tokens": delay_steps * STEP_TOKENS,
                    "choice_nll_before": before,
                    "choice_nll": nll,
                    "gain": before - nll,
                }
            )
    return rows


def _interfere(
    generator: np.random.Generator, run: dict[str, Any], task: dict[str, Any], steps: np.ndarray
) -> list[dict[str, Any]]:
    """One row at the middle and one at the end of the run."""
    log_size = np.log(run["block_params"] / CENTRE["block_params"])
    value = {name: at + slope * log_size for name, (at, slope) in INTERFERENCE.items()}
    return [
        {
            **run,
            "tokens": step * STEP_TOKENS,
            **task,
            "cosine": float(np.clip(value["cosine"] + generator.normal(0, 0.01), -1, 1)),
            "task_grad_norm": float(np.exp(generator.normal(0, 0.2))),
            "common_grad_norm": float(0.5 * np.exp(generator.normal(0, 0.2))),
            "loss_change": value["loss_change"] + generator.normal(0, 5e-4),
        }
        for step in (steps[len(steps) // 2], steps[-1])
    ]
