"""What pydantic found wrong, in plain words: where, what was given, the rule, the way out."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mixplan.documents.base import NAME_PATTERN, SCHEMA_VERSION, RulesBroken
from mixplan.documents.suggest import did_you_mean
from mixplan.documents.syntax import At, dotted

# What a value should have been, by pydantic's error type. A union reports one such error for each member.
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list like [a, b]",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_COMPARE = {"greater_than": ("gt", ">"), "greater_than_equal": ("ge", "≥"), "less_than": ("lt", "<"),
            "less_than_equal": ("le", "≤")}  # fmt: skip


def describe(
    error: ValidationError, kind: type[BaseModel], path: Path, lines: dict[At, int], data: Any
) -> list[str]:
    """Every problem of a document as `file:line: text`, in the order of the lines, none twice."""
    details = error.errors(include_url=False)
    places = [_place(item, data) for item in details]
    found: list[tuple[int, str]] = []
    for item, at in zip(details, places, strict=True):
        if item["type"] in _EXPECTED and _another_member_says_more(at, details, places):
            continue
        for place, text in _say(item, at, details, places, kind, data):
            line = next((lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in lines), 0)
            found.append((line, f"{path}:{line}: {text}" if line else f"{path}: {text}"))
    return list(dict.fromkeys(text for _, text in sorted(found, key=lambda entry: entry[0])))


def _place(item: ErrorDetails, data: Any) -> At:
    """The part of pydantic's path that exists in the file: it also names union members and validators."""
    at: list[Any] = []
    for part in item["loc"]:
        inside = isinstance(data, dict) and part in data
        if inside or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            at.append(part)
            data = data[part]
    if item["type"] == "missing":
        at.append(item["loc"][-1])
    return tuple(at)


def _another_member_says_more(at: At, details: list[ErrorDetails], places: list[At]) -> bool:
    """In a union, the member whose kind the value has reports what is wrong inside; others do not matter."""
    return any(
        place[: len(at)] == at and (len(place) > len(at) or other["type"] not in _EXPECTED)
        for other, place in zip(details, places, strict=True)
    )


def _say(
    item: ErrorDetails,
    at: At,
    details: list[ErrorDetails],
    places: list[At],
    kind: type[BaseModel],
    data: Any,
) -> Iterator[tuple[At, str]]:
    name = dotted(at) or "the file"
    given = item.get("input")
    context = item.get("ctx") or {}
    shown = f" (given: {_short(given)})"
    what = item["type"]
    if what == "extra_forbidden":
        yield at, f"unknown key {name!r}{_suggest(kind, at)}"
    elif what == "missing":
        yield at, f"{name} is missing; it is required{_meaning(kind, at)}"
    elif what == "invalid_key" or item["loc"][-1:] == ("[key]",):
        where = f"{dotted(at[:-1])}: " if at[:-1] else ""
        yield at, f"{where}the key {at[-1]!r} must be text; put it in quotes"
    elif what in _EXPECTED:
        same = [o for o, place in zip(details, places, strict=True) if place == at and o["type"] in _EXPECTED]
        wanted = list(dict.fromkeys(_wanted(other, kind, at) for other in same))
        hint = "; put it in quotes" if wanted == ["text"] and isinstance(given, int | float) else ""
        if isinstance(given, int) and not isinstance(given, bool) and what == "float_type":
            wanted = ["a number below 1.8e308"]
        yield at, f"{name}: {' or '.join(wanted)} is needed{hint}{shown}"
    elif at == ("schema_version",):
        rule = f"this program reads version {SCHEMA_VERSION}{shown}"
        yield at, f"schema_version: {rule}; use the mixplan that wrote it"
    elif what == "literal_error":
        known = [entry for leaf in _annotations_at(kind, at) for entry in typing.get_args(leaf)]
        yield at, f"{name}: must be {context['expected']}{_close(given, known)}{shown}"
    elif what in _COMPARE:
        key, sign = _COMPARE[what]
        yield at, f"{name}: must be {sign} {context[key]:g}{shown}"
    elif what == "string_pattern_mismatch" and context.get("pattern") == NAME_PATTERN:
        rule = "letters, digits, '_', '.' and '-', the first a letter or digit (it names a folder)"
        yield at, f"{name}: a name has only {rule}{shown}"
    elif what == "string_too_long":
        yield at, f"{name}: at most {context['max_length']} characters{shown}"
    elif what == "finite_number":
        yield at, f"{name}: the number must be finite{shown}"
    elif isinstance(context.get("error"), RulesBroken):
        for below, text in context["error"].problems:
            place = (*at, *below)
            yield place, f"{dotted(place)}: {text}" if place else text
    else:
        # A rule of our own, or one of pydantic's that needs no translation.
        rule = item["msg"].removeprefix("Value error, ").replace("Input should", "must")
        yield at, f"{name}: {rule}{'' if isinstance(given, dict) else shown}"


def _wanted(item: ErrorDetails, kind: type[BaseModel], at: At) -> str:
    wanted = _EXPECTED[item["type"]]
    if wanted != "a mapping":
        return wanted
    keys = _keys_at(kind, at)
    return f"a mapping with the keys {', '.join(keys[:6])}{', …' if len(keys) > 6 else ''}"


def _suggest(kind: type[BaseModel], at: At) -> str:
    """A close key of the same part, else the same key in another part, else the keys of this part."""
    key = str(at[-1])
    hint = did_you_mean(key, _keys_at(kind, at[:-1]))
    elsewhere = list(_homes(kind, key)) if "did you mean" not in hint else []
    return f"; did you mean {elsewhere[0]!r}?" if elsewhere else hint


def _homes(kind: type[BaseModel], key: str, above: str = "") -> Iterator[str]:
    """Where in a document a key belongs."""
    for name, info in kind.model_fields.items():
        if name == key:
            yield above + name
        for member in _members(info.annotation):
            inner = typing.get_args(member)
            for model in _models([member, *(leaf for entry in inner for leaf in _members(entry))]):
                yield from _homes(model, key, f"{above}{name}[…]." if inner else f"{above}{name}.")


def _close(given: Any, known: list[Any]) -> str:
    hint = did_you_mean(given, known) if isinstance(given, str) else ""
    return hint if "did you mean" in hint else ""


def _meaning(kind: type[BaseModel], at: At) -> str:
    """The first sentence of the missing field's own description."""
    for model in _models(_annotations_at(kind, at[:-1])):
        info = model.model_fields.get(str(at[-1]))
        if info is not None and info.description:
            return ": " + " ".join(info.description.split()).split(". ")[0].rstrip(".")
    return ""


def _keys_at(kind: type[BaseModel], at: At) -> list[str]:
    """Known keys at a place inside a document kind."""
    return [name for model in _models(_annotations_at(kind, at)) for name in model.model_fields]


def _models(annotations: list[Any]) -> list[type[BaseModel]]:
    return [entry for entry in annotations if isinstance(entry, type) and issubclass(entry, BaseModel)]


def _annotations_at(kind: type[BaseModel], at: At) -> list[Any]:
    """The types a value may have at a place; unions opened, lists and dicts entered."""
    current: list[Any] = [kind]
    for part in at:
        following: list[Any] = []
        for entry in current:
            origin, arguments = typing.get_origin(entry), typing.get_args(entry)
            if isinstance(entry, type) and issubclass(entry, BaseModel) and part in entry.model_fields:
                following.append(entry.model_fields[str(part)].annotation)
            elif (origin is list and isinstance(part, int)) or origin is dict:
                following.append(arguments[-1])
        current = [member for entry in following for member in _members(entry)]
    return current


def _members(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return [member for entry in typing.get_args(annotation) for member in _members(entry)]
    return _members(typing.get_args(annotation)[0]) if origin is typing.Annotated else [annotation]


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "…"
