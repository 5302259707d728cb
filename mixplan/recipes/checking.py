"""The shards of a mixture before and after they are read: present, whole, and the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixplan.documents.mds_index import INDEX, count_tokens, read_index
from mixplan.documents.mixture import Mixture
from mixplan.errors import InputError
from mixplan.recipes.shards import check_shards
from mixplan.recipes.watching import Stalled, watch_call

_Stamp = tuple[int, int, int]


@dataclass
class Checked:
    """What is known of a mixture's shards."""

    shards: int = 0
    hashed: int = 0
    compressed: list[str] = field(default_factory=list)
    """Sources that Streaming would unpack in place."""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stamps: dict[str, dict[str, _Stamp]] = field(default_factory=dict)
    """Per local source and file: inode, bytes and nanosecond of its last change."""


def check_mixture(
    mixture: Mixture, hashes: bool, stall_seconds: float, progress: Callable[[str], None]
) -> Checked:
    """Check the shards of all local sources; of remote ones nothing is known yet.

    Args:
        mixture: what to check.
        hashes: read the shards and compare hashes, not only presence and size.
        stall_seconds: storage that gives nothing for so long is a problem, named with the file.
        progress: called with a line a source.
    """
    checked = Checked()
    for name, stream in mixture.streams.items():
        if stream.remote is not None:
            continue
        progress(f"{name}: checking shards in {stream.local}")
        try:
            _check_local(mixture, name, hashes, stall_seconds, checked)
        except InputError as error:
            checked.problems += [f"source {name!r}: {problem}" for problem in error.problems]
        except Stalled as stalled:
            checked.problems.append(
                f"source {name!r}: nothing was read from {stalled} for {stall_seconds:g} s "
                "(--stall-seconds); look at its storage"
            )
    return checked


def _check_local(mixture: Mixture, name: str, hashes: bool, stall_seconds: float, checked: Checked) -> None:
    place = Path(mixture.streams[name].local)

    def work(beat: Callable[[Any], None]) -> Any:
        beat(place / INDEX)
        # before the content is looked at, so that no change falls in between
        stamps = _stamps(place, _files(place), beat)
        found = check_shards(place, hashes, beat=beat)
        digest = hashlib.sha256((place / INDEX).read_bytes()).hexdigest()
        return found, stamps, count_tokens(place), digest

    found, stamps, counted, digest = watch_call(work, stall_seconds)
    problems = list(found.problems)
    if counted.sequence_length != mixture.sequence_length:
        problems.append(
            f"{place} holds samples of {counted.sequence_length} tokens, not {mixture.sequence_length}"
        )
    if mixture.index_sha256.get(name) not in (None, digest):
        problems.append(f"{place / INDEX} is not the one that the mixture was emitted for; emit again")
    checked.problems += [f"source {name!r}: {problem}" for problem in problems]
    checked.stamps[name] = stamps
    checked.shards += found.shards
    checked.hashed += found.hashed
    if found.compressed:
        checked.compressed.append(name)
    if hashes and found.without_hash:
        checked.warnings.append(
            f"source {name!r}: its index has no hash for {found.without_hash:,} of {found.shards:,} "
            "shards; of these only the size was checked"
        )


def _files(place: Path) -> list[str]:
    """The index, and all that it names."""
    files = [INDEX]
    for shard in read_index(place):
        for part in (shard.get("raw_data"), shard.get("zip_data")):
            if isinstance(part, dict) and isinstance(part.get("basename"), str):
                files.append(part["basename"])
    return files


def _stamps(
    place: Path, files: Iterable[str], beat: Callable[[Path], None] = lambda _: None
) -> dict[str, _Stamp]:
    """Of the files that are there."""
    stamps = {}
    for file in files:
        beat(place / file)
        try:
            status = (place / file).stat()
        except OSError:
            continue
        stamps[file] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return stamps


def changed_since(mixture: Mixture, checked: Checked) -> list[str]:
    """Files of local sources that were replaced, changed or removed since they were checked."""
    problems = []
    for name, before in checked.stamps.items():
        place = Path(mixture.streams[name].local)
        after = _stamps(place, before)
        for what, files in (
            ("went missing", [file for file in before if file not in after]),
            ("changed", [file for file in after if after[file] != before[file]]),
        ):
            if files:
                more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
                problems.append(f"source {name!r}: {place / files[0]}{more} {what} while it was being read")
    return problems


def check_caches(mixture: Mixture, caches: dict[str, Path], checked: Checked) -> None:
    """Check what Streaming copied: each shard by its hash. Problems name the place that it came from."""
    for name, cache in caches.items():
        if not (cache / INDEX).is_file():
            continue
        origin = mixture.streams[name].remote or mixture.streams[name].local
        try:
            found = check_shards(cache, present_only=True)
        except InputError as error:
            problems = error.problems
        else:
            problems = list(found.problems)
            digest = hashlib.sha256((cache / INDEX).read_bytes()).hexdigest()
            if mixture.index_sha256.get(name) not in (None, digest):
                problems.append(
                    f"{cache / INDEX} is not the one that the mixture was emitted for; emit again"
                )
            checked.shards += found.shards
            checked.hashed += found.hashed
        checked.problems += [
            f"source {name!r}: {problem.replace(str(cache), origin)}" for problem in problems
        ]
