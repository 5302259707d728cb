"""Reference calibrations: found by name, complete in the wheel, refittable, never silent on their text."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mixplan import cli
from mixplan.documents import Calibration, Plan, load, read_measurements
from mixplan.documents.measurements import ROWS
from mixplan.documents.recipe import Recipe
from mixplan.documents.references import (
    Reference,
    reference_in,
    reference_warnings,
    references,
    resolve,
    warning,
)
from mixplan.documents.table import read_table, write_table
from mixplan.errors import InputError, NoAnswer
from mixplan.laws.calibration import fit_calibration, table_hash
from mixplan.laws.predict import LawForecast
from mixplan.recommend import recommend

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import add_reference  # noqa: E402

NAMES = sorted(references())


def run(*arguments: str) -> str:
    """What a command says, standard output and error together."""
    done = CliRunner().invoke(cli.app, [str(one) for one in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output + (done.stderr if done.stderr_bytes else "")


@pytest.mark.parametrize("name", NAMES)
def test_about_says_what_the_tables_hold(name: str) -> None:
    folder, said = resolve(Path(f"ref:{name}"))
    about = load(folder / "about.yaml", Reference)
    measured = read_measurements(folder)
    person = add_reference.About.model_validate(
        {k: getattr(about, k) for k in add_reference.About.model_fields}
    )
    assert add_reference.describe(measured, name, person) == about == reference_in(measured.provenance)
    assert said == warning(about) and about.text in said and about.tokenizer in said
    assert sum(path.stat().st_size for path in folder.iterdir()) < add_reference.MOST_BYTES
    assert np.unique(measured.learning["block_params"]).tolist() == sorted(about.rungs.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_calibration_is_the_fit_of_the_shipped_tables(name: str) -> None:
    """Where a law changed: tools/add_reference.py mixplan/references/NAME NAME --force."""
    folder, _ = resolve(Path(f"ref:{name}"))
    measured, shipped = read_measurements(folder), load(folder / "calibration.json", Calibration)
    again = fit_calibration(measured, learned_skill=measured.learned_skill, draws=20, seed=0)
    for law in ("learning", "retention", "interference", "lm_loss"):
        one, other = getattr(shipped, law), getattr(again, law)
        assert (one is None) == (other is None), law
        if one is not None:
            assert one.law == other.law and one.parameters == other.parameters
            np.testing.assert_allclose(one.values, other.values, rtol=1e-4, atol=1e-6, err_msg=law)
    assert [law.subject for law in shipped.sources] == [law.subject for law in again.sources]
    for one, other in zip(shipped.sources, again.sources, strict=True):
        assert one.law == other.law and one.parameters == other.parameters
        np.testing.assert_allclose(one.values, other.values, rtol=1e-2, err_msg=one.subject)
    for table, facts in shipped.provenance["tables"].items():
        assert facts["sha256"] == table_hash(getattr(measured, table))
    assert shipped.tasks == again.tasks


def test_names_are_found_and_guessed() -> None:
    assert resolve(Path("calibration.json")) == (Path("calibration.json"), None)
    with pytest.raises(InputError, match="did you mean 'quickstart'"):
        resolve(Path("ref:quikstart"))
    with pytest.raises(InputError, match=r"known: .*quickstart"):
        resolve(Path("ref:something-else-entirely"))
    assert json.loads(run("schema", "references"))["quickstart"]["tokenizer"] == "bytes"


def test_a_foreign_key_of_the_same_name_is_no_reference() -> None:
    assert reference_in({"reference": "a paper"}) is None
    assert reference_warnings({"measurements": {"reference": {"name": "x"}}}) == []
    assert reference_warnings({}) == []


def plan(p_learned: float, tokens: float = 2.8e6) -> Plan:
    return Plan.model_validate({
        "name": "toy", "sequence_length": 128,
        "sources": [
            {"name": "web", "role": "common", "tokens_available": 1e7},
            {"name": "rare", "role": "rare", "tokens_available": 2e5, "max_epochs": 8, "max_share": 0.3},
        ],
        "tasks": [{"name": "facts", "density": {"rare": 1e-2}, "family": "table_lookup", "complexity": 4,
                   "target_probability": p_learned}],
        "sizes": ["cpu_33k", "cpu_132k"],
        "budget": {"tokens": tokens},
        "search": {"trials": 20},
    })  # fmt: skip


def test_a_recipe_says_whose_text_it_came_from() -> None:
    folder, said = resolve(Path("ref:quickstart"))
    laws = load(folder / "calibration.json", Calibration)
    recipe: Recipe = recommend(plan(0.5), LawForecast(laws), Path(), calibration=laws)
    assert recipe.warnings[0] == said
    assert reference_in(recipe.provenance) == references()["quickstart"]
    own = laws.model_copy(update={"provenance": {}})
    assert said not in recommend(plan(0.5), LawForecast(own), Path(), calibration=own).warnings
    with pytest.raises(NoAnswer) as no:
        recommend(plan(0.99, tokens=2e5), LawForecast(laws), Path(), calibration=laws)
    assert no.value.report["warnings"] == [said]  # type: ignore[attr-defined]


def test_every_command_takes_the_name_and_says_it_loudly(tmp_path: Path) -> None:
    said = resolve(Path("ref:quickstart")).warning
    assert said is not None
    cells = tmp_path / "cells.csv"
    cells.write_text("block_params,tokens,frequency,family,complexity\n33056,2800000,0.0015,table_lookup,4\n")
    out = tmp_path / "out.csv"
    assert f"warning: {said}" in run("predict", "ref:quickstart", "--cells", cells, "-o", out)
    assert read_table(out, {"reference"})["reference"].tolist() == [said]
    page = tmp_path / "page.html"
    assert f"warning: {said}" in run("report", "ref:quickstart", "-o", page)
    assert "not from your own text" in page.read_text(encoding="utf-8")
    own = tmp_path / "plan.yaml"
    own.write_text(json.dumps(plan(0.5).model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    assert f"warning: {said}" in run("recommend", own, "--calibration", "ref:quickstart", "-o", recipe)
    assert load(recipe, Recipe).warnings[0] == said
    assert f"warning: {said}" in run("backtest", "ref:quickstart", "--draws", "20")
    assert run("validate", resolve(Path("ref:quickstart")).path / "learning.csv.gz")


@pytest.mark.slow
def test_a_folder_becomes_a_reference_and_its_fit_carries_the_warning(tmp_path: Path) -> None:
    tables = ROOT / "examples" / "measurements" / "quickstart"
    about = tmp_path / "about.yaml"
    about.write_text(
        "text: a toy\nlicence: none\ntokenizer: bytes\nmeasured_on: today\nmachine: desk\ncommand: fit\n"
    )
    home = tmp_path / "references"
    with pytest.raises(InputError, match="a new reference needs --about"):
        add_reference.add(tables, "toy", None, home)
    folder = add_reference.add(tables, "toy", about, home, draws=20)
    assert sorted(path.name for path in home.iterdir()) == ["toy"]
    given, kept = read_measurements(tables), read_measurements(folder)
    for name in ROWS:
        table = getattr(given, name)
        assert (table is None) == (getattr(kept, name) is None)
        if table is not None:
            assert table_hash(table) == table_hash(getattr(kept, name))
    fitted = load(folder / "calibration.json", Calibration)
    assert fitted.warnings[0].startswith("from the reference calibration ref:toy")
    assert "a toy" in fitted.warnings[0]
    with pytest.raises(InputError, match="--force replaces it"):
        add_reference.add(tables, "toy", about, home)
    before = (folder / "learning.csv.gz").read_bytes()
    add_reference.add(folder, "toy", None, home, force=True, draws=20)
    assert (folder / "learning.csv.gz").read_bytes() == before, "the same table gives the same bytes"


def test_a_broken_gzip_is_told(tmp_path: Path) -> None:
    whole = tmp_path / "learning.csv.gz"
    write_table(read_table(resolve(Path("ref:quickstart")).path / "learning.csv.gz", set()), whole)
    data = whole.read_bytes()
    cut, other = tmp_path / "cut.csv.gz", tmp_path / "other.csv.gz"
    cut.write_bytes(data[: len(data) // 2])
    other.write_bytes(b"run_id,step\na,1\n")
    for path in (cut, other):
        with pytest.raises(InputError, match="not a whole gzip file"):
            read_table(path, set())


@pytest.mark.slow
def test_the_wheel_has_every_reference(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "mixplan", source / "mixplan", ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('wheel')"
    (source / "wheel").mkdir()
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    for name in NAMES:
        for path in resolve(Path(f"ref:{name}")).path.iterdir():
            assert f"mixplan/references/{name}/{path.name}" in packed
