"""What `build` wrote, as Streaming reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixplan.compat import ensure_torchvision_imports


def rows(folder: Path) -> np.ndarray:
    """All samples, read by Streaming."""
    ensure_torchvision_imports()
    from streaming import LocalDataset

    data = LocalDataset(local=str(folder))
    return np.stack([data[index]["tokens"] for index in range(len(data))])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
