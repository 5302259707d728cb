"""A source that is there already: is it the build that is asked for, and is it whole?"""

from __future__ import annotations

from pathlib import Path

from mixplan.documents.atomic import refuse_foreign
from mixplan.documents.loading import load
from mixplan.documents.source_build import SOURCE, SourceBuild
from mixplan.errors import InputError
from mixplan.recipes.folders import remove_unfinished
from mixplan.recipes.hashing import file_sha256, input_sha256
from mixplan.recipes.jobs import Job
from mixplan.recipes.shards import check_shards
from mixplan.recipes.steps import Building, description
from mixplan.recipes.tokenizing import Encoder


def already_built(building: Building, job: Job, check_hashes: bool) -> tuple[SourceBuild, list[str]] | None:
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
    wanted = description(building, job) | {
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
