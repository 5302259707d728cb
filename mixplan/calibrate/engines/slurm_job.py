"""What a Slurm job does: train one run in a process of its own, and hand it back when time is up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from mixplan.calibrate.engines.process import STOPPED, TAKEN, note_end, start
from mixplan.calibrate.runs import RunFolder

_POLL_SECONDS = 0.3
_LEAST_WAIT_SECONDS = 5.0


class TrainRun:
    """The task that submitit runs, and runs again after a requeue. Training continues where it was.

    Args:
        out: the ladder's folder, absolute.
        run_id: the run.
        device: `cpu` or `cuda`.
        threads: CPU threads of each process.
        processes: that train the run together.
        signal_seconds: how long before the time limit the job is told.
    """

    def __init__(
        self, out: str, run_id: str, device: str, threads: int, processes: int, signal_seconds: int
    ) -> None:
        self.settings = (out, run_id, device, threads, processes, signal_seconds)
        self._process: subprocess.Popen | None = None

    def __call__(self) -> str:
        """Train the run to its end.

        Raises:
            RuntimeError: it crashed, was stopped, or is trained elsewhere; Slurm then shows a failed job.
        """
        out, run_id, device, threads, processes, _ = self.settings
        folder = RunFolder(Path(out) / "runs" / run_id)
        _link_messages(folder)
        self._process = start(Path(out), folder, device, threads, processes)
        # Not wait(): it would hold Popen's lock when the signal handler below runs.
        while (code := self._process.poll()) is None:
            time.sleep(_POLL_SECONDS)
        note_end(folder, code)
        if code == TAKEN:
            raise RuntimeError(f"run {run_id} is being trained by another process; see {folder.log}")
        if code == STOPPED:
            raise RuntimeError(f"run {run_id} was stopped after saving its state; see {folder.log}")
        if code != 0:
            raise RuntimeError(f"run {run_id} crashed with exit code {code}; see {folder.log}")
        return run_id

    def checkpoint(self) -> Any:
        """Called by submitit shortly before the time limit: save, leave, and come back in the queue."""
        import submitit

        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            until = time.monotonic() + max(_LEAST_WAIT_SECONDS, self.settings[-1] - 15)
            while time.monotonic() < until and _lives(self._process.pid):
                time.sleep(_POLL_SECONDS)
        return submitit.helpers.DelayedSubmission(TrainRun(*self.settings))


def _lives(pid: int) -> bool:
    """Whether a child still runs; it is not reaped, which is the interrupted caller's."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _link_messages(folder: RunFolder) -> None:
    """slurm.txt in the run folder: what Slurm and submitit say about the job."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID", "")
    name = f"{job}_{os.environ['SLURM_ARRAY_TASK_ID']}" if job else os.environ["SLURM_JOB_ID"]
    link = folder.path / "slurm.txt"
    link.unlink(missing_ok=True)
    link.symlink_to(Path("..") / ".." / "slurm" / f"{name}_0_log.err")
