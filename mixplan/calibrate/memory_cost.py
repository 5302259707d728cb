"""Memory of the processes that train a run. No torch.

Shape legend: P = all parameters, K = processes of a run, L = layers, d = width, F = feed-forward width,
V = vocabulary.
"""

from __future__ import annotations

from mixplan.calibrate.runs import RunSpec
from mixplan.documents.calibration_spec import CalibrationSpec

_BYTES_PER_PARAM = 16
"""fp32 weight, gradient and AdamW's two moments."""


def sharded(spec: CalibrationSpec, total_params: int) -> bool:
    """Whether each process of a run holds a part of the model (FSDP2)."""
    return spec.engine.processes_per_run > 1 and total_params >= spec.engine.fsdp_from_params


def memory_bytes(run: RunSpec, spec: CalibrationSpec) -> tuple[float, float]:
    """Bytes that one process needs while it trains, and that the first one needs while it measures.

    Training: 16·P (with FSDP2 16·P ÷ K), and the activations of its part of the batch. Measuring: the same,
    with FSDP2 16·P more for a whole copy of model and optimizer, and the activations of the sequences that
    the interference probe reads, which are not split.
    """
    processes = spec.engine.processes_per_run
    total = run.shape.total_params(run.vocab_size)
    split = sharded(spec, total)
    held = _BYTES_PER_PARAM * total / (processes if split else 1)
    training = held + run.tokens_per_step / processes * _activation_bytes_per_token(run)
    probe = spec.probes.interference
    rows = min(probe.batch_sequences, run.batch_sequences) if probe is not None else 0
    measuring = held + rows * run.sequence_length * _activation_bytes_per_token(run)
    return training, measuring + (_BYTES_PER_PARAM * total if split else 0)


def _activation_bytes_per_token(run: RunSpec) -> float:
    """What the backward pass keeps of an Olmo2 model: 4·L·(16d + 4F) + 8V bytes a token, in fp32.

    Counted by autograd's saved tensors on the cpu_ presets: 6,399 to 26,564 bytes a token against 6,632 to
    27,112 by this formula (2 to 4 % less). Attention scores are not kept (fused kernels).
    """
    shape = run.shape
    return 4.0 * shape.layers * (16 * shape.d_model + 4 * shape.d_ffn) + 8.0 * run.vocab_size
