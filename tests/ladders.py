"""A ladder so small that its runs take a second or two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

TINY = {"name": "tiny", "d_model": 8, "layers": 1, "heads": 2, "d_ffn": 16}
SMALL = {"name": "small", "d_model": 16, "layers": 1, "heads": 2, "d_ffn": 32}


def write_ladder(folder: Path, **changes: Any) -> Path:
    """A text of 40 KB and a calibration.yaml over it; returns the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
    generator = np.random.default_rng(0)
    for number in range(20):
        text = " ".join(words[i] for i in generator.integers(0, len(words), size=400))
        (folder / f"text{number}.txt").write_text(text, encoding="utf-8")
    spec = {
        "corpus": {"paths": ["text*.txt"]},
        "ladder": [TINY, SMALL],
        "horizons": {"tokens": [10240]},
        "sequence_length": 64,
        "training": {"batch_sequences": 4, "checkpoint_every_seconds": 0.05},
        "tasks": [{"family": "comparison", "complexities": [6], "frequencies": [0.01, 0.005]}],
        "probes": {
            "evaluations": 4,
            "lm_loss_tokens": 512,
            "retention": {"instances": 4, "burst_steps": 1, "replicas": 2, "delays_steps": [0, 1, 4, 8]},
            "interference": {"points": 2, "batch_sequences": 4},
        },
        "engine": {"device": "cpu"},
        **changes,
    }
    path = folder / "calibration.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def mixplan(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    command = [sys.executable, "-m", "mixplan", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)
