"""Whether a law is asked about something outside the measurements that it was fitted to."""

from __future__ import annotations

from mixplan.documents.calibration import FittedLaw
from mixplan.units import number

TOLERANCE = 0.01
"""A value within this relative distance of a fitted range counts as inside."""
WORDS = {
    "block_params": "block parameters",
    "delay_tokens": "delay in tokens",
    "injected_at_tokens": "tokens before the burst",
}


def outside(law: FittedLaw, **at: float) -> str | None:
    """Why a forecast of the law is an extrapolation, in words; None inside the fitted ranges.

    Args:
        law: as fitted.
        at: values by the name of their range, for instance block_params=1e6, delay_tokens=3e5. A name
            without a range in the law says nothing.
    """
    reasons = []
    for name, value in at.items():
        span = law.ranges.get(name)
        if span is not None and value > span.high * (1.0 + TOLERANCE):
            reasons.append(
                f"{WORDS.get(name, name)} {number(value)} above the largest fitted {number(span.high)}"
            )
        elif span is not None and value < span.low * (1.0 - TOLERANCE):
            reasons.append(
                f"{WORDS.get(name, name)} {number(value)} below the smallest fitted {number(span.low)}"
            )
    return "; ".join(reasons) or None
