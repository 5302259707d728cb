"""The reader itself, one process a rank: reads a mixture as a trainer's rank would and writes down what came.

Shape legend: b = samples of one batch of one rank.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np

from mixplan.documents.loading import load
from mixplan.documents.mixture import Mixture
from mixplan.recipes.replay import import_streaming

# One record a sample, in the order in which the rank gets them; `batch` numbers the rank's batches from 0.
RECORD = np.dtype(
    [("sample_id", "<i8"), ("tokens", "<i4"), ("lowest", "<i8"), ("highest", "<i8"), ("batch", "<i4")]
)
JOB, LAYOUT, STATE, REFUSED, STREAMS = "job.json", "layout.json", "state.json", "refused.json", "streams.yaml"
# Columns of waiting-RANK.bin, int64 [workers, WAITING]; −1: nothing. From FETCHED_SHARD on one a thread:
# Streaming fetches ahead in two, and in the one that reads.
READ_SAMPLE, FAILED_SHARD, FETCHED_SHARD, WAITING = 0, 1, 2, 5
_PREFIX_RETRIES = 20


@dataclass(frozen=True)
class Job:
    """What the readers are asked to do."""

    ranks: int = 1
    workers: int = 0
    """DataLoader workers a rank."""
    batch_size: int = 64
    """Samples a batch of one rank."""
    state_after_batches: int | None = None
    """Write down the loader's state when so many batches have been read."""
    at_most_batches: int | None = None
    """Stop after so many."""
    state: dict[str, Any] | None = None
    """Go on from there instead of starting anew."""

    def save(self, folder: Path) -> None:
        (folder / JOB).write_text(json.dumps(asdict(self)))


def order_file(folder: Path, rank: int) -> Path:
    """RECORDs of one rank."""
    return folder / f"order-{rank}.bin"


def waiting_file(folder: Path, rank: int) -> Path:
    """What one rank's workers wait for."""
    return folder / f"waiting-{rank}.bin"


def record(folder: Path, rank: int = 0) -> None:
    """Read what job.json says of streams.yaml, both in `folder`, and write order, layout and state there."""
    import_streaming()
    from mixplan.recipes.loader import MixtureLoader

    job = Job(**json.loads((folder / JOB).read_text()))
    if job.ranks > 1:
        _join(folder, rank, job.ranks)
    waiting = np.full((max(job.workers, 1), WAITING), -1, np.int64)
    waiting_file(folder, rank).write_bytes(waiting.tobytes())
    mixture = load(folder / STREAMS, Mixture)
    dataset = _dataset(mixture, job, waiting_file(folder, rank))
    if rank == 0:
        layout = {
            "offsets": dataset.sample_offset_per_stream.tolist(),
            "available": dataset.samples_per_stream.tolist(),
            "shard_offsets": dataset.sample_offset_per_shard.tolist(),
            "shard_files": [shard.file_pairs[0][0].basename for shard in dataset.shards],
        }
        (folder / LAYOUT).write_text(json.dumps(layout))
    loader = MixtureLoader(dataset, batch_size=job.batch_size, num_workers=job.workers)
    if job.state is not None:
        if rank == 0:
            refused = _refuses(loader, _foreign(job.state, mixture.fingerprint))
            (folder / REFUSED).write_text(json.dumps(refused))
        loader.load_state_dict(job.state)
    with order_file(folder, rank).open("ab") as order:
        for number, batch in enumerate(loader):
            rows = np.empty(len(batch["sample_id"]), RECORD)
            rows["batch"] = number
            for name in ("sample_id", "tokens", "lowest", "highest"):
                rows[name] = batch[name].numpy()
            order.write(rows.tobytes())
            order.flush()
            if rank == 0 and number + 1 == job.state_after_batches:
                (folder / STATE).write_text(json.dumps(loader.state_dict()))
            if number + 1 == job.at_most_batches:
                break


def _join(folder: Path, rank: int, ranks: int) -> None:
    """The process group that Streaming's ranks meet in; through a file, so that no port is taken."""
    import torch.distributed as dist

    store = (folder / "process_group").absolute().as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)


def _dataset(mixture: Mixture, job: Job, waiting: Path) -> Any:
    from torch.utils.data import get_worker_info

    from mixplan.recipes.loader import MixtureDataset

    class RecordingDataset(MixtureDataset):
        """The emitted loader's dataset; of each sample it hands on what verify counts.

        What it waits for stands in a file meanwhile, for the case that it never comes.
        """

        _slots: Any = None

        def __init__(self, mixture: dict[str, Any], batch_size: int) -> None:
            self._threads: dict[int, int] = {}
            super().__init__(mixture, batch_size)

        def _wait_for(self, column: int, number: int) -> None:
            if self._slots is None:  # in the process that reads, which may be a worker
                info = get_worker_info()
                slots = np.memmap(waiting, np.int64, "r+").reshape(-1, WAITING)
                self._slots = slots[0 if info is None else info.id]
            self._slots[column] = number

        def prepare_shard(self, shard_id: int, blocking: bool = True) -> None:
            column = FETCHED_SHARD + self._threads.setdefault(get_ident(), len(self._threads))
            column = min(column, WAITING - 1)
            self._wait_for(column, shard_id)
            try:
                super().prepare_shard(shard_id, blocking)
            except BaseException:
                if self._slots[FAILED_SHARD] < 0:  # later ones may be the consequence
                    self._wait_for(FAILED_SHARD, shard_id)
                raise
            self._wait_for(column, -1)

        def __getitem__(self, at: Any) -> dict[str, int]:
            self._wait_for(READ_SAMPLE, int(at))
            sample = super().__getitem__(at)
            tokens = sample.pop("tokens")
            self._wait_for(READ_SAMPLE, -1)
            return {
                **sample,
                "tokens": tokens.size,
                "lowest": int(tokens.min()),
                "highest": int(tokens.max()),
            }

    settings = mixture.model_dump(mode="json")
    return _constructed(lambda: RecordingDataset(settings, job.batch_size))


def _constructed(make: Callable[[], Any]) -> Any:
    """Streaming looks for a free shared-memory number, then takes it: two at the same moment may collide."""
    for attempt in range(_PREFIX_RETRIES):
        try:
            return make()
        except FileExistsError:
            time.sleep(0.1 * (1 + attempt % 5))
    return make()


def _foreign(state: Any, fingerprint: str) -> Any:
    """The state as it would be of another mixture."""
    if isinstance(state, dict):
        return {key: _foreign(value, fingerprint) for key, value in state.items()}
    return fingerprint[::-1] + "-" if state == fingerprint else state


def _refuses(loader: Any, state: Any) -> bool:
    try:
        loader.load_state_dict(state)
    except ValueError:
        return True
    return False


if __name__ == "__main__":
    import threading

    from mixplan.recipes.watching import end_with_parent

    threading.Thread(target=end_with_parent, daemon=True).start()
    record(Path(sys.argv[1]), int(sys.argv[2]))
