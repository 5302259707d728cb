"""The commands build and emit as they are called; verify's calls are in test_recipes_verify."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recipes_making import write_plan, write_recipe, write_text
from typer.testing import CliRunner

from mixplan.cli import app

ROOT = Path(__file__).resolve().parent.parent


def mixplan(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mixplan", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    for name, samples in (("web", 40), ("rare", 10)):
        write_text(folder / "text" / name, samples)
    write_plan(folder, {name: {"text": [f"text/{name}"], "mds": f"mds/{name}"} for name in ("web", "rare")})
    built = CliRunner().invoke(app, ["build", str(folder / "plan.yaml")], catch_exceptions=False)
    assert built.exit_code == 0
    rows = [line.split() for line in built.stdout.splitlines()]
    assert ["web", "3", "637", "640", "40", "0", "built"] in rows
    assert f"wrote {folder / 'mds' / 'rare'}" in built.stdout
    return folder


def test_second_build_keeps(folder: Path) -> None:
    kept = CliRunner().invoke(app, ["build", str(folder / "plan.yaml"), "--source", "rare", "--hashes"])
    assert kept.exit_code == 0
    assert f"kept {folder / 'mds' / 'rare'}" in kept.stdout
    assert "web" not in kept.stdout


def test_wrong_input_ends_with_two_and_all_problems(folder: Path) -> None:
    done = mixplan("build", folder / "plan.yaml", "--source", "wbe", "--source", "rear")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: no source is called 'wbe'; did you mean 'web'?",
        "error: no source is called 'rear'; did you mean 'rare'?",
    ]
    assert done.stdout == ""


def test_emit_says_what_it_wrote(folder: Path, tmp_path: Path) -> None:
    recipe = write_recipe(folder, {"web": 30, "rare": 20}, ("rare",))
    done = CliRunner().invoke(app, ["emit", str(recipe), "-o", str(tmp_path / "out")], catch_exceptions=False)
    assert done.exit_code == 0
    for name in ("weights.json", "streams.yaml", "loader.py", "recipe.yaml"):
        assert f"wrote {tmp_path / 'out' / name}" in done.stdout
    assert f"next: mixplan verify {tmp_path / 'out'}" in done.stdout


def test_emit_into_something_else_loses_nothing(folder: Path) -> None:
    recipe = write_recipe(folder, {"web": 30, "rare": 20}, ("rare",))
    before = sorted(path.name for path in (folder / "text").iterdir())
    done = mixplan("emit", recipe, "-o", folder / "text")
    assert done.returncode == 2
    assert "already holds something else (rare, web)" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (folder / "text").iterdir()) == before


def test_importing_recipes_is_light() -> None:
    heavy = ("torch", "transformers", "streaming", "torchvision", "optuna", "datasets")
    code = f"import sys, mixplan.recipes; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
