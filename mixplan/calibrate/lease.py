"""Who trains a run: one process at a time, on one machine or on many that share the folder.

Two signs, because neither is right everywhere:
- a file lock on RUN/lock, which the kernel gives back however its holder ends. It decides between processes
  of one machine, and between machines where the file system passes locks on (NFS, Lustre mounted with flock).
- a heartbeat, RUN/owner.json, rewritten every few seconds. It decides where locks stay on their own machine.

Clocks of different machines are never compared: a heartbeat is alive when it changes while it is watched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mixplan.documents.atomic import write_json

_log = logging.getLogger(__name__)
BEAT_SECONDS = 15.0
SILENT_SECONDS = 120.0
"""Without a beat for so long, another machine's process is taken for dead. Well above what network file
systems keep of a directory without asking (60 s)."""
_PATIENCE_SECONDS = 10.0
"""A process whose parent was killed leaves within a second or so."""


class Taken(Exception):
    """Another process trains this run."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Be the only one who trains the run in this folder, as long as the context lasts.

    Raises:
        Taken: somebody else does.
    """
    with (folder / "lock").open("a") as lock:
        own = _locked(lock, folder)
        _wait_for_silence(folder, own)
        me = {"host": socket.gethostname(), "process": os.getpid(), "beat": 0}
        _claim(folder, me)
        over = threading.Event()
        beats = threading.Thread(target=_beat, args=(folder, me, over), daemon=True)
        beats.start()
        try:
            yield
        finally:
            over.set()
            beats.join()
            (folder / "owner.json").unlink(missing_ok=True)


def held(folder: Path) -> bool:
    """Whether a process trains this run now, as far as its folder tells (for display)."""
    try:
        with (folder / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        pass
    owner = _owner(folder)
    if owner is None or owner["host"] == socket.gethostname():
        return False
    with contextlib.suppress(FileNotFoundError):
        return time.time() - (folder / "owner.json").stat().st_mtime < SILENT_SECONDS
    return False


def _locked(lock: IO[str], folder: Path) -> bool:
    """Take the lock; False where the file system has none."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                raise Taken(_who(folder)) from None
            time.sleep(0.2)
        except OSError:
            return False


def _wait_for_silence(folder: Path, locked: bool) -> None:
    """Return when no other process beats here; the lock has decided already about those of this machine."""
    first = owner = _owner(folder)
    until = time.monotonic() + SILENT_SECONDS
    while owner is not None and not (locked and owner["host"] == socket.gethostname()):
        if owner != first:
            raise Taken(_who(folder))
        if time.monotonic() > until:
            return
        time.sleep(1.0)
        owner = _owner(folder)


def _beat(folder: Path, me: dict[str, Any], over: threading.Event) -> None:
    while not over.wait(BEAT_SECONDS):
        owner = _owner(folder)
        if owner is not None and (owner["host"], owner["process"]) != (me["host"], me["process"]):
            # This process was silent for so long (suspended, cut off) that another one took over.
            _log.error("%s; this one leaves without writing anything more", _who(folder))
            os._exit(1)
        me["beat"] += 1
        # A full disk must not end the run: the next beat may succeed.
        with contextlib.suppress(OSError):
            _claim(folder, me)


def _claim(folder: Path, me: dict[str, Any]) -> None:
    write_json(folder / "owner.json", me)


def _owner(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / "owner.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def _who(folder: Path) -> str:
    owner = _owner(folder)
    by = f"process {owner['process']} on {owner['host']}" if owner else "another process"
    return f"run {folder.name} is being trained by {by}"
