"""Reads a mixture end to end with the real StreamingDataset and records which sample came when.

The reading happens in a process of its own, because Streaming keeps global state (shared memory, lock files)
and can end early or hang without an exception. The parent watches it: a reader without progress is ended.

Nothing is cleaned that another process may use: `clean_stale_shared_memory` would also take the shared memory
of a training that runs beside this. Streaming steps over what others left; the reader's own goes with it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.loading import load, save
from mixplan.documents.mixture import Mixture, StreamSettings

# One record a sample, in the order in which a trainer would get them.
RECORD = np.dtype([("sample_id", "<i8"), ("tokens", "<i4"), ("lowest", "<i8"), ("highest", "<i8")])
_LAYOUT, _ORDER, _MESSAGES, _STREAMS = "layout.json", "order.bin", "messages.txt", "streams.yaml"
_BATCH = 64
_POLL_SECONDS = 0.25
_ENDING_SECONDS = 10.0
_PREFIX_RETRIES = 20
# A reader is alone, also inside a distributed job's environment.
_DISTRIBUTED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")


@dataclass(frozen=True)
class Reading:
    """What came out of a mixture."""

    records: np.ndarray
    """RECORD [n], in order."""
    offsets: np.ndarray
    """First sample id of each stream [streams]."""
    available: np.ndarray
    """Samples of each stream's shards [streams]."""
    ended: str
    """`done`, `stalled` or `failed`."""
    message: str
    """Streaming's last words when it failed."""

    @property
    def stream(self) -> np.ndarray:
        """Number of the stream that each sample came from [n]."""
        return np.searchsorted(self.offsets, self.records["sample_id"], side="right") - 1


def read_mixture(
    mixture: Mixture,
    caches: dict[str, Path],
    workers: int = 0,
    stall_seconds: float = 300.0,
    progress: Callable[[int], None] = lambda _: None,
) -> Reading:
    """Read every sample of the mixture once, as one trainer on one device would.

    Args:
        mixture: what to read; its own folders are only read from.
        caches: per stream to be copied from elsewhere (remote, or compressed), an own, new cache folder.
        workers: DataLoader workers.
        stall_seconds: end the reader when no sample has arrived for so long (also: before the first).
        progress: called with the number of samples read, now and then.
    """
    streams = {}
    for name, stream in mixture.streams.items():
        moved = caches.get(name)
        streams[name] = (
            stream
            if moved is None
            else StreamSettings(local=str(moved), remote=stream.remote or stream.local, choose=stream.choose)
        )
    with tempfile.TemporaryDirectory(prefix="mixplan-verify-") as scratch:
        folder = Path(scratch)
        save(mixture.model_copy(update={"streams": streams}), folder / _STREAMS)
        (folder / _ORDER).touch()
        command = [sys.executable, "-m", "mixplan.recipes.reading", str(folder), str(workers)]
        code = _watch(command, folder, stall_seconds, progress)
        raw = (folder / _ORDER).read_bytes()
        records = np.frombuffer(raw[: len(raw) // RECORD.itemsize * RECORD.itemsize], RECORD)
        layout = json.loads((folder / _LAYOUT).read_text()) if (folder / _LAYOUT).is_file() else {}
        return Reading(
            records=records,
            offsets=np.array(layout.get("offsets", []), np.int64),
            available=np.array(layout.get("available", []), np.int64),
            ended="stalled" if code is None else "failed" if code else "done",
            message=_last_words(folder / _MESSAGES),
        )


def _watch(
    command: list[str], folder: Path, stall_seconds: float, progress: Callable[[int], None]
) -> int | None:  # fmt: skip
    """Run the reader; its exit status, or nothing when it was ended for making no progress."""
    package = Path(__file__).resolve().parents[2]
    env = {key: value for key, value in os.environ.items() if key not in _DISTRIBUTED}
    env["TMPDIR"] = str(folder)  # Streaming's lock files
    env["PYTHONPATH"] = os.pathsep.join([str(package), *filter(None, [env.get("PYTHONPATH")])])
    with (folder / _MESSAGES).open("wb") as messages:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            env=env,
            start_new_session=True,
        )
    try:
        seen, since = 0, time.monotonic()
        while (code := child.poll()) is None:
            time.sleep(_POLL_SECONDS)
            now = (folder / _ORDER).stat().st_size
            if now != seen:
                seen, since = now, time.monotonic()
                progress(seen // RECORD.itemsize)
            elif time.monotonic() - since > stall_seconds:
                return None
        return code
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the reader and its workers; its resource tracker outlives them to free the shared memory."""
    for kind, patience in ((signal.SIGTERM, _ENDING_SECONDS), (signal.SIGKILL, _ENDING_SECONDS)):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                os.killpg(child.pid, kind)
            except ProcessLookupError:
                child.wait()
                return
            child.poll()
            time.sleep(0.05)


def _last_words(path: Path) -> str:
    """The last exception line of the reader's messages."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    errors = [
        line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Timeout\w*|Interrupt)\b", line)
    ]
    return errors[-1] if errors else next((line for line in reversed(lines) if line), "")


def record(folder: Path, workers: int, batch_size: int = _BATCH) -> None:
    """The reader itself: writes layout.json and order.bin into `folder`, from its streams.yaml."""
    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    from streaming import StreamingDataLoader

    from mixplan.recipes.loader import MixtureDataset

    class RecordingDataset(MixtureDataset):
        """The emitted loader's dataset; of each sample it hands on what verify counts."""

        def __getitem__(self, at: Any) -> dict[str, int]:
            tokens = super().__getitem__(at)["tokens"]
            return {
                "sample_id": int(at),
                "tokens": tokens.size,
                "lowest": int(tokens.min()),
                "highest": int(tokens.max()),
            }

    mixture = load(folder / _STREAMS, Mixture).model_dump(mode="json")
    dataset = _constructed(lambda: RecordingDataset(mixture, batch_size))
    layout = {
        "offsets": dataset.sample_offset_per_stream.tolist(),
        "available": dataset.samples_per_stream.tolist(),
    }
    (folder / _LAYOUT).write_text(json.dumps(layout))
    loader = StreamingDataLoader(dataset, batch_size=batch_size, num_workers=workers)
    with (folder / _ORDER).open("ab") as order:
        for batch in loader:
            rows = np.empty(len(batch["sample_id"]), RECORD)
            for name in RECORD.names or ():
                rows[name] = batch[name].numpy()
            order.write(rows.tobytes())
            order.flush()


def _constructed(make: Callable[[], Any]) -> Any:
    """Streaming looks for a free shared-memory number, then takes it: two at the same moment may collide."""
    for attempt in range(_PREFIX_RETRIES):
        try:
            return make()
        except FileExistsError:
            time.sleep(0.1 * (1 + attempt % 5))
    return make()


def _end_with_parent(parent: int) -> None:
    """End this process group when the process that started it is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.killpg(os.getpgrp(), signal.SIGTERM)


if __name__ == "__main__":
    import threading

    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    record(Path(sys.argv[1]), int(sys.argv[2]))
