"""Token files for other trainers: a folder a source that appears whole; its name stands for its content.

held.json lists size and SHA-256 of every file of the folder as it was written. By it `emit` decides whether
it can keep a folder, and `verify` whether the data are still those that were written.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mixplan.errors import InputError
from mixplan.recipes.folders import locked, written_whole
from mixplan.recipes.hashing import file_sha256
from mixplan.recipes.written import Progress

DATA, HELD = "data", "held.json"


def data_folder(folder: Path, source: str, content: dict[str, str | int | None]) -> Path:
    """Where a source's files belong: DIR/data/NAME-DIGEST.

    Args:
        folder: of the emitted mixture.
        source: its name.
        content: everything that decides what is in the files.
    """
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    return folder / DATA / f"{source}-{digest}"


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left half written in DIR/data and DIR/PHASE/data, for whichever mixture.

    What another process writes at this moment stays.
    """
    for data in (*folder.glob(DATA), *folder.glob(f"*/{DATA}")):
        with locked(data):  # as `written_whole`, so that no folder is seen before its writer locks it
            for leftover in data.glob(".*.partial-*"):
                with suppress(OSError), locked(leftover, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(leftover, ignore_errors=True)


def writing(folders: list[tuple[Path, Callable[[Path], None]]]) -> Callable[[Progress], list[Path]]:
    """A `Written.data` that fills each of these folders (see `write_data_folder`) and lists their files."""

    def write(progress: Progress) -> list[Path]:
        files: list[Path] = []
        for target, fill in folders:
            progress(f"{'checking' if target.exists() else 'writing'} {target}")
            files += write_data_folder(target, fill)
        return files

    return write


def write_data_folder(target: Path, write: Callable[[Path], None]) -> list[Path]:
    """Fill a folder, or leave it alone when it is there with the content that was written.

    Args:
        target: from `data_folder`.
        write: writes the files into the new folder that it is given.

    Returns:
        The files, in the order of their names.

    Raises:
        InputError: what `write` raises; there is no room; or the folder is there and has been changed.
    """
    if target.exists():
        return [target / name for name in kept(target)]
    with written_whole(target) as fresh:
        fresh.mkdir()
        write(fresh)
        files = sorted(path for path in fresh.iterdir() if path.is_file())
        write_held(fresh, {path.name: held(path) for path in files})
    return [target / path.name for path in files]


def held(path: Path) -> dict[str, Any]:
    """What held.json says of a file: `bytes` and `sha256`, from what is on the disk."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def write_held(folder: Path, listed: dict[str, dict[str, Any]]) -> None:
    """Write held.json and put everything on the disk.

    Args:
        folder: new, with the files in it.
        listed: of each file, by its name, at least what `held` says.
    """
    (folder / HELD).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
    for name in (*listed, HELD):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


def kept(folder: Path) -> list[str]:
    """The names of a folder's files, when all of them are as they were written.

    Raises:
        InputError: with all that is not.
    """
    if problems := damage(folder):
        raise InputError([f"{problem}; move {folder} away and emit again" for problem in problems])
    return list(_listed(folder))


def damage(folder: Path, hashes: bool = True) -> list[str]:
    """What is not as it was written in a data folder: files missing, of another size or of other content.

    Args:
        folder: DIR/data/NAME-DIGEST of any format.
        hashes: read the files and compare digests, not only presence and size.

    Returns:
        A problem a file; empty when all is as held.json says.
    """
    try:
        listed = _listed(folder)
    except InputError as error:
        return error.problems
    problems = []
    for name, wanted in listed.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif (size := path.stat().st_size) != wanted["bytes"]:
            problems.append(f"{path} has {size:,} bytes, not {wanted['bytes']:,}")
        elif hashes and file_sha256(path) != wanted["sha256"]:
            problems.append(f"{path}: its content is not what was written")
    return problems


def _listed(folder: Path) -> dict[str, dict[str, Any]]:
    """held.json.

    Raises:
        InputError: it is missing or broken.
    """
    path = folder / HELD
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {"bytes": int(said["bytes"]), "sha256": str(said["sha256"])}
            for name, said in listed.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}, which lists what was written, is missing or broken") from None
