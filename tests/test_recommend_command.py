"""`mixplan recommend` as people call it, through laws that were really fitted (to simulated measurements)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from planning import changed, plan_dict
from simulate import mean_skill, simulate_measurements

from mixplan.documents import Calibration, Plan, Recipe, load, save
from mixplan.laws.calibration import fit_calibration


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("laws") / "calibration.json"
    measurements = simulate_measurements(seed=1, horizons=(8.192e5, 3.2768e6))
    save(fit_calibration(measurements, draws=40), path)
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return write_plan(tmp_path, plan_dict(sizes=["cpu_33k", "cpu_132k"], search={"trials": 30}))


def write_plan(folder: Path, plan: dict[str, Any]) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(plan), encoding="utf-8")
    return path


def mixplan(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mixplan", "recommend", *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in found.stderr
    return found


def test_end_to_end_and_byte_identical(plan: Path, calibration: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    done = mixplan(plan, "--calibration", calibration, "-o", first, "--explain")
    assert done.returncode == 0, done.stderr
    assert mixplan(plan, "--calibration", calibration, "-o", second).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    recipe = load(first, Recipe)
    law = load(calibration, Calibration)
    assert recipe.provenance["seed"] == 0 and recipe.provenance["trials"] == 30
    assert set(recipe.provenance) >= {"plan_sha256", "calibration_sha256", "versions"}
    for task in recipe.tasks:
        assert task.recommended.p_learned >= task.target_probability - 1e-9
        assert task.recommended.p_learned > task.natural.p_learned
        assert task.recommended.skill_low <= task.recommended.skill <= task.recommended.skill_high
        # The measurements' own truth at that cell: right about the world, not only about the fit.
        cell = float(recipe.block_params), float(recipe.tokens), task.recommended.frequency
        truth = mean_skill(task.family, task.complexity, *cell)
        assert task.recommended.skill == pytest.approx(truth, abs=0.12)
    assert recipe.common_loss_increase_nats is not None
    assert recipe.common_loss_increase_nats <= 0.01 + 1e-9
    assert law.lm_loss is not None
    for heading in ("Mixture", "Tasks at this size", "What the answer touches", "Best at each size"):
        assert heading in done.stdout
    assert f"Size: {recipe.size.name} reaches every target" in done.stdout
    assert "Source r1:" in done.stdout and "Common data:" in done.stdout
    assert done.stdout.rstrip().endswith(f"wrote {first}")


def test_json(plan: Path, calibration: Path, tmp_path: Path) -> None:
    out = tmp_path / "recipe.json"
    done = mixplan(plan, "--calibration", calibration, "-o", out, "--json", "--explain", "--seed", 5)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"feasible", "recipe", "explanation"} and told["feasible"] is True
    assert Recipe.model_validate(told["recipe"]) == load(out, Recipe)
    assert told["recipe"]["provenance"]["seed"] == 5
    assert all(isinstance(line, str) for line in told["explanation"])
    assert [c["size"] for c in told["recipe"]["candidates"]] == ["cpu_33k", "cpu_132k"]


def test_no_answer_writes_nothing(calibration: Path, tmp_path: Path) -> None:
    path = write_plan(tmp_path, plan_dict(budget={"tokens": 5e5}, sizes=["cpu_33k"], search={"trials": 5}))
    out = tmp_path / "recipe.yaml"
    done = mixplan(path, "--calibration", calibration, "-o", out)
    assert done.returncode == 1 and done.stdout == ""
    assert not out.exists() and [entry.name for entry in tmp_path.iterdir()] == ["plan.yaml"]
    assert "no: these limits cannot hold together: " in done.stderr
    assert "budget.tokens (500000)" in done.stderr
    assert "it would do with budget.tokens" in done.stderr

    as_json = mixplan(path, "--calibration", calibration, "-o", out, "--json")
    assert as_json.returncode == 1 and not out.exists()
    report = json.loads(as_json.stdout)
    assert report["feasible"] is False
    assert set(report) == {"feasible", "problems", "unreachable", "clash", "remedies", "nearest"}
    remedy = next(r for r in report["remedies"] if set(r["changes"]) == {"budget.tokens"})
    mended = changed(yaml.safe_load(path.read_text()), remedy["changes"])
    done = mixplan(write_plan(tmp_path, mended), "--calibration", calibration, "-o", out)
    assert done.returncode == 0, done.stderr
    assert load(out, Recipe).size.name == remedy["size"]


def test_what_is_extrapolated_or_censored_is_said(calibration: Path, tmp_path: Path) -> None:
    plan = plan_dict(sizes=["datadecide_20M"], budget={"tokens": 1e9}, search={"trials": 5})
    law = load(calibration, Calibration)
    tasks = [
        one.model_copy(update={"status": "never learned", "learned": 0})
        if one.complexity == 8
        else one.model_copy(update={"status": "never finished", "cells": 0, "learned": 0})
        for one in law.tasks
    ]
    censored = tmp_path / "censored.json"
    save(law.model_copy(update={"tasks": tasks}), censored)
    done = mixplan(write_plan(tmp_path, plan), "--calibration", censored, "-o", tmp_path / "recipe.yaml")
    assert done.returncode == 0, done.stderr
    recipe = load(tmp_path / "recipe.yaml", Recipe)
    assert all(task.recommended.extrapolated for task in recipe.tasks)
    assert all("block_params" in " ".join(task.recommended.why_extrapolated) for task in recipe.tasks)
    assert "warning: extrapolated for t1, t2: block_params" in done.stderr
    assert "was never learned on the ladder" in done.stderr
    assert done.stderr.count("was measured before the ends of runs only") == 1
    assert any("the common loss is extrapolated: block_params" in text for text in recipe.warnings)


def test_existing_output_is_kept(plan: Path, calibration: Path, tmp_path: Path) -> None:
    out = tmp_path / "recipe.yaml"
    out.write_text("mine")
    done = mixplan(plan, "--calibration", calibration, "-o", out)
    assert done.returncode == 2 and "add --force" in done.stderr and out.read_text() == "mine"
    assert mixplan(plan, "--calibration", calibration, "-o", out, "--force").returncode == 0
    assert load(out, Recipe).samples > 0


def test_bad_plan_exits_2(calibration: Path, tmp_path: Path) -> None:
    plan = plan_dict()
    plan["tasks"][0]["family"] = "comparisson"
    done = mixplan(write_plan(tmp_path, plan), "--calibration", calibration, "-o", tmp_path / "recipe.yaml")
    assert done.returncode == 2 and "did you mean 'comparison'?" in done.stderr
    assert not (tmp_path / "recipe.yaml").exists()
    plan = plan_dict()
    plan["budgget"] = plan.pop("budget")
    done = mixplan(write_plan(tmp_path, plan), "--calibration", calibration, "-o", tmp_path / "recipe.yaml")
    assert done.returncode == 2 and "unknown key 'budgget'; did you mean 'budget'?" in done.stderr
    Plan.model_validate(plan_dict())
