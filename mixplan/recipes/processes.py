"""The same work on many items: in this process, or in several that end with it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from types import TracebackType
from typing import Any, TypeVar

from mixplan.errors import InputError

# For so many bytes one process takes as long as it takes to start others.
WORTH_PROCESSES_BYTES = 16 << 20
# Tasks that wait with a process, for each that it works on.
_AHEAD = 3
T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Processes:
    """Processes that are started when there is enough work for them, and used until the end of the block."""

    def __init__(self, workers: int, shared: Any) -> None:
        """Args: workers: processes, at most. shared: sent to every process once, for all work."""
        self._workers = workers
        self._shared = shared
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def run(
        self, work: Callable[[Any, T], R], items: Sequence[T], size_bytes: int
    ) -> Iterator[tuple[int, R]]:
        """(number of an item, what `work(shared, item)` gives), in the order in which they are done.

        Args:
            work: a function of a module.
            items: each sent to one.
            size_bytes: how much work it is; little is done in this process.

        Raises:
            InputError: a process was ended from outside; or what `work` raises.
        """
        if self._workers < 2 or len(items) < 2 or size_bytes < WORTH_PROCESSES_BYTES:
            for number, item in enumerate(items):
                yield number, work(self._shared, item)
            return
        if self._executor is None:
            # Spawned: a forked process could wait without end for a lock that one of the threads held.
            self._executor = ProcessPoolExecutor(self._workers, get_context("spawn"), _start, (self._shared,))
        left = iter(enumerate(items))
        waiting: dict[Future[R], int] = {}
        try:
            while True:
                for number, item in left:
                    waiting[self._executor.submit(_work, work, item)] = number
                    if len(waiting) >= self._workers * _AHEAD:
                        break
                if not waiting:
                    return
                for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(done), done.result()
        except BrokenProcessPool:
            raise InputError(
                "a process ended early, perhaps for want of memory (a document is tokenised as a whole): use "
                "fewer --workers"
            ) from None
        finally:
            for future in waiting:
                future.cancel()


_shared: Any = None
"""In a process that was started here: what all its work needs."""


def _start(shared: Any) -> None:
    """In a new process: end when the one that started it ends, however it ends."""
    global _shared
    _shared = shared
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(work: Callable[[Any, T], R], item: T) -> R:
    return work(_shared, item)
