"""Where the tokens of a source are: in an MDS folder, in files of any form, in raw text, or nowhere here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from mixplan.documents.plan import Plan
from mixplan.documents.plan_parts import PlanData, PlanSource
from mixplan.errors import InputError
from mixplan.recipes.folders import is_url
from mixplan.recipes.mds_folders import MdsTotal, folders_in, named_folders, total
from mixplan.recipes.opened import COMPRESSED
from mixplan.recipes.parquet import column_of
from mixplan.recipes.pieces import Piece, try_first_row
from mixplan.recipes.texts import collect
from mixplan.recipes.token_files import tokens_in_file

_ENDINGS = {"npy": "*.npy", "parquet": "*.parquet"}
_SHOWN = 10
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Located:
    """What a source's tokens are to be counted from."""

    key: Literal["mds", "data", "text"] | None = None
    """Key of the plan that says where; None: nothing here can be counted."""
    form: str = ""
    """mds, npy, parquet, jsonl or text."""
    files: list[Path] = field(default_factory=list)
    """Files, or MDS folders."""
    tokens: int = 0
    """What is known already, from an index or from sizes."""
    documents: int | None = None
    text_bytes: int | None = None
    """Both known for a folder that `build` wrote."""
    pieces: list[Piece] = field(default_factory=list)
    """What has to be read."""
    notes: list[str] = field(default_factory=list)


def locate(source: PlanSource, plan: Plan, base: Path) -> Located:
    """Where a source is counted: its MDS folder if it is there, else `data`, else `text`.

    Raises:
        InputError: with every problem that can be seen without reading everything.
    """
    folder = None if source.mds is None or is_url(source.mds) else _path(base, source.mds)
    if folder is not None and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
        return _shards(folder, plan)
    outputs = [_path(base, one.mds) for one in plan.sources if one.mds and not is_url(one.mds)]
    remote = [path for path in source.data.paths if is_url(path)] if source.data is not None else []
    if source.data is not None and not remote:
        return _data(source.data, plan, base, outputs)
    if source.text and not remote:
        return _text(source, plan, base, outputs)
    if source.tokens_available is not None:
        return Located()
    if remote or (source.mds is not None and is_url(source.mds)):
        raise InputError(
            f"what is behind {', '.join(remote) or source.mds} is not fetched: give tokens_available, or the "
            "place of a local copy in `data`"
        )
    if folder is not None:
        raise InputError(
            f"{folder} is not there yet, and neither text nor data says what goes in; give one of them"
        )
    raise InputError("nothing to count: give mds, data or text, or tokens_available itself")


def _shards(folder: Path, plan: Plan) -> Located:
    """The source's own shards; a recipe chooses whole samples of them."""
    found = folders_in(folder)
    notes = [
        f"{folder} holds {len(found)} MDS folders and no index of its own, which streams need: write one "
        "with Streaming's merge_index"
    ]
    return _mds("mds", total(found, plan.sequence_length, strict=True), notes if len(found) > 1 else [])


def _text(source: PlanSource, plan: Plan, base: Path, outputs: list[Path]) -> Located:
    """What `build` would read."""
    _needs_text_tokenizer(plan, "text")
    files = collect(source.text, source.pattern, base, outputs)
    pieces = [Piece(path, "raw", path.stat().st_size) for path in files]
    packed = sum(path.suffix in COMPRESSED for path in files)
    notes = [
        f"{packed} of {len(files)} files are compressed, and `text` is read as it stands (by `build` too): "
        "decompress them, or name them in `data`"
    ]
    return Located("text", "text", files, pieces=pieces, notes=notes if packed else [])


def _mds(key: Literal["mds", "data"], held: MdsTotal, notes: Iterable[str] = ()) -> Located:
    return Located(
        key, "mds", held.folders, held.tokens, held.documents, held.text_bytes, notes=[*held.notes, *notes]
    )


def _path(base: Path, given: str) -> Path:
    return (base / Path(given).expanduser()).resolve()


def _needs_text_tokenizer(plan: Plan, form: str) -> None:
    if plan.tokenizer.kind == "none":
        raise InputError(
            f"it is {form}, but tokenizer.kind is none, which says that all data are tokens already: choose "
            "bytes or huggingface, or give its tokens"
        )


def _data(data: PlanData, plan: Plan, base: Path, outputs: list[Path]) -> Located:
    if data.format == "mds":
        return _mds("data", total(named_folders(data.paths, base), plan.sequence_length, strict=False))
    pattern = _ENDINGS.get(data.format, "*") if data.pattern == "*" else data.pattern
    files = collect(data.paths, pattern, base, outputs, "data.paths")
    problems: list[str] = []
    if data.format == "npy":
        counts = _each(files, lambda path: tokens_in_file(path, data.dtype, plan.vocabulary), problems)
        _stop_at(problems)
        return Located("data", "npy", files, tokens=sum(counts))
    if data.format != "parquet":
        _needs_text_tokenizer(plan, data.format)
        kind: Literal["jsonl", "text"] = "jsonl" if data.format == "jsonl" else "text"
        pieces = [Piece(path, kind, path.stat().st_size, data.column) for path in files]
        if kind == "jsonl":
            _each(pieces, try_first_row, problems)
        _stop_at(problems)
        return Located("data", kind, files, pieces=pieces)
    pieces = [
        piece for some in _each(files, lambda path: _row_groups(path, data, plan), problems) for piece in some
    ]
    _stop_at(problems)
    return Located("data", "parquet", files, pieces=pieces)


def _row_groups(path: Path, data: PlanData, plan: Plan) -> list[Piece]:
    column = column_of(path, data.column)
    if column.holds == "text":
        _needs_text_tokenizer(plan, f"text (column {data.column!r} of {path})")
    kind: Literal["parquet", "parquet tokens"] = "parquet" if column.holds == "text" else "parquet tokens"
    return [Piece(path, kind, size, data.column, at) for at, size in enumerate(column.row_group_bytes)]


def _each(items: Iterable[T], look: Callable[[T], R], problems: list[str]) -> list[R]:
    """What `look` says of each; the problems of those it refuses go to `problems`."""
    found = []
    for item in items:
        try:
            found.append(look(item))
        except InputError as error:
            problems += error.problems
    return found


def _stop_at(problems: list[str]) -> None:
    if problems:
        raise InputError(shortened(problems))


def shortened(problems: list[str]) -> list[str]:
    """The first ten, and how many more there are."""
    more = len(problems) - _SHOWN
    return [*problems[:_SHOWN], f"… and {more:,} more problems of this kind"] if more > 0 else list(problems)
