"""The processes of a run: who they are, how the model is spread over them, how its state is kept.

Shape legend: B = sequences, T = sequence length, N = tokens, d = d_model, V = vocabulary.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mixplan.calibrate import fast_plain
from mixplan.documents.atomic import write_json
from mixplan.errors import InputError

_LOGITS_AT_ONCE = 2**27
RUN_STATE = "run.json"


def hold(out: Path) -> None:
    """Make the folder of the run; its first process keeps others out for as long as it lives.

    Raises:
        InputError: the folder cannot be written to, or another run is writing to it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if os.environ.get("RANK", "0") != "0":
            return
        lock = (out / ".lock").open("ab")
    except OSError as error:
        raise InputError(
            f"--out {out}: cannot be written to ({error.strerror}); give another folder"
        ) from None
    # Or processes that read for it would hold the lock after it was killed.
    os.register_at_fork(after_in_child=lock.close)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"--out {out}: another run is writing to it; wait for its end, stop it, or give another folder"
        ) from None
    except OSError:
        return  # a file system without locks


class Ranks:
    """The processes that torchrun started, or the one there is."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.per_node = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(self.device)
        if "RANK" in os.environ:
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=timedelta(minutes=30))

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, fp64, on the CPU."""
        total = value.detach().to("cpu", torch.float64, copy=True)
        if dist.is_initialized():
            dist.all_reduce(total)
        return total

    def in_order(self, ids_B: Tensor) -> list[int]:
        """The samples of a global batch in the order of the mixture."""
        parts = [ids_B]
        if dist.is_initialized():
            parts = [torch.empty_like(ids_B) for _ in range(self.size)]
            dist.all_gather(parts, ids_B)
        # Streaming deals samples out to machines first, then to the devices of each.
        return torch.stack(parts).view(-1, self.per_node, len(ids_B)).permute(2, 1, 0).flatten().tolist()

    def wait(self) -> None:
        """Until all processes are here."""
        if dist.is_initialized():
            dist.barrier()

    def leave(self) -> None:
        """End the group of processes."""
        if dist.is_initialized():
            dist.destroy_process_group()


class SequenceLoss(nn.Module):
    """The mean next-token NLL of each sequence, in nats, fp32 (B,), without ever holding all logits."""

    def __init__(self, model: Any, precision: str) -> None:
        super().__init__()
        self.model, self.precision = model, precision
        self.hidden = fast_plain.hidden_states

    def forward(self, tokens_BT: Tensor) -> Tensor:
        targets_N, weight_Vd = tokens_BT[:, 1:].flatten(), self.model.lm_head.weight
        with torch.autocast(tokens_BT.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            hidden_Nd = self.hidden(self.model, tokens_BT)[:, :-1].flatten(0, 1)
            at_once = max(1, _LOGITS_AT_ONCE // len(weight_Vd))
            parts = [
                checkpoint(_nll, hidden_nd, weight_Vd, targets_n, use_reentrant=False)
                for hidden_nd, targets_n in zip(
                    hidden_Nd.split(at_once), targets_N.split(at_once), strict=True
                )
            ]
        return torch.cat(parts).view(len(tokens_BT), -1).mean(1)


def _nll(hidden_nd: Tensor, weight_Vd: Tensor, targets_n: Tensor) -> Tensor:
    return functional.cross_entropy(
        functional.linear(hidden_nd, weight_Vd).float(), targets_n, reduction="none"
    )


def _by_modules(model: Any, tokens_BT: Tensor) -> Tensor:
    """Hidden states by the model's own modules, whose hooks gather sharded parameters."""
    return model.model(input_ids=tokens_BT, use_cache=False).last_hidden_state


def spread(loss: SequenceLoss, ranks: Ranks, sharded: bool, compiled: bool) -> nn.Module:
    """The loss with its model spread over the processes: a copy in each (DDP), or a part in each (FSDP2)."""
    if sharded:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        loss.hidden = _by_modules
        low = torch.bfloat16 if loss.precision == "bf16" else None
        policy = MixedPrecisionPolicy(low, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for layer in loss.model.model.layers:
            if compiled:
                layer.compile()
            fully_shard(layer, mp_policy=policy)
        return fully_shard(loss, mp_policy=policy)  # embedding, last norm, unembedding
    if compiled:
        loss.hidden = torch.compile(loss.hidden)
    if ranks.size == 1:
        return loss
    ids = [ranks.device.index] if ranks.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(loss, device_ids=ids, gradient_as_bucket_view=True)


@contextlib.contextmanager
def gradients_stay(loss: nn.Module, stay: bool) -> Iterator[None]:
    """Whether backward passes inside leave the gradients unsummed, because more are to be added."""
    if isinstance(loss, nn.parallel.DistributedDataParallel):
        with loss.no_sync() if stay else contextlib.nullcontext():
            yield
    else:
        if hasattr(loss, "set_requires_gradient_sync"):
            loss.set_requires_gradient_sync(not stay)
        yield


class Checkpoints:
    """FOLDER/step-N, each whole or absent: it appears under its name when everything in it is written.

    Every process writes the part that it holds; any number of processes, DDP or FSDP2, can read it.
    """

    def __init__(self, folder: Path, kept: int, ranks: Ranks) -> None:
        self.folder, self.kept, self.ranks = folder, kept, ranks

    def save(self, step: int, model: Any, optimizer: Any, state: dict[str, Any]) -> None:
        """Model, optimizer, random states, and `state`, which JSON can hold."""
        unfinished = self.folder / "unfinished"
        if self.ranks.first:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        self.ranks.wait()
        weights, moments = get_state_dict(model, optimizer)
        dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=unfinished)
        random = {"cpu": torch.get_rng_state()}
        if self.ranks.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state()
        torch.save(random, unfinished / f"random-{self.ranks.rank}.pt")
        self.ranks.wait()
        if self.ranks.first:
            write_json(unfinished / RUN_STATE, {"step": step, **state})
            os.replace(unfinished, self.folder / f"step-{step:09d}")
            for old in self._whole()[self.kept :]:
                shutil.rmtree(old)
        self.ranks.wait()

    def latest(self) -> dict[str, Any] | None:
        """The latest one's `state` and step, none when there is no checkpoint."""
        found = self._whole()
        return json.loads((found[0] / RUN_STATE).read_text()) if found else None

    def load(self, step: int, model: Any, optimizer: Any) -> None:
        """Put model, optimizer and random states back."""
        path = self.folder / f"step-{step:09d}"
        weights, moments = get_state_dict(model, optimizer)
        state = {"model": weights, "optimizer": moments}
        dcp.load(state, checkpoint_id=path)
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        if (path / f"random-{self.ranks.rank}.pt").is_file():  # there may be more processes now
            random = torch.load(path / f"random-{self.ranks.rank}.pt", weights_only=True)
            torch.set_rng_state(random["cpu"])
            if self.ranks.device.type == "cuda" and "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"])

    def _whole(self) -> list[Path]:
        """Latest first."""
        return sorted(self.folder.glob("step-*"), reverse=True)


def export(model: Any, folder: Path, ranks: Ranks) -> None:
    """The model as transformers' `from_pretrained` reads it."""
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if ranks.first:
        model.save_pretrained(folder, state_dict=whole)
    ranks.wait()
