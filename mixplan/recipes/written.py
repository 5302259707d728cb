"""What every format of `emit` is asked and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mixplan.documents.base import Document
from mixplan.documents.recipe import Recipe
from mixplan.documents.syntax import dump_yaml

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What `emit` was asked besides the recipe; a format takes what concerns it."""

    block_samples: int | None = None
    """streaming: shuffle within blocks of this many samples instead of the whole run at once."""
    with_data: bool = False
    """Other trainers' formats: also write the tokens in the form that they read."""


@dataclass(frozen=True)
class Written:
    """What a format wants written."""

    texts: dict[str, str]
    """Content of each file, by its name in the folder."""
    notes: list[str]
    """What the user should know."""
    fingerprint: str | None
    """Of the mixture, where the format has one."""
    data: Callable[[Progress], list[Path]] | None = None
    """Writes the large files, where they are asked for: each atomically, those that are there and whole left
    alone; returns their paths. Called when everything has been checked."""


Format = Callable[[Recipe, Path, Options], Written]
"""(recipe with absolute MDS folders, output folder, options) → what to write; raises InputError."""


def commented_yaml(document: Document, header: str) -> str:
    """A document as YAML, after comment lines."""
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + dump_yaml(document.model_dump(mode="json"))
