"""HTML and SVG as escaped text: everything that is not already `Markup` is escaped on its way in."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any


class Markup(str):
    """Text that is markup already; made by `tag` and `join` only."""

    __slots__ = ()


def escape(value: Any) -> Markup:
    """`value` as text that is safe inside elements and quoted attributes; `Markup` stays as it is."""
    if isinstance(value, Markup):
        return value
    text = (
        str(value).encode("utf-8", "replace").decode("utf-8")
    )  # a lone surrogate cannot be written as UTF-8
    printable = "".join(c if c >= " " or c in "\n\t" else "\ufffd" for c in text)
    return Markup(html.escape(printable, quote=True))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """One element.

    Args:
        name: element name, a constant of the calling code.
        children: text (escaped) or `Markup`; None is left out.
        attributes: `class_` becomes `class`, `_` becomes `-`; None and False leave the attribute out, True
            gives it without a value; floats are rounded to 2 decimals (a hundredth of a pixel).
    """
    opening = f"<{name}"
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        opening += f" {attribute}" if value is True else f' {attribute}="{escape(_number(value))}"'
    inner = join(children)
    if not inner and name in _VOID:
        return Markup(f"{opening}/>")
    return Markup(f"{opening}>{inner}</{name}>")


def join(children: Iterable[Any], between: str = "") -> Markup:
    """Children one after another, text among them escaped."""
    return Markup(between.join(escape(child) for child in children if child is not None))


_VOID = {"line", "rect", "circle", "path", "meta", "link", "br", "hr", "col", "use"}


def _number(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) >= 0.005 else "0"
    return value
