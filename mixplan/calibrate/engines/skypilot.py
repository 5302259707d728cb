"""A SkyPilot task that runs the same command on a rented machine: a YAML file, without SkyPilot itself."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mixplan.documents.atomic import refuse_overwrite, write_text
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.errors import InputError

LADDER = "/ladder"
"""Where the task has the bucket that outlives its machine."""
_GPUS = ("H100", "A100", "L40S")
_HEADER = f"""\
# mixplan calibrate as a SkyPilot task. To start it:   sky jobs launch FILE
# A managed job is started again when its machine is lost: the bucket mounted at {LADDER} holds the ladder, so
# that it continues from the last checkpoints. Edit resources, and how mixplan is installed, as you need.
"""


def write_task(document: CalibrationSpec, spec: Path, target: Path) -> None:
    """Write the task file.

    Args:
        document: the calibration; its engine section says how many slots the machine needs.
        spec: calibration.yaml; its folder is what SkyPilot copies to the machine.
        target: the file to write.

    Raises:
        InputError: the file exists, or the calibration reads files outside of its folder, which would be
            missing on the machine.
    """
    refuse_overwrite(target, "calibrate --emit-skypilot", force=False)
    outside = sorted(set(_outside(document.model_dump(mode="json"))))
    if outside:
        raise InputError(
            f"{path}: lies outside of {spec.parent}, which is all that SkyPilot copies to the machine; move "
            "it there and name it relative to the calibration"
            for path in outside
        )
    write_text(target, _HEADER + yaml.safe_dump(task(document, spec), sort_keys=False, width=110))


def task(document: CalibrationSpec, spec: Path) -> dict[str, Any]:
    """The task as a mapping, in the order of SkyPilot's own documentation."""
    engine = document.engine
    slots = engine.slots or engine.processes_per_run
    resources: dict[str, Any] = {"cpus": f"{slots * engine.threads_per_slot}+"}
    if engine.device == "cuda":
        resources["accelerators"] = dict.fromkeys(_GPUS, slots)
    # Bucket names: lower case, digits and dashes.
    name = re.sub(r"[^a-z0-9]+", "-", f"mixplan-{document.name}".lower()).strip("-")
    command = ["mixplan", "calibrate", spec.name, "-o", f"{LADDER}/runs", "--engine", "local"]
    return {
        "name": name,
        "workdir": str(spec.parent.resolve()),
        "resources": resources,
        "file_mounts": {LADDER: {"name": name, "mode": "MOUNT_CACHED"}},
        "setup": "pip install mixplan",
        "run": shlex.join(command),
    }


def _outside(value: Any, key: str = "") -> Iterator[str]:
    """Paths in a calibration that leave its folder."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _outside(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _outside(inner, key)
    elif isinstance(value, str) and key in ("path", "paths"):
        local = Path(value)
        if "://" not in value and (local.is_absolute() or ".." in local.parts or value.startswith("~")):
            yield value
