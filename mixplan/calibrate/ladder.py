"""A size becomes steps, batch and learning rate. Pure arithmetic: no torch.

N = block parameters of the rung.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixplan.documents.calibration_spec import CalibrationSpec, Training
from mixplan.documents.shapes import ModelShape

PORIAN_REFERENCE_PARAMS = 108e6
PORIAN_LEARNING_RATE = 0.0047
PORIAN_BATCH_TOKENS = 160 * 2048


def learning_rate(shape: ModelShape, training: Training) -> float:
    """Peak learning rate: fixed, or 0.0047·(N/108e6)^(-1/3)·multiplier (arXiv 2406.19146, as DataDecide)."""
    if training.rule == "fixed":
        assert training.learning_rate is not None
        return training.learning_rate
    scale = (shape.block_params / PORIAN_REFERENCE_PARAMS) ** (-1 / 3)
    return PORIAN_LEARNING_RATE * scale * training.learning_rate_multiplier


def batch_sequences(shape: ModelShape, training: Training, sequence_length: int) -> int:
    """Sequences a step: fixed, or 160·(N/108e6)^(2/3)·multiplier sequences of 2048 tokens, same source."""
    if training.batch_sequences is not None:
        return training.batch_sequences
    scale = (shape.block_params / PORIAN_REFERENCE_PARAMS) ** (2 / 3)
    tokens = max(PORIAN_BATCH_TOKENS * scale * training.batch_multiplier, training.min_batch_tokens)
    return max(1, round(tokens / sequence_length))


def horizon_tokens(shape: ModelShape, spec: CalibrationSpec) -> list[int]:
    """Token counts that this rung is trained for, shortest first."""
    if spec.horizons.tokens:
        return sorted(spec.horizons.tokens)
    return sorted(
        round(20 * shape.block_params * multiple) for multiple in spec.horizons.tokens_per_20_params
    )


def warmup_steps(steps: Sequence[int], training: Training) -> int:
    """Steps of linear warm-up of a run whose horizons end after `steps`: a share of the shortest."""
    return max(1, round(training.warmup_fraction * min(steps)))


def decay_steps(end: int, training: Training) -> int:
    """Steps of linear decay before a horizon that ends after `end` steps."""
    return round(training.decay_fraction * end)


def schedule(step: int, end: int, warmup: int, decay: int) -> float:
    """Factor on the peak learning rate at a step of a run, or of a branch of it, that ends after `end` steps.

    Linear warm-up, constant, linear decay to zero (warmup-stable-decay, arXiv 2404.06395).
    """
    if step < warmup:
        return (step + 1) / warmup
    if step >= end - decay:
        return (end - step) / (decay + 1)
    return 1.0
