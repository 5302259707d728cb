"""Measurements of several folders as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mixplan.cli import app
from mixplan.documents import read_measurements, write_measurements
from mixplan.documents.measurements import Measurements
from mixplan.documents.merging import joined, read_together
from mixplan.documents.table import Table
from mixplan.errors import InputError

QUICKSTART = Path(__file__).parents[1] / "examples" / "measurements" / "quickstart"


def part(folder: Path, seeds: set[float], provenance: dict | None = None) -> Path:
    """The quickstart's runs of some seeds."""
    whole = read_measurements(QUICKSTART)
    tables = {
        name: table.where(np.isin(table["seed"], list(seeds)))
        for name in ("learning", "retention", "interference")
        if (table := getattr(whole, name)) is not None
    }
    write_measurements(Measurements(**tables, provenance=provenance or {}), folder)
    return folder


def test_halves_put_together_are_the_whole(tmp_path: Path) -> None:
    halves = [part(tmp_path / "first", {0}, {"made": 1}), part(tmp_path / "second", {1}, {"made": 2})]
    both, whole = read_together(halves), read_measurements(QUICKSTART)
    assert len(both.learning) == len(whole.learning)
    assert both.retention is not None and whole.retention is not None
    assert len(both.retention) == len(whole.retention)
    assert both.provenance == {"made": 1, "further": [{"made": 2}]}


def test_fit_reads_several_and_says_what_one_reads(tmp_path: Path) -> None:
    halves = [str(part(tmp_path / "a", {0})), str(part(tmp_path / "b", {1}))]
    whole = str(part(tmp_path / "whole", {0, 1}))
    out = [tmp_path / "halves.json", tmp_path / "whole.json"]
    for paths, path in ((halves, out[0]), ([whole], out[1])):
        found = CliRunner().invoke(app, ["fit", *paths, "-o", str(path), "--draws", "20"])
        assert found.exit_code == 0, found.output
    texts = [path.read_text().split('"provenance"')[0] for path in out]
    assert texts[0] == texts[1]


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    halves = [part(tmp_path / "a", {0}), part(tmp_path / "b", {0, 1})]
    with pytest.raises(InputError, match="have the name of one in"):
        read_together(halves)


def test_different_learned_skills_are_refused(tmp_path: Path) -> None:
    one = part(tmp_path / "a", {0}, {"calibration": {"learned_skill": 0.5}})
    other = part(tmp_path / "b", {1}, {"calibration": {"learned_skill": 0.9}})
    with pytest.raises(InputError, match=r"different skills .*\(0.5, 0.9\).*--learned-skill"):
        read_together([one, other])
    assert len(read_together([one, other], learned_skill=0.7).learning)
    # Who says nothing of it does not contradict.
    assert read_together([one, part(tmp_path / "c", {1})]).learned_skill == 0.5


def test_ladders_of_other_text_are_refused(tmp_path: Path) -> None:
    one = part(tmp_path / "a", {0}, {"corpus_sha256": "aa", "corpus_train_tokens": 5, "tokenizer": "bytes"})
    other = part(tmp_path / "b", {1}, {"corpus_sha256": "bb", "corpus_train_tokens": 5})
    with pytest.raises(InputError) as error:
        read_together([one, other])
    assert len(error.value.problems) == 1 and "corpus_sha256 (aa, bb)" in error.value.problems[0]


def test_what_is_wrong_with_each_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_together([tmp_path / "none", tmp_path / "neither"])
    assert len(error.value.problems) == 2


def test_columns_that_one_lacks_are_empty() -> None:
    one = Table({"a": np.array([1.0]), "protocol": np.array(["x"], dtype=object)})
    both = joined([one, Table({"a": np.array([2.0]), "b": np.array([3.0])})])
    assert both["a"].tolist() == [1.0, 2.0] and both["protocol"].tolist() == ["x", ""]
    assert np.isnan(both["b"][0]) and both["b"][1] == 3.0
