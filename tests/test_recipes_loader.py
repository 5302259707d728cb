"""The emitted loader.py runs alone, feeds an embedding, resumes exactly, refuses another mixture's state; an
epoch that ends early is an error; shared memory of killed runs is freed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recipes_making import write_plan, write_recipe, write_text

from mixplan.recipes.building import build
from mixplan.recipes.emitting import emit

pytestmark = pytest.mark.slow

SCRIPT = """
import json, os, re, sys
sys.path.insert(0, sys.argv[1])

def tokens_of(batches):
    return torch.cat([batch["tokens"] for batch in batches])

def ended(state=None, **options):
    # The message of the error that ends an epoch early: what came and what was due of each source.
    bad = loader.make_loader(10, folder=sys.argv[2], **options)
    if state:
        bad.load_state_dict(state)
    rows = 0
    try:
        for batch in bad:
            rows += len(batch["tokens"])
    except loader.EpochEndedEarlyError as error:
        counts = re.findall(r"(\\w+) ([\\d,]+) of ([\\d,]+)[;.]", str(error))
        counts = {name: [int(n), int(of)] for name, n, of in counts}
        return {"rows": rows, "counts": counts, "said": str(error)}
    return {"rows": rows}

def rank_ended(rank):
    import torch.distributed as dist
    pid = os.fork()
    if pid:
        return pid
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    dist.init_process_group("gloo", init_method="file://" + os.path.abspath("meet"), rank=rank, world_size=2)
    open(f"rank-{rank}.json", "w").write(json.dumps(ended()))
    dist.barrier()
    os._exit(0)

if __name__ == "__main__":
    import loader
    import torch
    assert "mixplan" not in sys.modules
    ranks = [rank_ended(rank) for rank in (0, 1)]
    assert [os.waitpid(pid, 0)[1] for pid in ranks] == [0, 0]
    table = torch.nn.Embedding(257, 4)
    first = loader.make_loader(batch_size=10, num_workers=1, dataset_options={"predownload": 20})
    assert first.dataset.predownload == 20
    batches, state = [], None
    for batch in first:
        tokens = batch["tokens"]
        assert table(tokens).shape == (*tokens.shape, 4)
        batches.append(batch)
        if len(batches) == 3:
            state = first.state_dict()
    again = loader.make_loader(batch_size=10)
    again.load_state_dict(state)
    rest = list(again)
    same = torch.equal(tokens_of(batches[3:]), tokens_of(rest))
    try:
        again.load_state_dict({**state, "mixture": "other"})
        refused = ""
    except ValueError as error:
        refused = str(error)
    everything, source = tokens_of(batches), torch.cat([batch["source"] for batch in batches])
    sample = torch.cat([batch["sample_id"] for batch in batches])
    print(json.dumps({
        "shape": list(everything.shape), "dtype": str(everything.dtype), "sum": int(everything.sum()),
        "state": state["mixture"], "same": same, "refused": refused, "came": first.came.tolist(),
        "came again": again.came.tolist(), "source": source.tolist(), "sample": sample.tolist(),
        "ends": {
            "one": ended(), "workers": ended(num_workers=2), "resumed": ended(state),
            "drop_last": ended(state, num_workers=1, drop_last=True),
        },
        "ranks": [json.load(open(f"rank-{rank}.json")) for rank in (0, 1)],
    }))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script found: an emitted mixture, and one of the same data without some of its shards."""
    folder = tmp_path_factory.mktemp("loader")
    for name, samples in (("web", 60), ("rare", 10)):
        write_text(folder / "text" / name, samples)
    build(write_plan(folder, {n: {"text": [f"text/{n}"], "mds": f"mds/{n}"} for n in ("web", "rare")}))
    shutil.copytree(folder / "mds", folder / "bad" / "mds")
    emitted = emit(write_recipe(folder, {"web": 60, "rare": 20}), folder / "out")
    emit(write_recipe(folder / "bad", {"web": 60, "rare": 20}), folder / "bad" / "out")
    for shard in sorted((folder / "bad" / "mds" / "web").glob("*.mds"))[::5]:
        shard.unlink()
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "script.py").write_text(SCRIPT)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}  # Streaming leaves lock files there
    done = subprocess.run(
        [sys.executable, "script.py", str(folder / "out"), str(folder / "bad" / "out")],
        env=env, cwd=folder / "elsewhere", capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    texts = {"web": 1, "rare": 2}
    read = {name: [path.read_bytes() for path in (folder / "text" / name).iterdir()] for name in texts}
    expected = sum(
        epochs * (sum(map(sum, read[name])) + 256 * len(read[name])) for name, epochs in texts.items()
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found, "fingerprint": emitted.fingerprint, "expected sum": expected}


def test_loader_runs_alone(ran: dict[str, Any]) -> None:
    assert (ran["shape"], ran["dtype"]) == ([80, 16], "torch.int64")
    assert ran["state"] == ran["fingerprint"]
    assert ran["same"] is True
    assert "this state is of mixture other" in ran["refused"]
    assert ran["sum"] == ran["expected sum"]


def test_every_sample_says_where_it_comes_from(ran: dict[str, Any]) -> None:
    assert ran["came"] == [60, 20] == [ran["source"].count(0), ran["source"].count(1)]
    assert [number >= 60 for number in ran["sample"]] == [source == 1 for source in ran["source"]]
    assert sorted(ran["sample"]) == sorted([*range(60), *range(60, 70), *range(60, 70)])
    assert ran["came again"] == [ran["source"][30:].count(0), ran["source"][30:].count(1)]


@pytest.mark.parametrize("case", ["one", "workers", "resumed", "drop_last"])
def test_an_epoch_that_ends_early_says_what_came_of_what_was_due(ran: dict[str, Any], case: str) -> None:
    end = ran["ends"][case]
    since = 30 if case in ("resumed", "drop_last") else 0
    assert {name: of for name, (_, of) in end["counts"].items()} == {
        "web": ran["source"][since:].count(0),
        "rare": ran["source"][since:].count(1),
    }
    assert sum(came for came, _ in end["counts"].values()) == end["rows"] < 80 - since
    assert (
        f"rank 0: the mixture ended early. Samples that came, of those due since sample {since} "
        in end["said"]
    )
    reasons = ("In the absence of local dataset", "another process could not get a shard")
    assert any(reason in end["said"] for reason in reasons)
    assert case == "workers" or reasons[0] in end["said"], "Streaming's own reason"


def test_every_rank_says_what_it_was_due(ran: dict[str, Any]) -> None:
    said = [end for end in ran["ranks"] if "said" in end]
    assert len(said) == 2, "both need shards that are gone"
    for rank, end in enumerate(said):
        assert f"rank {rank}: " in end["said"]
    assert [sum(end["counts"][name][1] for end in said) for name in ("web", "rare")] == [60, 20]


def test_shards_that_changed_since_emit_are_refused(tmp_path: Path) -> None:
    from mixplan.recipes import loader

    digests, streams = {}, {}
    for name in ("web", "code", "copied", "gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(name)
        digests[name] = hashlib.sha256(name.encode()).hexdigest()
        streams[name] = {"local": str(tmp_path / name), "remote": None, "choose": 1}
    streams["copied"]["remote"] = str(tmp_path / "elsewhere")
    mixture = {"streams": streams, "index_sha256": digests}
    (tmp_path / "gone" / "index.json").unlink()
    loader.refuse_changed_shards(mixture)
    for name in ("code", "copied"):
        (tmp_path / name / "index.json").write_text("built anew")
    said = rf"since the mixture was emitted: code \({tmp_path}/code/index.json\); a run .* emit again"
    with pytest.raises(ValueError, match=said):
        loader.MixtureDataset(mixture, 1)
    loader.refuse_changed_shards({"streams": streams, "index_sha256": {}})
    loader.refuse_changed_shards({"streams": streams})


def test_shared_memory_of_killed_runs_only_is_freed(tmp_path: Path) -> None:
    from mixplan.recipes import loader

    locals_of, other = (Path("/dev/shm") / f"987654_{name}" for name in ("locals", "barrier"))
    try:
        for mode, gone in ((0o600, False), (0o700, True)):
            for path in (locals_of, other):
                path.write_bytes(b"1234")
                path.chmod(mode)
            with locals_of.open() as held:  # by a run beside this one
                fcntl.flock(held, fcntl.LOCK_EX)
                loader._free_after_crashes()
                assert locals_of.exists() and other.exists()
            loader._free_after_crashes()
            assert (not locals_of.exists(), not other.exists()) == (gone, gone), "another program's stays"
    finally:
        for path in (locals_of, other):
            path.unlink(missing_ok=True)


def test_a_killed_run_leaves_a_mark(tmp_path: Path) -> None:
    """Killed with all its helpers, as a scheduler does; its cache folder can be used again."""
    write_text(tmp_path / "text" / "web", 20)
    build(write_plan(tmp_path, {"web": {"text": ["text/web"], "mds": "mds/web"}}))
    emit(write_recipe(tmp_path, {"web": 20}), tmp_path / "out")
    streams = (tmp_path / "out" / "streams.yaml").read_text()
    streams = streams.replace(f"local: {tmp_path}/mds", f"local: {tmp_path}/cache")
    streams = streams.replace("remote: null", f"remote: {tmp_path}/mds/web")
    (tmp_path / "out" / "streams.yaml").write_text(streams)
    script = (
        "import os, signal, sys\nsys.path.insert(0, sys.argv[1])\nimport loader\n"
        "rows = sum(len(batch['tokens']) for batch in loader.make_loader(5))\n"
        "print(rows, flush=True)\n"
        "os.killpg(0, signal.SIGKILL)\n"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "out")],
            env=env, capture_output=True, text=True, timeout=120, start_new_session=True,
        )  # fmt: skip
        assert (done.stdout, done.returncode) == ("20\n", -9), done.stderr
    from mixplan.recipes import loader

    loader._free_after_crashes()
