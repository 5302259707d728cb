"""calibration.yaml, what is measured on the way."""

from __future__ import annotations

from pydantic import field_validator, model_validator

from mixplan.documents.base import Count, OpenFraction, Part, RulesBroken, Whole, distinct
from mixplan.documents.spec_tasks import SyntheticFamily, complexity_problem


class Retention(Part):
    """A burst of a never-seen task, then ordinary training: what is left of the gain after each delay."""

    at_fractions: list[OpenFraction] = [0.2, 0.4, 0.6]
    """When, as shares of the run; each injection has never-seen tasks of its own."""
    instances: Count = 1024
    """Instances in the burst, of each probe task, over all its steps."""
    burst_steps: Count = 32
    """Consecutive steps the burst is spread over. In a single step only the answer tokens are learned."""
    family: SyntheticFamily = "table_lookup"
    """Family of the probe tasks."""
    complexity: Count = 3
    """Complexity of the probe tasks."""
    replicas: Count = 4
    """Independent probe tasks in the same burst, each with symbols of its own."""
    delays_steps: list[Whole] = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    """Delays after the burst, in steps; reported in tokens. Those beyond the end of the run are left out."""

    @field_validator("at_fractions")
    @classmethod
    def _distinct_times(cls, value: list[float]) -> list[float]:
        return sorted(distinct(value))

    @field_validator("delays_steps")
    @classmethod
    def _distinct_delays(cls, value: list[int]) -> list[int]:
        return sorted(distinct(value))

    @model_validator(mode="after")
    def _fits_family(self) -> Retention:
        problem = complexity_problem(self.family, self.complexity)
        if problem:
            raise RulesBroken([(("complexity",), problem)])
        return self


class Interference(Part):
    """Gradients of common data against the gradient of each task."""

    points: Whole = 4
    """How many times in the run, evenly spaced."""
    batch_sequences: Count = 32
    """Sequences of the training batch whose gradient is split, at most."""
    top_neurons: Count = 32
    """Neurons of the first feed-forward layer with the largest gradient, for the cosine among them."""


class Features(Part):
    """Read-outs of what the hidden states hold: a linear order (comparison), Fourier modes (addition)."""

    points: Count = 4
    """How many times in the run, evenly spaced; the last is at the end."""
    components: Count = 50
    """Principal components that the order is read from."""
    contexts: Count = 16
    """Pieces of held-out text before each symbol."""


class Probes(Part):
    """What is measured on the way."""

    evaluations: Count = 10
    """How many times skill and LM loss are measured, evenly spaced; the last is at the end."""
    max_instances: Count = 256
    """Unseen instances scored per cell and evaluation, at most."""
    lm_loss_tokens: Count = 65536
    """Held-out tokens scored for the LM loss, at most."""
    retention: Retention | None = Retention()
    """The retention probe; null to leave it out."""
    interference: Interference | None = Interference()
    """The interference probe; null to leave it out."""
    features: Features | None = Features()
    """The feature probe; null to leave it out."""
