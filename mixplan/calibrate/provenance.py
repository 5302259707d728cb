"""What is needed to trust or repeat a run: code, versions, hardware, hashes, and the time it took.

Everything here is written beside measurements that may have taken days: what cannot be found out is
"unknown", and never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mixplan.documents.calibration_spec import CalibrationSpec, Tokenizer

UNKNOWN = "unknown"
BYTES_TOKENIZER = "bytes: ids 0 to 255 are byte values, 256 ends a document"
PACKAGES = ("mixplan", "torch", "transformers", "numpy", "pydantic")
NOT_DECIDING = {
    "name", "ladder", "horizons", "seeds", "engine", "hardware", "tracking", "learned_skill", "dependence",
}  # fmt: skip
"""Keys of a calibration that say which runs there are and where, not what each of them computes."""
_PACKAGE_FOLDER = Path(__file__).resolve().parent.parent
_GIT_SECONDS = 10.0


class Clock:
    """Seconds a run took, and those spent in probes, over all its interruptions.

    Both travel in the checkpoint (`state`, `restore`): work that a kill undid counts when it is done again.
    """

    def __init__(self) -> None:
        self.probe_seconds = 0.0
        self._before = 0.0
        self._started = time.monotonic()

    @property
    def wall_seconds(self) -> float:
        """Seconds so far, those before the last interruption included."""
        return self._before + time.monotonic() - self._started

    @contextlib.contextmanager
    def probing(self) -> Iterator[None]:
        """Counts the block as probing. On a GPU synchronise first, or queued training is counted too."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.probe_seconds += time.monotonic() - started

    def state(self) -> dict[str, float]:
        """For the checkpoint."""
        return {"wall_seconds": self.wall_seconds, "probe_seconds": self.probe_seconds}

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from a checkpoint's `state`; what this process did before does not count."""
        self._before, self.probe_seconds = state["wall_seconds"], state["probe_seconds"]
        self._started = time.monotonic()

    def facts(self, tokens: int) -> dict[str, float]:
        """For done.json; tokens_per_second is over the whole time, probes included."""
        wall = self.wall_seconds
        return {
            "wall_seconds": round(wall, 3),
            "probe_seconds": round(self.probe_seconds, 3),
            "tokens_per_second": round(tokens / max(wall, 1e-9), 1),
        }


def run_facts(device: str, threads: int) -> dict[str, Any]:
    """Where and with what a run ran: device, threads, processes, hardware, versions, code.

    Args:
        device: a torch device: `cpu`, `cuda`, `cuda:1`.
        threads: CPU threads of this process.
    """
    return {
        "device": device,
        "threads": threads,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "hardware": hardware(device),
        "versions": versions(),
        "code": code_version(),
    }


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores this process may use, memory, operating system; the GPU where the device is one."""
    found: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "system": platform.platform(),
    }
    if device.startswith("cuda"):
        try:
            import torch

            found["gpu"] = torch.cuda.get_device_name(device)
            found["gpu_memory_bytes"] = torch.cuda.get_device_properties(device).total_memory
            found["cuda"] = torch.version.cuda
        except Exception:
            found["gpu"] = UNKNOWN
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
        except Exception:
            found[package] = UNKNOWN
    return found


def code_version() -> dict[str, Any]:
    """`git_commit` and `git_dirty` where mixplan runs from a checkout, and `source_sha256` of its .py files.

    A mixplan installed inside somebody else's checkout has no commit: only files that git tracks count.
    """
    commit: str = UNKNOWN
    dirty: bool | str = UNKNOWN
    if _git("ls-files", "--error-unmatch", "__init__.py") is not None:
        commit = (_git("rev-parse", "HEAD") or UNKNOWN).strip()
        changed = _git("status", "--porcelain", "--", ".")
        dirty = UNKNOWN if changed is None else bool(changed.strip())
    return {"git_commit": commit, "git_dirty": dirty, "source_sha256": source_sha256()}


def source_sha256(folder: Path = _PACKAGE_FOLDER) -> str:
    """SHA-256 over the relative paths and contents of a package's .py files, in the order of their paths."""
    digest = hashlib.sha256()
    try:
        for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
            digest.update(path.relative_to(folder).as_posix().encode("utf-8") + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    except OSError:
        return UNKNOWN
    return digest.hexdigest()


def tokenizer_sha256(tokenizer: Tokenizer, base: Path) -> str:
    """SHA-256 of tokenizer.json; in words where there is no such file.

    Args:
        base: folder of calibration.yaml, which `tokenizer.path` is relative to.
    """
    if tokenizer.kind == "bytes":
        return BYTES_TOKENIZER
    if tokenizer.kind == "none":
        size, end = tokenizer.vocab_size, tokenizer.end_of_document_id
        return f"tokens as given: ids below {size}, {end} ends a document"
    try:
        return hashlib.sha256((base / str(tokenizer.path) / "tokenizer.json").read_bytes()).hexdigest()
    except OSError:
        return UNKNOWN


def resolved_configuration(spec: CalibrationSpec, run: BaseModel, corpus_sha256: str) -> dict[str, Any]:
    """What decides a run's numbers, defaults filled in: for its hash, and to be shown by trackers.

    Left out is what may change while a ladder goes on: which other runs there are, where they run, names. A
    run that is continued after a seed was added to its ladder is the same run.

    Args:
        run: what stands in run.json.
    """
    deciding = spec.model_dump(mode="json", exclude=NOT_DECIDING)
    return {"calibration": deciding, "run": run.model_dump(mode="json"), "corpus_sha256": corpus_sha256}


def configuration_sha256(*parts: BaseModel | Mapping[str, Any]) -> str:
    """SHA-256 of a resolved configuration (defaults filled in), whatever the order of its keys."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else dict(part) for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode("utf-8")).hexdigest()


def merge_runs(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Facts by run as `same_for_all` (equal in every run) and `runs` (the rest, by run)."""
    runs = list(facts.values())
    same = {
        key: value
        for key, value in (runs[0].items() if runs else ())
        if all(key in run and run[key] == value for run in runs)
    }
    own = {name: {key: run[key] for key in run if key not in same} for name, run in facts.items()}
    return {"same_for_all": same, "runs": own}


def mixed_notes(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a reader must know of runs that were not made alike: another code, other versions or hardware."""
    notes = []
    for key, what in (
        ("code", "versions of mixplan's code"),
        ("versions", "sets of package versions"),
        ("hardware", "kinds of hardware"),
        ("processes", "numbers of processes"),
    ):
        kinds: dict[str, list[str]] = {}
        for name, run in facts.items():
            value = run.get(key)
            told = value.get("source_sha256") if key == "code" and isinstance(value, dict) else value
            if told is not None:
                kinds.setdefault(json.dumps(told, sort_keys=True), []).append(name)
        if len(kinds) > 1:
            fewest = min(kinds.values(), key=len)
            notes.append(
                f"the runs were made with {len(kinds)} {what} (provenance.json says which): differences "
                "between runs may come from that; "
                f"the rarest is that of {fewest[0]} ({len(fewest)} run(s))"
            )
    return notes


def _git(*arguments: str) -> str | None:
    """What git says about mixplan's own folder; None where it cannot."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=_PACKAGE_FOLDER,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout if done.returncode == 0 else None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Hardware", "cpu model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or UNKNOWN


def _memory_bytes() -> int | str:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return UNKNOWN
