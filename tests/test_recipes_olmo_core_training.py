"""examples/pretrain_olmo_core: OLMo-core's trainer over mixtures of both kinds, stopped and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recipes_making import write_plan, write_recipe, write_text

from mixplan.recipes.building import build
from mixplan.recipes.emitting import emit
from mixplan.recipes.written import Options

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "pretrain_olmo_core"
CHOOSE = {"web": 50, "code": 25, "rare": 45}  # 120: whole batches of 8

SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
if __name__ == "__main__":
    import torch
    import train

    def run(mixture, folder, *more):
        return train.main([
            mixture, "--save-folder", folder, "--preset", "olmo2_1M", "--batch-sequences", "8",
            "--microbatch-sequences", "4", "--learning-rate", "1e-2", "--schedule", "constant",
            "--log-every", "5", "--work-dir", "work", *more,
        ])

    said = {}
    for kind in ("shards", "files"):
        whole = run(kind, f"{kind}-whole")
        stopped = run(kind, f"{kind}-parts", "--stop-after", "6")
        # As if the run had been killed later than its last checkpoint: it must train these steps again.
        log = Path(f"{kind}-parts/data-rank0.jsonl")
        with log.open("a") as file:
            file.write(json.dumps({"step": 7, "sources": {}, "tokens": ""}) + "\\n")
        before = stopped.global_step
        rest = run(kind, f"{kind}-parts")
        models = [trainer.train_module.model.state_dict() for trainer in (whole, rest)]
        loader = rest.data_loader
        state = loader.state_dict()
        mark = "mixture" if kind == "shards" else "dataset_fingerprint"
        try:
            loader.load_state_dict({**state, mark: "other"})
            refused = ""
        except RuntimeError as error:
            refused = str(error)
        said[kind] = {
            "steps": [before, whole.global_step, rest.global_step],
            "tokens": rest.global_train_tokens_seen,
            "same": all(torch.equal(value, models[1][name]) for name, value in models[0].items()),
            "refused": refused,
        }
    # The next phase begins with the weights of the last one, and with the first sequence.
    phase = run("shards", "phase", "--start-from", "files-whole/step15", "--stop-after", "1")
    before = whole.train_module.model.state_dict()
    after = phase.train_module.model.state_dict()
    moved = [(value - before[name]).abs().max().item() for name, value in after.items()]
    said["phase"] = {"step": phase.global_step, "moved": max(moved)}
    # Another batch size half-way: the sequences go on where they were.
    adapter = sys.modules["olmo_core_loader"]
    loader = adapter.make_data_loader(8 * 16, "work", Path("shards"))
    loader.reshuffle(epoch=1)
    seen = []
    for batch in loader:
        seen.append(batch["input_ids"])
        if loader.batches_processed == 4 and loader.global_batch_size == 8 * 16:
            loader.global_batch_size = 16 * 16
    whole = adapter.make_data_loader(8 * 16, "work", Path("shards"))
    whole.reshuffle(epoch=1)
    said["sizes"] = [len(batch) for batch in seen]
    uninterrupted = torch.cat([batch["input_ids"] for batch in whole])[:sum(said["sizes"])]
    said["same order"] = torch.equal(torch.cat(seen), uninterrupted)
    try:
        whole.reshuffle(epoch=2)
    except RuntimeError as error:
        said["second epoch"] = str(error)
    try:
        adapter.make_data_loader(8 * 16 + 1, "work", Path("shards"))
    except ValueError as error:
        said["batch"] = str(error)
    Path("said.json").write_text(json.dumps(said))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    for number, (name, samples) in enumerate({"web": 60, "code": 25, "rare": 20}.items()):
        write_text(folder / "text" / name, samples, seed=number)
    build(write_plan(folder, {name: {"text": [f"text/{name}"], "mds": f"mds/{name}"} for name in CHOOSE}))
    recipe = write_recipe(folder, CHOOSE, ("rare",))
    emit(recipe, folder / "files", "olmo-core", Options(with_data=True))
    emit(recipe, folder / "shards", "olmo-core")
    (folder / "script.py").write_text(SCRIPT)
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RANK", "WORLD_SIZE")}
    env |= {"OMP_NUM_THREADS": "1", "OLMO_DATA_PREP_WORKERS": "1", "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "script.py", str(EXAMPLE)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def said(trained: Path) -> dict[str, Any]:
    return json.loads((trained / "said.json").read_text())


def log(trained: Path, run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (trained / run / "data-rank0.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "shards"])
def test_a_run_sees_exactly_the_recipes_sequences(trained: Path, kind: str) -> None:
    steps = log(trained, f"{kind}-whole")
    assert [step["step"] for step in steps] == list(range(1, 16))
    assert {name: sum(step["sources"][name] for step in steps) for name in CHOOSE} == CHOOSE
    assert len({step["tokens"] for step in steps}) == 15


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "shards"])
def test_stopped_and_resumed_it_is_the_same_run(trained: Path, kind: str) -> None:
    assert log(trained, f"{kind}-parts") == log(trained, f"{kind}-whole")
    found = said(trained)[kind]
    assert found["steps"] == [6, 15, 15] and found["tokens"] == 120 * 16
    assert found["same"], "the weights are those of the uninterrupted run, bit for bit"


@pytest.mark.slow
def test_the_next_phase_goes_on_with_the_weights_and_its_own_data(trained: Path) -> None:
    found = said(trained)["phase"]
    assert found["step"] == 1
    assert 0 < found["moved"] < 0.011, "one step of AdamW from there, at a learning rate of 0.01"
    assert log(trained, "phase") == log(trained, "shards-whole")[:1]


@pytest.mark.slow
def test_the_state_of_another_mixture_is_refused(trained: Path) -> None:
    assert "Dataset fingerprint does not match" in said(trained)["files"]["refused"]
    assert "this checkpoint is of mixture other" in said(trained)["shards"]["refused"]


@pytest.mark.slow
def test_shards_through_the_adapter(trained: Path) -> None:
    found = said(trained)
    assert found["sizes"] == [8, 8, 8, 8, 16, 16, 16, 16, 16] and found["same order"]
    assert "one epoch is the whole run" in found["second epoch"]
    assert "give a multiple of 16 tokens" in found["batch"]
