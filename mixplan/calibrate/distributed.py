"""The processes that train one run together, and what each of them does.

Shape legend: B = sequences a step, T = sequence length, W = processes.

Every process makes the same global batch (B, T) and trains on its own B/W rows of it; gradients are
averaged. Rows have equal numbers of tokens, so that the mean of the processes' mean losses is the loss of the
batch, and data order, injections and measurements do not depend on W (up to the rounding of sums). The first
process alone measures, on a full model, and alone writes files.

`World` is one process, and does nothing. `Team` is several: DDP (every process holds the model), or FSDP2
(each holds a part) for large models.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from mixplan.calibrate.checkpoints import Checkpoints
from mixplan.calibrate.runs import RunFolder

T = TypeVar("T")
GO_ON, SAVE, SAVE_AND_STOP = 0, 1, 2
_TIMEOUT = timedelta(hours=2)
"""How long processes wait for each other: the others wait while the first one measures and saves."""


class Stopped(Exception):
    """The run was told to stop, and its state is saved."""


class World:
    """One process that trains a run alone.

    Args:
        device: a torch device: `cpu`, `cuda`, `cuda:1`.
        stop: set when the run should save its state and leave.
    """

    def __init__(self, device: str, stop: threading.Event) -> None:
        self.device, self.stop = device, stop

    def rows(self, batch_BT: np.ndarray) -> np.ndarray:
        """This process's rows of the global batch, shape (B/W, T)."""
        return batch_BT

    def wrap(self, step_loss: nn.Module, model: Any, fsdp_from_params: float) -> nn.Module:
        """Make backward passes average gradients. To be called before the optimizer is made.

        Args:
            step_loss: module whose forward gives the loss of a batch by `model`.
            model: the causal LM inside it.
            fsdp_from_params: total parameters from which the model is sharded.
        """
        return step_loss

    def mean(self, value: torch.Tensor) -> float:
        """The mean over all processes of a number each of them has."""
        return value.item()

    def order(self, save: bool) -> int:
        """What all processes do now: GO_ON, SAVE, or SAVE_AND_STOP."""
        return SAVE_AND_STOP if self.stop.is_set() else SAVE if save else GO_ON

    def on_first(self, call: Callable[[], T]) -> T:
        """Call in the first process; every process gets its result, or its exception."""
        return call()

    def full(self, model: Any, optimizer: torch.optim.AdamW) -> tuple[Any, torch.optim.AdamW]:
        """A model and optimizer to measure with in the first process, whole and on one device."""
        return model, optimizer

    def state(self, model: Any, optimizer: torch.optim.AdamW) -> dict[str, Any]:
        """Whole `model` and `optimizer` state, as one process has it; empty in all but the first process."""
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    def load(self, model: Any, optimizer: torch.optim.AdamW, state: dict[str, Any]) -> None:
        """Put back what `state` gave, whatever number of processes it came from."""
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    def folder(self, path: Path) -> RunFolder:
        """The run's folder; only the first process writes to it."""
        return RunFolder(path)

    def checkpoints(self, folder: Path) -> Checkpoints:
        """The run's checkpoints; only the first process writes and reads them."""
        return Checkpoints(folder)


class Team(World):
    """Several processes, started by torchrun on one machine, that train a run together."""

    def __init__(self, device: str, stop: threading.Event) -> None:
        super().__init__(device, stop)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.sharded = False

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def rows(self, batch_BT: np.ndarray) -> np.ndarray:
        if len(batch_BT) % self.size:
            raise ValueError(f"{len(batch_BT)} sequences cannot be split evenly over {self.size} processes")
        share = len(batch_BT) // self.size
        return batch_BT[self.rank * share : (self.rank + 1) * share]

    def wrap(self, step_loss: nn.Module, model: Any, fsdp_from_params: float) -> nn.Module:
        self.sharded = sum(p.numel() for p in model.parameters()) >= fsdp_from_params
        if not self.sharded:
            ids = None if self.device == "cpu" else [torch.device(self.device)]
            return nn.parallel.DistributedDataParallel(
                step_loss, device_ids=ids, gradient_as_bucket_view=True
            )
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(torch.device(self.device).type, (self.size,))
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        # The root's own parameters: embedding, final norm, unembedding.
        fully_shard(step_loss, mesh=mesh)
        return step_loss

    def mean(self, value: torch.Tensor) -> float:
        total = value.detach().to("cpu", torch.float64)
        dist.all_reduce(total)
        return total.item() / self.size

    def order(self, save: bool) -> int:
        order = torch.tensor(super().order(save and self.is_first))
        dist.all_reduce(order, op=dist.ReduceOp.MAX)
        return int(order)

    def on_first(self, call: Callable[[], T]) -> T:
        found: list[Any] = [None, None]
        if self.is_first:
            try:
                found[0] = call()
            except Exception as error:
                found[1] = error
        failure = found[1]
        dist.broadcast_object_list(found, src=0, device=torch.device("cpu"))
        if failure is not None:
            raise failure
        if found[1] is not None:
            raise found[1]
        return found[0]

    def full(self, model: Any, optimizer: torch.optim.AdamW) -> tuple[Any, torch.optim.AdamW]:
        if not self.sharded:
            return model, optimizer
        state = self.state(model, optimizer)
        if not self.is_first:
            return model, optimizer
        with torch.device("meta"):
            whole = type(model)(model.config)
        whole = whole.to_empty(device=self.device)
        # Rotary frequencies are no part of a state dict.
        for (name, buffer), (_, other) in zip(whole.named_buffers(), model.named_buffers(), strict=True):
            assert buffer.shape == other.shape, name
            buffer.copy_(other)
        whole.load_state_dict(state["model"])
        twin = dict(zip(_names(model).values(), whole.parameters(), strict=True))
        groups = [
            {**group, "params": [twin[name] for name in names]}
            for group, names in zip(optimizer.param_groups, _group_names(model, optimizer), strict=True)
        ]
        copy = type(optimizer)(groups)
        copy.load_state_dict(state["optimizer"])
        return whole, copy

    def state(self, model: Any, optimizer: torch.optim.AdamW) -> dict[str, Any]:
        if not self.sharded:
            return super().state(model, optimizer) if self.is_first else {}
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            get_model_state_dict,
            get_optimizer_state_dict,
        )

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(model, options=options)
        moments = get_optimizer_state_dict(model, optimizer, options=options)
        if not self.is_first:
            return {}
        return {"model": weights, "optimizer": _by_number(moments, _group_names(model, optimizer))}

    def load(self, model: Any, optimizer: torch.optim.AdamW, state: dict[str, Any]) -> None:
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        # Copies: torch puts each process's part in place of what it is given.
        weights, moments = dict(state.get("model", {})), {}
        if self.is_first:
            moments = _by_name(state["optimizer"], _group_names(model, optimizer))
        set_model_state_dict(model, weights, options=options)
        set_optimizer_state_dict(model, optimizer, moments, options=options)

    def folder(self, path: Path) -> RunFolder:
        return RunFolder(path) if self.is_first else _SilentFolder(path)

    def checkpoints(self, folder: Path) -> Checkpoints:
        return _SharedCheckpoints(folder, self)


class _SilentFolder(RunFolder):
    """The run folder in all but the first process: read, never written."""

    def finish(self, *_: Any, **__: Any) -> None: ...

    def progress(self, *_: Any) -> None: ...

    def note(self, *_: Any) -> None: ...

    def start_over(self) -> None: ...


class _SharedCheckpoints(Checkpoints):
    """Written and read by the first process; the others get everything but the large tensors."""

    def __init__(self, folder: Path, team: Team) -> None:
        super().__init__(folder)
        self.team = team

    def save(self, state: dict[str, Any], kind: str = "state") -> None:
        self.team.on_first(lambda: super(_SharedCheckpoints, self).save(state, kind))

    def load(self, device: str, kind: str = "state") -> tuple[dict[str, Any] | None, list[str]]:
        large: dict[str, Any] = {}

        def first() -> tuple[dict[str, Any] | None, list[str]]:
            state, notes = super(_SharedCheckpoints, self).load("cpu", kind)
            if state is not None:
                large.update({key: state.pop(key) for key in ("model", "optimizer")})
            return state, notes

        state, notes = self.team.on_first(first)
        return (None if state is None else {**state, **large}), notes

    def remove(self, kind: str) -> None:
        self.team.on_first(lambda: super(_SharedCheckpoints, self).remove(kind))


@contextlib.contextmanager
def world_of(device: str, stop: threading.Event, member: bool) -> Iterator[World]:
    """The world of this process.

    Args:
        device: `cpu` or `cuda`.
        stop: see `World`.
        member: one of several processes that torchrun started (LOCAL_RANK and the like are set).
    """
    if not member:
        yield World(device, stop)
        return
    backend = "gloo"
    if device != "cpu":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield Team(device, stop)
    finally:
        dist.destroy_process_group()


def _names(model: nn.Module) -> dict[nn.Parameter, str]:
    return {parameter: name for name, parameter in model.named_parameters()}


def _group_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    """Names of the parameters of each group, in the optimizer's order."""
    names = _names(model)
    return [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]


def _by_number(state: dict[str, Any], groups: list[list[str]]) -> dict[str, Any]:
    """An optimizer's state by parameter name, as one process saves it: by number."""
    order = [name for group in groups for name in group]
    numbers = {name: number for number, name in enumerate(order)}
    # Groups come in the optimizer's order; their settings do not depend on parameters.
    return {
        "state": {numbers[name]: _own(moments) for name, moments in state["state"].items()},
        "param_groups": [
            {**given, "params": [numbers[name] for name in group]}
            for given, group in zip(state["param_groups"], groups, strict=True)
        ],
    }


def _own(moments: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With the step count copied: it is not sharded, so that it is still the live optimizer's own tensor."""
    return {key: value.clone() if value.ndim == 0 else value for key, value in moments.items()}


def _by_name(state: dict[str, Any], groups: list[list[str]]) -> dict[str, Any]:
    """The inverse of `_by_number`."""
    order = [name for group in groups for name in group]
    return {
        "state": {order[number]: dict(moments) for number, moments in state["state"].items()},
        "param_groups": [
            {**given, "params": group} for given, group in zip(state["param_groups"], groups, strict=True)
        ],
    }
