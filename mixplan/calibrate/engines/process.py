"""One run in a process of its own, as every engine starts it, and what its end means."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mixplan.calibrate.runs import RunFolder
from mixplan.documents.atomic import write_text

ORPHANED, TAKEN, STOPPED = 3, 4, 5
"""Exit codes of a worker: its parent is gone; another process trains the run; told to stop, it saved."""
_LOG_LINES = 15


def start(
    out: Path,
    folder: RunFolder,
    device: str,
    threads: int,
    processes: int = 1,
    gpus: Sequence[int] | None = None,
) -> subprocess.Popen:
    """Start the worker of a run; its output is appended to the run's log.txt.

    Args:
        out: the ladder's folder.
        device: `cpu` or `cuda`.
        threads: CPU threads of each process.
        processes: that train the run together.
        gpus: of those that this process sees; None: leave the choice to the scheduler.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    if gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        named = [visible[gpu] if visible != [""] else str(gpu) for gpu in gpus]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(named)
    command = [sys.executable, "-m", "mixplan.calibrate.worker"]
    command += [str(out), folder.path.name, device, str(threads), str(processes)]
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )


def note_end(folder: RunFolder, code: int) -> None:
    """Record a crash in failed.txt, with the end of the log. Stopped or taken elsewhere is no crash."""
    if folder.done() is None and code not in (TAKEN, STOPPED):
        tail = folder.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        write_text(folder.path / "failed.txt", "\n".join([f"exit code {code}", *tail]) + "\n")
