"""Emitted mixtures for the tests of verify, and a reader that runs in this process."""

from __future__ import annotations

import contextlib
import gc
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from recipes_making import write_plan, write_recipe, write_text

from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.mixture import Mixture
from mixplan.recipes import loader
from mixplan.recipes import reading as reading_module
from mixplan.recipes.building import build
from mixplan.recipes.emitting import emit
from mixplan.recipes.recording import record

SIZES = {"web": 15_000, "code": 5_000, "rare": 400, "s17": 17, "s40": 40, "s97": 97, "s160": 160}


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for number, (name, samples) in enumerate(SIZES.items()):
        write_text(folder / "text" / name, samples, seed=number)
    build(write_plan(folder, {name: {"text": [f"text/{name}"], "mds": f"mds/{name}"} for name in SIZES}))
    return folder


@pytest.fixture
def small(sources: Path, tmp_path: Path) -> Path:
    """An emitted mixture over shards of its own, which a test may damage."""
    for name in ("s40", "s97"):
        shutil.copytree(sources / "mds" / name, tmp_path / "mds" / name)
    emit(write_recipe(tmp_path, {"s97": 150, "s40": 30}, ("s40",)), tmp_path / "out")
    return tmp_path


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit streams.yaml by hand, with a fingerprint that fits."""
    data = yaml.safe_load((folder / "streams.yaml").read_text())
    change(data)
    data["fingerprint"] = Mixture.model_validate(data).digest()
    (folder / "streams.yaml").write_text(yaml.safe_dump(data, sort_keys=False))


def record_here(folder: Path) -> None:
    """`record` in this process. Streaming holds its shared memory until the process ends, some 25 file
    descriptors a dataset: here it is given back at once, or a long test run would have none left."""
    ensure_torchvision_imports()
    import streaming.base.shared.memory as memory

    cleanups: list[Callable[[], None]] = []
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memory, "atexit", SimpleNamespace(register=cleanups.append))
            record(folder)
    finally:
        gc.collect()
        for cleanup in cleanups:
            cleanup()
        while loader._HELD:
            loader._HELD.pop().close()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Read in this process instead of in one of its own, which takes seconds to start."""

    def watch(commands: list[list[str]], messages: Path, *_: Any) -> int:
        try:
            record_here(messages.parent)
        except loader.EpochEndedEarlyError as error:
            messages.write_text(f"EpochEndedEarlyError: {error}")
            return 1
        return 0

    monkeypatch.setattr(reading_module, "watch_processes", watch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # Streaming's lock files


def shared_memory(folder: Path) -> list[str]:
    """Streaming's shared memory that names something below the folder; others on the machine have theirs."""
    named = []
    for path in Path("/dev/shm").glob("*_locals"):
        with contextlib.suppress(OSError):  # another's, just gone
            if str(folder).encode() in path.read_bytes():
                named.append(path.name)
    return named
