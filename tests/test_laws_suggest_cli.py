"""`mixplan fit --suggest` as a command: files, output, exit codes, and that `plan` prices what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from suggesting import Truth, spec, together
from test_laws_cli import mixplan, refused

from mixplan.documents import Measurements, load, write_measurements
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.documents.loading import save

PLAN = """\
sources: [{name: web, role: common, tokens_available: 1e8}]
tasks: [{name: x, density: {web: 0.01}, family: FAMILY, complexity: 16}]
sizes: [cpu_132k]
sequence_length: 128
budget: {tokens: 8e6}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Measurements of two rungs (no backtest, so that a fit is quick), with their calibration."""
    asked = spec(ladder=["cpu_8k", "cpu_33k"])
    learning = together(Truth(1).learning(asked)).learning
    provenance = {"calibration": asked.model_dump(mode="json")}
    write_measurements(Measurements(learning, provenance=provenance), tmp_path / "measured")
    (tmp_path / "text").mkdir()
    return tmp_path


def fit(folder: Path, *more: object) -> list[object]:
    return ["fit", folder / "measured", "-o", folder / "c.json", "--draws", "20", *more]


def test_suggests_and_plan_prices_it(folder: Path) -> None:
    done = mixplan(*fit(folder, "--suggest", folder / "next.yaml", "--suggest-budget", "60%"))
    assert done.returncode == 0, done.stderr
    assert "Suggested: " in done.stdout
    assert "modular_addition of complexity 9 was never learned: the new frequency" in done.stdout
    assert f"wrote {folder / 'next.yaml'}" in done.stdout
    assert "not found from" not in done.stderr
    written = load(folder / "next.yaml", CalibrationSpec)
    assert min(written.seeds) >= 2
    assert (folder / "next.yaml").read_text(encoding="utf-8").startswith("# Further runs for the ladder")
    priced = mixplan("plan", folder / "next.yaml", "--json")
    assert priced.returncode == 0, priced.stderr
    assert {run["seed"] for run in json.loads(priced.stdout)["runs"]} == set(written.seeds)


@pytest.mark.slow
def test_with_a_plan_as_json(folder: Path) -> None:
    (folder / "plan.yaml").write_text(PLAN.replace("FAMILY", "comparison"), encoding="utf-8")
    options = [
        "--suggest",
        folder / "next.yaml",
        "--plan",
        folder / "plan.yaml",
        "--suggest-budget",
        "3 runs",
    ]
    done = mixplan(*fit(folder, *options, "--json"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["suggestion"]
    assert said["runs"] <= 3
    assert [(one["family"], one["rung"]) for one in said["targets"]] == [("comparison", "cpu_132k")]
    assert said["targets"][0]["factor_90_expected"] < said["targets"][0]["factor_90"]
    assert said["calibration"] == load(folder / "next.yaml", CalibrationSpec).model_dump(mode="json")


@pytest.mark.slow
def test_paths_follow_the_specification(folder: Path) -> None:
    save(spec(ladder=["cpu_8k", "cpu_33k"]), folder / "calibration.yaml")
    (folder / "there").mkdir()
    options = ["--suggest", folder / "there" / "next.yaml", "--suggest-budget", "1 run"]
    done = mixplan(*fit(folder, *options, "--spec", folder / "calibration.yaml"))
    assert done.returncode == 0, done.stderr
    assert load(folder / "there" / "next.yaml", CalibrationSpec).corpus.paths == ["../text"]
    assert "not found from" not in done.stderr
    again = mixplan(*fit(folder, *options, "--force"))
    assert again.returncode == 0, again.stderr
    assert "warning: text: not found from" in again.stderr


def test_nothing_affordable_still_leaves_the_fit(folder: Path) -> None:
    done = mixplan(*fit(folder, "--suggest", folder / "next.yaml", "--suggest-budget", "1000"))
    refused(done, "no further run is within the budget of 1e+03 training FLOPs", code=1)
    assert (folder / "c.json").is_file()
    assert not (folder / "next.yaml").exists()


def test_refused_before_anything_is_fitted(folder: Path) -> None:
    (folder / "plan.yaml").write_text(PLAN.replace("FAMILY", "parity"), encoding="utf-8")
    (folder / "there.yaml").write_text("x: 1\n", encoding="utf-8")
    new = ["--suggest", folder / "next.yaml"]
    refused(mixplan(*fit(folder, "--plan", folder / "plan.yaml")), "--plan without --suggest")
    refused(mixplan(*fit(folder, "--suggest", folder / "next.json")), "ends in .yaml")
    refused(mixplan(*fit(folder, "--suggest", folder / "there.yaml")), "exists")
    refused(mixplan(*fit(folder, *new, "--suggest-budget", "lots")), "--suggest-budget 'lots'")
    refused(mixplan(*fit(folder, *new, "--plan", folder / "plan.yaml")), "family 'parity' was not calibrated")
    (folder / "measured" / "provenance.json").write_text("{}", encoding="utf-8")
    refused(mixplan(*fit(folder, *new)), "give it with --spec")
    assert not (folder / "c.json").exists()
    assert (folder / "there.yaml").read_text(encoding="utf-8") == "x: 1\n"
