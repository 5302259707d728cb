"""Is what a trainer will get what the recipe says?"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mixplan.documents.loading import load
from mixplan.documents.mds_index import INDEX, count_tokens
from mixplan.documents.mixture import Mixture
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.comparing import SourceReading, compare, disagreements
from mixplan.recipes.reading import Reading, read_mixture
from mixplan.recipes.shards import check_shards
from mixplan.recipes.streams import RECIPE, STREAMS
from mixplan.recipes.weights import WEIGHTS


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
    problems = disagreements(mixture, recipe)
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
        if check.without_hash:
            warnings.append(
                f"source {name!r}: its index has no hash for {check.without_hash:,} of {check.shards:,} "
                "shards; of these only the size was checked"
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
    sources, found, uneven = compare(mixture, recipe, reading)
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
