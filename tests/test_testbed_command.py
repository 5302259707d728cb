"""`mixplan testbed`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from mixplan.cli import app
from mixplan.documents import Plan, load, read_measurements, save
from mixplan.errors import InputError

TINY = [
    "--steps", "24", "--seeds", "1", "--widths", "1,2,4", "--tasks", "3", "--block", "2", "--dim", "12",
    "--gaps", "2,4",
]  # fmt: skip


def ran(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["testbed", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_theory_prints_utilities_and_critical_widths() -> None:
    arguments = ("--tasks", "32", "--block", "32", "--dim", "1024")
    found = json.loads(
        ran("theory", *arguments, "--frequency-exponent", "2", "--spectrum-exponent", "2", "--json")
    )
    assert [len(found["critical_widths"]), len(found["critical_widths"][0])] == [32, 32]
    assert found["critical_widths"][31][:3] == [119, 216, 299]
    assert found["critical_widths"][0][0] == 1
    assert found["frequent_tasks"] == 3
    shown = ran("theory", *arguments).splitlines()
    assert shown[-1].split()[0] == "32" and shown[-1].split()[-3:] == ["119", "216", "299"]


def test_theory_with_a_spectrum_for_each_task() -> None:
    arguments = ["--tasks", "2", "--block", "3", "--dim", "6", "--frequency-exponent", "0.1"]
    found = json.loads(
        ran("theory", *arguments, "--spectrum-exponent", "0.5", "--spectrum-exponent", "3", "--json")
    )
    assert found["critical_widths"] == [[2, 3, 4], [1, 5, 6]]


def test_run_writes_measurements_and_findings(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = json.loads(ran("run", *TINY, "-o", str(out), "--json"))
    assert found == json.loads((out / "findings.json").read_text(encoding="utf-8"))
    assert set(found) == {"sweep", "long", "gaps"}
    assert {row["gap_steps"] for row in found["gaps"]["retention"]} == {2, 4}
    tables = read_measurements(out / "measurements")
    assert tables.learned_skill == 0.5
    assert tables.retention is not None and tables.interference is not None
    assert set(tables.learning["block_params"]) == {1, 2, 4}
    steps = tables.learning["step"]
    assert steps[tables.learning["protocol"] == "long horizon"].max() == 240
    with pytest.raises(InputError, match="holds an earlier run"):
        ran("run", *TINY, "-o", str(out))
    shown = ran("run", *TINY, "-o", str(out), "--force", "--only", "sweep")
    assert "width at which a task's first feature is captured" in shown
    assert read_measurements(out / "measurements").retention is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--widths", "4,128"], "width\\(s\\) 128 with dim 128"),
        (["--dim", "40"], "do not fit into dim 40"),
        (["--spectrum-exponent", "1000"], "without energy"),
        (["--spectrum-exponent", "-1"], "spectrum exponent -1"),
        (["--frequency-exponent", "nan"], "frequency exponent nan"),
        (["--gaps", "2000"], "gap\\(s\\) 2000 in a run of 2000 steps"),
        (["--gaps", "400"], "an injection would need"),
        (["--widths", "4;8"], "separated by commas"),
        (["--widths", "4,4"], "none twice"),
        (["--widths", "0"], "width 0 is not"),
        (["--seeds", "0"], "seeds 0"),
        (["--steps", "0"], "steps 0 is not"),
        (["--only", "sweeps"], "did you mean 'sweep'"),
        (["--preset", "fast"], "there are quick, paper"),
        (["--device", "nowhere"], "cannot be used here"),
    ],
)
def test_bad_input_is_refused_before_training(arguments: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        ran("run", "-o", str(tmp_path / "out"), *arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="already holds something else"):
        ran("run", *TINY, "-o", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def plan(complexity: float) -> dict[str, Any]:
    """A task of one source in a hundred samples, for encoders of some widths."""
    return {
        "sources": [
            {"name": "frequent", "role": "common", "tokens_available": 1e6, "min_share": 0.5},
            {"name": "scarce", "role": "rare", "tokens_available": 1e4, "max_epochs": 50},
        ],
        "tasks": [
            {"name": "seldom", "density": {"scarce": 1.0}, "family": "linear_regression",
             "complexity": complexity, "target_probability": 0.5},
        ],
        "sizes": [{"name": f"width_{width}", "block_params": width} for width in (4, 12, 24, 48)],
        "sequence_length": 64,
        "budget": {"tokens": 38400},
    }  # fmt: skip


@pytest.mark.slow
def test_the_laws_the_search_and_the_report_run_on_it(tmp_path: Path) -> None:
    from mixplan.laws.calibration import fit_calibration
    from mixplan.laws.predict import LawForecast
    from mixplan.recommend import recommend
    from mixplan.report import find_inputs, write_report

    parts = ("--only", "sweep", "--only", "gaps", "--widths", "4,12,24,48")
    ran("run", "--steps", "150", *parts, "-o", str(tmp_path))
    tables = read_measurements(tmp_path / "measurements")
    calibration = fit_calibration(tables, learned_skill=tables.learned_skill, draws=20, seed=0)
    assert calibration.backtest is not None and calibration.learned_skill == 0.5
    assert calibration.retention is not None and calibration.interference is not None
    assert calibration.lm_loss is not None
    forecast = LawForecast(calibration)
    complexity = min(forecast.families()["linear_regression"])
    tokens = tables.learning["tokens"].max()
    cells = [(48.0, 0.3), (48.0, 0.03), (4.0, 0.3), (4.0, 0.03)]
    widths, frequencies = np.array(cells).T
    names = ["linear_regression"] * len(cells)
    skill = forecast.skill(names, np.full(4, complexity), widths, np.full(4, tokens), frequencies).skill
    # The frequent task is learned by all of these widths, the rare one by wide students only.
    assert skill[0] > 0.8 and skill[0] > skill[1] > skill[3] + 0.2 and skill[2] > skill[3] + 0.2
    # Width is the size that a plan asks for, by its count.
    save(calibration, tmp_path / "calibration.json")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan(complexity)))
    recipe = recommend(load(tmp_path / "plan.yaml", Plan), forecast, tmp_path, calibration=calibration)
    assert recipe.size.name == f"width_{recipe.block_params}" and recipe.total_params == recipe.block_params
    assert recipe.cost is not None and recipe.cost.flops == 6 * recipe.block_params * recipe.tokens
    assert recipe.tasks[0].recommended.p_learned >= 0.5 > recipe.tasks[0].natural.p_learned
    save(recipe, tmp_path / "recipe.yaml")
    write_report(find_inputs(tmp_path), forecast, tmp_path / "page.html")
    assert "width_48" in (tmp_path / "page.html").read_text(encoding="utf-8")
