"""What is recorded of a run: true where it can be known, "unknown" where not, never an error."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mixplan.calibrate import provenance
from mixplan.calibrate.runs import RunFolder
from mixplan.documents.calibration_spec import CalibrationSpec, Tokenizer
from mixplan.documents.spec_training import Engine, Training


def test_run_facts_are_json_and_name_device_versions_and_code() -> None:
    import torch

    facts = json.loads(json.dumps(provenance.run_facts("cpu", 1), allow_nan=False))
    assert (facts["device"], facts["threads"], facts["processes"]) == ("cpu", 1, 1)
    assert facts["versions"]["torch"] == torch.__version__
    assert set(provenance.PACKAGES) < set(facts["versions"])
    assert facts["hardware"]["cores"] >= 1 and facts["hardware"]["cpu"]
    assert "gpu" not in facts["hardware"]


def test_processes_are_those_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert provenance.run_facts("cpu", 1)["processes"] == 4


def test_code_version_follows_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "repository" / "mixplan"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(provenance, "_PACKAGE_FOLDER", package)
    assert provenance.code_version()["git_commit"] == "unknown"

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", *arguments]
        return subprocess.run(command, cwd=package, check=True, capture_output=True, text=True).stdout

    git("init", "-q", "..")
    assert provenance.code_version()["git_commit"] == "unknown", "installed inside somebody's checkout"
    git("add", ".")
    git("commit", "-q", "-m", "first")
    (tmp_path / "repository" / "notes.txt").write_text("not mixplan's code")
    clean = provenance.code_version()
    assert clean["git_commit"] == git("rev-parse", "HEAD").strip()
    assert clean["git_dirty"] is False
    (package / "__init__.py").write_text("changed = True\n")
    assert provenance.code_version()["git_dirty"] is True


def test_source_hash_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    first = provenance.source_sha256(tmp_path)
    (tmp_path / "notes.txt").write_text("not code")
    assert provenance.source_sha256(tmp_path) == first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    renamed = provenance.source_sha256(tmp_path)
    (tmp_path / "b.py").write_text("x = 2\n")
    assert len({first, renamed, provenance.source_sha256(tmp_path)}) == 3


def test_nothing_is_known_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise OSError("not here")

    monkeypatch.setattr(provenance.subprocess, "run", fails)
    monkeypatch.setattr(provenance.os, "sysconf", fails)
    monkeypatch.setattr(Path, "read_text", fails)
    monkeypatch.setattr(Path, "read_bytes", fails)
    facts = provenance.run_facts("cuda:7", 2)
    code = {"git_commit": "unknown", "git_dirty": "unknown", "source_sha256": "unknown"}
    assert facts["code"] == code
    assert facts["hardware"]["memory_bytes"] == "unknown"
    assert facts["hardware"]["gpu"] == "unknown" or "gpu_memory_bytes" in facts["hardware"]


def test_tokenizer_hash_is_that_of_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(b'{"model": {}}')
    own = Tokenizer(kind="huggingface", path="own")
    assert provenance.tokenizer_sha256(own, tmp_path) == hashlib.sha256(b'{"model": {}}').hexdigest()
    assert provenance.tokenizer_sha256(own, tmp_path / "elsewhere") == "unknown"
    assert provenance.tokenizer_sha256(Tokenizer(), tmp_path) == provenance.BYTES_TOKENIZER
    given = Tokenizer(kind="none", vocab_size=50, end_of_document_id=3)
    assert "ids below 50, 3 ends" in provenance.tokenizer_sha256(given, tmp_path)


def test_configuration_hash_depends_on_values_not_on_order() -> None:
    given = provenance.configuration_sha256({"a": 1, "b": {"c": 2, "d": 3}}, Training())
    assert given == provenance.configuration_sha256({"b": {"d": 3, "c": 2}, "a": 1}, Training(beta1=0.9))
    assert given != provenance.configuration_sha256({"a": 1, "b": {"c": 2, "d": 4}}, Training())
    assert provenance.configuration_sha256(Engine()) != provenance.configuration_sha256(Engine(slots=2))


def test_a_run_keeps_its_configuration_while_its_ladder_grows() -> None:
    given = {
        "corpus": {"paths": ["text"]},
        "ladder": ["cpu_8k"],
        "horizons": {"tokens": [1024]},
        "tasks": [{"family": "comparison", "complexities": [8], "frequencies": [0.001]}],
    }

    def digest(changed: dict[str, Any], corpus: str = "c", threads: int = 1) -> str:
        spec = CalibrationSpec.model_validate(given | changed)
        run = Engine(threads_per_slot=threads)  # stands for run.json: any document
        return provenance.configuration_sha256(provenance.resolved_configuration(spec, run, corpus))

    grown = {"seeds": [0, 1], "ladder": ["cpu_8k", "cpu_19k"], "engine": {"slots": 2}, "name": "other"}
    assert digest({}) == digest(grown | {"tracking": {"trackers": ["wandb"]}, "learned_skill": 0.7})
    different = [digest({}), digest({}, "other"), digest({}, threads=2), digest({"sequence_length": 64})]
    assert len(set(different)) == 4


def test_clock_sums_over_interruptions(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(provenance.time, "monotonic", lambda: now[0])
    clock = provenance.Clock()
    now[0] += 10
    with clock.probing():
        now[0] += 2
    saved = clock.state()
    now[0] += 5  # lost with the process: done again after the restart
    now[0] += 1000
    again = provenance.Clock()
    now[0] += 3  # loading
    again.restore(saved)
    now[0] += 6
    with pytest.raises(ValueError), again.probing():
        now[0] += 1
        raise ValueError
    assert again.wall_seconds == pytest.approx(12 + 7)
    assert again.facts(1900) == {"wall_seconds": 19.0, "probe_seconds": 3.0, "tokens_per_second": 100.0}


def test_runs_share_what_is_equal_and_keep_what_differs() -> None:
    runs = {
        "a": {"threads": 1, "wall_seconds": 5.0, "code": {"source_sha256": "x", "git_dirty": True}},
        "b": {"threads": 1, "wall_seconds": 6.0, "code": {"source_sha256": "x", "git_dirty": False}},
    }
    merged = provenance.merge_runs(runs)
    assert merged["same_for_all"] == {"threads": 1}
    assert merged["runs"]["b"] == {k: v for k, v in runs["b"].items() if k != "threads"}
    assert provenance.mixed_notes(runs) == []
    runs["c"] = {"threads": 2, "code": {"source_sha256": "y"}, "hardware": {"cpu": "other"}}
    assert "wall_seconds" not in provenance.merge_runs(runs)["same_for_all"]
    (note,) = provenance.mixed_notes(runs)
    assert "2 versions of mixplan's code" in note and "that of c (1 run(s))" in note
    assert provenance.merge_runs({}) == {"same_for_all": {}, "runs": {}}


def test_collect_keeps_how_every_run_was_made(tmp_path: Path) -> None:
    from mixplan.calibrate.collect import _executed

    class Ladder:
        def folder(self, run: Any) -> Any:
            return RunFolder(tmp_path / run.run_id)

    class Named:
        def __init__(self, run_id: str) -> None:
            self.run_id = run_id

    runs: list[Any] = [Named("a"), Named("b")]
    for run in runs:
        folder = Ladder().folder(run)
        folder.path.mkdir()
        folder.finish("finished", step=3, tokens=96, **provenance.Clock().facts(96), threads=1)
    found = _executed(Ladder(), runs)  # type: ignore[arg-type]
    assert list(found) == ["a", "b"]
    assert found["a"].keys() >= {"step", "tokens", "wall_seconds", "tokens_per_second", "threads"}
    assert "status" not in found["a"]
