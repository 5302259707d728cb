"""One emitted mixture: its shards, its order, and what the real consumer reads.

Shape legend: n = samples in order, S = streams.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.mixture import Mixture
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.checking import Checked, changed_since, check_caches, check_mixture
from mixplan.recipes.comparing import (
    SourceReading,
    compare,
    disagreements,
    token_problems,
    uneven_by_chance,
)
from mixplan.recipes.indexes import SourceIndex, remote_index
from mixplan.recipes.reading import Reading, batch_size_for, read_mixture
from mixplan.recipes.replay import Planned, planned_order, shard_samples
from mixplan.recipes.resuming import resume, why_ended
from mixplan.recipes.verified import Verification
from mixplan.recipes.watching import Stalled, watch_call


@dataclass(frozen=True)
class How:
    """How to verify; each kind of folder takes what concerns it, and refuses the rest."""

    workers: int = 0
    """DataLoader workers of each rank."""
    ranks: int = 1
    """Processes that share the samples as a trainer's ranks do."""
    stall_seconds: float = 300.0
    """Give up when nothing has arrived for so long."""
    plan_only: bool = False
    """Compute the order instead of reading it, and check shards by presence and size only."""
    resume_to_end: bool = False
    """Read on to the end after the stop in the middle, not only `resuming.RESUMED_SAMPLES`."""
    allow_uneven: bool = False
    """A rare source in bursts is a warning, not a problem."""

    def check(self) -> None:
        """Raises InputError where the options contradict each other."""
        if self.plan_only and self.resume_to_end:
            raise InputError(
                "--plan-only and --resume-check: with the first nothing is read, so there is nothing to stop "
                "and resume; leave one of them out"
            )

    def allow_only(self, known: Collection[str], folder: Path, what: str) -> None:
        """Refuse what was asked and does not apply.

        Args:
            known: options that do, as on the command line.
            folder: what is verified.
            what: it holds.

        Raises:
            InputError: with every option that does not.
        """
        asked = {
            "--ranks": self.ranks != 1,
            "--workers": self.workers != 0,
            "--plan-only": self.plan_only,
            "--resume-check": self.resume_to_end,
            "--allow-uneven": self.allow_uneven,
        }
        refused = [name for name, given in asked.items() if given and name not in known]
        if refused:
            applies = f"of these only {' and '.join(known)} applies" if known else "none of these applies"
            names = ", ".join(refused)
            raise InputError(f"{names}: {folder} holds {what}, where {applies}; leave {names} out")


def verify_mixture(
    mixture: Mixture, recipe: Recipe, how: How, progress: Callable[[str], None]
) -> Verification:
    """Check shards, read or compute the order, compare with the recipe, stop and resume.

    Raises:
        InputError: there are more ranks than samples.
    """
    if how.ranks > mixture.samples:
        raise InputError(
            f"--ranks {how.ranks}: the mixture has {mixture.samples:,} samples, and a rank without any only "
            f"repeats those of others; give {mixture.samples:,} at most"
        )
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
    if how.plan_only:
        return _plan(base, mixture, recipe, how, checked, progress)
    # a copy that cannot be removed must not hide the answer
    with tempfile.TemporaryDirectory(prefix="mixplan-cache-", ignore_cleanup_errors=True) as folder:
        copied = [name for name, s in mixture.streams.items() if s.remote is not None]
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
    progress: Callable[[str], None],
) -> Verification:
    shards, problems = _shards(mixture, how.stall_seconds)
    if problems:
        return _with(base, checked, problems=problems)
    progress(f"computing the order of {mixture.samples:,} samples")
    planned = _planned(mixture, shards, how)
    sources, problems, uneven = compare(mixture, recipe, planned, planned.padding)
    return _with(
        base,
        checked,
        samples=len(planned.sample_ids),
        sources=sources,
        padding_samples=planned.padding,
        problems=problems + ([] if how.allow_uneven else uneven),
        warnings=_warnings(planned, mixture, how, sources, uneven),
    )


def _shards(mixture: Mixture, stall_seconds: float) -> tuple[list[list[int]], list[str]]:
    """Samples of each shard of each stream; of remote ones the index is fetched, and nothing else."""
    shards: list[list[int]] = []
    problems: list[str] = []
    for name, stream in mixture.streams.items():
        url = stream.remote
        if url is None:
            shards.append(shard_samples(Path(stream.local)))
            continue

        def work(beat: Callable[[Any], None], url: str = url) -> SourceIndex:
            beat(url)
            return remote_index(url)

        try:
            index = watch_call(work, stall_seconds)
        except Stalled:
            problems.append(
                f"source {name!r}: nothing was read from {url} for {stall_seconds:g} s (--stall-seconds)"
            )
        except InputError as error:
            problems += [f"source {name!r}: {problem}" for problem in error.problems]
        else:
            shards.append(index.samples)
            if mixture.index_sha256.get(name) not in (None, index.sha256):
                problems.append(
                    f"source {name!r}: the index in {url} is not the one that the mixture was emitted for; "
                    "emit again"
                )
    return shards, problems


def _planned(mixture: Mixture, shards: list[list[int]], how: How) -> Planned:
    size = batch_size_for(mixture.samples, how.ranks)
    return planned_order(mixture, shards, ranks=how.ranks, workers=how.workers, batch_size=size)


def _warnings(
    planned: Planned, mixture: Mixture, how: How, sources: list[SourceReading], uneven: list[str]
) -> list[str]:
    warnings = uneven_by_chance(sources) + (uneven if how.allow_uneven else [])
    if planned.padding:
        warnings.append(
            f"{mixture.samples:,} samples do not divide among {how.ranks} ranks, and Streaming repeats "
            f"{planned.padding:,} of them at the end; let the global batch size divide the samples"
        )
    return warnings


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
        problems.append(f"the mixture cannot be opened: {why_ended(reading, mixture, how.stall_seconds)}")
        return _with(base, checked, problems=problems)
    planned = _planned(
        mixture,
        [shard_samples(caches.get(name, Path(stream.local))) for name, stream in mixture.streams.items()],
        how,
    )
    sources, wrong, uneven = compare(mixture, recipe, reading, planned.padding, reading.records["tokens"])
    problems += wrong + token_problems(reading.records, reading, mixture, recipe)
    resumption = None
    as_planned = None
    if len(reading.records) < mixture.samples or reading.ended != "done":
        problems.append(
            f"reading ended after {len(reading.records):,} of {mixture.samples:,} samples: "
            f"{why_ended(reading, mixture, how.stall_seconds)}"
        )
    else:
        as_planned = bool(np.array_equal(reading.sample_ids, planned.sample_ids))
        if not as_planned:
            problems.append(_other_order(reading, planned, mixture))
        if reading.state is not None:
            progress("stopping in the middle and reading on in new processes")
            resumption, failed = resume(
                mixture, reading, caches, how.workers, how.ranks, how.stall_seconds, how.resume_to_end
            )
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
        warnings=_warnings(planned, mixture, how, sources, uneven),
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
