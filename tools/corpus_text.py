"""Text out of the formats that packages ship documentation in. Pure functions, for assemble_corpus.py."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

_BLOCKS = {
    "p", "div", "br", "li", "tr", "table", "ul", "ol", "dl", "dt", "dd", "pre", "blockquote", "hr",
    "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "title", "body",
}  # fmt: skip
_SILENT = {"script", "style", "nav", "head"}


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.silent = self.preformatted = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.silent += tag in _SILENT
        self.preformatted += tag == "pre"
        if tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.silent = max(0, self.silent - (tag in _SILENT))
        self.preformatted = max(0, self.preformatted - (tag == "pre"))
        if tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.pieces.append(data if self.preformatted else re.sub(r"\s+", " ", data))


def html_text(html: str) -> str:
    """Visible text: a line per block, white space collapsed except in <pre>, at most one empty line."""
    parser = _Text()
    parser.feed(html)
    parser.close()
    return _tidy("".join(parser.pieces))


def roff_text(roff: str) -> str:
    """Text of a manual page: requests and comments dropped, arguments of font requests kept."""
    lines = []
    for line in roff.splitlines():
        if line.startswith((".", "'")):
            name, _, rest = line[1:].strip().partition(" ")
            if name in ("SH", "SS", "Sh", "Ss"):
                lines += ["", rest.strip().replace('"', "")]
            elif name in ("B", "I", "R", "BI", "BR", "IB", "IR", "RB", "RI", "SM", "SB"):
                joint = " " if len(name) == 1 else ""
                words = re.findall(r'"([^"]*)"|(\S+)', rest)
                lines.append(joint.join(quoted or bare for quoted, bare in words))
            elif name in ("PP", "P", "LP", "TP", "IP", "HP", "Pp"):
                lines.append("")
            continue
        lines.append(line)
    text = re.sub(r'\\".*', "", "\n".join(lines))
    text = re.sub(r"\\f(\[[^\]]*\]|\(..|.)", "", text)
    text = re.sub(r"\\s[-+]?\d+|\\[&%:/,|^]|\\\n", "", text)
    text = re.sub(r"\\\((em|en|hy|mi)", "-", re.sub(r"\\\((aq|cq|oq|dq)", "'", text))
    text = re.sub(r"\\\*?(\[[^\]]*\]|\(..)", "", text)
    text = text.replace("\\-", "-").replace("\\e", "\x00").replace("\\ ", " ").replace("\\~", " ")
    return _tidy(re.sub(r"\\(.)", r"\1", text).replace("\x00", "\\"))


def dict_entries(data: bytes, index: str) -> Iterator[str]:
    """Entries of a dictd dictionary, each once, in the order of the data; its own 00-database pages left out.

    Args:
        data: the unpacked .dict file.
        index: the .index file: headword, offset and length a line, numbers in base 64 (RFC 2229's software).

    Raises:
        ValueError: the index names a place beyond the data, or is not in that format.
    """
    places = set()
    for line in index.splitlines():
        headword, offset, length = line.split("\t")[:3]
        if not headword.startswith("00"):
            places.add((_base64(offset), _base64(length)))
    for offset, length in sorted(places):
        if offset + length > len(data):
            raise ValueError(f"the index names bytes up to {offset + length}, the data has {len(data)}")
        yield data[offset : offset + length].decode("utf-8", errors="replace").strip()


def _base64(digits: str) -> int:
    """Big-endian number in the digits of base64, without padding."""
    value = 0
    for digit in digits:
        place = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".index(digit)
        value = 64 * value + place
    return value


def metamath_statements(database: str) -> Iterator[str]:
    """Theorems of a Metamath database: label, $p statement and proof, with the comment before each."""
    comment = r"(?:\$\((?:(?!\$\)).)*\$\)\s*)?"
    for found in re.finditer(rf"{comment}\S+\s+\$p\s(?:(?!\$\.).)*\$\.", database, re.DOTALL):
        yield _tidy(found.group())


def verses_by_chapter(lines: Iterable[str]) -> Iterator[str]:
    """Verse lines `Ge1:1 In the beginning …` as one text a chapter, without the references."""
    chapter, verses = "", []
    for line in lines:
        found = re.match(r"(\S+?\d+):\d+ (.*)", line)
        if found is None:
            continue
        if found[1] != chapter and verses:
            yield "\n".join(verses)
            verses = []
        chapter = found[1]
        verses.append(found[2].strip())
    if verses:
        yield "\n".join(verses)


def grouped(pieces: Iterable[str], least_bytes: int) -> Iterator[str]:
    """Neighbouring pieces joined by an empty line until a group has `least_bytes`; the last may have less."""
    waiting: list[str] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece.encode("utf-8"))
        if size >= least_bytes:
            yield "\n\n".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield "\n\n".join(waiting)


def _tidy(text: str) -> str:
    lines = [line.rstrip() for line in text.replace("\xa0", " ").split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
