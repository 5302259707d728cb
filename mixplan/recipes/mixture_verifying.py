"""One emitted mixture: its shards, its order, and what the real consumer reads.

Shape legend: n = samples in order, S = streams.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.mds_index import INDEX
from mixplan.documents.mixture import Mixture
from mixplan.documents.recipe import Recipe
from mixplan.recipes.checking import Checked, changed_since, check_caches, check_mixture
from mixplan.recipes.comparing import compare, disagreements, token_problems
from mixplan.recipes.reading import Reading, batch_size_for, read_mixture
from mixplan.recipes.replay import Planned, planned_order, shard_samples
from mixplan.recipes.verified import Resumption, Verification
from mixplan.recipes.watching import Stalled, watch_call

# Read on from the middle, unless more is asked for: what Streaming draws anew at a resumption, it draws at
# once.
RESUMED_SAMPLES = 100_000


@dataclass(frozen=True)
class How:
    """How to verify."""

    workers: int = 0
    """DataLoader workers of each rank."""
    ranks: int = 1
    """Processes that share the samples as a trainer's ranks do."""
    stall_seconds: float = 300.0
    """Give up when nothing has arrived for so long."""
    plan_only: bool = False
    """Compute the order instead of reading it, and check shards by presence and size only."""
    resume_to_end: bool = False
    """Read on to the end after the stop in the middle, not only RESUMED_SAMPLES."""
    allow_uneven: bool = False
    """A rare source in bursts is a warning, not a problem."""


def verify_mixture(
    mixture: Mixture, recipe: Recipe, how: How, progress: Callable[[str], None]
) -> Verification:
    """Check shards, read or compute the order, compare with the recipe, stop and resume."""
    base = Verification(
        mixture.name,
        mixture.fingerprint,
        mixture.samples,
        0,
        0,
        0,
        checked="plan" if how.plan_only else "reading",
        ranks=how.ranks,
        workers=how.workers,
    )
    checked = check_mixture(mixture, not how.plan_only, how.stall_seconds, progress)
    problems = disagreements(mixture, recipe) + checked.problems
    if problems:  # reading damaged shards would only tell less precisely what is known already
        return _with(base, checked, problems=problems)
    with tempfile.TemporaryDirectory(prefix="mixplan-cache-") as folder:
        copied = [name for name, s in mixture.streams.items() if s.remote is not None]
        if how.plan_only:
            places = {name: Path(folder) / name for name in copied}
            return _plan(base, mixture, recipe, how, checked, places, progress)
        caches = {name: Path(folder) / name for name in [*copied, *checked.compressed]}
        return _read(base, mixture, recipe, how, checked, caches, progress)


def _with(base: Verification, checked: Checked, **more: Any) -> Verification:
    """The answer with what is known of the shards; `warnings` come after theirs."""
    warnings = checked.warnings + more.pop("warnings", [])
    return replace(
        base, shards_checked=checked.shards, shards_hashed=checked.hashed, warnings=warnings, **more
    )


def _plan(
    base: Verification,
    mixture: Mixture,
    recipe: Recipe,
    how: How,
    checked: Checked,
    places: dict[str, Path],
    progress: Callable[[str], None],
) -> Verification:
    problems = _fetch_indices(mixture, places, how.stall_seconds)
    if problems:
        return _with(base, checked, problems=problems)
    progress(f"computing the order of {mixture.samples:,} samples")
    planned = _planned(mixture, places, how)
    sources, problems, uneven = compare(mixture, recipe, planned, planned.padding)
    return _with(
        base,
        checked,
        samples=len(planned.sample_ids),
        sources=sources,
        padding_samples=planned.padding,
        problems=problems + ([] if how.allow_uneven else uneven),
        warnings=_padding_warning(planned, mixture, how) + (uneven if how.allow_uneven else []),
    )


def _fetch_indices(mixture: Mixture, places: dict[str, Path], stall_seconds: float) -> list[str]:
    """Download the indices of remote sources, and nothing else."""
    problems = []
    for name, place in places.items():
        remote = f"{_place(mixture, name)}/{INDEX}"

        def work(beat: Callable[[Any], None], remote: str = remote, place: Path = place) -> None:
            from mixplan.compat import ensure_torchvision_imports

            ensure_torchvision_imports()
            from streaming.base.storage.download import CloudDownloader

            beat(remote)
            CloudDownloader.direct_download(remote, str(place / INDEX), stall_seconds)

        try:
            watch_call(work, stall_seconds)
        except Stalled:
            problems.append(
                f"source {name!r}: nothing was read from {remote} for {stall_seconds:g} s (--stall-seconds)"
            )
        except Exception as error:  # each store's client has its own
            said = " ".join(str(error).split()) or type(error).__name__
            problems.append(f"source {name!r}: {remote} cannot be read: {said}")
    return problems


def _planned(mixture: Mixture, places: dict[str, Path], how: How) -> Planned:
    shards = [shard_samples(places.get(name, Path(stream.local))) for name, stream in mixture.streams.items()]
    size = batch_size_for(mixture.samples, how.ranks)
    return planned_order(mixture, shards, ranks=how.ranks, workers=how.workers, batch_size=size)


def _padding_warning(planned: Planned, mixture: Mixture, how: How) -> list[str]:
    if not planned.padding:
        return []
    return [
        f"{mixture.samples:,} samples cannot be shared evenly by {how.ranks} ranks, and Streaming repeats "
        f"{planned.padding:,} of them at the end; let the global batch size divide the samples"
    ]


def _read(
    base: Verification,
    mixture: Mixture,
    recipe: Recipe,
    how: How,
    checked: Checked,
    caches: dict[str, Path],
    progress: Callable[[str], None],
) -> Verification:
    reading = _read_all(mixture, caches, how, progress)
    check_caches(mixture, caches, checked)
    problems = checked.problems + changed_since(mixture, checked)
    if len(reading.offsets) != len(mixture.streams):
        problems.append(f"the mixture cannot be opened: {_why(reading, mixture, how)}")
        return _with(base, checked, problems=problems)
    planned = _planned(mixture, caches, how)
    sources, wrong, uneven = compare(mixture, recipe, reading, planned.padding, reading.records["tokens"])
    problems += wrong + token_problems(reading.records, reading, mixture, recipe)
    resumption = None
    as_planned = None
    if len(reading.records) < mixture.samples or reading.ended != "done":
        problems.append(
            f"reading ended after {len(reading.records):,} of {mixture.samples:,} samples: "
            f"{_why(reading, mixture, how)}"
        )
    else:
        as_planned = bool(np.array_equal(reading.sample_ids, planned.sample_ids))
        if not as_planned:
            problems.append(_other_order(reading, planned, mixture))
        if reading.state is not None:
            progress("stopping in the middle and reading on in new processes")
            resumption, failed = _resume(mixture, reading, caches, how)
            problems += failed
    return _with(
        base,
        checked,
        samples=len(reading.records),
        sources=sources,
        padding_samples=planned.padding,
        order_as_planned=as_planned,
        resumption=resumption,
        problems=problems + ([] if how.allow_uneven else uneven),
        warnings=_padding_warning(planned, mixture, how) + (uneven if how.allow_uneven else []),
    )


def _read_all(
    mixture: Mixture, caches: dict[str, Path], how: How, progress: Callable[[str], None]
) -> Reading:
    progress(f"reading {mixture.samples:,} samples ({mixture.tokens:,} tokens)")
    tenths = 0

    def tell(samples: int) -> None:
        nonlocal tenths
        if 10 * samples // mixture.samples > tenths:
            tenths = 10 * samples // mixture.samples
            progress(f"read {samples:,} of {mixture.samples:,} samples")

    return read_mixture(mixture, caches, how.workers, how.ranks, how.stall_seconds, tell)


def _why(reading: Reading, mixture: Mixture, how: How) -> str:
    if reading.ended == "stalled":
        why = f"no sample arrived for {how.stall_seconds:g} s (--stall-seconds), so the reader was ended"
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


def _other_order(reading: Reading, planned: Planned, mixture: Mixture) -> str:
    n = min(len(reading.sample_ids), len(planned.sample_ids))
    differ = np.flatnonzero(reading.sample_ids[:n] != planned.sample_ids[:n])
    at = int(differ[0]) if len(differ) else n
    names = list(mixture.streams)
    shown = [
        f"{names[order.stream[at]]!r}" if at < len(order.sample_ids) else "its end"
        for order in (reading, planned)
    ]
    return (
        "the order that was read is not the one that Streaming's functions plan from streams.yaml: "
        f"{len(differ):,} of {n:,} samples differ, first number {at:,} (from {shown[0]} instead of "
        f"{shown[1]}); versions of mosaicml-streaming may differ in what they draw"
    )


def _resume(
    mixture: Mixture, reading: Reading, caches: dict[str, Path], how: How
) -> tuple[Resumption, list[str]]:
    rest = reading.sample_ids[reading.state_at :]
    again = read_mixture(
        mixture,
        caches,
        how.workers,
        how.ranks,
        how.stall_seconds,
        state=reading.state,
        at_most=None if how.resume_to_end else RESUMED_SAMPLES,
    )
    wanted = len(rest) if how.resume_to_end else min(RESUMED_SAMPLES, len(rest))
    came = len(again.sample_ids)
    same = wanted <= came <= len(rest) and bool(np.array_equal(again.sample_ids, rest[:came]))
    resumed = Resumption(reading.state_at, came, len(rest), same, bool(again.refused))
    problems = []
    if again.ended != "done" or came < wanted:
        problems.append(
            f"resumed after {reading.state_at:,} samples, reading ended after {came:,} of {wanted:,} more: "
            f"{_why(again, mixture, how)}"
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
