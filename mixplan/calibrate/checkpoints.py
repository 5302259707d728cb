"""Checkpoints of a run: each file's name holds the hash of its content, so that damage is seen.

FOLDER/state-SERIAL-HASH.pt   what training continues from; the two latest are kept
FOLDER/trunk-SERIAL-HASH.pt   the state before a decay branch, while the branch runs
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

_KEPT = 2
_BLOCK_BYTES = 2**22


class Checkpoints:
    """The checkpoint folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: dict[str, Any], kind: str = "state") -> None:
        """Write a checkpoint; the name it appears under is final, so that a kill leaves it whole or absent.

        Raises:
            OSError: it cannot be written (a full disk, say); earlier checkpoints are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        before = self._files(kind)
        serial = int(before[0].name.split("-")[1]) + 1 if before else 0
        temporary = self.folder / f"{kind}.tmp"
        hashed: _Hashing | None = None
        try:
            with temporary.open("wb") as file:
                hashed = _Hashing(file)
                torch.save(state, cast(BinaryIO, hashed))
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            if hashed is not None and hashed.failure is not None:
                # torch hides what the disk said behind an error of its own.
                failure = hashed.failure
                raise OSError(failure.errno, failure.strerror, str(temporary)) from None
            raise
        os.replace(temporary, self.folder / f"{kind}-{serial:09d}-{hashed.digest.hexdigest()}.pt")
        for old in before[_KEPT - 1 :]:
            old.unlink(missing_ok=True)

    def load(self, device: str, kind: str = "state") -> tuple[dict[str, Any] | None, list[str]]:
        """The latest whole checkpoint, None when there is none; and what was found damaged and put aside."""
        notes: list[str] = []
        for path in self._files(kind):
            if _digest(path) == path.stem.split("-")[2]:
                return torch.load(path, map_location=device, weights_only=True), notes
            aside = path.with_suffix(".damaged")
            os.replace(path, aside)
            notes.append(f"{path} is damaged; put aside as {aside.name}, continuing from an earlier state")
        return None, notes

    def remove(self, kind: str) -> None:
        """Forget the checkpoints of a kind."""
        for path in self._files(kind):
            path.unlink(missing_ok=True)

    def _files(self, kind: str) -> list[Path]:
        """Latest first."""
        return sorted(self.folder.glob(f"{kind}-*.pt"), reverse=True)


class _Hashing:
    """A file that knows the hash of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.blake2b(digest_size=16)
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
