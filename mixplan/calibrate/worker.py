"""One run: `python -m mixplan.calibrate.worker OUT RUN_ID DEVICE THREADS PROCESSES`.

With several processes this one only starts them, through torchrun, as `… PROCESSES member`. Every process
ends when the one that started it does. Told to stop (SIGTERM, SIGINT, or the signal that a scheduler sends
before a time limit), a run saves its state and leaves. Exit codes: see engines/process.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from mixplan.calibrate import lease
from mixplan.calibrate.engines.process import ORPHANED, STOPPED, TAKEN

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def main() -> int:
    """Train the run; returns the exit code."""
    out, run_id, device = sys.argv[1:4]
    threads, processes = map(int, sys.argv[4:6])
    member = sys.argv[6:] == ["member"]
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    if processes > 1 and not member:
        return _start_members(processes)
    stop = threading.Event()
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    first = int(os.environ["RANK"]) == 0 if member else True
    logging.basicConfig(
        format=f"%(asctime)s {socket.gethostname()}: %(message)s",
        level=logging.INFO if first else logging.WARNING,
    )
    try:
        with lease.hold(Path(out) / "runs" / run_id) if first else contextlib.nullcontext():
            from mixplan.calibrate.distributed import Stopped, world_of
            from mixplan.calibrate.training import train

            try:
                with world_of(device, stop, member) as world:
                    train(Path(out), run_id, threads, world)
            except Stopped:
                logging.info("%s: told to stop; the state is saved", run_id)
                return STOPPED
    except lease.Taken as taken:
        logging.error("%s", taken)
        return TAKEN
    return 0


def _start_members(processes: int) -> int:
    """Run this command again in each of several processes that know each other."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        # torchrun passes SIGTERM and SIGINT on, but not these.
        signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    command = ["--standalone", f"--nproc-per-node={processes}", "-m", "mixplan.calibrate.worker"]
    try:
        torchrun([*command, *sys.argv[1:6], "member"])
    except SignalException:
        return STOPPED
    except ChildFailedError as error:
        # Members that are told to leave because another one did end by a signal: the first decides.
        codes = [failure.exitcode for failure in error.failures.values()]
        return next((code for code in codes if code in (STOPPED, TAKEN)), 1)
    return 0


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(ORPHANED)


if __name__ == "__main__":
    sys.exit(main())
