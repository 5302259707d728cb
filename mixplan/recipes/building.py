"""Raw text becomes MDS shards: fixed-length samples, documents joined by their end-of-document token.

Shape legend: L = sequence_length; a sample is int32 [L].
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.atomic import refuse_foreign
from mixplan.documents.loading import load, save
from mixplan.documents.plan import Plan
from mixplan.documents.source_build import SourceBuild
from mixplan.errors import InputError
from mixplan.recipes.folders import written_whole
from mixplan.recipes.jobs import Job, plan_jobs, select, too_short
from mixplan.recipes.shards import check_shards
from mixplan.recipes.texts import input_sha256, read_documents
from mixplan.recipes.tokenizing import Encoder, open_encoder

SOURCE = "source.json"
HASH = "xxh3_64"
# Streaming shuffles shards before samples: a source in few shards arrives in bursts.
_SHARDS_AT_LEAST = 32
_SHARD_BYTES_AT_MOST = 1 << 26
# MDS: a shard starts with its counts and description (about 200 bytes), and each sample has a 4-byte offset.
_SHARD_HEADER_BYTES = 210
_SAMPLE_HEADER_BYTES = 4
_PROGRESS_EVERY_TOKENS = 50_000_000
Progress = Callable[[str], None]


@dataclass(frozen=True)
class BuiltSource:
    """One source's shards."""

    folder: Path
    build: SourceBuild
    skipped: bool
    """True when the folder already held this very build."""


def build(
    plan_path: Path,
    names: Iterable[str] = (),
    check_hashes: bool = False,
    progress: Progress = lambda _: None,
) -> list[BuiltSource]:
    """Write the MDS shards of a plan's sources into their `mds` folders.

    A folder that already holds the same build is left alone. A build that is cut short leaves none.

    Args:
        plan_path: the plan; relative paths in it start from its folder.
        names: sources to build. Default: all that have `text`.
        check_hashes: of builds that are already there compare the shards' hashes too, not only their sizes.
        progress: called with a line now and then.

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
    jobs = plan_jobs(plan, sources, base, encoder)
    built: list[BuiltSource | None] = []
    problems: list[str] = []
    for job in jobs:  # what is already there is judged before anything is written
        try:
            built.append(_already(job, plan, encoder, check_hashes, progress))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return [done or _build_one(job, plan, encoder, progress) for job, done in zip(jobs, built, strict=True)]


def _already(
    job: Job, plan: Plan, encoder: Encoder, check_hashes: bool, progress: Progress
) -> BuiltSource | None:
    """The build that the folder holds, when it is the one that is asked for; nothing when there is none."""
    marker = job.folder / SOURCE
    if not marker.is_file():
        refuse_foreign(job.folder, [], f"source {job.source.name!r}")
        return None
    there = load(marker, SourceBuild)
    progress(f"{job.source.name}: {job.folder} holds a build; comparing it with the input")
    wanted = {
        "sequence_length": plan.sequence_length,
        "tokenizer": encoder.kind,
        "tokenizer_sha256": encoder.sha256,
        "end_of_document_id": encoder.end_of_document_id,
        "input_sha256": input_sha256(job.files),
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
    return BuiltSource(job.folder, there, skipped=True)


def _build_one(job: Job, plan: Plan, encoder: Encoder, progress: Progress) -> BuiltSource:
    """Write one source into a hidden sibling folder, and rename that when it is whole."""
    ensure_torchvision_imports()
    from streaming import MDSWriter

    name, length = job.source.name, plan.sequence_length
    input_bytes = sum(path.stat().st_size for path in job.files)
    progress(f"{name}: {len(job.files)} file(s), {input_bytes:,} bytes → {job.folder}")
    hasher = hashlib.sha256()
    pieces = encoder.encode(read_documents(job.files, hasher))
    with written_whole(job.folder) as partial:
        with MDSWriter(
            columns={"tokens": f"ndarray:int32:{length}"},
            out=str(partial),
            hashes=[HASH],
            size_limit=_shard_bytes(input_bytes // encoder.bytes_per_token, length),
        ) as writer:
            samples, left_over = _pack(pieces, length, writer.write, lambda text: progress(f"{name}: {text}"))
        if not samples:
            raise InputError(too_short(name, left_over, length))
        result = SourceBuild(
            name=name,
            samples=samples,
            sequence_length=length,
            tokens=samples * length,
            documents=len(job.files),
            input_bytes=input_bytes,
            input_sha256=hasher.hexdigest(),
            dropped_tokens=left_over,
            tokenizer="bytes" if encoder.kind == "bytes" else "huggingface",
            tokenizer_sha256=encoder.sha256,
            vocab_size=encoder.vocab_size,
            end_of_document_id=encoder.end_of_document_id,
        )
        save(result, partial / SOURCE)
    return BuiltSource(job.folder, result, skipped=False)


def _pack(
    pieces: Iterable[np.ndarray],
    length: int,
    write: Callable[[dict[str, np.ndarray]], None],
    progress: Progress,
) -> tuple[int, int]:
    """Cut token pieces [n] into samples [L]; the number of samples and of tokens left over."""
    rest = np.empty(0, np.int32)
    samples = 0
    for piece in pieces:
        joined = np.concatenate([rest, piece])
        whole = len(joined) // length
        rest = joined[whole * length :]
        for row in joined[: whole * length].reshape(whole, length):
            write({"tokens": row})
        before, samples = samples, samples + whole
        if before * length // _PROGRESS_EVERY_TOKENS != samples * length // _PROGRESS_EVERY_TOKENS:
            progress(f"{samples * length:,} tokens in {samples:,} samples so far")
    return samples, len(rest)


def _shard_bytes(tokens: int, length: int) -> int:
    """Size limit that spreads about `tokens` over at least 32 shards of whole samples, up to 64 MiB each."""
    sample_bytes = 4 * length + _SAMPLE_HEADER_BYTES
    samples = max(1, tokens // length // _SHARDS_AT_LEAST)
    return _SHARD_HEADER_BYTES + sample_bytes * min(samples, max(1, _SHARD_BYTES_AT_MOST // sample_bytes))
