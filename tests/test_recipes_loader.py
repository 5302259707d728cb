"""The emitted loader.py runs alone, feeds an embedding, resumes exactly, refuses another mixture's state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recipes_making import write_plan, write_recipe, write_text

from mixplan.recipes.building import build
from mixplan.recipes.emitting import emit

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
if __name__ == "__main__":
    import loader
    import torch
    assert "mixplan" not in sys.modules
    table = torch.nn.Embedding(257, 4)
    first = loader.make_loader(batch_size=10, num_workers=1)
    batches, state = [], None
    for batch in first:
        tokens = batch["tokens"]
        assert table(tokens).shape == (*tokens.shape, 4)
        batches.append(tokens)
        if len(batches) == 3:
            state = first.state_dict()
    again = loader.make_loader(batch_size=10)
    again.load_state_dict(state)
    rest = [batch["tokens"] for batch in again]
    same = torch.equal(torch.cat(batches[3:]), torch.cat(rest))
    try:
        again.load_state_dict({**state, "mixture": "other"})
        refused = ""
    except ValueError as error:
        refused = str(error)
    everything = torch.cat(batches)
    print(json.dumps({
        "shape": list(everything.shape), "dtype": str(everything.dtype), "sum": int(everything.sum()),
        "state": state["mixture"], "same": same, "refused": refused,
    }))
"""


@pytest.mark.slow
def test_loader_runs_alone(tmp_path: Path) -> None:
    for name, samples in (("web", 60), ("rare", 10)):
        write_text(tmp_path / "text" / name, samples)
    plan = write_plan(tmp_path, {n: {"text": [f"text/{n}"], "mds": f"mds/{n}"} for n in ("web", "rare")})
    build(plan)
    emitted = emit(write_recipe(tmp_path, {"web": 60, "rare": 20}), tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "script.py").write_text(SCRIPT)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}  # Streaming leaves lock files there
    done = subprocess.run(
        [sys.executable, "script.py", str(tmp_path / "out")],
        env=env, cwd=tmp_path / "elsewhere", capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["shape"], found["dtype"]) == ([80, 16], "torch.int64")
    assert found["state"] == emitted.fingerprint
    assert found["same"] is True
    assert "this state is of mixture other" in found["refused"]
    expected = 0
    for name, epochs in (("web", 1), ("rare", 2)):
        for path in (tmp_path / "text" / name).iterdir():
            expected += epochs * (sum(path.read_bytes()) + 256)
    assert found["sum"] == expected
