"""Work that may hang or die without a word: watched from outside, and ended when nothing moves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

_POLL_SECONDS = 0.25
_ENDING_SECONDS = 10.0
# Readers are alone, also inside a distributed job's environment.
_DISTRIBUTED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
T = TypeVar("T")


class Stalled(Exception):
    """Nothing moved for too long; the argument is what was being done."""


def watch_processes(
    commands: Sequence[list[str]],
    messages: Path,
    moved: Callable[[], int],
    stall_seconds: float,
    progress: Callable[[int], None],
    temporary: Path,
) -> int | None:
    """Run one process a rank until all end.

    Args:
        commands: one a rank; with several, each gets its rank in the environment.
        messages: file that takes what they say.
        moved: how far they are together; larger from time to time.
        stall_seconds: how long that number may stay the same.
        progress: called with it when it has changed.
        temporary: their temporary folder, where Streaming puts its lock files.

    Returns:
        The first exit status that is not 0, or 0; nothing when they were ended for making no progress.
        When one fails, the others are ended. What they held in shared memory is freed either way.
    """
    package = Path(__file__).resolve().parents[2]
    base = {key: value for key, value in os.environ.items() if key not in _DISTRIBUTED}
    base["TMPDIR"] = str(temporary)
    base["PYTHONPATH"] = os.pathsep.join([str(package), *filter(None, [base.get("PYTHONPATH")])])
    children: list[subprocess.Popen[bytes]] = []
    try:
        with messages.open("ab") as said:
            for rank, command in enumerate(commands):
                env = base | _rank(rank, len(commands)) if len(commands) > 1 else base
                children.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=said,
                        stderr=said,
                        env=env,
                        start_new_session=True,
                    )
                )
        seen, since = 0, time.monotonic()
        while True:
            codes = [child.poll() for child in children]
            if any(codes) or None not in codes:
                return next((code for code in codes if code), 0)
            time.sleep(_POLL_SECONDS)
            now = moved()
            if now != seen:
                seen, since = now, time.monotonic()
                progress(seen)
            elif time.monotonic() - since > stall_seconds:
                return None
    finally:
        _end(children)


def _rank(rank: int, ranks: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(ranks),
    }


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the processes and their workers; their resource trackers outlive them to free the shared memory."""
    left = list(children)
    for kind in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _ENDING_SECONDS
        while left and time.monotonic() < deadline:
            left = [child for child in left if _signalled(child, kind)]
            time.sleep(0.05 if left else 0.0)


def _signalled(child: subprocess.Popen[bytes], kind: signal.Signals) -> bool:
    """Whether there was anyone left in the process's group to be told to end."""
    try:
        os.killpg(child.pid, kind)
    except ProcessLookupError:
        child.wait()
        return False
    child.poll()
    return True


def end_with_parent() -> None:
    """End this process group when the process that started it is gone."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    os.killpg(os.getpgrp(), signal.SIGTERM)


def last_words(messages: Path) -> str:
    """The last exception line of what processes said, else the last line."""
    lines = [line.strip() for line in messages.read_text(errors="replace").splitlines()]
    errors = [
        line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Timeout\w*|Interrupt)\b", line)
    ]
    return errors[-1] if errors else next((line for line in reversed(lines) if line), "")


def watch_call(work: Callable[[Callable[[Any], None]], T], stall_seconds: float) -> T:
    """Run `work(beat)` in a thread, where beat(what) says what is being done now.

    Raises:
        Stalled: with the last `what`, when none came for `stall_seconds`. The thread is left behind: a read
            that storage never answers cannot be ended from here, only with the process.
    """
    state: dict[str, Any] = {"what": None, "since": time.monotonic()}
    ended = threading.Event()

    def beat(what: Any) -> None:
        state["what"], state["since"] = what, time.monotonic()

    def run() -> None:
        try:
            state["result"] = work(beat)
        except BaseException as error:
            state["error"] = error
        finally:
            ended.set()

    threading.Thread(target=run, daemon=True).start()
    while not ended.wait(min(_POLL_SECONDS, stall_seconds)):
        if time.monotonic() - state["since"] > stall_seconds:
            raise Stalled(state["what"])
    if "error" in state:
        raise state["error"]
    return state["result"]
