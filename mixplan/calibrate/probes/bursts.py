"""When the bursts of the retention probe come. No torch: the cost estimate and all checks need it too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from mixplan.calibrate.runs import RunSpec
from mixplan.documents.calibration_spec import Retention


def burst_problems(probe: Retention, steps: int, decay_steps: int, run_id: str) -> list[str]:
    """What is wrong with the bursts of a run: they must not overlap, and end before the rate decays.

    Args:
        probe: the probe.
        steps: of the run (its trunk).
        decay_steps: of those, at the end, with a decaying learning rate.
        run_id: for the message.
    """
    found = []
    first = first_steps(probe, steps)
    shares = dict(zip(first, probe.at_fractions, strict=True))
    overlapping = [a for a, b in pairwise(first) if b - a < probe.burst_steps]
    if overlapping:
        found.append(
            f"{run_id}: probes.retention.at_fractions: the burst at {shares[overlapping[0]]:g} of {steps} "
            f"steps lasts {probe.burst_steps} steps (burst_steps) and runs into the next; move them apart, "
            "or spread each over fewer steps"
        )
    late = [at for at in first if at + probe.burst_steps > steps - decay_steps]
    if late:
        found.append(
            f"{run_id}: probes.retention.at_fractions: the burst at {shares[late[0]]:g} of {steps} steps "
            f"lasts {probe.burst_steps} steps and must end before the learning rate decays, after step "
            f"{steps - decay_steps}; inject earlier, or spread the burst over fewer steps"
        )
    return found


def burst_notes(probe: Retention, run: RunSpec) -> list[str]:
    """Branches that read a burst while their learning rate decays.

    Their retention is measured on the trunk; but what they say of skill and LM loss at their horizon is not
    what a run of that length without a burst there would say.
    """
    return [
        f"in runs of {run.steps} steps the retention burst after step {first} falls into the decay of the "
        f"branch that ends after step {branch.end_step}, whose skill and LM loss it enters; move "
        "probes.retention.at_fractions"
        for branch in run.branches
        for first in first_steps(probe, run.steps)
        if first < branch.end_step and first + probe.burst_steps > branch.fork_step
    ]


def first_steps(probe: Retention, steps: int) -> Sequence[int]:
    """First step of each burst of a run of so many steps."""
    return [round(fraction * steps) for fraction in probe.at_fractions]
