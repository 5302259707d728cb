"""`mixplan report`: what it finds, what it says about the rest, and how it says no."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from reporting import fill, recipe, verification
from simulate import simulate_measurements
from typer.testing import CliRunner

from mixplan.cli import app
from mixplan.documents import save, write_measurements
from mixplan.documents.atomic import write_json
from mixplan.errors import InputError
from mixplan.report import find_inputs


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mixplan", "report", *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def problems_of(folder: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        find_inputs(folder)
    return caught.value.problems


@pytest.mark.slow
def test_from_measurements_to_a_page_with_the_real_laws(tmp_path: Path) -> None:
    work = tmp_path / "work"
    rungs = {"8k": 8_336, "33k": 33_056, "132k": 131_648}
    write_measurements(simulate_measurements(rungs=rungs, checkpoints=3), work / "measurements")
    fitted = CliRunner().invoke(
        app, ["fit", str(work / "measurements"), "-o", str(work / "calibration.json"), "--draws", "20"]
    )
    assert fitted.exit_code == 0, fitted.output
    done = run(work, "-o", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {tmp_path / 'report.html'}\n"
    assert "recipe.yaml" in done.stderr and "verify.json" in done.stderr and "retention" not in done.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for anchor in ("frequency", "size", "retention", "interference", "backtest", "loss"):
        assert f'<section id="{anchor}"' in page
    assert "The law puts the frequency" in page and 'class="band' in page
    first = page
    assert run(work, "-o", tmp_path / "report.html", "--force").returncode == 0
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == first


def test_an_existing_page_is_not_overwritten(tmp_path: Path) -> None:
    save(recipe(), tmp_path / "recipe.yaml")
    page = tmp_path / "report.html"
    page.write_text("mine", encoding="utf-8")
    refused = run(tmp_path, "-o", page)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: {page} exists") and "--force" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert page.read_text(encoding="utf-8") == "mine"
    assert CliRunner().invoke(app, ["report", str(tmp_path), "-o", str(page), "--force"]).exit_code == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_folder_as_output_is_refused_before_work(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path / "missing"), "-o", str(tmp_path)])
    assert isinstance(result.exception, InputError)
    assert "is a folder" in str(result.exception)


def test_a_folder_with_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    done = run(tmp_path, "-o", tmp_path / "report.html")
    assert done.returncode == 2
    assert "nothing to report on" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "report.html").exists()


def test_no_folder_and_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("x", encoding="utf-8")
    assert problems_of(tmp_path / "none") == [f"{tmp_path / 'none'}: no such folder"]
    (problem,) = problems_of(tmp_path / "recipe.yaml")
    assert "is a file; report needs the folder around it" in problem


def test_every_broken_document_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x\nsise: y\n", encoding="utf-8")
    (tmp_path / "calibration.json").write_text("{", encoding="utf-8")
    (tmp_path / "learning.csv").write_text("run_id,rung\na,b\n", encoding="utf-8")
    (tmp_path / "verify.json").write_text('{"passed": "perhaps"}', encoding="utf-8")
    problems = "\n".join(problems_of(tmp_path))
    for name in ("recipe.yaml", "calibration.json", "learning.csv", "verify.json"):
        assert name in problems
    assert "column 'skill' is missing" in problems


def test_documents_are_found_one_folder_below(tmp_path: Path) -> None:
    fill(tmp_path / "one")
    found = find_inputs(tmp_path)
    assert found.measurements is not None and found.calibration is not None
    assert found.recipe is not None and found.verified is not None
    assert found.missing == []
    assert [name for name, _ in found.files] == [
        *(f"one/measurements/{table}.csv" for table in ("interference", "learning", "retention")),
        "one/calibration.json",
        "one/recipe.yaml",
        "one/verify.json",
    ]


def test_the_folder_itself_comes_before_the_folders_below(tmp_path: Path) -> None:
    save(recipe(), tmp_path / "recipe.yaml")
    save(recipe().model_copy(update={"name": "copy"}), tmp_path / "mixture" / "recipe.yaml")
    found = find_inputs(tmp_path)
    assert found.recipe is not None and found.recipe.name == "demo"


def test_two_candidates_are_not_guessed_between(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(recipe(), tmp_path / name / "recipe.yaml")
    (problem,) = problems_of(tmp_path)
    assert "a/recipe.yaml, b/recipe.yaml" in problem and "keep one" in problem


def test_tables_may_lie_in_the_folder_itself(tmp_path: Path) -> None:
    write_measurements(simulate_measurements(seeds=1, checkpoints=1), tmp_path)
    found = find_inputs(tmp_path)
    assert found.measurements is not None and len(found.measurements.learning) == 216
    assert any("calibration.json" in line for line in found.missing)


def test_what_is_missing_is_said_with_the_command_that_writes_it(tmp_path: Path) -> None:
    write_json(tmp_path / "verify.json", verification())
    missing = find_inputs(tmp_path).missing
    for document, command in (
        ("measurements/", "mixplan collect"),
        ("calibration.json", "mixplan fit"),
        ("recipe.yaml", "mixplan recommend"),
    ):
        assert any(line.startswith(document) and command in line for line in missing)
    assert not any("verify" in line for line in missing)


def test_the_stage_imports_no_other_stage() -> None:
    check = (
        "import sys, mixplan.report; from mixplan.report import render; print([m for m in sys.modules if"
        " m.startswith('mixplan.') and m.split('.')[1] not in ('report', 'documents', 'errors')], [m for m in"
        " ('torch', 'scipy', 'optuna', 'streaming') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[] []\n", done.stderr
