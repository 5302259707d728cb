"""How many tokens each source of a plan has."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixplan.documents.loading import load
from mixplan.documents.plan import Plan
from mixplan.documents.plan_parts import PlanSource
from mixplan.errors import InputError
from mixplan.recipes.counting import Progress, count_pieces
from mixplan.recipes.fitting import TOKENS_TOLERANCE
from mixplan.recipes.jobs import too_short
from mixplan.recipes.locating import Located, is_remote_dataset, locate, shortened
from mixplan.recipes.pieces import Count
from mixplan.recipes.processes import cores


@dataclass(frozen=True)
class SourceScan:
    """What was found of a source."""

    name: str
    role: str
    counted_from: str | None
    """mds, data or text, the key of the plan; None: nothing here could be counted."""
    form: str
    """mds, npy, parquet, jsonl, dataset or text."""
    files: int
    """Files, or MDS folders."""
    tokens: int | None
    """All of them. Text: with the end-of-document token of each document."""
    documents: int | None
    """None where tokens came without them."""
    text_bytes: int | None
    """UTF-8 bytes; None where tokens came without text."""
    samples: int | None
    """Whole samples of sequence_length tokens."""
    usable_tokens: int | None
    """samples × sequence_length: what a build holds, and a recipe can choose from."""
    tokens_available: float | None
    """As the plan gives it; this stands, and the count is shown beside it."""
    natural_share: float | None
    """As the plan gives it."""


@dataclass(frozen=True)
class Scan:
    """What was found of a plan's sources."""

    sequence_length: int
    sources: list[SourceScan]
    notes: list[str]
    problems: list[str]
    """Sources that could not be counted to the end; their numbers are None."""

    def natural_shares(self) -> list[float | None]:
        """As the plan gives them, else by the tokens that the plan gives, else by the usable ones."""
        given = [one.natural_share for one in self.sources]
        if None not in given:
            return given
        tokens = [one.tokens_available or one.usable_tokens for one in self.sources]
        if any(count is None for count in tokens):
            return [None] * len(tokens)
        whole = sum(count or 0.0 for count in tokens)
        return [(count or 0.0) / whole for count in tokens]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "sequence_length": self.sequence_length,
            "sources": [
                {**asdict(one), "natural_share": share}
                for one, share in zip(self.sources, self.natural_shares(), strict=True)
            ],
            "notes": self.notes,
            "problems": self.problems,
        }


def scan(plan_path: Path, workers: int | None = None, progress: Progress = lambda done, total: None) -> Scan:
    """Count the tokens of every source of a plan.

    Args:
        plan_path: the plan; relative paths in it start from its folder.
        workers: processes that tokenise. Default: one a core.
        progress: told how far it is.

    Raises:
        InputError: with every problem that can be seen before the counting starts.
    """
    plan_path = Path(plan_path)
    plan = load(plan_path, Plan)
    base = plan_path.resolve().parent
    problems: list[str] = []
    places: dict[str, Located] = {}
    for source in sorted(plan.sources, key=lambda one: is_remote_dataset(one, base)):
        if problems and is_remote_dataset(source, base):
            break  # what is wrong here is told before anything is fetched
        try:
            places[source.name] = locate(source, plan, base)
        except InputError as error:
            problems += [f"source {source.name!r}: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)
    located = [places[source.name] for source in plan.sources]
    pieces = [piece for one in located for piece in one.pieces]
    counts = iter(count_pieces(pieces, plan, base, workers or cores(), progress))
    sources: list[SourceScan] = []
    notes: list[str] = _shared_files(plan, located)
    for source, one in zip(plan.sources, located, strict=True):
        read = sum((next(counts) for _ in one.pieces), Count())
        found = _found(source, plan.sequence_length, one, read)
        if read.problems:
            problems += [f"source {source.name!r}: {problem}" for problem in shortened([*read.problems])]
        elif found.samples == 0:
            problems.append(too_short(source.name, found.tokens or 0, plan.sequence_length))
        sources.append(found)
        notes += [
            f"source {source.name!r}: {note}" for note in _notes(one, read, found, plan.sequence_length)
        ]
    return Scan(plan.sequence_length, sources, notes, problems)


def _found(source: PlanSource, length: int, located: Located, read: Count) -> SourceScan:
    counted = located.key is not None and not read.problems
    tokens = located.tokens + read.tokens if counted else None
    documents, text_bytes = located.documents, located.text_bytes
    if counted and any(piece.tokens is None for piece in located.pieces):
        documents, text_bytes = read.documents, read.text_bytes or None
    return SourceScan(
        name=source.name,
        role=source.role,
        counted_from=located.key,
        form=located.form,
        files=len(located.files),
        tokens=tokens,
        documents=documents,
        text_bytes=text_bytes,
        samples=None if tokens is None else tokens // length,
        usable_tokens=None if tokens is None else tokens // length * length,
        tokens_available=source.tokens_available,
        natural_share=source.natural_share,
    )


def _notes(located: Located, read: Count, found: SourceScan, length: int) -> list[str]:
    notes = list(located.notes)
    if located.key is None:
        notes.append(
            f"not counted: nothing of it is here; tokens_available={found.tokens_available:,.0f} stands"
        )
    given, counted = found.tokens_available, found.usable_tokens
    if given is not None and counted and abs(given - counted) > max(TOKENS_TOLERANCE * given, length):
        notes.append(
            f"the plan's tokens_available={given:,.0f} stands, but {counted:,} were counted: `mixplan emit` "
            "takes no recipe for another amount of data; remove the number to take the count"
        )
    if read.empty:
        notes.append(f"{read.empty:,} documents hold nothing, and were left out")
    return notes


def _shared_files(plan: Plan, located: list[Located]) -> list[str]:
    """Files that two sources count."""
    owner: dict[Path, str] = {}
    twice: dict[tuple[str, str], list[Path]] = {}
    for source, one in zip(plan.sources, located, strict=True):
        for path in one.files:
            first = owner.setdefault(path.resolve(), source.name)
            if first != source.name:
                twice.setdefault((first, source.name), []).append(path)
    return [
        f"{len(paths):,} file(s) are counted in {first!r} and in {second!r}, e.g. {paths[0]}: the "
        "same tokens are no two sources'; leave them out of one"
        for (first, second), paths in twice.items()
    ]
