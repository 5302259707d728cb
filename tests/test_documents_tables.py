"""Measurement tables: exact round trips in both formats, and every way a table can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixplan.documents import Measurements, read_measurements, write_measurements
from mixplan.documents.measurements import ROWS, TEXT_COLUMNS
from mixplan.documents.table import Table, from_rows, read_table, write_table
from mixplan.errors import InputError

ROW: dict[str, Any] = {
    "run_id": "r0", "rung": "cpu_8k", "block_params": 8336, "total_params": None, "seed": 0, "step": 10,
    "tokens": 1000, "task": "t0", "family": "comparison", "complexity": 4, "frequency": 1e-3,
    "exposures": None, "accuracy": 0.75, "chance": 0.5, "skill": 0.5, "choice_nll": None, "lm_loss": None,
}  # fmt: skip
RETENTION: dict[str, Any] = {
    "run_id": "r0", "rung": "cpu_8k", "block_params": 8336, "seed": 0, "task": "p", "family": "comparison",
    "complexity": 4, "instances": 64, "injected_at_tokens": 500, "delay_tokens": 0, "choice_nll_before": 0.7,
    "choice_nll": 0.4, "gain": 0.3,
}  # fmt: skip


def learning(*changes: dict[str, Any]) -> Table:
    rows = [{**ROW, "tokens": 1000 + index, **change} for index, change in enumerate(changes)]
    return from_rows(rows, TEXT_COLUMNS | {"note"})


def complaints(tmp_path: Path, table: Table) -> str:
    write_table(table, tmp_path / "learning.csv")
    with pytest.raises(InputError) as caught:
        read_measurements(tmp_path)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@settings(max_examples=40, deadline=None)
@given(
    numbers=st.lists(st.floats(allow_nan=True, allow_infinity=False), min_size=1, max_size=8),
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=8, max_size=8),
)
def test_numbers_and_texts_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, ending: str, numbers: list[float], texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("tables") / f"t.{ending}"
    written = {"number": np.array(numbers), "task": np.array(texts[: len(numbers)], dtype=object)}
    write_table(Table(written), path)
    found = read_table(path, {"task"})
    np.testing.assert_array_equal(found["number"], written["number"])
    assert list(found["task"]) == list(written["task"])
    assert found["number"].dtype == np.float64 and found["task"].dtype == object


def test_parquet_of_other_tools(tmp_path: Path) -> None:
    """Integers, nulls, dictionary-encoded and numeric text columns, as other tools write them."""
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.table(
            {
                "seed": pa.array([2**53 - 1, None, 3], pa.int64()),
                "small": pa.array([0.1, None, 3], pa.float32()),
                "task": pa.array([1, 2, None], pa.int32()),
                "family": pa.array(["a", "b", None]).dictionary_encode(),
                "typed": pa.array(["1e-3", "", "2"]),
                "mixed": pa.array(["1e-3", "x", "2"]),
            }
        ),
        path,
    )
    found = read_table(path, {"task", "family"})
    np.testing.assert_array_equal(found["seed"], [2**53 - 1, np.nan, 3])
    np.testing.assert_array_equal(found["small"], [np.float64(np.float32(0.1)), np.nan, 3])
    assert list(found["task"]) == ["1", "2", ""]
    assert list(found["family"]) == ["a", "b", ""]
    np.testing.assert_array_equal(found["typed"], [1e-3, np.nan, 2])
    assert list(found["mixed"]) == ["1e-3", "x", "2"]


@pytest.mark.parametrize("parquet", [False, True])
def test_measurements_round_trip_with_extra_columns(tmp_path: Path, parquet: bool) -> None:
    table = learning({"note": "x"}, {"note": "y"})
    given_ = Measurements(table, from_rows([RETENTION], TEXT_COLUMNS), None, {"tool": "other", "seeds": [1]})
    paths = write_measurements(given_, tmp_path, parquet)
    assert [path.stem for path in paths] == ["learning", "retention", "provenance"]
    found = read_measurements(tmp_path)
    assert found.provenance == given_.provenance and found.interference is None
    for name, column in table.columns.items():
        np.testing.assert_array_equal(found.learning[name], column)
    # The other format, and tables that there no longer are, do not stay beside the new ones.
    write_measurements(Measurements(table), tmp_path, not parquet)
    assert len(list(tmp_path.iterdir())) == 2
    assert len(read_measurements(tmp_path).learning) == 2


def test_a_single_learning_table(tmp_path: Path) -> None:
    write_table(learning({}, {}), tmp_path / "mine.csv")
    assert len(read_measurements(tmp_path / "mine.csv").learning) == 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"block_params": 0}, "column 'block_params' must be > 0; 1 row(s) are not, first row 2 with 0"),
        ({"accuracy": 1.2}, "column 'accuracy' must be ≤ 1"),
        ({"frequency": 0}, "column 'frequency' must be > 0"),
        ({"chance": 1}, "column 'chance' must be < 1"),
        ({"skill": None}, "column 'skill' is empty, NaN or infinite in 1 row(s), first row 2"),
        ({"tokens": float("inf")}, "column 'tokens' is empty, NaN or infinite"),
        ({"lm_loss": float("inf")}, "column 'lm_loss' is empty, NaN or infinite"),
        ({"run_id": ""}, "column 'run_id' is empty in 1 row(s), first row 2"),
        (
            {"skill": 0.8},
            "column 'skill' is not (accuracy − chance) ÷ (1 − chance) in 1 row(s), first row 2: 0.8 ag",
        ),
        ({"tokens": 1000}, "rows 1 and 2 measure the same cell at the same time"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    assert problem in complaints(tmp_path, learning({}, change))


def test_missing_and_misspelt_columns_all_at_once(tmp_path: Path) -> None:
    columns = dict(learning({}, {}).columns)
    columns["complexty"] = columns.pop("complexity")
    del columns["skill"]
    columns["accuracy"] = np.array(["good", "bad"], dtype=object)
    found = complaints(tmp_path, Table(columns))
    assert "column 'complexity' is missing; did you mean 'complexty'?" in found
    assert "column 'skill' is missing" in found
    assert "column 'accuracy' needs numbers; row 1 has 'good'" in found


def test_gain_must_be_the_difference(tmp_path: Path) -> None:
    write_table(learning({}), tmp_path / "learning.csv")
    write_table(from_rows([{**RETENTION, "gain": -0.3}], TEXT_COLUMNS), tmp_path / "retention.csv")
    with pytest.raises(InputError, match="column 'gain' is not choice_nll_before − choice_nll in 1 row"):
        read_measurements(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty; the first line must name the columns"),
        (b"a;b\n1;2\n", "not separated by commas"),
        (b"a,b,a\n1,2,3\n", "column 'a' is given twice"),
        (b"a,,b\n1,2,3\n", "a column has no name (field 2)"),
        (b"a,b\n1,2\n3\n4,5,6\n", ":3: 2 row(s) do not have the header's 2 fields; this is the first"),
        (b"a,b\n\xff,1\n", "not CSV in UTF-8"),
    ],
)
def test_broken_csv(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "t.csv", set())
    assert problem in str(caught.value)


def test_csv_of_other_systems(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes('\ufefftokens, task\r\n1e3,"a,b"\r\n\r\n,x\r\n'.encode())
    found = read_table(tmp_path / "t.csv", {"task"})
    np.testing.assert_array_equal(found["tokens"], [1000, np.nan])
    assert list(found["task"]) == ["a,b", "x"]


def test_folders_and_formats(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_table(tmp_path / "t.parquet", set())
    with pytest.raises(InputError, match="is a folder"):
        read_table(tmp_path, set())
    with pytest.raises(InputError, match="no such file or folder"):
        read_measurements(tmp_path / "gone")
    with pytest.raises(InputError, match=r"no learning\.csv or learning\.parquet here"):
        read_measurements(tmp_path)
    write_table(learning({}), tmp_path / "learning.csv")
    (tmp_path / "provenance.json").write_text("{")
    with pytest.raises(InputError, match=r"provenance\.json:1: not JSON"):
        read_measurements(tmp_path)
    write_table(learning({}), tmp_path / "learning.parquet")
    with pytest.raises(InputError, match=r"holds both learning\.csv and learning\.parquet; keep one"):
        read_measurements(tmp_path)
    (tmp_path / "learning.csv").write_text(",".join(ROWS["learning"].model_fields) + "\n")
    with pytest.raises(InputError, match="no rows"):
        read_measurements(tmp_path / "learning.csv")


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        ({}, 0.8),
        ({"calibration": {"learned_skill": 0.6}}, 0.6),
        ({"calibration": {"learned_skill": "high"}}, 0.8),
        ({"calibration": "made by hand"}, 0.8),
    ],
)
def test_what_counts_as_learned_travels_with_the_tables(provenance: dict, expected: float) -> None:
    assert Measurements(Table({}), provenance=provenance).learned_skill == expected
