"""`mixplan recommend` as people call it, through laws that were really fitted (to simulated measurements)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from planning import Logistic, changed, plan_dict
from simulate import mean_skill, simulate_measurements

from mixplan import commands
from mixplan.documents import Calibration, Plan, Recipe, load, save
from mixplan.errors import InputError
from mixplan.laws.calibration import fit_calibration

GOLDEN = Path(__file__).resolve().parent / "golden"
"""`WRITE_GOLDEN=1 pytest tests/test_recommend_command.py -k as_before` writes it anew."""


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
    headings = (
        "Mixture",
        "Tasks at this size",
        "The answer and what it stands against",
        "What the answer touches",
    )
    for heading in headings:
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
    shown = [(one["role"], one["size"]) for one in told["recipe"]["candidates"]]
    assert shown[:2] == [("chosen", "cpu_33k"), ("next size up", "cpu_132k")]
    assert told["recipe"]["sensitivity"] and told["recipe"]["p_all_targets"] > 0


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


def test_what_if(plan: Path, calibration: Path, tmp_path: Path) -> None:
    asked, out = tmp_path / "what-if.yaml", tmp_path / "asked.yaml"
    asked.write_text(yaml.safe_dump({"size": "cpu_33k", "tokens": 3e6, "rates": {"r1": 40, "r2": 40}}))
    done = mixplan(plan, "--calibration", calibration, "--what-if", asked)
    assert done.returncode == 1 and "wrote" not in done.stdout
    assert "no: breaks tasks.t" in done.stderr and "warning: breaks" not in done.stderr
    assert not (tmp_path / "recipe.yaml").exists()
    as_json = mixplan(plan, "--calibration", calibration, "--what-if", asked, "-o", out, "--json")
    told = json.loads(as_json.stdout)
    assert as_json.returncode == 1 and told["feasible"] is False
    recipe = load(out, Recipe)
    assert Recipe.model_validate(told["recipe"]) == recipe
    assert "what_if_sha256" in recipe.provenance and recipe.warnings[0].startswith("breaks ")
    best = tmp_path / "recipe.yaml"
    assert mixplan(plan, "--calibration", calibration, "-o", best).returncode == 0
    chosen = load(best, Recipe)
    shares = {source.name: source.choose / chosen.samples for source in chosen.sources}
    asked.write_text(yaml.safe_dump({"size": chosen.size.name, "tokens": chosen.tokens, "shares": shares}))
    done = mixplan(plan, "--calibration", calibration, "--what-if", asked, "-o", out, "--force", "--explain")
    assert done.returncode == 0, done.stderr
    assert load(out, Recipe).tasks == chosen.tasks


def test_what_if_searches_nothing(plan: Path, calibration: Path, tmp_path: Path) -> None:
    asked = tmp_path / "what-if.yaml"
    asked.write_text(yaml.safe_dump({"size": "cpu_33k", "tokens": 3e6, "natural": True}))
    done = mixplan(plan, "--calibration", calibration, "--what-if", asked, "--workers", 2)
    assert done.returncode == 2 and "leave out --seed, --storage, --workers and --pareto" in done.stderr
    asked.write_text(yaml.safe_dump({"size": "cpu_33k", "tokens": 3e6, "rates": {"coed": 2}}))
    done = mixplan(plan, "--calibration", calibration, "--what-if", asked)
    assert done.returncode == 2 and "did you mean 'code'?" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-o", "y.csv", "--pareto", "z.csv"], "a recipe is YAML or JSON"),
        (["-o", "y.yaml", "--pareto", "y.yaml"], "a table's name ends in"),
        (["-o", "plan.yaml/y.yaml", "--pareto", "new/z.csv"], "plan.yaml is a file"),
        (["-o", "y.yaml", "--pareto", "z.csv", "--storage", "other.log"], "of another"),
    ],
)
def test_nothing_is_written_where_the_input_is_wrong(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "other.log" in options:  # the search of another plan, but not its front
        search = commands.Searching(None, "other.log", 1, None)
        other = write_plan(tmp_path, plan_dict(sizes=["cpu_33k"], search={"trials": 1, "sampler": "tpe"}))
        recommend_in_closed_form(other, Path("other.yaml"), search)
        write_plan(tmp_path, plan_dict(sizes=["cpu_132k"], search={"trials": 1}))
    before = sorted(path.name for path in tmp_path.iterdir())
    given = dict(zip(options[::2], options[1::2], strict=True))
    search = commands.Searching(None, given.get("--storage"), 1, Path(given["--pareto"]))
    with pytest.raises(InputError, match=says):
        recommend_in_closed_form(plan, Path(given["-o"]), search)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def recommend_in_closed_form(plan: Path, out: Path, search: commands.Searching) -> None:
    with patch("mixplan.laws.predict.LawForecast", lambda laws: Logistic(spread=0.7)):
        commands.recommend(plan, Path("ref:cpu-manuals"), out, False, search, False, False)


def test_whose_laws_they_are_is_said_once(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recommend_in_closed_form(plan, plan.parent / "recipe.yaml", commands.Searching(None, None, 1, None))
    said = capsys.readouterr()
    assert (said.out + said.err).count("from the reference calibration") == 1
    assert "from the reference calibration" in load(plan.parent / "recipe.yaml", Recipe).warnings[0]


def shown(folder: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> str:
    """What the command shows of a plan under laws in closed form, so that it stands whatever is fitted."""
    out = folder / "recipe.yaml"
    plan = write_plan(folder, plan_dict(sizes=["cpu_8k", "cpu_33k", "cpu_132k"], **changes))
    with patch("mixplan.laws.predict.LawForecast", lambda laws: Logistic(spread=0.7)):
        searching = commands.Searching(None, None, 1, None)
        commands.recommend(plan, Path("ref:cpu-manuals"), out, True, searching, False, False)
    return capsys.readouterr().out.replace(str(folder), ".")


def test_shown_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = GOLDEN / "recommend.txt"
    text = shown(tmp_path, capsys)
    if os.environ.get("WRITE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
