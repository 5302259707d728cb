"""The user's sources: loss on their held-out text, in every run, so that anchors and shares can be joined."""

from __future__ import annotations

from typing import Any

from mixplan.calibrate.prepared import Prepared
from mixplan.calibrate.probes.learning import lm_loss
from mixplan.calibrate.runs import RunSpec
from mixplan.calibrate.source_mix import SourceMix
from mixplan.calibrate.sources import bits_per_byte


def source_losses(
    model: Any, prepared: Prepared, run: RunSpec, precision: str, max_tokens: int
) -> dict[str, float]:
    """Mean NLL of each source's held-out text, nats per token, over at most `max_tokens` tokens of each.

    Runs of the dependence check measure none: they say nothing about sources.
    """
    if run.only_cell is not None:
        return {}
    return {
        source.name: lm_loss(
            model, prepared.source(source.name, "held_out"), run.sequence_length, max_tokens, precision
        )
        for source in prepared.spec.user_sources
    }


def source_rows(
    prepared: Prepared, mix: SourceMix, step: int, losses: dict[str, float]
) -> list[dict[str, Any]]:
    """Rows of the sources table after `step` steps, less the run's own columns.

    `share` is source tokens per training token of the whole run as realised, injected instances not taken
    off; source_tokens and source_epochs are what was seen up to the step.
    """
    return [
        {
            "source": name,
            "share": mix.share(name),
            "source_tokens": mix.seen_tokens(name, step),
            "source_epochs": mix.epochs(name, step),
            "nats_per_token": loss,
            "bits_per_byte": bits_per_byte(loss, prepared.facts["sources"][name]),
        }
        for name, loss in losses.items()
    ]
