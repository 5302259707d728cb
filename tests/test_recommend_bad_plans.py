"""Plans that cannot be answered with these laws: every problem at once, in plain words, before any search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from planning import Logistic, plan_dict
from pydantic import ValidationError

from mixplan.documents import Plan
from mixplan.errors import InputError
from mixplan.recommend import recommend


def problems(plan: dict[str, Any], folder: Path = Path("."), law: Any = None) -> str:
    with pytest.raises(InputError) as caught:
        recommend(Plan.model_validate(plan), law or Logistic(), folder)
    assert caught.value.exit_code == 2
    return "\n".join(caught.value.problems)


def write_index(folder: Path, samples: int, length: int) -> None:
    folder.mkdir(parents=True)
    shard = {
        "column_names": ["tokens"],
        "column_encodings": [f"ndarray:int32:{length}"],
        "column_sizes": [4 * length],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "raw_data": {"basename": "shard.00000.mds", "bytes": 100, "hashes": {}},
        "samples": samples,
        "size_limit": 1 << 26,
        "version": 2,
        "zip_data": None,
    }
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": [shard]}))


def test_unknown_family_and_complexity() -> None:
    plan = plan_dict()
    plan["tasks"][0]["family"] = "comparisson"
    plan["tasks"][1]["complexity"] = 7
    text = problems(plan)
    assert "task 't1': family 'comparisson' was not calibrated; did you mean 'comparison'?" in text
    assert "task 't2': complexity 7 of family 'modular_addition' was not calibrated (calibrated: 5)" in text
    assert "did you mean 5?" in text


def test_sources_of_unknown_size() -> None:
    plan = plan_dict()
    del plan["sources"][0]["tokens_available"]
    plan["sources"][1] = {"name": "code", "role": "common", "mds": "nowhere"}
    plan["sources"][2] = {"name": "r1", "role": "rare", "mds": "s3://bucket/r1"}
    text = problems(plan)
    assert "source 'web' has neither tokens_available nor mds" in text
    assert "source 'code'" in text and "nowhere" in text
    assert "source 'r1': tokens behind s3://bucket/r1 are not counted; give tokens_available" in text


def test_tokens_are_counted_and_places_resolved(tmp_path: Path) -> None:
    write_index(tmp_path / "mds" / "web", 800_000, 128)
    plan = plan_dict()
    plan["sources"][0] = {"name": "web", "role": "common", "mds": "mds/web"}
    plan["sources"][2]["mds"] = "s3://bucket/r1"
    recipe = recommend(Plan.model_validate(plan), Logistic(), tmp_path)
    assert recipe.sources[0].tokens_available == 800_000 * 128
    assert recipe.sources[0].mds == (tmp_path / "mds" / "web").resolve().as_posix()
    assert recipe.sources[2].mds == "s3://bucket/r1"
    assert recipe.sources[1].mds is None
    total = 800_000 * 128 + 2e7 + 3e4 + 6e4
    assert recipe.sources[1].natural_share == pytest.approx(2e7 / total)


def test_samples_of_another_length(tmp_path: Path) -> None:
    write_index(tmp_path / "web", 1000, 64)
    plan = plan_dict()
    plan["sources"][0] = {"name": "web", "role": "common", "mds": "web"}
    assert "holds samples of 64 tokens, but the plan's sequence_length is 128" in problems(plan, tmp_path)


def test_a_source_without_samples(tmp_path: Path) -> None:
    write_index(tmp_path / "web", 0, 128)
    plan = plan_dict()
    plan["sources"][0] = {"name": "web", "role": "common", "mds": "web"}
    assert "source 'web'" in problems(plan, tmp_path)


def test_budget_below_one_sample() -> None:
    assert "less than one sample of 128 tokens" in problems(plan_dict(budget={"tokens": 100}))
    assert "less than one sample of 128 tokens" in problems(plan_dict(budget={"flops": 1e6}))


def test_min_tokens_beyond_the_budget() -> None:
    text = problems(plan_dict(min_tokens=6e7))
    assert "min_tokens is 6e+07, but the budget allows at most 5e+07 tokens" in text


def test_caps_that_cannot_fill_the_shortest_training() -> None:
    plan = plan_dict(budget={"tokens": 1e12})
    assert "less than the shortest training to consider (min_tokens by default: 1e+10)" in problems(plan)
    plan = plan_dict(min_tokens=4e7)
    for source in plan["sources"]:
        source["max_epochs"] = 0.1
    assert "less than the shortest training to consider (min_tokens: 4e+07)" in problems(plan)


def test_a_natural_share_of_nothing() -> None:
    plan = plan_dict()
    for source, share in zip(plan["sources"], (0.6, 0.3, 0.1, 0.0), strict=True):
        source["natural_share"] = share
    assert "source 'r2': natural_share is 0" in problems(plan)


def test_no_tasks() -> None:
    assert "the plan has no tasks" in problems(plan_dict(tasks=[]))


def test_sizes_given_twice() -> None:
    with pytest.raises(ValidationError, match="given twice: cpu_8k; keep one of each"):
        Plan.model_validate(plan_dict(sizes=["cpu_8k", "cpu_33k", "cpu_8k"]))
    with pytest.raises(ValidationError, match="given twice: cpu_33k"):
        Plan.model_validate(plan_dict(sizes=["cpu_33k", {"ladder": "cpu", "max_block_params": 40e3}]))


def test_everything_wrong_is_said_at_once_and_nothing_is_searched() -> None:
    law = Logistic(loss=False)
    plan = plan_dict(budget={"tokens": 10}, min_tokens=1e3)
    plan["tasks"][0]["family"] = "compare"
    del plan["sources"][0]["tokens_available"]
    text = problems(plan, law=law)
    said = "was not calibrated", "neither tokens_available nor mds", "no LM-loss law", "less than one sample"
    assert all(part in text for part in said)
    assert law.calls == 0
