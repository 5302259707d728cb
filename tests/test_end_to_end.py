"""From text to a verified mixture and a report, through the real commands, on a ladder of seconds."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from ladders import SMALL, TINY, mixplan, write_ladder

from mixplan.documents import CalibrationSpec, Plan, load

QUICKSTART = Path(__file__).resolve().parent.parent / "examples" / "quickstart"


@pytest.mark.slow
def test_text_to_verified_mixture(tmp_path: Path) -> None:
    write_ladder(
        tmp_path,
        ladder=[TINY, SMALL, {**SMALL, "name": "wide", "d_ffn": 64}],
        tasks=[{"family": "table_lookup", "complexities": [3], "frequencies": [0.01, 0.005]}],
        # A ladder of seconds learns nothing; what counts here is that the files fit together.
        learned_skill=0.02,
    )
    sources = [
        {"name": "web", "role": "common", "text": ["text?.txt"], "mds": "shards/web"},
        {"name": "rare", "role": "rare", "text": ["text1?.txt"], "mds": "shards/rare"},
    ]
    tasks = [{"name": "facts", "density": {"rare": 0.01}, "family": "table_lookup", "complexity": 3}]
    plan = {
        "sources": sources,
        "tasks": [{**tasks[0], "target_probability": 0.1}],
        "sizes": [TINY, SMALL],
        "sequence_length": 64,
        "budget": {"tokens": 2e4},
        "search": {"trials": 20},
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    for command in (
        ["validate", "calibration.yaml", "plan.yaml"],
        ["plan", "calibration.yaml"],
        ["build", "plan.yaml"],
        ["calibrate", "calibration.yaml", "-o", "runs"],
        ["collect", "runs", "-o", "measurements"],
        ["validate", "measurements"],
        ["fit", "measurements", "-o", "calibration.json", "--draws", "20"],
        ["backtest", "measurements", "--draws", "20"],
        ["recommend", "plan.yaml", "--calibration", "calibration.json", "-o", "recipe.yaml"],
        ["emit", "recipe.yaml", "-o", "mixture"],
        ["verify", "mixture", "-o", "verify.json"],
        ["validate", "calibration.json", "recipe.yaml", "mixture/streams.yaml"],
        ["report", ".", "-o", "report.html"],
    ):
        done = mixplan(*command, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    verified = json.loads((tmp_path / "verify.json").read_text())
    chosen = {source["name"]: source["choose"] for source in recipe["sources"]}
    assert sum(chosen.values()) == verified["samples"] == recipe["samples"]
    page = (tmp_path / "report.html").read_text()
    assert "not in this folder" not in page.lower()
    calibration = json.loads((tmp_path / "calibration.json").read_text())
    assert calibration["learned_skill"] == 0.02  # as calibration.yaml said, through every file between
    assert calibration["backtest"] is not None


def quickstart() -> ModuleType:
    found = importlib.util.spec_from_file_location("quickstart_run", QUICKSTART / "run.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("missing", [[], ["tests"], ["library"]])
def test_quickstart_prepares_what_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: list[str]
) -> None:
    def collect(folder: Path) -> dict[str, int]:
        names = [name for name in ("library", "tests", "encodings", "topics") if name not in missing]
        for name in names:
            (folder / name).mkdir(parents=True)
        return dict.fromkeys(names, 1)

    fake = ModuleType("sources")
    fake.collect = collect  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sources", fake)
    quickstart().prepare(tmp_path)
    spec, plan = load(tmp_path / "calibration.yaml", CalibrationSpec), load(tmp_path / "plan.yaml", Plan)
    assert [path for path in spec.corpus.paths if any(name in path for name in missing)] == []
    assert len(spec.corpus.paths) == len(plan.sources) == 4 - len(missing)


def test_quickstart_sources_are_text_of_very_different_size(tmp_path: Path) -> None:
    # By its path: another example has sources of its own.
    found = spec_from_file_location("quickstart_sources", QUICKSTART / "sources.py")
    assert found is not None and found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    sizes = module.collect(tmp_path)
    assert {"library", "encodings", "topics"} <= set(sizes)
    assert sizes["library"] > 5 * sizes["topics"]
    assert sum(path.stat().st_size for path in (tmp_path / "topics").iterdir()) == sizes["topics"]
