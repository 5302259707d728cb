"""Where the tokens of a source are: in an MDS folder, in files of any form, in raw text, or nowhere here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeVar

from mixplan.documents.plan import Plan
from mixplan.documents.plan_parts import PlanData, PlanSource
from mixplan.documents.sources_lock import SOURCES_LOCK
from mixplan.errors import InputError
from mixplan.recipes.folders import LOCAL, is_url, work_folder
from mixplan.recipes.hf_datasets import arrow_files, is_fetched
from mixplan.recipes.mds_folders import MdsTotal, folders_in, named_folders, shard_files, total
from mixplan.recipes.opened import COMPRESSED
from mixplan.recipes.parquet import column_of
from mixplan.recipes.pieces import Kind, Piece, try_first_row
from mixplan.recipes.texts import collect
from mixplan.recipes.token_files import read_tokens, tokens_in_file

_ENDINGS = {"npy": "*.npy", "parquet": "*.parquet"}
_SHOWN = 10
# Larger files are cut here, so that several processes can read them.
_CUT_BYTES = 1 << 24
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Located:
    """What a source's tokens are to be counted from."""

    key: Literal["mds", "data", "text"] | None = None
    """Key of the plan that says where; None: nothing here can be counted."""
    form: str = ""
    """mds, npy, parquet, jsonl, dataset or text."""
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


def is_remote_dataset(source: PlanSource, base: Path) -> bool:
    """Whether `data` names a dataset that has to be fetched; to be located last, as that may take long."""
    data = source.data
    return data is not None and data.format == "dataset" and any(is_fetched(one, base) for one in data.paths)


def locate(source: PlanSource, plan: Plan, base: Path) -> Located:
    """Where a source is counted: its MDS folder if it is there, else `data`, else `text`.

    Raises:
        InputError: with every problem that can be seen without reading everything.
    """
    folder = None if source.mds is None or is_url(source.mds) else _path(base, source.mds)
    if folder is not None and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
        return _shards(folder, plan)
    found = locate_input(source, plan, base)
    if found is not None:
        return found
    if source.tokens_available is not None:
        return Located()
    remote = _remote(source)
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


def locate_input(source: PlanSource, plan: Plan, base: Path) -> Located | None:
    """What a source is built from: `data`, else `text`; None: neither is given, or it is not on this machine.

    Raises:
        InputError: with every problem that can be seen without reading everything.
    """
    folders = [_path(base, one.mds) for one in plan.sources if one.mds and not is_url(one.mds)]
    unfinished = [work_folder(folder) for folder in folders]
    outputs = [*folders, *unfinished, base.resolve() / LOCAL, base.resolve() / SOURCES_LOCK]
    if _remote(source):
        return None
    if source.data is not None:
        return _data(source.data, plan, base, outputs)
    return _text(source, plan, base, outputs) if source.text else None


def _remote(source: PlanSource) -> list[str]:
    return [path for path in source.data.paths if is_url(path)] if source.data is not None else []


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
    problems: list[str] = []
    if data.format == "mds":
        held = total(named_folders(data.paths, base), plan.sequence_length, strict=False)
        located = _mds("data", held)
        return replace(
            located, tokens=0, pieces=[piece for one in held.folders for piece in _shard_pieces(one)]
        )
    if data.format == "dataset":
        found = _each(data.paths, lambda entry: _arrow(entry, data, plan, base), problems)
        _stop_at(problems)
        pieces = list(dict.fromkeys(piece for some in found for piece in some))  # of two ways to one folder
        return Located("data", "dataset", list(dict.fromkeys(piece.path for piece in pieces)), pieces=pieces)
    pattern = _ENDINGS.get(data.format, "*") if data.pattern == "*" else data.pattern
    files = collect(data.paths, pattern, base, outputs, "data.paths")
    if data.format not in ("npy", "parquet"):
        _needs_text_tokenizer(plan, data.format)
    cut: dict[str, Callable[[Path], list[Piece]]] = {
        "text": lambda path: [Piece(path, "text", path.stat().st_size)],
        "jsonl": lambda path: _line_ranges(path, data.column),
        "parquet": lambda path: _row_groups(path, data, plan),
        "npy": lambda path: _token_ranges(path, data.dtype, plan.vocabulary),
    }
    pieces = [piece for some in _each(files, cut[data.format], problems) for piece in some]
    _stop_at(problems)
    return Located("data", data.format, files, pieces=pieces)


def _shard_pieces(folder: Path) -> list[Piece]:
    """The shards of a folder; a document ends with the last, as with a file."""
    shards = shard_files(folder)
    pieces = [
        Piece(one.path, "mds", one.stored_bytes, shard=one, tokens=one.samples * one.sequence_length)
        for one in shards
    ]
    try:
        last = int(shards[-1].tokens()[-1])
    except InputError:  # it is counted as the index has it, and noted
        last = None
    return [*pieces[:-1], replace(pieces[-1], closes=True, last=last)]


def _arrow(entry: str, data: PlanData, plan: Plan, base: Path) -> list[Piece]:
    pieces: list[Piece] = []
    for file in arrow_files(entry, data.subset, data.split, data.column, base):
        if file.holds == "text":
            _needs_text_tokenizer(plan, f"text (column {data.column!r} of {entry})")
        kind: Kind = "arrow" if file.holds == "text" else "arrow tokens"
        for start, stop in _ranges(file.rows, file.bytes):
            size = file.bytes * stop // file.rows - file.bytes * start // file.rows
            pieces.append(Piece(file.path, kind, size, data.column, start, stop))
    return pieces


def _line_ranges(path: Path, column: str) -> list[Piece]:
    """Ranges of bytes; the first line is tried."""
    size = path.stat().st_size
    try_first_row(Piece(path, "jsonl", size, column))
    if path.suffix in COMPRESSED:
        return [Piece(path, "jsonl", size, column)]
    return [Piece(path, "jsonl", stop - start, column, start, stop) for start, stop in _ranges(size, size)]


def _token_ranges(path: Path, dtype: str, vocabulary: int) -> list[Piece]:
    tokens = tokens_in_file(path, dtype, vocabulary)
    size = path.stat().st_size
    pieces = [
        Piece(path, "npy", size * (stop - start) // tokens, "", start, stop, dtype, tokens=stop - start)
        for start, stop in _ranges(tokens, size)
    ]
    if not pieces:
        return []
    last = int(read_tokens(path, dtype, tokens - 1, tokens)[0])
    return [*pieces[:-1], replace(pieces[-1], closes=True, last=last)]


def _ranges(count: int, size_bytes: int) -> list[tuple[int, int]]:
    """`count` things of so many bytes together, in ranges of at most 16 MiB."""
    parts = max(1, -(-size_bytes // _CUT_BYTES))
    cuts = [count * part // parts for part in range(parts + 1)]
    return [(start, stop) for start, stop in pairwise(cuts) if start < stop]


def _row_groups(path: Path, data: PlanData, plan: Plan) -> list[Piece]:
    column = column_of(path, data.column)
    if column.holds == "text":
        _needs_text_tokenizer(plan, f"text (column {data.column!r} of {path})")
    kind: Kind = "parquet" if column.holds == "text" else "parquet tokens"
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
