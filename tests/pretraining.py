"""Runs examples/pretrain_olmo several times from one process that has imported everything once.

    python tests/pretraining.py FOLDER

FOLDER holds mixture/, phases/ and other/, as `mixplan emit` wrote them. Each run gets a folder of its own
beside them; found.json says how the commands ended.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "pretrain_olmo"
BATCH, EVERY = 16, 60
KILLED_AFTER = 130
COMMON = [
    "--global-batch", str(BATCH), "--checkpoint-every", str(EVERY), "--log-every", "20",
    "--learning-rate", "0.01", "--log-samples", "--threads", "1",
]  # fmt: skip


def started(folder: Path, out: str, *more: str, mixture: str = "mixture") -> int:
    """Start a run in a process of its own; its id. Its messages go to OUT.txt."""
    command = ["--mixture", str(folder / mixture), "--out", str(folder / out), *COMMON, *more]
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    _redirect(folder / f"{out}.txt")
    import train

    _leave(train.main(command))


def waited(pid: int) -> int:
    """The exit status of a process, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(folder: Path, out: str, *more: str, mixture: str = "mixture") -> int:
    """One run to its end."""
    return waited(started(folder, out, *more, mixture=mixture))


def together(folder: Path, out: str, *more: str) -> int:
    """A run of two processes, as torchrun starts them."""
    pid = os.fork()
    if pid:
        return waited(pid)
    _redirect(folder / f"{out}.txt")
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, start_method="fork", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", run_id=out, max_restarts=0, monitor_interval=0.1,
    )  # fmt: skip
    command = ["--mixture", str(folder / "mixture"), "--out", str(folder / out), *COMMON, *more]
    elastic_launch(config, _member)(command)
    _leave(0)


def _member(command: list[str]) -> None:
    import train

    if status := train.main(command):
        sys.exit(status)


def killed(folder: Path, out: str) -> int:
    """A run that is killed with its readers in the middle, at no good moment."""
    pid = started(folder, out, "--workers", "1")
    samples = folder / out / "samples.jsonl"
    while not samples.is_file() or samples.read_bytes().count(b"\n") < KILLED_AFTER:
        assert os.waitpid(pid, os.WNOHANG)[0] == 0, f"the run ended: see {out}.txt"
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    return waited(pid)


def _leave(status: int) -> None:
    """End this process like any other, but for taking everything down that the first process imported."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _redirect(path: Path) -> None:
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)


def main(folder: Path) -> None:
    """All runs of the tests."""
    sys.path.insert(0, str(EXAMPLE))
    import torch
    import train  # noqa: F401

    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    from transformers import Olmo2ForCausalLM  # noqa: F401

    from mixplan.recipes import loader  # noqa: F401

    for late in ("torch._dynamo", "torch.distributed.fsdp", "torch.distributed.launcher.api"):
        importlib.import_module(late)  # or every run imports it

    torch.set_num_threads(1)
    found = {
        "whole": run(folder, "whole", "--workers", "0"),
        "killed": killed(folder, "resumed"),
        "resumed": run(folder, "resumed", "--workers", "0"),
        "two": together(folder, "two", "--workers", "0", "--stop-at-step", str(EVERY)),
    }
    shutil.copytree(folder / "two", folder / "sharded")
    shutil.copytree(folder / "two", folder / "alone")
    found["sharded"] = together(
        folder, "sharded", "--workers", "1", "--fsdp", "--stop-at-step", str(EVERY + 5)
    )
    found["alone"] = run(
        folder, "alone", "--workers", "0", "--stop-at-step", str(EVERY + 5), "--micro-batch", "5"
    )
    # The first phase ends after 30 steps; nothing of it is left to be resumed.
    found["phased"] = run(folder, "phased", "--workers", "0", "--stop-at-step", "30", mixture="phases")
    found["next phase"] = run(folder, "phased", "--workers", "0", mixture="phases")
    found["other mixture"] = run(folder, "two", "--drop-tail", mixture="other")
    found["no mixture"] = run(folder, "none", mixture="nowhere")
    found["uneven"] = run(folder, "uneven", "--global-batch", "17", "--size", "cpu_8q", "--keep", "0")
    with (folder / "two" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found["two at once"] = run(folder, "two")
    (folder / "file").touch()
    found["out is a file"] = run(folder, "file")
    found["zero"] = run(folder, "zero", "--global-batch", "0", "--workers", "-1")
    found["held-out"] = run(folder, "held-out", "--held-out", str(folder / "none"), "--warmup-steps", "0")
    index = folder / "mds" / "code" / "index.json"
    index.write_text(index.read_text() + " ")  # last: all runs after it are refused
    found["changed shards"] = run(folder, "changed", "--workers", "0")
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
