"""fit, predict and backtest as commands: output, files, exit codes, messages instead of tracebacks."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commanding import Result, mixplan
from simulate import LADDER, simulate_measurements

from mixplan.documents import Calibration, Table, load, write_measurements
from mixplan.documents.table import read_table, write_table

THREE = dict(list(LADDER.items())[:3])
CELLS = "id,block_params,tokens,frequency,family,complexity\n007,33056,3.2768e6,1e-3,comparison,8\n"


def subprocess_mixplan(*arguments: object) -> Result:
    command = [sys.executable, "-m", "mixplan", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def refused(result: Result, *says: str, code: int = 2) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for part in says:
        assert part in result.stderr, result.stderr


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder") / "measurements"
    write_measurements(simulate_measurements(rungs=THREE, seeds=1, checkpoints=3), folder)
    return folder


@pytest.fixture(scope="module")
def calibration(ladder: Path) -> Path:
    out = ladder.parent / "calibration.json"
    result = mixplan("fit", ladder, "-o", out, "--draws", 30)
    assert result.returncode == 0, result.stderr
    return out


def spoil(ladder: Path, folder: Path, **columns: Any) -> Path:
    table = read_table(ladder / "learning.csv", {"run_id", "rung", "task", "family"})
    folder.mkdir()
    kept = {name: column for name, column in {**table.columns, **columns}.items() if column is not None}
    write_table(Table(kept), folder / "learning.csv")
    return folder


def test_fit_shows_its_findings_and_writes_the_same_file_twice(ladder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    result = subprocess_mixplan("fit", ladder, "-o", first, "--draws", 30)
    assert result.returncode == 0
    for title in (
        "Learning law",
        "Task coverage",
        "Retention by size",
        "Interference by size",
        "LM loss",
        "Backtest",
    ):
        assert title in result.stdout
    assert "copying the largest fitted rung" in result.stdout and f"wrote {first}" in result.stdout
    assert "warning: " in result.stderr
    assert mixplan("fit", ladder, "-o", second, "--draws", 30).returncode == 0
    assert first.read_bytes() == second.read_bytes()


def test_fit_json_is_for_programs(ladder: Path, tmp_path: Path) -> None:
    result = mixplan(
        "fit", ladder, "-o", tmp_path / "a.json", "--draws", 30, "--json", "--learned-skill", 0.7
    )
    found = json.loads(result.stdout)
    assert found["learned_skill"] == 0.7 and found["learning"]["law"] == "combined"
    assert load(tmp_path / "a.json", Calibration).learned_skill == 0.7


def test_fit_does_not_overwrite(ladder: Path, calibration: Path, tmp_path: Path) -> None:
    before = calibration.read_bytes()
    refused(mixplan("fit", ladder, "-o", calibration), "exists", "--force")
    assert calibration.read_bytes() == before
    refused(mixplan("fit", ladder, "-o", tmp_path / "laws.yaml"), "name that ends in .json")


def test_fit_takes_a_single_learning_table(ladder: Path, tmp_path: Path) -> None:
    result = mixplan("fit", ladder / "learning.csv", "-o", tmp_path / "a.json", "--draws", 20)
    assert result.returncode == 0 and "no retention table" in result.stderr


def test_fit_refuses_a_missing_column(ladder: Path, tmp_path: Path) -> None:
    folder = spoil(ladder, tmp_path / "bad", skill=None)
    refused(mixplan("fit", folder, "-o", tmp_path / "a.json"), "column 'skill' is missing")
    assert not (tmp_path / "a.json").exists()


def test_fit_refuses_nan(ladder: Path, tmp_path: Path) -> None:
    rows = len(read_table(ladder / "learning.csv", set()))
    values = np.where(np.arange(rows) == 4, np.nan, 0.5)
    folder = spoil(ladder, tmp_path / "bad", accuracy=values)
    refused(
        mixplan("fit", folder, "-o", tmp_path / "a.json"), "column 'accuracy' is empty, NaN", "first row 5"
    )


def test_fit_refuses_one_rung(tmp_path: Path) -> None:
    write_measurements(simulate_measurements(rungs={"8k": 8336}, checkpoints=2), tmp_path / "one")
    refused(
        subprocess_mixplan("fit", tmp_path / "one", "-o", tmp_path / "a.json"),
        "at least two rungs are needed",
    )
    refused(mixplan("backtest", tmp_path / "one"), "at least two rungs are needed")


def test_fit_refuses_a_folder_without_measurements(tmp_path: Path) -> None:
    refused(mixplan("fit", tmp_path, "-o", tmp_path / "a.json"), "no learning.csv or learning.parquet here")


def test_backtest_shows_scores(ladder: Path) -> None:
    result = mixplan("backtest", ladder, "--draws", 30)
    assert result.returncode == 0 and "90 % coverage" in result.stdout and "Brier" in result.stdout
    found = json.loads(mixplan("backtest", ladder, "--draws", 30, "--json").stdout)
    assert found["left_out_rung"] == "33k" and len(found["cells"]) == 36


def test_backtest_of_two_rungs_is_refused(tmp_path: Path) -> None:
    two = dict(list(LADDER.items())[:2])
    write_measurements(simulate_measurements(rungs=two, checkpoints=2), tmp_path / "two")
    refused(mixplan("backtest", tmp_path / "two"), "a backtest needs at least 3 rungs")


def test_predict_adds_columns_and_keeps_the_others_to_the_letter(calibration: Path, tmp_path: Path) -> None:
    cells, out = tmp_path / "cells.csv", tmp_path / "out.csv"
    cells.write_text(CELLS + "008,1e6,3.2768e6,1e-3,modular_addition,7\n")
    result = mixplan("predict", calibration, "--cells", cells, "-o", out)
    assert result.returncode == 0 and "2 cells, 1 of them outside what was measured" in result.stdout
    inside, outside = csv.DictReader(out.open())
    assert (inside["id"], inside["block_params"], inside["extrapolated"]) == ("007", "33056", "0")
    assert inside["why_extrapolated"] == "" and "above the largest fitted" in outside["why_extrapolated"]
    for row in (inside, outside):
        low, skill, high = (float(row[name]) for name in ("skill_low", "skill", "skill_high"))
        assert 0 <= low <= skill <= high <= 1 and 0 <= float(row["p_learned"]) <= 1


def test_predict_writes_parquet_too(calibration: Path, tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text(CELLS)
    out = tmp_path / "out.parquet"
    assert mixplan("predict", calibration, "--cells", tmp_path / "cells.csv", "-o", out).returncode == 0
    assert read_table(out, {"family", "id"})["id"][0] == "007"


def test_predict_reports_every_bad_row(calibration: Path, tmp_path: Path) -> None:
    cells = tmp_path / "cells.csv"
    rows = [
        "1,33056,3e6,1e-3,comparision,8", "2,33056,3e6,1e-3,comparison,8",
        "3,33056,3e6,1e-3,comparision,4", "4,33056,3e6,1e-3,poems,1",
    ]  # fmt: skip
    cells.write_text(CELLS.splitlines()[0] + "\n" + "\n".join(rows) + "\n")
    result = mixplan("predict", calibration, "--cells", cells, "-o", tmp_path / "out.csv")
    refused(result, "rows 1, 3: family 'comparision'", "did you mean 'comparison'", "row 4: family 'poems'")
    assert not (tmp_path / "out.csv").exists()


def test_predict_reports_bad_numbers_together(calibration: Path, tmp_path: Path) -> None:
    cells = tmp_path / "cells.csv"
    rows = ["1,0,3e6,1e-3,comparison,8", "2,33056,,2.0,comparison,8", "3,33056,3e6,1e-3,comparison,hard"]
    cells.write_text(CELLS.splitlines()[0] + "\n" + "\n".join(rows) + "\n")
    result = mixplan("predict", calibration, "--cells", cells, "-o", tmp_path / "out.csv")
    refused(
        result, "'block_params' must be a number above 0; not so in row 1", "'tokens' must be",
        "not so in row 2", "at most 1; more in row 2", "column 'complexity' needs numbers; row 3 has 'hard'",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (
            "block_params,tokens,frequency,famly,complexity",
            "column 'family' is missing; did you mean 'famly'?",
        ),
        ("block_params,tokens,frequency,family,complexity,skill", "skill would be overwritten"),
    ],
)
def test_predict_refuses_wrong_columns(calibration: Path, tmp_path: Path, header: str, says: str) -> None:
    cells = tmp_path / "cells.csv"
    values = "33056,3e6,1e-3,comparison,8" + ",1" * (header.count(",") - 4)
    cells.write_text(f"{header}\n{values}\n")
    refused(mixplan("predict", calibration, "--cells", cells, "-o", tmp_path / "out.csv"), says)


def test_predict_refuses_no_rows_missing_files_and_other_endings(calibration: Path, tmp_path: Path) -> None:
    cells = tmp_path / "cells.csv"
    cells.write_text(CELLS.splitlines()[0] + "\n")
    refused(mixplan("predict", calibration, "--cells", cells, "-o", tmp_path / "o.csv"), "no rows")
    refused(
        mixplan("predict", calibration, "--cells", tmp_path / "x.csv", "-o", tmp_path / "o.csv"),
        "no such file",
    )
    refused(
        mixplan("predict", calibration, "--cells", cells, "-o", tmp_path / "o.txt"),
        "ends in .csv or .parquet",
    )
    refused(
        mixplan("predict", tmp_path / "c.json", "--cells", cells, "-o", tmp_path / "o.csv"), "no such file"
    )
