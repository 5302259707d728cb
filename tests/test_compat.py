"""The torchvision shim, each case in a process of its own because imports cannot be undone."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A torchvision that fails as the CUDA build does beside a CPU torch: it refers to undeclared operators.
TRAPPED = """
import torch
@torch.library.register_fake("torchvision::nms")
def fake_nms(dets, scores, iou_threshold):
    return dets
loaded = True
"""


def run(code: str, extra: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(p) for p in (extra, ROOT) if p is not None)
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)


def package(folder: Path, text: str) -> Path:
    (folder / "torchvision").mkdir(parents=True)
    (folder / "torchvision" / "__init__.py").write_text(text)
    return folder


def test_importing_the_module_is_light() -> None:
    done = run("import sys, mixplan.compat; print([m for m in ('torch', 'torchvision') if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_absent_torchvision_changes_nothing() -> None:
    code = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torchvision' else real(name, *rest)\n"
        "from mixplan.compat import ensure_torchvision_imports as e; print(e(), 'torch' in sys.modules)"
    )
    done = run(code)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_working_torchvision_is_left_alone(tmp_path: Path) -> None:
    package(tmp_path, "loaded = True\n")
    code = (
        "import sys; from mixplan.compat import ensure_torchvision_imports as e; "
        "print(e(), e(), 'torch' in sys.modules, sys.modules['torchvision'].loaded)"
    )
    done = run(code, tmp_path)
    assert done.stdout.split() == ["False", "False", "False", "True"], done.stderr


def test_trap_is_real_and_the_shim_opens_it(tmp_path: Path) -> None:
    package(tmp_path, TRAPPED)
    trapped = run("import torchvision", tmp_path)
    assert trapped.returncode != 0
    assert "operator torchvision::nms does not exist" in trapped.stderr
    code = (
        "import torch; from mixplan.compat import ensure_torchvision_imports as e; print(e(), e()); "
        "import torchvision; print(torchvision.loaded, torch.ops.torchvision.qnms is not None)"
    )
    done = run(code, tmp_path)
    assert done.stdout.split() == ["True"] * 4, done.stderr


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("raise RuntimeError('out of luck')", "out of luck"),
        ("import no_such_thing", "No module named 'no_such_thing'"),
    ],
)
def test_other_failures_are_not_hidden(tmp_path: Path, text: str, error: str) -> None:
    package(tmp_path, text + "\n")
    code = (
        "from mixplan.compat import ensure_torchvision_imports as e\n"
        "try:\n    e()\nexcept Exception as error:\n    print(error)"
    )
    done = run(code, tmp_path)
    assert error in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(find_spec("streaming") is None, reason="streaming is not installed")
def test_the_real_consumers_import() -> None:
    code = (
        "from mixplan.compat import ensure_torchvision_imports as e; e(); "
        "import streaming; from transformers import Olmo2ForCausalLM; "
        "print(streaming.StreamingDataset.__name__, Olmo2ForCausalLM.__name__)"
    )
    done = run(code)
    assert done.stdout.split() == ["StreamingDataset", "Olmo2ForCausalLM"], done.stderr
