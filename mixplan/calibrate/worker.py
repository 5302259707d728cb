"""One run in a process of its own: `python -m mixplan.calibrate.worker OUT RUN_ID DEVICE THREADS`.

The process ends when the one that started it does, and holds a lock on its run folder meanwhile: whoever
starts the same ladder again never finds two processes in one folder.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from pathlib import Path

from mixplan.calibrate.runs import RunFolder


def main() -> None:
    """Train the run."""
    out, run_id, device, threads = sys.argv[1:5]
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    with RunFolder(Path(out) / "runs" / run_id).lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        from mixplan.calibrate.training import train

        train(Path(out), run_id, device, int(threads))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(3)


if __name__ == "__main__":
    main()
