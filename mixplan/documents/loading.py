"""Files become documents: every problem at once, with line numbers and "did you mean"."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mixplan.documents.atomic import write_text
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError

D = TypeVar("D", bound=BaseModel)
Path_ = tuple[Any, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e9 and 2.5E-6 as numbers, as YAML 1.2 does and YAML 1.1 does not."""


_Loader.yaml_implicit_resolvers = {
    key: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
    for key, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_text(path: Path) -> str:
    """The file's text.

    Raises:
        InputError: the file is missing, a folder, or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        near = [entry.name for entry in Path(path).parent.iterdir()] if Path(path).parent.is_dir() else []
        hint = did_you_mean(Path(path).name, near) if near else ""
        raise InputError(f"{path}: no such file{hint}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; a file is needed") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def load(path: Path, kind: type[D]) -> D:
    """Read a YAML or JSON file as a document.

    Raises:
        InputError: with every problem of the file, each with its line where YAML tells it.
    """
    path = Path(path)
    text = read_text(path)
    data, lines, problems = _parse(path, text)
    if data is None and not problems:
        problems = [f"{path}: the file is empty; `mixplan init` writes a commented starter"]
    elif not problems and not isinstance(data, dict):
        problems = [f"{path}: a mapping of keys to values is needed at the top, not {type(data).__name__}"]
    try:
        document = kind.model_validate(data) if isinstance(data, dict) else None
    except ValidationError as error:
        problems += _describe(error, kind, path, lines, data)
        document = None
    if problems or document is None:
        raise InputError(problems)
    return document


def dump_yaml(document: BaseModel, header: str = "") -> str:
    """The document as YAML, keys in their declared order, with an optional comment on top."""
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    data = document.model_dump(mode="json")
    return comment + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)


def save(document: BaseModel, path: Path, header: str = "") -> None:
    """Write the document atomically: JSON when the name ends in .json, else YAML."""
    path = Path(path)
    if path.suffix == ".json":
        write_text(path, document.model_dump_json(indent=2) + "\n")
    else:
        write_text(path, dump_yaml(document, header))


def _parse(path: Path, text: str) -> tuple[Any, dict[Path_, int], list[str]]:
    """Data, the line of every key and item by its path, and problems of syntax."""
    lines: dict[Path_, int] = {}
    problems: list[str] = []
    if path.suffix == ".json":
        try:
            return json.loads(text), lines, problems
        except json.JSONDecodeError as error:
            return None, lines, [f"{path}:{error.lineno}: not JSON: {error.msg}"]
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return None, lines, problems
        _walk(node, (), lines, problems, path)
        loader = _Loader("")
        try:
            return loader.construct_document(node), lines, problems
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        return None, lines, [f"{where}: not YAML: {what}"]


def _walk(node: yaml.Node, at: Path_, lines: dict[Path_, int], problems: list[str], path: Path) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, key.value)
            if here in lines:
                problems.append(
                    f"{path}:{key.start_mark.line + 1}: {_dotted(here)} is given twice "
                    f"(first in line {lines[here]}); keep one"
                )
            lines[here] = key.start_mark.line + 1
            _walk(value, here, lines, problems, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*at, index), lines, problems, path)


def _describe(error: ValidationError, kind: type[BaseModel], path: Path, lines: dict[Path_, int], data: Any) -> list[str]:
    found: list[tuple[int, str]] = []
    for item in error.errors(include_url=False):
        at = _real(item["loc"], data)
        line = next((lines[at[:n]] for n in range(len(at), -1, -1) if at[:n] in lines), 0)
        where = f"{path}:{line}" if line else str(path)
        name = _dotted(at)
        given = item.get("input")
        if item["type"] == "string_type" and isinstance(given, dict):
            continue  # the other member of a `str | ModelShape` union reports what is wrong with the mapping
        if item["type"] == "extra_forbidden":
            text = f"unknown key {name!r}{did_you_mean(str(at[-1]), _keys_at(kind, at[:-1]))}"
        elif item["type"] == "missing":
            text = f"{name} is missing; it is required"
        else:
            rule = item["msg"].removeprefix("Value error, ")
            shown = f" (given: {_short(given)})" if not isinstance(given, dict | BaseModel) else ""
            text = f"{name or 'the file'}: {rule}{shown}"
        # A rule over several fields reports several problems in one message.
        parts = text.split("; ") if not at and item["type"] == "value_error" else [text]
        found += [(line, f"{where}: {part}") for part in parts]
    unique = dict.fromkeys(sorted(found, key=lambda entry: entry[0]))
    return [text for _, text in unique]


def _real(loc: tuple[Any, ...], data: Any) -> Path_:
    """The part of pydantic's path that exists in the file: it also names union members and validators."""
    at: list[Any] = []
    for index, part in enumerate(loc):
        inside = isinstance(data, dict) and part in data
        inside = inside or (isinstance(data, list) and isinstance(part, int) and part < len(data))
        if inside:
            at.append(part)
            data = data[part]
        elif index == len(loc) - 1 and isinstance(data, dict) and isinstance(part, str) and "[" not in part:
            at.append(part)
    return tuple(at)


def _keys_at(kind: type[BaseModel], at: Path_) -> list[str]:
    """Known keys at a path inside a document kind."""
    import typing

    current: list[Any] = [kind]
    for part in at:
        following: list[Any] = []
        for candidate in current:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel) and part in candidate.model_fields:
                following.append(candidate.model_fields[part].annotation)
        if isinstance(part, int):
            following = current
        current = [leaf for entry in following for leaf in _leaves(entry, typing.get_args)]
    models = [c for c in current if isinstance(c, type) and issubclass(c, BaseModel)]
    return [name for model in models for name in model.model_fields]


def _leaves(annotation: Any, args: Any) -> list[Any]:
    inner = args(annotation)
    return [annotation] if not inner else [leaf for part in inner for leaf in _leaves(part, args)]


def _dotted(at: Path_) -> str:
    text = ""
    for part in at:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
