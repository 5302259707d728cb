"""What every format of `emit` is asked and answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError

_SIZE_DIGITS = 20

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What `emit` was asked besides the recipe; a format takes what concerns it."""

    block_samples: int | None = None
    """streaming: shuffle within blocks of this many samples instead of the whole run at once."""
    cache_limit: int | None = None
    """streaming: bytes of shards that a node can hold; the smallest even order is searched for."""
    nodes: int | None = None
    """streaming: machines that the run is planned for; empty: one."""
    canonical_nodes: int | None = None
    """streaming: Streaming's num_canonical_nodes; empty: chosen."""
    with_data: bool = False
    """Other trainers' formats: also write the tokens in the form that they read."""

    def of_the_order(self) -> list[str]:
        """The options given that concern the order of the samples, as they are called."""
        given = {
            "--block-samples": self.block_samples,
            "--cache-limit": self.cache_limit,
            "--nodes": self.nodes,
            "--canonical-nodes": self.canonical_nodes,
        }
        return [name for name, value in given.items() if value is not None]

    def check_order(self) -> None:
        """Raises InputError with all that is wrong with what concerns the order."""
        problems = [
            f"--{name} {value}: at least {least} {'is' if value == 1 else 'are'} needed"
            for name, value, least in (
                ("block-samples", self.block_samples, 2),
                ("cache-limit", self.cache_limit, 1),
                ("nodes", self.nodes, 1),
                ("canonical-nodes", self.canonical_nodes, 1),
            )
            if value is not None and value < least
        ]
        if self.block_samples is not None and self.cache_limit is not None:
            problems.append(
                "--block-samples and --cache-limit: the second chooses the block itself; give one of them"
            )
        canonical, nodes = self.canonical_nodes or 1, self.nodes or 1
        if not problems and max(canonical, nodes) % min(canonical, nodes):
            problems.append(
                f"--canonical-nodes {canonical} and --nodes {nodes}: one must divide the other, or Streaming "
                f"refuses; take a multiple of {nodes}"
            )
        if problems:
            raise InputError(problems)


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
    measured: dict[str, Any] = field(default_factory=dict)
    """What was measured of the planned order, for --json; empty where there is none."""


Format = Callable[[Recipe, Path, Options], Written]
"""(recipe with absolute MDS folders, output folder, options) → what to write; raises InputError."""


def read_bytes_given(text: str | None) -> int | None:
    """A size as Streaming reads it: 5000000, 300mb, 1.5gb; kb, mb, gb, tb are powers of 1024.

    Raises:
        InputError: it is none.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(b|kb|mb|gb|tb)?\s*", text.lower())
    # more digits than any disk has bytes, and more than a float holds
    if match is None or len(match[1]) > _SIZE_DIGITS:
        raise InputError(f"{text!r} is no size; write e.g. 200gb, 1.5tb or a number of bytes")
    return int(float(match[1]) * 1024 ** ("b", "kb", "mb", "gb", "tb").index(match[2] or "b"))
