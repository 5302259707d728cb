"""Writes that either happen whole or not at all, and never over something else."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mixplan.errors import InputError


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` through a temporary file in the same folder, synced before the rename."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """As `write_text`, for bytes.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); give a path in a folder that can be written to"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted-as-given keys, two-space indent and a final newline; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def refuse_foreign(folder: Path, own: Iterable[str], what: str) -> None:
    """Refuse a folder that holds something other than what this command writes there.

    Args:
        folder: the output folder; may be missing or empty.
        own: names of which at least one marks the folder as written by the same command.
        what: what the folder would hold, for the message.

    Raises:
        InputError: the path is a file, or the folder holds files and none of `own`.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file; {what} needs a folder: give another path with -o")
    if not folder.is_dir():
        return
    held = sorted(entry.name for entry in folder.iterdir())
    if held and not any(name in held for name in own):
        shown = ", ".join(held[:5]) + (", …" if len(held) > 5 else "")
        raise InputError(
            f"{folder} already holds something else ({shown}); {what} needs an empty or new folder: "
            "give another path with -o, or move those files away"
        )


def refuse_overwrite(path: Path, what: str, force: bool) -> None:
    """Refuse to replace an existing file unless `force`, and a path that leads through a file.

    Raises:
        InputError: the file exists and `force` is false, the path is a folder, or its folder cannot be made.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; {what} needs a file name: give another path with -o")
    above = next((folder for folder in path.absolute().parents if folder.exists()), None)
    if above is not None and not above.is_dir():
        raise InputError(f"{path} cannot be written: {above} is a file; give a path in a folder")
    if path.exists() and not force:
        raise InputError(
            f"{path} exists; {what} does not overwrite it: add --force, or give another path with -o"
        )
