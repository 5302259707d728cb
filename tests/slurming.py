"""A throw-away Slurm for tests: some nodes on this machine, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parent.parent / "tools" / "slurm.sh"
_PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


def missing() -> str | None:
    """Why there can be no Slurm here; None when there can."""
    needed = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "munged", "ps", "pgrep")
    absent = [name for name in needed if not shutil.which(name, path=_PATH)]
    if absent:
        return f"NO SLURM here, its engine is NOT TESTED: no {', '.join(absent)}; run tools/slurm.sh install"
    return None


class Cluster:
    """A running Slurm; commands find it through SLURM_CONF."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *command: str) -> str:
        """Output of one of Slurm's commands."""
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def jobs(self) -> list[list[str]]:
        """Name, id, state and node of every job that is queued or running."""
        lines = self("squeue", "-h", "-r", "-o", "%j|%i|%t|%N").splitlines()
        return [line.split("|") for line in lines]

    def lose(self, node: str) -> None:
        """A node dies: its slurmd, the jobs' steps there, and what they started, all at once."""
        os.kill(int((self.folder / f"slurmd.{node}.pid").read_text()), signal.SIGKILL)
        for process in _family(self._steps(node)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def _steps(self, node: str) -> set[int]:
        found = set()
        for line in _ps():
            if "slurmstepd" in line[2] and f"SLURMD_NODENAME={node}" in _children_environment(int(line[0])):
                found.add(int(line[0]))
        return found


@contextmanager
def cluster(folder: Path, nodes: int = 2) -> Iterator[Cluster]:
    """Start it, point SLURM_CONF at it, and end every process of it afterwards."""
    started = subprocess.run(
        ["sh", SCRIPT, "start", folder, str(nodes)], capture_output=True, text=True, check=False
    )
    assert started.returncode == 0, started.stderr
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield Cluster(folder)
    finally:
        subprocess.run(["sh", SCRIPT, "stop", folder], check=False)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def until(true: Callable[[], Any], what: str, seconds: float = 300.0) -> Any:
    """Wait until a condition holds and return what it gave; patiently, since machines may be busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def _ps() -> list[list[str]]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    return [line.split(None, 2) for line in listed.stdout.splitlines()]


def _family(parents: set[int]) -> set[int]:
    """Processes and all their descendants."""
    family = set(parents)
    table = _ps()
    while more := {int(pid) for pid, parent, *_ in table if int(parent) in family} - family:
        family |= more
    return family


def _children_environment(pid: int) -> str:
    """What slurmstepd gave to the processes it started."""
    found = ""
    for child in _family({pid}) - {pid}:
        with suppress(OSError):
            found += Path(f"/proc/{child}/environ").read_text(errors="replace")
    return found
