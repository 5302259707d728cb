"""Which sources to build, from which files, to where: all that can be checked before work is spent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mixplan.documents.plan import Plan, PlanSource
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.recipes.folders import is_url
from mixplan.recipes.texts import collect
from mixplan.recipes.tokenizing import Encoder


@dataclass(frozen=True)
class Job:
    """One source to build."""

    source: PlanSource
    folder: Path
    files: list[Path]


def select(plan: Plan, names: list[str]) -> list[PlanSource]:
    """The sources of these names; all that have `text` when no name is given.

    Raises:
        InputError: a name is unknown or its source has no text; or no source has any.
    """
    known = {source.name: source for source in plan.sources}
    problems = [
        f"no source is called {name!r}{did_you_mean(name, known)}" for name in names if name not in known
    ]
    problems += [
        f"source {name!r} has no `text`, so there is nothing to build it from"
        for name in names
        if name in known and not known[name].text
    ]
    if problems:
        raise InputError(problems)
    sources = [s for s in plan.sources if s.text and (not names or s.name in names)]
    if not sources:
        raise InputError("no source of the plan has `text`; give the text of those that are to be built")
    return sources


def plan_jobs(plan: Plan, sources: list[PlanSource], base: Path, encoder: Encoder) -> list[Job]:
    """Where each source goes and from which files.

    Args:
        plan: the plan.
        sources: those of its sources that are to be built.
        base: folder that relative paths start from.
        encoder: the plan's tokenizer.

    Raises:
        InputError: with every problem of every source.
    """
    problems: list[str] = []
    jobs: list[Job] = []
    local = {
        s.name: (base / Path(s.mds).expanduser()).resolve()
        for s in plan.sources
        if s.mds and not is_url(s.mds)
    }
    for source in sources:
        name = f"source {source.name!r}"
        if source.mds is None:
            problems.append(
                f"{name} has `text` but no `mds`; say which folder its shards go to, e.g. mds/{source.name}"
            )
            continue
        if is_url(source.mds):
            problems.append(
                f"{name}: build writes to a local folder, not to {source.mds}; build locally, then upload"
            )
            continue
        folder = local[source.name]
        twins = [other for other, place in local.items() if place == folder and other != source.name]
        if twins:
            problems.append(f"{name} and {twins[0]!r} have the same mds folder {folder}; each needs its own")
            continue
        try:
            files = collect(source.text, source.pattern, base, local.values())
        except InputError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
            continue
        tokens = sum(path.stat().st_size + 1 for path in files)
        if encoder.kind == "bytes" and tokens < plan.sequence_length:
            problems.append(too_short(source.name, tokens, plan.sequence_length))
            continue
        jobs.append(Job(source, folder, files))
    if problems:
        raise InputError(problems)
    return jobs


def too_short(name: str, tokens: int, length: int) -> str:
    """The problem of a source that fills no sample."""
    return (
        f"source {name!r} has {tokens:,} tokens, less than one sample of {length:,}; "
        "add text, or lower sequence_length"
    )
