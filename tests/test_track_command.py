"""`mixplan track`, as it is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from commanding import mixplan
from tracking import TOKENS, recipe_dict, task

from mixplan.documents.references import references, resolve
from mixplan.recommend import hashes

REFERENCE = resolve(Path("ref:cpu-manuals")).path / "calibration.json"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, skills: dict[str, list[float]], **more) -> tuple[Path, Path]:
    """recipe.yaml from the reference, and a log."""
    data = recipe_dict(
        tasks=[task("t1", {"r2": 0.25}, target_probability=0.6), task("t2", {"r1": 0.2, "r2": 0.05})]
    )
    data["tasks"][1]["target_probability"] = 0.6
    data["provenance"] = {
        **hashes({"calibration": REFERENCE}),
        "reference": references()["cpu-manuals"].model_dump(mode="json"),
    }
    recipe, log = folder / "recipe.yaml", folder / "evals.jsonl"
    recipe.write_text(yaml.safe_dump({**data, **more}))
    rows = [
        {"task": name, "tokens": TOKENS * 0.2 * (at + 1), "skill": value}
        for name, values in skills.items()
        for at, value in enumerate(values)
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return recipe, log


def test_all_is_well(folder):
    recipe, log = write(folder, {"t1": [0.2, 0.5, 0.75], "t2": [0.2, 0.5, 0.75]})
    found = mixplan("track", recipe, "--log", log, "-o", "track.json")
    assert found.returncode == 0
    assert "tracked: measured up to 1.54M of 2.56M tokens (60%)" in found.stdout
    assert found.stdout.count("on track") == 2
    assert "from the reference calibration ref:cpu-manuals" in found.stderr
    written = json.loads((folder / "track.json").read_text())
    assert [one["status"] for one in written["tasks"]] == ["on track", "on track"]
    again = mixplan("track", recipe, "--log", log, "-o", "track.json")
    assert again.returncode == 2 and "--force" in again.stderr
    assert mixplan("track", recipe, "--log", log, "-o", "track.json", "--force").returncode == 0


def test_a_task_that_will_not_be_learned_is_the_answer_no(folder):
    recipe, log = write(folder, {"t1": [0.0, 0.02, 0.05], "t2": [0.2, 0.5, 0.75]})
    found = mixplan("track", recipe, "--log", log)
    assert found.returncode == 1
    assert "t1: will not be learned (P = " in found.stdout
    assert "raise the rate of r2 from 1× to " in found.stdout
    assert "no: t1: will not be learned" in found.stderr
    as_json = mixplan("track", recipe, "--log", log, "--json", "-o", "track.json")
    assert as_json.returncode == 1
    printed = json.loads(as_json.stdout)
    assert printed == json.loads((folder / "track.json").read_text())
    bad = printed["tasks"][0]
    assert bad["status"] == "will not be learned"
    assert bad["remedy"]["enough"]["sources"][0]["source"] == "r2"
    assert bad["remedy"]["enough"]["p"] == pytest.approx(0.6, abs=1e-6)


def test_two_raises_are_said_together(folder):
    recipe, log = write(folder, {"t1": [0.0, 0.02, 0.05], "t2": [0.0, 0.02, 0.05]})
    found = mixplan("track", recipe, "--log", log)
    assert found.returncode == 1
    printed = json.loads(mixplan("track", recipe, "--log", log, "--json").stdout)
    raised = [one for one in printed["tasks"] if one["remedy"]["enough"]]
    assert ("all of these together" in found.stdout) == (len(raised) == 2)


def test_another_calibration_is_said(folder):
    recipe, log = write(folder, {"t1": [0.2], "t2": [0.2]})
    other = folder / "calibration.json"
    other.write_text(REFERENCE.read_text() + "\n")
    found = mixplan("track", recipe, "--log", log, "--calibration", other)
    assert "is not the calibration that the recipe came from" in found.stderr
    # What the recipe promised (0.9) stands beside what these laws say.
    assert "t1: the recipe says P = 0.900, these laws 0." in found.stdout


def test_where_the_calibration_is_must_be_said_or_known(folder):
    for provenance in ({}, {"calibration_sha256": "0" * 64}):
        recipe, log = write(folder, {"t1": [0.2]}, provenance=provenance)
        found = mixplan("track", recipe, "--log", log)
        assert found.returncode == 2 and "give --calibration" in found.stderr
    recipe, log = write(folder, {"t1": [0.2]}, provenance={})
    found = mixplan("track", recipe, "--log", log, "--calibration", "ref:cpu-manuals")
    assert found.returncode == 0
    assert "provenance has no calibration_sha256" in found.stderr


def test_wrong_input(folder):
    recipe, log = write(folder, {"t9": [0.2], "t1": [2.0]})
    found = mixplan("track", recipe, "--log", log, "-o", "track.json")
    assert found.returncode == 2
    assert f"{log}:1: 't9' is no task of the recipe" in found.stderr
    assert f"{log}:2: skill is 2" in found.stderr
    assert not (folder / "track.json").exists()
    recipe, log = write(
        folder, {"t1": [0.2]}, tasks=[task("t1", {"r2": 0.1}, family="tabel_lookup", complexity=6)]
    )
    found = mixplan("track", recipe, "--log", log)
    assert found.returncode == 2 and "did you mean 'table_lookup'" in found.stderr
