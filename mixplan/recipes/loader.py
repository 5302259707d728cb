"""Loads the mixture that streams.yaml, beside this file, describes. Needs torch and mosaicml-streaming only.

    from loader import make_loader
    loader = make_loader(batch_size=8, num_workers=4)
    for batch in loader:
        tokens = batch["tokens"]          # int64 [batch, sequence_length]
        source = batch["source"]          # int64 [batch], number of the stream in streams.yaml
        sample = batch["sample_id"]       # int64 [batch], number among the samples of all streams' shards

batch_size is per device. One epoch is the whole run; let the number of devices divide `samples`, or Streaming
repeats a few at the end. `loader.came` counts the samples of each source that this process has had.

When a shard is missing or damaged, Streaming ends the epoch early, without an exception, and with several
processes some wait forever. This loader raises EpochEndedEarlyError in all of a machine, with what came and
what was due of every source.

Keep `loader.state_dict()` in your checkpoints, and give it to `load_state_dict` of a new loader: that goes on
with the next sample, also with other numbers of devices and workers. The state carries the mixture's
fingerprint: one of another mixture is refused instead of being resumed in another order.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import yaml

try:
    import torchvision  # noqa: F401
except ImportError:
    pass
except RuntimeError as error:
    # A CUDA build of torchvision, which streaming imports, beside a CPU build of torch.
    if "torchvision::" not in str(error):
        raise
    import sys

    import torch

    for _name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[_name]
    _operators = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _operators.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from streaming import Stream, StreamingDataLoader, StreamingDataset
from streaming.base import distributed
from streaming.base.batching import generate_work
from streaming.base.constant import LOCALS, SHM_TO_CLEAN

HERE = Path(__file__).resolve().parent
_SHARED_MEMORY = Path("/dev/shm")
_LOST = 0
"""A state of shards that Streaming has none for."""
_ANOTHER = "another process could not get a shard"
_LOOK_EVERY_SECONDS = 0.5
_MARK = stat.S_IXUSR
"""A permission that no program gives shared memory: says that it is this loader's."""
_HELD: list[Any] = []
"""Open files whose locks end with this process."""


class EpochEndedEarlyError(RuntimeError):
    """Streaming stopped before it had yielded every sample."""


def read_mixture(folder: Path = HERE) -> dict[str, Any]:
    """streams.yaml as a dict."""
    return yaml.safe_load((Path(folder) / "streams.yaml").read_text(encoding="utf-8"))


def refuse_changed_shards(mixture: dict[str, Any]) -> None:
    """Raise ValueError when local shards are not those that the mixture was emitted for.

    Args:
        mixture: streams.yaml as a dict.
    """
    changed = []
    for name, digest in (mixture.get("index_sha256") or {}).items():
        stream = mixture["streams"].get(name, {})
        if stream.get("local") is None or stream.get("remote") is not None:
            continue
        index = Path(stream["local"]) / "index.json"
        # Streaming itself says which index is missing.
        if index.is_file() and hashlib.sha256(index.read_bytes()).hexdigest() != digest:
            changed.append(f"{name} ({index})")
    if changed:
        raise ValueError(
            f"shards built anew or changed since the mixture was emitted: {', '.join(changed)}; a run that "
            "goes on with them would repeat or lose samples: put the old shards back, or emit again and "
            "start a new run"
        )


class MixtureDataset(StreamingDataset):
    """All streams of a mixture.

    Samples are {"tokens": int64 [sequence_length], "source": int, "sample_id": int}.

    Args:
        mixture: streams.yaml as a dict.
        batch_size: samples a device gets at a time.
        options: more for StreamingDataset (`cache_limit`, `predownload`, `download_retry`, …).

    Raises:
        ValueError: the shards are not those that the mixture was emitted for.
    """

    def __init__(self, mixture: dict[str, Any], batch_size: int, **options: Any) -> None:
        refuse_changed_shards(mixture)
        self.fingerprint = mixture["fingerprint"]
        self.column = mixture["column"]
        self.names = list(mixture["streams"])
        streams = [Stream(**settings) for settings in mixture["streams"].values()]
        # Streaming polls for data every 7 ms: with its default, 8 batches ahead, small batches are slow.
        options = {"predownload": max(8 * batch_size, 4096), **mixture["dataset"], **options}
        _free_after_crashes()
        super().__init__(streams=streams, batch_size=batch_size, **options)
        if self._unique_rank_world.is_local_leader:
            _hold(self._shm_prefix_int)

    def __getitem__(self, at: Any) -> Any:
        tokens = super().__getitem__(at)[self.column].astype(np.int64)
        return {"tokens": tokens, "source": int(self.source_of(at)), "sample_id": int(at)}

    def source_of(self, sample_id: Any) -> Any:
        """Number of the stream of a sample, or of each of an array of samples."""
        return np.searchsorted(self.sample_offset_per_stream, sample_id, side="right") - 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._due, self._failure = 0, None
        came, ended = 0, Event()
        Thread(target=self._watch, args=(ended,), daemon=True).start()
        try:
            for sample in super().__iter__():
                came += 1
                yield sample
        except Exception as error:
            if not self._due:
                raise
            self._failure = self._failure or error
        finally:
            ended.set()
        failure = self._failure
        if came < self._due or failure:
            why = f"{type(failure).__name__}: {failure}" if failure else _ANOTHER
            raise EpochEndedEarlyError(
                f"Streaming ended after {came:,} of the {self._due:,} samples of this process ({why})"
            ) from failure

    def prepare_shard(self, shard_id: int, blocking: bool = True) -> None:
        if self._shard_states[shard_id] == _LOST:
            raise RuntimeError(_ANOTHER)
        try:
            super().prepare_shard(shard_id, blocking)
        except BaseException:
            # Streaming leaves it as being prepared, and all other processes would wait for it forever.
            self._shard_states[shard_id] = _LOST
            raise

    def _watch(self, ended: Event) -> None:
        """End this process's epoch, too, when any process of this machine could not get a shard."""
        while not ended.wait(_LOOK_EVERY_SECONDS):
            if (self._shard_states.numpy() == _LOST).any() and hasattr(self, "_event"):
                self._event.set()

    def _get_work(self, epoch: int, sample_in_epoch: int) -> Any:
        work = super()._get_work(epoch, sample_in_epoch)
        self._due = int(np.count_nonzero(work != -1))
        return work

    def on_exception(self, future: Any) -> None:
        if failure := future.exception():
            self._failure = failure
            self._iterator.on_exit()  # or the end of the epoch waits forever for the thread that failed
        super().on_exception(future)

    def due(self) -> tuple[np.ndarray, int]:
        """Samples of each source due to this rank, int64 [streams], and from which sample of the run on."""
        world = self._parallel_rank_world
        epoch, first = self._resume(world, self.next_epoch - 1)
        work = generate_work(self.batching_method, self, world, epoch, first)[world.node, world.rank_of_node]
        counted = np.bincount(self.source_of(work[work != -1]), minlength=len(self.names))
        return counted, first

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        return {**super().state_dict(num_samples, from_beginning), "mixture": self.fingerprint}

    def load_state_dict(self, obj: dict[str, Any]) -> None:
        saved = obj.get("mixture")
        if saved != self.fingerprint:
            raise ValueError(
                f"this state is of mixture {saved}, not of {self.fingerprint}; resuming would mix both"
            )
        super().load_state_dict({key: value for key, value in obj.items() if key != "mixture"})


class MixtureLoader(StreamingDataLoader):
    """A DataLoader over a MixtureDataset that counts what comes."""

    came: np.ndarray
    """Samples of each source in the epoch that this process has had since it started, int64 [streams]."""

    def __init__(self, dataset: MixtureDataset, **options: Any) -> None:
        super().__init__(dataset, **options)
        self.came = np.zeros(len(dataset.names), np.int64)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.came[:] = 0
        try:
            for batch in super().__iter__():
                self.came += np.bincount(batch["source"].numpy(), minlength=len(self.came))
                yield batch
        except EpochEndedEarlyError as error:
            raise EpochEndedEarlyError(self._what_came(error)) from None

    def _what_came(self, error: Exception) -> str:
        due, first = self.dataset.due()
        counted = "; ".join(
            f"{name} {came:,} of {wanted:,}"
            for name, came, wanted in zip(self.dataset.names, self.came, due, strict=True)
        )
        # A worker's exception comes with its traceback.
        last = str(error).strip().splitlines()[-1].rpartition(f"{type(error).__name__}: ")[2]
        return (
            f"rank {distributed.get_rank()}: the mixture ended early. Samples that came, of those due since "
            f"sample {first:,} of the run: {counted}. {last}. `mixplan verify` says which shard is missing "
            "or damaged; put it back and continue from the last checkpoint"
        )


def make_loader(
    batch_size: int,
    num_workers: int = 0,
    folder: Path = HERE,
    dataset_options: dict[str, Any] | None = None,
    **options: Any,
) -> MixtureLoader:
    """A loader of the mixture in `folder`.

    Args:
        batch_size: samples a device gets at a time.
        num_workers: processes a device that read.
        folder: where streams.yaml is.
        dataset_options: for StreamingDataset: `cache_limit`, `predownload`, ….
        options: for torch's DataLoader.
    """
    dataset = MixtureDataset(read_mixture(folder), batch_size, **(dataset_options or {}))
    return MixtureLoader(dataset, batch_size=batch_size, num_workers=num_workers, **options)


def _hold(number: int) -> None:
    """Mark shared memory as this loader's, and lock it for as long as this process lives."""
    path = _SHARED_MEMORY / f"{number:06}_{LOCALS}"
    if path.is_file():
        file = path.open("rb")
        _HELD.append(file)
        path.chmod(path.stat().st_mode | _MARK)
        with contextlib.suppress(BlockingIOError):  # an earlier dataset of this process had the same number
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _free_after_crashes() -> None:
    """Remove the shared memory of runs of this loader that were killed; all other stays.

    Streaming refuses a cache folder that shared memory of a killed run names, and its own remedy also takes
    the shared memory of the runs beside this one.
    """
    several = distributed.get_local_world_size() > 1
    if several and not (distributed.dist.is_available() and distributed.dist.is_initialized()):
        return  # the ranks cannot wait for each other
    if distributed.get_local_rank() == 0:
        for path in _SHARED_MEMORY.glob(f"*_{LOCALS}"):
            _free_if_dead(path)
    if several:
        distributed.barrier()


def _free_if_dead(path: Path) -> None:
    try:
        if not path.stat().st_mode & _MARK:
            return
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in SHM_TO_CLEAN:
                path.with_name(path.name.replace(LOCALS, name)).unlink(missing_ok=True)
    except OSError:  # alive, another user's, or just gone
        return
