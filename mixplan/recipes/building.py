"""Sources become MDS shards: samples of one length, documents joined by their end-of-document token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mixplan.documents.loading import load
from mixplan.documents.plan import Plan
from mixplan.documents.source_build import SourceBuild
from mixplan.errors import InputError
from mixplan.recipes.bookkeeping import book
from mixplan.recipes.existing import already_built
from mixplan.recipes.jobs import Job, Settings, plan_jobs, select, shard_format
from mixplan.recipes.processes import Processes, cores
from mixplan.recipes.room import no_room
from mixplan.recipes.steps import Bar, Building, Progress, build_one, bytes_needed
from mixplan.recipes.tokenizing import check_vocabulary, open_encoder
from mixplan.recipes.uploading import upload


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
    check_vocabulary(encoder, plan.vocabulary)
    form = shard_format(plan, settings)
    jobs = plan_jobs(plan, sources, base, encoder, settings.local)
    with Processes(workers or cores(), encoder) as processes:
        building = Building(plan, base, encoder, form, processes, progress, bar)
        there: list[tuple[SourceBuild, list[str]] | None] = []
        problems: list[str] = []
        for job in jobs:  # what is already there is judged before anything is written
            try:
                there.append(already_built(building, job, check_hashes))
            except InputError as error:
                problems += error.problems
        if not problems:
            todo = [job for job, done in zip(jobs, there, strict=True) if done is None]
            problems = no_room([(job.folder, *bytes_needed(building, job)) for job in todo])
        if problems:
            raise InputError(problems)
        return [_finished(building, job, done) for job, done in zip(jobs, there, strict=True)]


def _finished(building: Building, job: Job, there: tuple[SourceBuild, list[str]] | None) -> BuiltSource:
    """Build it if it is not there, enter it into sources.lock, upload it."""
    if there is None:
        result, hashes, counts = build_one(building, job)
    else:
        (result, hashes), counts = there, None
    files = list(zip(job.files, hashes, strict=True))
    warnings = book(building.base, result, str(job.source.mds), job.folder, files, counts)
    if job.remote is not None:
        building.progress(f"{job.source.name}: uploading {job.folder} to {job.remote}")
        upload(job.folder, job.remote, building.bar)
    return BuiltSource(job.folder, result, there is not None, job.remote, warnings)
