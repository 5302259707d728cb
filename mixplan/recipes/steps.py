"""The steps that a source is built in, each of which an interrupted build continues.

Batches of its input become tokens in spill files (spilling), these become shards (packing), and the folder is
renamed when it is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixplan.documents.atomic import write_text
from mixplan.documents.loading import save
from mixplan.documents.mds_index import INDEX
from mixplan.documents.plan import Plan
from mixplan.documents.source_build import SOURCE, SourceBuild
from mixplan.errors import InputError
from mixplan.recipes.folders import resumable
from mixplan.recipes.hashing import input_sha256
from mixplan.recipes.jobs import Job, least_tokens, too_short
from mixplan.recipes.locating import shortened
from mixplan.recipes.mds_shards import ShardFormat
from mixplan.recipes.packing import index_text, pack, packed_before, plan_packing
from mixplan.recipes.pieces import Count, is_text
from mixplan.recipes.processes import Processes
from mixplan.recipes.room import does_not_fit
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
from mixplan.recipes.tokenizing import Encoder

Progress = Callable[[str], None]
Bar = Callable[[int, int], None]


@dataclass(frozen=True)
class Building:
    """What all steps need."""

    plan: Plan
    base: Path
    encoder: Encoder
    format: ShardFormat
    processes: Processes
    progress: Progress
    bar: Bar


def build_one(building: Building, job: Job) -> tuple[SourceBuild, list[str], dict[Path, Count]]:
    """Write one source; what it is, the SHA-256 of its files, and what is in each."""
    name, length = job.source.name, building.plan.sequence_length
    with resumable(job.folder) as work:
        done = _tokenise(building, job, work)
        tokens = sum(one.tokens for one in done.values())
        if tokens < length:
            raise InputError(too_short(name, tokens, length))
        folder = _write_shards(building, job, work, done, tokens)
        counts: dict[Path, Count] = {path: Count() for path in job.files}
        for batch, one in done.items():
            for piece, count in zip(batch.pieces, one.counts, strict=True):
                counts[piece.path] += count
        sha256 = {path: digest for one in done.values() for path, digest in one.sha256.items()}
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
                "vocab_size": building.plan.vocabulary,
                **description(building, job),
            }
        )
        save(result, folder / SOURCE)
        folder.rename(job.folder)
    return result, hashes, counts


def bytes_needed(building: Building, job: Job) -> tuple[int, int]:
    """Bytes of its spills and of its shards, at least (shards: 0 where compressed by an unknown factor)."""
    tokens = least_tokens(job, building.encoder)
    stored = narrowest(max(building.plan.vocabulary, building.encoder.vocab_size))
    stays = 0 if building.format.compression else tokens * _written(building.format)
    return tokens * np.dtype(stored).itemsize, stays


def description(building: Building, job: Job) -> dict[str, object]:
    """What makes two builds of the same files the same."""
    data = job.source.data
    form = job.input.form if job.input.key == "data" else "raw"
    column = data.column if data is not None and form in ("jsonl", "parquet", "dataset") else None
    text = any(is_text(piece) for piece in job.input.pieces)
    return {
        **({"vocab_size": building.encoder.vocab_size} if text else {}),
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


def _tokenise(building: Building, job: Job, work: Path) -> dict[Batch, Spilled]:
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


def _write_shards(
    building: Building, job: Job, work: Path, done: Mapping[Batch, Spilled], tokens: int
) -> Path:
    """Write the shards and their index; the folder, which is not in its place yet."""
    form = building.format
    spills = [(batch.tokens_file, one.tokens) for batch, one in done.items()]
    stored = narrowest(max(building.plan.vocabulary, building.encoder.vocab_size))
    folder, tasks = plan_packing(spills, stored, tokens // form.sequence_length, form, work)
    for other in work.glob("packed-*"):  # of other input or settings
        if not other.name.startswith(folder.name):
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():  # what was half written, by the packing or as an atomic write
        if path.suffix == ".tmp" or path.name.startswith("."):
            path.unlink()
    entries = {at: found for at, one in enumerate(tasks) if (found := packed_before(one)) is not None}
    left = [number for number in range(len(tasks)) if number not in entries]
    size = 0 if form.compression else sum(tasks[number].tokens for number in left) * _written(form)
    if problems := does_not_fit(work, size):
        raise InputError([f"source {job.source.name!r}: {text}" for text in problems])
    building.progress(f"{job.source.name}: {tokens:,} tokens; writing shards")
    total = sum(one.tokens for one in tasks) * _written(form)
    at = total - sum(tasks[number].tokens for number in left) * _written(form)
    building.bar(at, total)
    for place, found in building.processes.run(pack, [tasks[number] for number in left], total - at):
        entries[left[place]] = found
        at += tasks[left[place]].tokens * _written(form)
        building.bar(at, total)
    write_text(folder / INDEX, index_text([one for number in range(len(tasks)) for one in entries[number]]))
    return folder


def _written(form: ShardFormat) -> int:
    """Bytes a token in a shard."""
    return form.sample_bytes // form.sequence_length
