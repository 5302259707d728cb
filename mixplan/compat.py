"""The torchvision trap of CPU builds of torch, handled in one place.

The torchvision wheel on the package index is built for CUDA. Beside a CPU build of torch its compiled
operators do not load and `import torchvision` fails; with it fail `import streaming` and transformers' model
classes, which import torchvision whenever it is installed. mixplan uses none of its operators, so it
is enough to declare the two that torchvision itself refers to while it is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# torch drops a library's declarations when the object is collected.
_declared: list[Any] = []


def ensure_torchvision_imports() -> bool:
    """Make `import torchvision` work; call it before importing streaming or a transformers model.

    Does nothing where torchvision is absent or loads properly. May be called any number of times.

    Returns:
        True when the missing operators had to be declared (also on later calls in the same process).

    Raises:
        Exception: whatever `import torchvision` raises for any other reason than the missing operators.
    """
    if _declared:
        return True
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision")
        return False
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _forget_torchvision()
    _declare_operators()
    try:
        importlib.import_module("torchvision")
    except BaseException:
        _forget_torchvision()
        raise
    return True


def _forget_torchvision() -> None:
    """Drop what a failed import left behind, so that the next one starts afresh."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    _declared.append(library)
    for name in _OPERATORS:
        try:
            getattr(torch.ops.torchvision, name)
        except AttributeError:
            library.define(name + _SCHEMA)
