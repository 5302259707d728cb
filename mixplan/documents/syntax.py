"""YAML and JSON become plain data, with the line of every key; plain data becomes YAML.

Scalars are read by the core schema of YAML 1.2: 1e9 is a number; `no` and `on` are text (a source may have
such a name); 010 and 1:30 are text and not, as in YAML 1.1, the numbers 8 and 90.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

At = tuple[Any, ...]
"""A place in a file: keys and list positions from the top."""


@dataclass(frozen=True)
class Parsed:
    """What a file holds, or why it cannot be read."""

    data: Any = None
    lines: dict[At, int] = field(default_factory=dict)
    """Line of every key and list item (YAML only), counted from 1."""
    problems: list[str] = field(default_factory=list)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes whatever YAML 1.1 or 1.2 would not read as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_INT = re.compile(r"^(?:[-+]?(?:0|[1-9][0-9_]*)|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_CORE: list[tuple[str, re.Pattern[str], str]] = [
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), "~nN\0"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
]

_KEY_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "bool", "null", "int", "float")}


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    return int(text, 8) if text.startswith("0o") else int(text, 16) if text.startswith("0x") else int(text)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # Unicode line breaks only survive in double quotes, where they are escaped.
    quoted = '"' if any(mark in value for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=quoted)


_Dumper.add_representer(str, _text)
_Loader.yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # merge keys
_Dumper.yaml_implicit_resolvers = {
    key: list(rules) for key, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
for _name, _pattern, _first in _CORE:
    starts = ["" if letter == "\0" else letter for letter in _first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, starts)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, starts)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse(path: Path, text: str) -> Parsed:
    """Read YAML, or JSON when the name ends in .json. Problems of syntax come back, they are not raised."""
    try:
        return _parse_json(path, text) if path.suffix == ".json" else _parse_yaml(path, text)
    except RecursionError:
        return Parsed(problems=[f"{path}: nested too deeply, or a YAML anchor that holds itself"])
    except ValueError:  # Python refuses to read an integer of thousands of digits
        return Parsed(problems=[f"{path}: a number has too many digits to be read"])


def dump_yaml(data: Any) -> str:
    """Plain data as YAML, keys in their own order. `parse` reads the same data back."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def dotted(at: At) -> str:
    """A place in words: `sources[2].name`."""
    text = ""
    for part in at:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def _parse_json(path: Path, text: str) -> Parsed:
    problems: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        problems.extend(f"{path}: key {key!r} is given twice in one object; keep one" for key in _twice(keys))
        return dict(pairs)

    def refuse(constant: str) -> None:
        problems.append(f"{path}: {constant} is not JSON; every number must be finite")

    try:
        data = json.loads(text, object_pairs_hook=unique, parse_constant=refuse) if text.strip() else None
    except json.JSONDecodeError as error:
        return Parsed(problems=[f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno})"])
    return Parsed(data, {}, problems)


def _parse_yaml(path: Path, text: str) -> Parsed:
    lines: dict[At, int] = {}
    problems: list[str] = []
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return Parsed()
        loader = _Loader("")
        try:
            _walk(node, (), lines, problems, path, loader)
            return Parsed(loader.construct_document(node), lines, problems)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        return Parsed(problems=[f"{where}: not YAML: {_plain(error)}"])
    except yaml.YAMLError as error:  # ReaderError: a character that no YAML file may hold
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1
        return Parsed(problems=[f"{path}:{line}: not YAML: a control character; is this a text file?"])


def _plain(error: yaml.MarkedYAMLError) -> str:
    what = error.problem or "cannot be read"
    if "'\\t'" in what:
        return "a tab where YAML allows only spaces; indent with spaces"
    if "another document" in what:
        return "a second document begins here (`---`); one file holds one document"
    if "mapping values are not allowed" in what:
        return "a second ': ' in one line, or a line indented too far; put text that holds ': ' in quotes"
    context = f" ({error.context})" if error.context else ""
    return what + context


def _walk(
    node: yaml.Node, at: At, lines: dict[At, int], problems: list[str], path: Path, loader: yaml.SafeLoader
) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: dict[Any, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = loader.construct_object(key) if key.tag in _KEY_TAGS else str(key.value)
            here = (*at, name)
            if name in seen and name != "<<":
                problems.append(
                    f"{path}:{line}: {dotted(here)} is given twice (first in line {seen[name]}); keep one"
                )
            seen.setdefault(name, line)
            lines[here] = line
            _walk(value, here, lines, problems, path, loader)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*at, index), lines, problems, path, loader)


def _twice(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
