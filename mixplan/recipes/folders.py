"""Folders that appear whole or not at all, and what is a folder and what a URL."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mixplan.errors import InputError

LOCAL = "mds-local"
"""Where sources whose `mds` is a URL are built before they are uploaded, beside the plan."""


def is_url(place: str) -> bool:
    """Whether Streaming would download from it: s3://…, gs://…, dbfs:/…"""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", place) is not None


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A new, not yet existing path to write a folder to; when all went well it becomes `target`.

    It lies in a hidden sibling of `target`, which a killed process leaves behind and the next one removes.
    That sibling is locked while its process lives, so that of two side by side none removes the other's work.
    `target` must be missing or empty.

    Raises:
        InputError: writing failed (no permission, disk full, `target` was filled meanwhile); nothing is left.
    """
    prefix = f".{target.name}.partial-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            with locked(target.parent):  # so that nobody finds the new sibling before it is locked itself
                for leftover in target.parent.glob(f"{prefix}*"):
                    _remove_unless_locked(leftover)
                hidden = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
                undo.enter_context(locked(hidden))
            undo.callback(shutil.rmtree, hidden, ignore_errors=True)
            written = hidden / "folder"
            yield written
            umask = os.umask(0)
            os.umask(umask)
            written.chmod(0o777 & ~umask)
            written.rename(target)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written: {error.strerror or error}; nothing was left there"
        ) from None


def work_folder(target: Path) -> Path:
    """Where `resumable` keeps unfinished work on a target."""
    return target.parent / f".{target.name}.build"


@contextmanager
def resumable(target: Path) -> Iterator[Path]:
    """A folder for the unfinished work on `target`, in which a later process finds what an earlier one left.

    It is a hidden sibling of `target`, locked while its process lives. It goes when all went well, and stays
    (with what is in its subfolder `spill`) when the work was cut short.

    Raises:
        InputError: another process works there, or it cannot be written (no permission, disk full).
    """
    work = work_folder(target)
    try:
        (work / "spill").mkdir(parents=True, exist_ok=True)
        with locked(work, fcntl.LOCK_EX | fcntl.LOCK_NB):
            (work / "spill").mkdir(parents=True, exist_ok=True)
            try:
                yield work
            except BaseException:
                if not any((work / "spill").iterdir()):
                    shutil.rmtree(work, ignore_errors=True)
                raise
            shutil.rmtree(work, ignore_errors=True)
    except BlockingIOError:
        raise InputError(f"{target} is being built by another process; wait for it to end") from None
    except OSError as error:
        raise InputError(
            f"{target} cannot be written: {error.strerror or error}; nothing was left there"
        ) from None


def remove_unfinished(target: Path) -> None:
    """Remove what `resumable` left of a target that is whole, unless a process works there."""
    work = work_folder(target)
    if work.is_dir():
        _remove_unless_locked(work)


@contextmanager
def locked(folder: Path, flags: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold the folder's lock; the system drops it when the process ends, however it ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, flags)
        yield
    finally:
        os.close(handle)


def _remove_unless_locked(leftover: Path) -> None:
    try:
        with locked(leftover, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(leftover, ignore_errors=True)
    except BlockingIOError:
        return
