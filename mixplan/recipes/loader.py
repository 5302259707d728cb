"""Loads the mixture that streams.yaml, beside this file, describes. Needs torch and mosaicml-streaming only.

    from loader import make_loader
    for batch in make_loader(batch_size=8, num_workers=4):
        tokens = batch["tokens"]          # int64 [batch, sequence_length]

batch_size is per device. One epoch is the whole run; let the global batch size divide `samples`, or Streaming
pads the end. Keep `loader.state_dict()` in your checkpoints: it carries the mixture's fingerprint, so that a
state of another mixture is refused instead of being resumed in another order.
"""

from __future__ import annotations

from pathlib import Path
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

HERE = Path(__file__).resolve().parent


def read_mixture(folder: Path = HERE) -> dict[str, Any]:
    """streams.yaml as a dict."""
    return yaml.safe_load((Path(folder) / "streams.yaml").read_text(encoding="utf-8"))


class MixtureDataset(StreamingDataset):
    """All streams of a mixture; samples are {"tokens": int64 [sequence_length]}."""

    def __init__(self, mixture: dict[str, Any], batch_size: int, **options: Any) -> None:
        self.fingerprint = mixture["fingerprint"]
        self.column = mixture["column"]
        streams = [Stream(**settings) for settings in mixture["streams"].values()]
        # Streaming polls for data every 7 ms: with its default, 8 batches ahead, small batches are slow.
        options = {"predownload": max(8 * batch_size, 4096), **mixture["dataset"], **options}
        super().__init__(streams=streams, batch_size=batch_size, **options)

    def __getitem__(self, at: Any) -> Any:
        return {"tokens": super().__getitem__(at)[self.column].astype(np.int64)}

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        return {**super().state_dict(num_samples, from_beginning), "mixture": self.fingerprint}

    def load_state_dict(self, obj: dict[str, Any]) -> None:
        saved = obj.get("mixture")
        if saved != self.fingerprint:
            raise ValueError(
                f"this state is of mixture {saved}, not of {self.fingerprint}; resuming would mix both"
            )
        super().load_state_dict({key: value for key, value in obj.items() if key != "mixture"})


def make_loader(batch_size: int, num_workers: int = 0, folder: Path = HERE, **options: Any) -> Any:
    """A StreamingDataLoader over the mixture; `options` go to torch's DataLoader."""
    dataset = MixtureDataset(read_mixture(folder), batch_size)
    return StreamingDataLoader(dataset, batch_size=batch_size, num_workers=num_workers, **options)
