"""verify.json: what `mixplan verify --json` prints, as far as others read it; further keys are ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict

from mixplan.documents.base import Fraction, NonNegative, Part, Whole


class _Read(Part):
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


class Spread(_Read):
    """How evenly a source is spread over the run."""

    windows: Whole
    """Windows the run was cut into."""
    mean_share: Fraction
    """Mean over windows of the source's fraction of the window's samples."""
    cv: NonNegative
    """Standard deviation of that share over windows ÷ its mean."""
    cv_ratio: NonNegative
    """cv ÷ its expected value under a random order: about 1 is even, well above 1 is bursts."""
    empty_windows: Whole
    """Windows without any sample of it."""
    longest_gap_samples: Whole
    """Most samples from one encounter to the next."""
    longest_gap_iid_samples: NonNegative
    """Its expected value under a random order."""


class VerifiedSource(_Read):
    """One source: what the recipe says and what was read."""

    name: str
    role: Literal["common", "rare"]
    samples_expected: Whole
    """The recipe's `choose`."""
    samples: Whole
    """Samples read, or planned."""
    epochs: NonNegative
    """Those ÷ samples in its shards."""
    spread: Spread | None = None
    """Empty when nothing was read, and over several phases."""


class Verified(_Read):
    """verify.json."""

    passed: bool
    name: str
    checked: Literal["weights", "files", "plan", "reading"] = "reading"
    """What the answer rests on: sums of a table of weights, another trainer's weights and files, the computed
    order, or every sample read."""
    samples_expected: Whole
    samples: Whole
    sources: list[VerifiedSource] = []
    problems: list[str] = []
    """Why the answer is no."""
    warnings: list[str] = []


def is_verification(path: Path) -> bool:
    """Whether a file is an earlier verify.json."""
    try:
        Verified.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True
