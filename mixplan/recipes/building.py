"""Sources become MDS shards: samples of one length, documents joined by their end-of-document token.

Three steps a source, each of which a build that was cut short continues: batches of its input become tokens
in spill files (spilling), these become shards (packing), and the folder is renamed when it is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mixplan.documents.atomic import refuse_foreign, write_text
from mixplan.documents.loading import load, save
from mixplan.documents.mds_index import INDEX
from mixplan.documents.plan import Plan
from mixplan.documents.source_build import SOURCE, SourceBuild
from mixplan.errors import InputError
from mixplan.recipes.bookkeeping import book
from mixplan.recipes.folders import remove_unfinished, resumable
from mixplan.recipes.hashing import file_sha256, input_sha256
from mixplan.recipes.jobs import Job, Settings, least_tokens, plan_jobs, select, shard_format, too_short
from mixplan.recipes.locating import shortened
from mixplan.recipes.mds_shards import ShardFormat
from mixplan.recipes.packing import index_text, pack, packed_before, plan_packing
from mixplan.recipes.pieces import Count, is_text
from mixplan.recipes.processes import Processes, cores
from mixplan.recipes.shards import check_shards
from mixplan.recipes.spilling import (
    Batch,
    Spilled,
    batches,
    changed,
    narrowest,
    spill,
    spilled_before,
    stamps,
)
from mixplan.recipes.tokenizing import Encoder, open_encoder
from mixplan.recipes.uploading import upload
from mixplan.units import byte_size

Progress = Callable[[str], None]
Bar = Callable[[int, int], None]


@dataclass(frozen=True)
class BuiltSource:
    """One source's shards."""

    folder: Path
    build: SourceBuild
    skipped: bool
    """True when the folder already held this very build."""
    uploaded: str | None = None
    """Where it was uploaded to."""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Building:
    """What all steps need."""

    plan: Plan
    base: Path
    encoder: Encoder
    format: ShardFormat
    processes: Processes
    progress: Progress
    bar: Bar


def build(
    plan_path: Path,
    names: Iterable[str] = (),
    check_hashes: bool = False,
    progress: Progress = lambda _: None,
    settings: Settings = Settings(),  # noqa: B008 frozen
    workers: int | None = None,
    bar: Bar = lambda done, total: None,
) -> list[BuiltSource]:
    """Write the MDS shards of a plan's sources into their `mds` folders.

    A folder that already holds the same build is left alone. A build that is cut short leaves none; the same
    call continues it, and gives the same bytes, with any number of workers.

    Args:
        plan_path: the plan; relative paths in it start from its folder.
        names: sources to build. Default: all that have `text` or `data`.
        check_hashes: of builds that are already there compare the shards' hashes too, not only their sizes.
        progress: called with a line now and then.
        settings: how shards are written.
        workers: processes. Default: one a core.
        bar: told how many bytes of the step in hand are done, and of how many.

    Raises:
        InputError: with every problem that can be seen before work starts; later, when a file cannot be read
            or tokenised or a source turns out shorter than one sample.
    """
    plan_path = Path(plan_path)
    plan = load(plan_path, Plan)
    base = plan_path.resolve().parent
    sources = select(plan, list(names))
    encoder = open_encoder(plan.tokenizer, base)
    if encoder.vocab_size > plan.vocabulary:
        raise InputError(
            f"{plan_path}: the tokenizer has {encoder.vocab_size} tokens, more than "
            f"vocab_size={plan.vocabulary}; set vocab_size to at least {encoder.vocab_size}"
        )
    form = shard_format(plan, settings)
    jobs = plan_jobs(plan, sources, base, encoder, settings.local)
    with Processes(workers or cores(), encoder) as processes:
        building = _Building(plan, base, encoder, form, processes, progress, bar)
        there: list[tuple[SourceBuild, list[str]] | None] = []
        problems: list[str] = []
        for job in jobs:  # what is already there is judged before anything is written
            try:
                there.append(_already(building, job, check_hashes))
            except InputError as error:
                problems += error.problems
        todo = [job for job, done in zip(jobs, there, strict=False) if done is None]
        if problems or (problems := _no_space(building, todo)):
            raise InputError(problems)
        return [_finished(building, job, done) for job, done in zip(jobs, there, strict=True)]


def _already(building: _Building, job: Job, check_hashes: bool) -> tuple[SourceBuild, list[str]] | None:
    """The build that the folder holds, when it is the one that is asked for, and the SHA-256 of its input."""
    marker = job.folder / SOURCE
    if not marker.is_file():
        refuse_foreign(job.folder, [], f"source {job.source.name!r}")
        return None
    there = load(marker, SourceBuild)
    building.progress(f"{job.source.name}: {job.folder} holds a build; comparing it with the input")
    sizes = [path.stat().st_size for path in job.files]
    hashes = [""] * len(job.files)
    for number, found in building.processes.run(_hash, job.files, sum(sizes)):
        hashes[number] = found
    wanted = _description(building, job) | {
        "input_sha256": input_sha256(zip(hashes, sizes, strict=True)),
    }
    differences = [
        f"{key} is {getattr(there, key)}, not {value}"
        for key, value in wanted.items()
        if getattr(there, key) != value
    ]
    rule = "remove the folder, or give the source another `mds` folder"
    if differences:
        raise InputError(
            f"source {job.source.name!r}: {job.folder} holds a build of other input or settings "
            f"({', '.join(differences)}); {rule}"
        )
    damage = check_shards(job.folder, hashes=check_hashes).problems
    if damage:
        raise InputError([f"source {job.source.name!r}: {problem}; {rule}" for problem in damage])
    remove_unfinished(job.folder)
    return there, hashes


def _hash(_: Encoder, path: Path) -> str:
    return file_sha256(path)


def _description(building: _Building, job: Job) -> dict[str, object]:
    """What makes two builds of the same files the same."""
    data = job.source.data
    form = job.input.form if job.input.key == "data" else "raw"
    column = data.column if data is not None and form in ("jsonl", "parquet", "dataset") else None
    return {
        "sequence_length": building.plan.sequence_length,
        "input_form": {"raw": "text", "text": "data: text"}.get(form, form),
        "input_column": data.dtype if data is not None and form == "npy" else column,
        "tokenizer": building.encoder.kind,
        "tokenizer_sha256": building.encoder.sha256,
        "end_of_document_id": building.encoder.end_of_document_id,
        "dtype": building.format.dtype,
        "compression": building.format.compression,
        "hashes": list(building.format.hashes),
    }


def _no_space(building: _Building, jobs: Sequence[Job]) -> list[str]:
    """Disks on which the sources do not fit, even if they have no more tokens than is known now."""
    spilled, written = _bytes_a_token(building)
    needed: dict[int, tuple[Path, int]] = {}
    for job in jobs:
        place = _existing(job.folder)
        disk = place.stat().st_dev
        before = needed.get(disk, (place, 0))[1]
        # Spills go when their source is whole: only those of the largest count, and this errs by less.
        needed[disk] = (place, before + least_tokens(job, building.encoder) * written)
    problems = []
    for place, size in needed.values():
        largest = max(least_tokens(job, building.encoder) for job in jobs)
        problems += _does_not_fit(place, size + largest * spilled)
    return problems


def _bytes_a_token(building: _Building) -> tuple[int, int]:
    """Of a spill, and of shards (0 where they are compressed by an unknown factor)."""
    import numpy as np

    stored = narrowest(max(building.plan.vocabulary, building.encoder.vocab_size))
    written = 0 if building.format.compression else np.dtype(building.format.dtype).itemsize
    return np.dtype(stored).itemsize, written


def _does_not_fit(place: Path, needed: int) -> list[str]:
    free = shutil.disk_usage(place).free
    if needed <= free:
        return []
    return [
        f"{place}: at least {byte_size(needed)} are needed on this disk, {byte_size(free)} are free; make "
        "room, or give the sources another `mds`"
    ]


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.is_dir())


def _finished(building: _Building, job: Job, there: tuple[SourceBuild, list[str]] | None) -> BuiltSource:
    """Build it if it is not there, enter it into sources.lock, upload it."""
    if there is None:
        result, hashes, counts = _build_one(building, job)
    else:
        (result, hashes), counts = there, None
    files = list(zip(job.files, hashes, strict=True))
    warnings = book(building.base, result, str(job.source.mds), job.folder, files, counts)
    if job.remote is not None:
        building.progress(f"{job.source.name}: uploading {job.folder} to {job.remote}")
        upload(job.folder, job.remote, building.bar)
    return BuiltSource(job.folder, result, there is not None, job.remote, warnings)


def _build_one(building: _Building, job: Job) -> tuple[SourceBuild, list[str], dict[Path, Count]]:
    """Write one source; what it is, the SHA-256 of its files, and what is in each."""
    name, length = job.source.name, building.plan.sequence_length
    with resumable(job.folder) as work:
        done = _tokenise(building, job, work)
        parts, spilled = list(done), list(done.values())
        tokens = sum(one.tokens for one in spilled)
        if tokens < length:
            raise InputError(too_short(name, tokens, length))
        folder = _pack(building, job, work, [(p.tokens_file, s.tokens) for p, s in done.items()], tokens)
        counts: dict[Path, Count] = {path: Count() for path in job.files}
        for batch, one in zip(parts, spilled, strict=True):
            for piece, count in zip(batch.pieces, one.counts, strict=True):
                counts[piece.path] += count
        sha256 = {path: digest for one in spilled for path, digest in one.sha256.items()}
        hashes = [sha256[str(path)] for path in job.files]
        sizes = [path.stat().st_size for path in job.files]
        whole = sum(counts.values(), Count())
        text = any(is_text(piece) for piece in job.input.pieces)
        result = SourceBuild.model_validate(
            {
                "name": name,
                "samples": tokens // length,
                "tokens": tokens // length * length,
                "documents": whole.documents,
                "input_bytes": sum(sizes),
                "text_bytes": whole.text_bytes if text else None,
                "input_sha256": input_sha256(zip(hashes, sizes, strict=True)),
                "dropped_tokens": tokens % length,
                "vocab_size": building.encoder.vocab_size if text else building.plan.vocabulary,
                **_description(building, job),
            }
        )
        save(result, folder / SOURCE)
        folder.rename(job.folder)
    return result, hashes, counts


def _tokenise(building: _Building, job: Job, work: Path) -> dict[Batch, Spilled]:
    """Every batch of a source in its order, tokenised now or before.

    Raises:
        InputError: one cannot be, or a file changed while it was read.
    """
    name, encoder = job.source.name, building.encoder
    files = stamps(job.files)
    parts = batches(job.input.pieces, files, work / "spill", encoder, building.plan.vocabulary)
    done = {part: found for part in parts if (found := spilled_before(encoder, part)) is not None}
    stale = _clear(work, {part.name for part in done})
    if done:
        building.progress(
            f"{name}: {len(done):,} of {len(parts):,} parts are there from a build that was cut short"
        )
    if stale:
        building.progress(
            f"{name}: input or settings changed since a build was cut short; what no longer fits starts over"
        )
    left = [part for part in parts if part not in done]
    sizes = [sum(piece.stored_bytes for piece in part.pieces) for part in left]
    total = sum(piece.stored_bytes for piece in job.input.pieces)
    building.progress(f"{name}: {len(job.files):,} file(s), {total:,} bytes → {job.folder}")
    at = total - sum(sizes)
    building.bar(at, total)
    for number, found in building.processes.run(spill, left, sum(sizes)):
        if found.problems:
            raise InputError(
                [f"source {name!r}: {text}" for text in changed(files) or shortened([*found.problems])]
            )
        done[left[number]] = found
        at += sizes[number]
        building.bar(at, total)
    if problems := changed(files):
        raise InputError([f"source {name!r}: {text}" for text in shortened(problems)])
    return {part: done[part] for part in parts}


def _clear(work: Path, kept: set[str]) -> int:
    """Remove spills of other input or settings, and what was half written; how many spills went."""
    gone = 0
    for path in (work / "spill").iterdir():
        if path.suffix == ".tmp" or path.stem not in kept:
            gone += path.suffix == ".json"
            path.unlink()
    return gone


def _pack(building: _Building, job: Job, work: Path, spills: list[tuple[Path, int]], tokens: int) -> Path:
    """Write the shards and their index; the folder, which is not in its place yet."""
    form = building.format
    stored = narrowest(max(building.plan.vocabulary, building.encoder.vocab_size))
    folder, tasks = plan_packing(spills, stored, tokens // form.sequence_length, form, work)
    for other in work.glob("packed-*"):  # of other input or settings
        if not other.name.startswith(folder.name):
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():  # what was half written, by the packing or as an atomic write
        if path.suffix == ".tmp" or path.name.startswith("."):
            path.unlink()
    done = {number: found for number, one in enumerate(tasks) if (found := packed_before(one)) is not None}
    left = [number for number in range(len(tasks)) if number not in done]
    size = sum(tasks[number].tokens for number in left) * _bytes_a_token(building)[1]
    if problems := _does_not_fit(work, size):
        raise InputError([f"source {job.source.name!r}: {text}" for text in problems])
    building.progress(f"{job.source.name}: {tokens:,} tokens; writing shards")
    total = sum(one.tokens for one in tasks) * _written(form)
    at = total - sum(tasks[number].tokens for number in left) * _written(form)
    building.bar(at, total)
    for place, entries in building.processes.run(pack, [tasks[number] for number in left], total - at):
        done[left[place]] = entries
        at += tasks[left[place]].tokens * _written(form)
        building.bar(at, total)
    write_text(folder / INDEX, index_text([entry for number in range(len(tasks)) for entry in done[number]]))
    return folder


def _written(form: ShardFormat) -> int:
    return form.sample_bytes // form.sequence_length
