"""examples/pretrain_olmo: a nano model learns its mixture; kills, restarts and other numbers of processes
change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pretraining import BATCH, EVERY, EXAMPLE, KILLED_AFTER
from recipes_making import LENGTH, write_plan, write_recipe

from mixplan.recipes.building import build
from mixplan.recipes.emitting import emit

pytestmark = pytest.mark.slow

CHOOSE = {"web": 2940, "code": 652, "rare": 240}
TEXT = {"web": "the cat sat on the mat and ate. ", "code": "for i in x: y += i\n", "rare": "0123456789"}
AVAILABLE = {"web": 3000, "code": 1500, "rare": 60}
PHASES = {"stable": {"web": 400, "code": 80, "rare": 0}, "anneal": {"web": 200, "code": 80, "rare": 40}}
STEPS = -(-sum(CHOOSE.values()) // BATCH)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    for name, text in TEXT.items():
        wanted = AVAILABLE[name] * LENGTH - 1  # an end-of-document token follows
        (folder / "text").mkdir(exist_ok=True)
        (folder / "text" / f"{name}.txt").write_text((text * (wanted // len(text) + 1))[:wanted])
    build(write_plan(folder, {n: {"text": [f"text/{n}.txt"], "mds": f"mds/{n}"} for n in TEXT}))
    emit(write_recipe(folder, CHOOSE, rare=("rare",)), folder / "mixture")
    emit(write_recipe(folder, CHOOSE, rare=("rare",), shuffle_seed=18), folder / "other")
    phases = [
        {"name": name, "samples": sum(choose.values()), "choose": choose} for name, choose in PHASES.items()
    ]
    whole = {name: sum(choose[name] for choose in PHASES.values()) for name in CHOOSE}
    emit(write_recipe(folder, whole, rare=("rare",), phases=phases), folder / "phases")
    driver = Path(__file__).with_name("pretraining.py")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}  # Streaming leaves lock files there
    done = subprocess.run(
        [sys.executable, str(driver), str(folder)], env=env, capture_output=True, text=True, timeout=300
    )
    logs = "".join(path.read_text() for path in sorted(folder.glob("*.txt")))
    assert done.returncode == 0, done.stderr + logs
    return folder


def found(runs: Path) -> dict[str, int]:
    return json.loads((runs / "found.json").read_text())


def rows(runs: Path, out: str, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """What a run logged, without what depends on the machine's speed."""
    read = [json.loads(line) for line in (runs / out / name).read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in read]


def test_it_learns_and_realises_the_recipe_exactly(runs: Path) -> None:
    assert found(runs)["whole"] == 0
    log = rows(runs, "whole")
    assert (log[-1]["step"], STEPS) == (240, 240)
    first, last = log[0]["sources"], log[-1]["sources"]
    assert {name: source["samples"] for name, source in last.items()} == CHOOSE
    for name in TEXT:
        assert last[name]["share"] == CHOOSE[name] / sum(CHOOSE.values())
        assert last[name]["tokens"] == CHOOSE[name] * LENGTH
        assert last[name]["epochs"] == CHOOSE[name] / AVAILABLE[name]
        assert last[name]["loss"] < 0.7 * first[name]["loss"]
    assert log[-1]["tokens"] == sum(CHOOSE.values()) * LENGTH
    ids = [number for row in rows(runs, "whole", "samples.jsonl") for number in row["sample_ids"]]
    assert len(ids) == sum(CHOOSE.values())
    rare = [number for number in ids if number >= AVAILABLE["web"] + AVAILABLE["code"]]
    assert len(rare) == 240 and all(rare.count(number) == 4 for number in set(rare))


def test_a_killed_run_ends_as_if_nothing_had_been(runs: Path) -> None:
    assert (found(runs)["killed"], found(runs)["resumed"]) == (-9, 0)
    assert f"step {KILLED_AFTER // 20 * 20}/" in (runs / "resumed.txt").read_text()
    assert (runs / "resumed.txt").read_text().count(f"step {STEPS}/") == 1
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert rows(runs, "resumed", name) == rows(runs, "whole", name)
    one, other = (runs / out / "model" / "model.safetensors" for out in ("whole", "resumed"))
    assert one.read_bytes() == other.read_bytes()


def test_two_processes_train_on_the_same_global_batches(runs: Path) -> None:
    assert found(runs)["two"] == 0, (runs / "two.txt").read_text()
    whole = rows(runs, "whole", "samples.jsonl")
    assert rows(runs, "two", "samples.jsonl") == whole[:EVERY]
    # Later, what is rounded in another order has been grown by the optimizer.
    one, two = rows(runs, "whole")[0], rows(runs, "two")[0]
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    for name in TEXT:
        assert two["sources"][name]["samples"] == one["sources"][name]["samples"]
        assert two["sources"][name]["loss"] == pytest.approx(one["sources"][name]["loss"], rel=1e-5)


def test_any_number_of_processes_continues_sharded_or_not(runs: Path) -> None:
    assert (found(runs)["sharded"], found(runs)["alone"]) == (0, 0), (runs / "sharded.txt").read_text()
    whole = rows(runs, "whole", "samples.jsonl")
    for out in ("sharded", "alone"):
        assert rows(runs, out, "samples.jsonl") == whole[: EVERY + 5]
    sharded, alone = (rows(runs, out)[-1] for out in ("sharded", "alone"))
    assert sharded["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    assert sharded["loss"] < rows(runs, "two")[-1]["loss"]
    assert sharded["gradient_norm"] == pytest.approx(alone["gradient_norm"], rel=1e-2)


def test_phases_come_one_after_another(runs: Path) -> None:
    assert (found(runs)["phased"], found(runs)["next phase"]) == (0, 0), (runs / "phased.txt").read_text()
    log = rows(runs, "phased")
    assert [(row["step"], row["phase"]) for row in log] == [
        (20, "stable"),
        (30, "stable"),
        (40, "anneal"),
        (50, "anneal"),
    ]
    stable, both = (log[at]["sources"] for at in (1, 3))
    assert {name: source["samples"] for name, source in stable.items()} == PHASES["stable"]
    assert {name: source["samples"] for name, source in both.items()} == {"web": 600, "code": 160, "rare": 40}
    assert both["web"]["epochs"] == 600 / AVAILABLE["web"]
    assert log[3]["learning_rate"] < log[2]["learning_rate"] == log[1]["learning_rate"], "one schedule"
    ids = [row["sample_ids"] for row in rows(runs, "phased", "samples.jsonl")]
    assert len(ids) == 50 and ids[:20] != ids[30:]


def test_a_phase_that_fills_no_global_batch_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from loop import Run

    trained = []

    class Recorded(Run):
        def __init__(self) -> None:
            self.args, self.ends = SimpleNamespace(stop_at_step=4), [0, 2, 2, 5]
            self.phases = ["small", "a", "less", "b"]
            self.step, self.phase, self.loader_state = 0, 0, None

        def _train_phase(self, phase: Any, end: int, last: int) -> None:
            trained.append((phase, self.step))
            self.step, self.phase = min(end, last), self.phase + 1

    run = Recorded()
    run.train()
    assert trained == [("a", 0), ("b", 2)] and run.step == 4


def test_only_the_latest_checkpoints_are_kept(runs: Path) -> None:
    kept = sorted(path.name for path in (runs / "whole" / "checkpoints").iterdir())
    assert kept == [f"step-{step:09d}" for step in (STEPS - EVERY, STEPS)]


def test_wrong_arguments_are_refused_all_at_once(runs: Path) -> None:
    ended = found(runs)
    assert (ended["other mixture"], ended["no mixture"], ended["uneven"]) == (2, 2, 2)


def test_zeros_and_a_missing_held_out_folder_are_refused_before_a_model_is_built(runs: Path) -> None:
    assert (found(runs)["zero"], found(runs)["held-out"]) == (2, 2)
    said = (runs / "zero.txt").read_text().splitlines()
    assert said == ["--global-batch 0: must be positive", "--workers -1: must not be negative"]
    said = (runs / "held-out.txt").read_text().splitlines()
    assert len(said) == 1 and said[0].startswith(f"--held-out {runs / 'none'}: give"), "no warm-up is allowed"


@pytest.mark.parametrize(
    ("case", "out", "said"),
    [
        ("two at once", "two", "another run is writing to it"),
        ("out is a file", "file", "cannot be written to"),
    ],
)
def test_a_folder_that_cannot_be_had_is_refused(runs: Path, case: str, out: str, said: str) -> None:
    assert found(runs)[case] == 2
    assert said in (runs / f"{out}.txt").read_text().splitlines()[-1]


def test_shards_that_changed_since_emit_are_refused(runs: Path) -> None:
    assert found(runs)["changed shards"] == 2
    said = (runs / "changed.txt").read_text()
    assert "code (" in said and "emit again and start a new run" in said and said.count("\n") == 1
    other = (runs / "two.txt").read_text()
    assert "holds a run with mixtures" in other and "holds a run with drop_tail False, not True" in other
    assert "no mixture in" in (runs / "none.txt").read_text()
    uneven = (runs / "uneven.txt").read_text()
    assert "--keep 0" in uneven and "did you mean 'cpu_8k'" in uneven
    assert not (runs / "none").exists() and not (runs / "uneven").exists()
