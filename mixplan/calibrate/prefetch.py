"""Batches on their way to a GPU while it computes: a thread makes and pins the next one.

Batches are pure functions of the step, so what was made too much after a jump (a branch, a restart) is only
thrown away. On a CPU the thread would take the time from training: there nothing is made ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch


class Feed:
    """The batches of a run on its device, by step.

    Args:
        make: step → tokens of this process, int64, shape (B, T).
        device: a torch device: `cpu`, `cuda`, `cuda:1`.
        ahead: whether the next batch is made while this one is used. Default: on GPUs.
    """

    def __init__(self, make: Callable[[int], np.ndarray], device: str, ahead: bool | None = None) -> None:
        self.make, self.device = make, device
        self.pinned = device.startswith("cuda")
        ahead = self.pinned if ahead is None else ahead
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches") if ahead else None
        self._next: tuple[int, Future[torch.Tensor]] | None = None

    def at(self, step: int) -> torch.Tensor:
        """The batch of a step, int64, shape (B, T), on the device.

        Raises:
            ValueError: the step's instances do not fit (checked before any run starts).
        """
        if self._thread is None:
            return self._on_host(step).to(self.device)
        if self._next is None or self._next[0] != step:
            self._next = (step, self._thread.submit(self._on_host, step))
        host = self._next[1].result()
        self._next = (step + 1, self._thread.submit(self._on_host, step + 1))
        # Pinned memory is given back only when the copy is over: torch's allocator keeps track of that.
        return host.to(self.device, non_blocking=True)

    def _on_host(self, step: int) -> torch.Tensor:
        tokens = torch.from_numpy(self.make(step))
        return tokens.pin_memory() if self.pinned else tokens
