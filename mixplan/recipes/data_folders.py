"""Token files for other trainers: a folder a source that appears whole; its name stands for its content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from mixplan.errors import InputError
from mixplan.recipes.folders import written_whole
from mixplan.recipes.written import Progress

DATA, SIZES = "data", "sizes.json"


def data_folder(folder: Path, source: str, content: dict[str, str | int | None]) -> Path:
    """Where a source's files belong: DIR/data/NAME-DIGEST.

    Args:
        folder: of the emitted mixture.
        source: its name.
        content: everything that decides what is in the files.
    """
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    return folder / DATA / f"{source}-{digest}"


def writing(folders: list[tuple[Path, Callable[[Path], None]]]) -> Callable[[Progress], list[Path]]:
    """A `Written.data` that fills each of these folders (see `write_data_folder`) and lists their files."""

    def write(progress: Progress) -> list[Path]:
        files: list[Path] = []
        for target, fill in folders:
            if not target.exists():
                progress(f"writing {target}")
            files += write_data_folder(target, fill)
        return files

    return write


def write_data_folder(target: Path, write: Callable[[Path], None]) -> list[Path]:
    """Fill a folder, or leave it alone when it is there with files of their size.

    Args:
        target: from `data_folder`.
        write: writes the files into the new folder that it is given.

    Returns:
        The files, in the order of their names.

    Raises:
        InputError: what `write` raises; there is no room; or the folder is there and has been changed.
    """
    if not target.exists():
        with written_whole(target) as fresh:
            fresh.mkdir()
            write(fresh)
            files = sorted(path for path in fresh.iterdir() if path.is_file())
            sizes = {path.name: path.stat().st_size for path in files}
            (fresh / SIZES).write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
            for path in (*files, fresh / SIZES):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
    return _whole(target)


def _whole(target: Path) -> list[Path]:
    try:
        sizes = json.loads((target / SIZES).read_text(encoding="utf-8"))
        found = {name: (target / name).stat().st_size for name in sizes}
    except (OSError, ValueError):
        sizes, found = {}, None
    if found != sizes:
        raise InputError(
            f"{target} is there, but its files are not those that were written; move it away and emit again"
        )
    return [target / name for name in sizes]
