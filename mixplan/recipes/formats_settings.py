"""What the files for Megatron, nanotron and Hugging Face tell their trainers to read, in one form."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mixplan.errors import InputError
from mixplan.recipes.data_folders import DATA
from mixplan.recipes.huggingface import SETTINGS
from mixplan.recipes.megatron import ARGUMENTS, BLEND
from mixplan.recipes.nanotron import NANOTRON, TOKENS

_IDX_HEAD = "<9sQBQQ"  # as megatron.index writes it
_IDX_ITEM_BYTES = {8: 2, 4: 4}  # by the code of the tokens' type


@dataclass(frozen=True)
class Named:
    """A source as a trainer is told of it."""

    choose: float
    """Its weight: samples of the run."""
    files: list[Path]
    """The token files; empty when the shards themselves are read."""
    source: str | None = None
    """Its name, where the settings say it."""
    shards: Path | None = None
    index_sha256: str | None = None
    """Of the shards' index when the settings were written."""
    contradiction: Callable[[], str | None] = lambda: None
    """What in the files, which are all there, cannot be right."""

    @property
    def folder(self) -> Path | None:
        """The folder that emit wrote the files into; empty when they are the user's own."""
        above = self.files[0].parent if self.files else None
        return above if above is not None and above.parent.name == DATA else None


@dataclass(frozen=True)
class Settings:
    """What one trainer is told."""

    file: Path
    samples: int
    sequence_length: int
    sources: list[Named]
    problems: list[str]


def settings_in(folder: Path) -> list[Settings]:
    """The settings of every such format in the folder.

    Raises:
        InputError: a file is not of its form.
    """
    return [read(folder) for name, read in FORMATS_SETTINGS.items() if (folder / name).is_file()]


def _megatron(folder: Path) -> Settings:
    file = folder / BLEND
    try:
        words = file.read_text(encoding="utf-8").split()
        sources = [
            _megatron_source(float(weight), prefix)
            for weight, prefix in zip(words[::2], words[1::2], strict=True)
        ]
        said = shlex.split((folder / ARGUMENTS).read_text(encoding="utf-8"), comments=True)
        arguments = dict(itertools.pairwise(said))
        samples, length = int(arguments["--train-samples"]), int(arguments["--seq-length"])
        named = arguments["--data-args-path"]
    except (OSError, ValueError, KeyError) as error:
        raise _broken(f"{file} or {ARGUMENTS}", error) from None
    problems = []
    if not (os.path.exists(named) and os.path.samefile(named, file)):
        problems.append(
            f"{folder / ARGUMENTS} lets Megatron read {named}, not {file}; emit into this folder, or verify "
            "the one that it names"
        )
    return Settings(file, samples, length, sources, problems)


def _megatron_source(weight: float, prefix: str) -> Named:
    tokens, index = Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
    return Named(weight, [tokens, index], contradiction=lambda: index_problem(index, tokens.stat().st_size))


def index_problem(index: Path, token_bytes: int) -> str | None:
    """Whether an .idx file describes so many bytes of tokens, by its counts and its last sequence."""
    with index.open("rb") as file:
        head = file.read(struct.calcsize(_IDX_HEAD))
        try:
            _, _, code, count, boundaries = struct.unpack(_IDX_HEAD, head)
            item = _IDX_ITEM_BYTES[code]
            expected = len(head) + 4 * count + 8 * count + 8 * boundaries
            if boundaries != count + 1 or index.stat().st_size != expected:
                return f"{index} has not the size that its counts say"
            file.seek(len(head) + 4 * (count - 1))
            (length,) = struct.unpack("<i", file.read(4))
            file.seek(len(head) + 4 * count + 8 * (count - 1))
            (start,) = struct.unpack("<q", file.read(8))
        except (struct.error, KeyError, OSError, ValueError):
            return f"{index} is no index of Megatron's"
    if start + length * item != token_bytes:
        return f"{index} describes {start + length * item:,} bytes of tokens, and there are {token_bytes:,}"
    return None


def _nanotron(folder: Path) -> Settings:
    file = folder / NANOTRON
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        (stage,) = config["data_stages"]
        dataset = stage["data"]["dataset"]
        length, item = int(config["tokens"]["sequence_length"]), int(dataset["token_size_in_bytes"])
        sources = [
            _nanotron_source(float(weight), Path(place) / TOKENS, (length + 1) * item)
            for weight, place in zip(dataset["dataset_weights"], dataset["dataset_folder"], strict=True)
        ]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise _broken(str(file), error) from None
    return Settings(file, round(sum(source.choose for source in sources)), length, sources, [])


def _nanotron_source(weight: float, file: Path, window_bytes: int) -> Named:
    def wrong() -> str | None:
        windows = file.stat().st_size / window_bytes
        return None if windows == weight else f"{file} holds {windows:,g} windows, and {weight:,g} are read"

    return Named(weight, [file], contradiction=wrong)


def _huggingface(folder: Path) -> Settings:
    file = folder / SETTINGS
    try:
        given: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        sources = [
            Named(
                float(source["choose"]),
                [] if source["parquet"] is None else [Path(source["parquet"])],
                str(source["name"]),
                Path(source["mds"]),
                str(source["index_sha256"]),
            )
            for source in given["sources"]
        ]
        samples, length = int(given["samples"]), int(given["sequence_length"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(str(file), error) from None
    return Settings(file, samples, length, sources, [])


def _broken(what: str, error: Exception) -> InputError:
    return InputError(f"{what}: not what `mixplan emit` writes ({error}); emit again")


FORMATS_SETTINGS: dict[str, Callable[[Path], Settings]] = {
    BLEND: _megatron,
    NANOTRON: _nanotron,
    SETTINGS: _huggingface,
}
"""By the name of the file that has a trainer's weights."""
