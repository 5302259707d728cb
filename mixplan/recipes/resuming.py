"""Stopped in the middle and taken up again: are the samples those of the uninterrupted order?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixplan.documents.mixture import Mixture
from mixplan.recipes.reading import Reading, read_mixture
from mixplan.recipes.verified import Resumption

# Read on from the middle, unless more is asked for: what Streaming draws anew to resume, it draws at once.
RESUMED_SAMPLES = 100_000


def resume(
    mixture: Mixture,
    reading: Reading,
    caches: dict[str, Path],
    workers: int,
    ranks: int,
    stall_seconds: float,
    to_end: bool,
) -> tuple[Resumption, list[str]]:
    """Take the loader up again from its state in the middle, in new processes.

    Args:
        mixture: what was read.
        reading: the uninterrupted order, with the state in its middle.
        caches: as it was read with.
        workers: the same.
        ranks: the same.
        stall_seconds: the same.
        to_end: read on to the end instead of about RESUMED_SAMPLES.

    Returns:
        What came; and problems: samples that are not those of the uninterrupted order, an early end, a state
        of another mixture that was taken.
    """
    rest = reading.sample_ids[reading.state_at :]
    again = read_mixture(
        mixture,
        caches,
        workers,
        ranks,
        stall_seconds,
        state=reading.state,
        at_most=None if to_end else RESUMED_SAMPLES,
    )
    wanted = len(rest) if to_end else min(RESUMED_SAMPLES, len(rest))
    came = len(again.sample_ids)
    same = wanted <= came <= len(rest) and bool(np.array_equal(again.sample_ids, rest[:came]))
    resumed = Resumption(reading.state_at, came, len(rest), same, bool(again.refused))
    problems = []
    if again.ended != "done" or came < wanted:
        problems.append(
            f"resumed after {reading.state_at:,} samples, reading ended after {came:,} of {wanted:,} more: "
            f"{why_ended(again, mixture, stall_seconds)}"
        )
    elif not same:
        n = min(came, len(rest))
        differ = int((again.sample_ids[:n] != rest[:n]).sum()) + came - n
        problems.append(
            f"resumed after {reading.state_at:,} samples, {differ:,} of {came:,} samples are not those of "
            "the uninterrupted order: samples would be lost or repeated"
        )
    if again.refused is False:
        problems.append("the loader takes a state of another mixture, instead of refusing it")
    return resumed, problems


def why_ended(reading: Reading, mixture: Mixture, stall_seconds: float) -> str:
    """Why reading ended before its time, as far as anyone said, and what was being waited for."""
    if reading.ended == "stalled":
        why = f"no sample arrived for {stall_seconds:g} s (--stall-seconds), so the reader was ended"
    elif reading.message:
        why = f"Streaming said: {reading.message}"
    else:
        why = "Streaming did not say why"
    names = list(mixture.streams)
    awaited = [
        f"source {names[stream]!r}: {_place(mixture, names[stream])}/{file}"
        for stream, file in reading.awaited
    ]
    return f"{why}; what it waited for: {', '.join(awaited)}" if awaited else why


def _place(mixture: Mixture, name: str) -> str:
    stream = mixture.streams[name]
    return (stream.remote or stream.local).rstrip("/")
