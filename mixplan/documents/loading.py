"""Files become documents: every problem at once, with line numbers and "did you mean"."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mixplan.documents.atomic import write_text
from mixplan.documents.complaints import describe
from mixplan.documents.suggest import did_you_mean
from mixplan.documents.syntax import Parsed, dump_yaml, parse
from mixplan.errors import InputError

D = TypeVar("D", bound=BaseModel)
E = TypeVar("E", bound=BaseModel)


def read_text(path: Path) -> str:
    """The file's text, without a byte-order mark and with `\\n` line ends.

    Raises:
        InputError: the file is missing, a folder, cannot be opened, or is not UTF-8 text.
    """
    path = Path(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, near)
        raise InputError(f"{path}: no such file{hint if 'did you mean' in hint else ''}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; a file is needed") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def read_data(path: Path) -> Parsed:
    """The plain data of a YAML or JSON file (JSON when the name ends in .json), and where each key stands.

    Raises:
        InputError: the file cannot be read, is no YAML or JSON, is empty, or has no mapping at the top.
    """
    path = Path(path)
    parsed = parse(path, read_text(path))
    problems = list(parsed.problems)
    if not problems and parsed.data is None:
        problems = [f"{path}: the file is empty; `mixplan init DIR` writes commented starters"]
    elif parsed.data is not None and not isinstance(parsed.data, dict):
        kind = "a list" if isinstance(parsed.data, list) else f"the single value {str(parsed.data)[:40]!r}"
        problems.append(f"{path}: the file must hold keys with values (`key: value`) at the top, not {kind}")
    if problems and not isinstance(parsed.data, dict):
        raise InputError(problems)
    return parsed


def load(path: Path, kind: type[D]) -> D:
    """Read a YAML or JSON file as a document.

    Raises:
        InputError: with every problem of the file, each with its line where YAML tells it.
    """
    path = Path(path)
    parsed = read_data(path)
    return check(parsed, path, kind)


def load_both(first: tuple[Path, type[D]], second: tuple[Path, type[E]]) -> tuple[D, E]:
    """Two documents that belong together.

    Raises:
        InputError: with every problem of both files.
    """
    try:
        one = load(*first)
    except InputError as error:
        try:
            load(*second)
        except InputError as other:
            raise InputError([*error.problems, *other.problems]) from None
        raise
    return one, load(*second)


def check(parsed: Parsed, path: Path, kind: type[D]) -> D:
    """Plain data as a document; raises like `load`."""
    problems = list(parsed.problems)
    try:
        document = kind.model_validate(parsed.data)
    except ValidationError as error:
        raise InputError([*problems, *describe(error, kind, path, parsed.lines, parsed.data)]) from None
    if problems:
        raise InputError(problems)
    return document


def save(document: BaseModel, path: Path, header: str = "") -> None:
    """Write the document atomically: JSON when the name ends in .json, else YAML with `header` as comment."""
    path = Path(path)
    if path.suffix == ".json":
        write_text(path, document.model_dump_json(indent=2) + "\n")
        return
    write_text(path, as_yaml(document, header))


def as_yaml(document: BaseModel, header: str = "") -> str:
    """The document as YAML, after `header` as comment."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    data: dict[str, Any] = document.model_dump(mode="json")
    return comment + dump_yaml(data)
