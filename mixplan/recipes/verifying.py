"""Is what a trainer will get what the recipe says?"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.loading import load
from mixplan.documents.mds_index import INDEX, count_tokens
from mixplan.documents.mixture import Mixture
from mixplan.documents.recipe import Recipe
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.recipes.emitting import RECIPE, STREAMS, WEIGHTS
from mixplan.recipes.evenness import Evenness, evenness
from mixplan.recipes.reading import Reading, read_mixture
from mixplan.recipes.shards import check_shards

# Counts may differ from the recipe by this much: Streaming's own rounding of proportions.
_SAMPLES_TOLERANCE = 1
# Beyond this multiple of the cv of a random order, a source is called uneven.
UNEVEN_FROM = 1.5


@dataclass(frozen=True)
class SourceReading:
    """One source: what the recipe says and what was read."""

    name: str
    role: str
    samples_expected: int
    """The recipe's `choose`."""
    samples: int
    tokens_expected: int
    tokens: int
    share: float
    """Fraction of all samples read."""
    samples_available: int
    """Samples in its shards."""
    distinct_samples: int
    """Different samples read."""
    epochs: float
    """samples ÷ samples_available."""
    most_repeats: int
    """How often the most repeated sample was read."""
    spread: Evenness | None
    """Empty when nothing was read."""


@dataclass(frozen=True)
class Verification:
    """The whole answer."""

    name: str
    fingerprint: str
    samples_expected: int
    samples: int
    shards_checked: int
    shards_hashed: int
    sources: list[SourceReading] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Why the answer is no; empty when it is yes."""
    warnings: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}


def verify(
    folder: Path,
    workers: int = 0,
    stall_seconds: float = 300.0,
    progress: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Check the shards of an emitted mixture, read it end to end, and compare it with its recipe.

    Args:
        folder: what `emit` wrote.
        workers: DataLoader workers of the reader.
        stall_seconds: give up when no sample has arrived for so long.
        progress: called with a line now and then.

    Returns:
        The counts, with every reason why they are not what the recipe says in `problems`.

    Raises:
        InputError: the folder is no emitted mixture, or its documents are broken.
    """
    mixture, recipe = _documents(Path(folder))
    problems = _agree(mixture, recipe)
    shards = hashed = 0
    compressed: list[str] = []
    warnings: list[str] = []
    for name, stream in mixture.streams.items():
        if stream.remote is not None:
            continue
        progress(f"{name}: checking shards in {stream.local}")
        try:
            found, check = _check_local(mixture, name)
        except InputError as error:
            problems += [f"source {name!r}: {problem}" for problem in error.problems]
            continue
        problems += found
        shards, hashed = shards + check.shards, hashed + check.hashed
        if check.compressed:
            compressed.append(name)
        if check.hashed < check.shards:
            warnings.append(
                f"source {name!r}: its index has no hashes for some shards; only their sizes were checked"
            )
    if problems:  # reading damaged shards would only tell less precisely what is known already
        return Verification(
            mixture.name, mixture.fingerprint, mixture.samples, 0, shards, hashed, [], problems, warnings
        )
    with tempfile.TemporaryDirectory(prefix="mixplan-cache-") as cache:
        copied = [name for name, s in mixture.streams.items() if s.remote is not None or name in compressed]
        caches = {name: Path(cache) / name for name in copied}
        reading = _read(mixture, caches, workers, stall_seconds, progress)
        for name, place in caches.items():
            if (place / INDEX).is_file():
                check = check_shards(place, present_only=True)
                problems += [f"source {name!r}: {problem}" for problem in check.problems]
                shards, hashed = shards + check.shards, hashed + check.hashed
    if len(reading.offsets) != len(mixture.streams):
        problems.append(f"the mixture cannot be opened: {_why(reading, stall_seconds)}")
        return Verification(
            mixture.name, mixture.fingerprint, mixture.samples, 0, shards, hashed, [], problems, warnings
        )
    sources, found, uneven = _compare(mixture, recipe, reading)
    if len(reading.records) < mixture.samples or reading.ended != "done":
        found.append(
            f"reading ended after {len(reading.records):,} of {mixture.samples:,} samples: "
            f"{_why(reading, stall_seconds)}"
        )
    return Verification(
        mixture.name,
        mixture.fingerprint,
        mixture.samples,
        len(reading.records),
        shards,
        hashed,
        sources,
        problems + found,
        warnings + uneven,
    )


def _documents(folder: Path) -> tuple[Mixture, Recipe]:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; give the folder that `mixplan emit --format streaming -o` wrote"
        )
    missing = [name for name in (STREAMS, RECIPE) if not (folder / name).is_file()]
    if missing:
        hint = "it holds weights only: emit with --format streaming" if (folder / WEIGHTS).is_file() else ""
        raise InputError(
            f"{folder} holds no {' and no '.join(missing)}; {hint or '`mixplan emit` writes them'}"
        )
    problems: list[str] = []
    read: list[Any] = []
    for name, kind in ((STREAMS, Mixture), (RECIPE, Recipe)):
        try:
            read.append(load(folder / name, kind))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return read[0], read[1]


def _agree(mixture: Mixture, recipe: Recipe) -> list[str]:
    """Where streams.yaml itself is not what the recipe says."""
    problems: list[str] = []
    if mixture.digest() != mixture.fingerprint:
        problems.append(
            f"{STREAMS} was changed after it was emitted: its fingerprint is {mixture.digest()[:12]}…, not "
            f"{mixture.fingerprint[:12]}…; emit again, or set `fingerprint: {mixture.digest()}` if the "
            "change is meant"
        )
    if mixture.sequence_length != recipe.sequence_length:
        problems.append(
            f"{STREAMS} has samples of {mixture.sequence_length} tokens, the recipe of "
            f"{recipe.sequence_length}"
        )
    planned = {source.name: source.choose for source in recipe.sources}
    problems += [
        f"source {name!r} is in {STREAMS} but not in the recipe{did_you_mean(name, planned)}"
        for name in mixture.streams
        if name not in planned
    ]
    for name, choose in planned.items():
        there = mixture.streams[name].choose if name in mixture.streams else 0
        if abs(there - choose) > _SAMPLES_TOLERANCE:
            problems.append(f"source {name!r}: {STREAMS} takes {there:,} samples, the recipe says {choose:,}")
    return problems


def _check_local(mixture: Mixture, name: str) -> tuple[list[str], Any]:
    """Damage to a local source's shards, and whether they are still those that were emitted."""
    place = Path(mixture.streams[name].local)
    check = check_shards(place)
    problems = list(check.problems)
    counted = count_tokens(place)
    if counted.sequence_length != mixture.sequence_length:
        problems.append(
            f"{place} holds samples of {counted.sequence_length} tokens, not {mixture.sequence_length}"
        )
    wanted = mixture.index_sha256.get(name)
    if wanted is not None and hashlib.sha256((place / INDEX).read_bytes()).hexdigest() != wanted:
        problems.append(f"{place / INDEX} is not the one that the mixture was emitted for; emit again")
    return [f"source {name!r}: {problem}" for problem in problems], check


def _read(
    mixture: Mixture,
    caches: dict[str, Path],
    workers: int,
    stall_seconds: float,
    progress: Callable[[str], None],
) -> Reading:
    progress(f"reading {mixture.samples:,} samples ({mixture.tokens:,} tokens)")
    tenths = 0

    def tell(samples: int) -> None:
        nonlocal tenths
        if 10 * samples // mixture.samples > tenths:
            tenths = 10 * samples // mixture.samples
            progress(f"read {samples:,} of {mixture.samples:,} samples")

    return read_mixture(mixture, caches, workers, stall_seconds, tell)


def _why(reading: Reading, stall_seconds: float) -> str:
    if reading.ended == "stalled":
        return f"no sample arrived for {stall_seconds:g} s (--stall-seconds), so the reader was ended"
    return f"Streaming said: {reading.message}" if reading.message else "Streaming did not say why"


def _compare(
    mixture: Mixture, recipe: Recipe, reading: Reading
) -> tuple[list[SourceReading], list[str], list[str]]:  # fmt: skip
    """Per source counts, problems, and warnings of unevenness."""
    problems: list[str] = []
    uneven: list[str] = []
    sources: list[SourceReading] = []
    stream = reading.stream
    number = {name: index for index, name in enumerate(mixture.streams)}
    for source in recipe.sources:
        if source.name not in number:
            continue
        index = number[source.name]
        mine = reading.records[stream == index]
        available = int(reading.available[index])
        times = np.bincount(mine["sample_id"] - reading.offsets[index], minlength=available)
        spread = evenness(stream, index) if len(mine) else None
        read = SourceReading(
            name=source.name,
            role=source.role,
            samples_expected=source.choose,
            samples=len(mine),
            tokens_expected=source.tokens,
            tokens=int(mine["tokens"].sum()),
            share=len(mine) / max(len(stream), 1),
            samples_available=available,
            distinct_samples=int((times > 0).sum()),
            epochs=len(mine) / available,
            most_repeats=int(times.max(initial=0)),
            spread=spread,
        )
        sources.append(read)
        problems += _source_problems(read, mine, mixture, recipe)
        if source.role == "rare" and spread is not None and spread.cv_ratio > UNEVEN_FROM:
            uneven.append(
                f"source {source.name!r} comes in bursts: over 1 % windows its share varies "
                f"{spread.cv_ratio:.1f} times "
                "as much as under a random order; what it teaches may be forgotten in between. Emit without "
                "--block-samples, or build it in more shards"
            )
    return sources, problems, uneven


def _source_problems(read: SourceReading, records: np.ndarray, mixture: Mixture, recipe: Recipe) -> list[str]:
    name = f"source {read.name!r}"
    problems: list[str] = []
    off = read.samples - read.samples_expected
    if abs(off) > _SAMPLES_TOLERANCE:
        word = "falls short: " if off < 0 else "comes too often: "
        problems.append(
            f"{name} {word}{read.samples:,} samples were read, the recipe says {read.samples_expected:,}"
        )
    if len(records) == 0:
        return problems
    wrong = int((records["tokens"] != mixture.sequence_length).sum())
    if wrong:
        problems.append(f"{name}: {wrong:,} samples do not have {mixture.sequence_length:,} tokens")
    if records["lowest"].min() < 0 or records["highest"].max() >= recipe.vocab_size:
        problems.append(
            f"{name} has token ids from {records['lowest'].min()} to {records['highest'].max()}, outside "
            "the recipe's "
            f"vocabulary of {recipe.vocab_size:,}"
        )
    at_most = math.ceil(read.samples_expected / read.samples_available)
    if read.most_repeats > at_most:
        problems.append(
            f"{name}: a sample is read {read.most_repeats} times, where {read.epochs:.3g} epochs need "
            f"{at_most} at "
            f"most; {read.samples_available - read.distinct_samples:,} of {read.samples_available:,} are "
            "never read"
        )
    return problems
