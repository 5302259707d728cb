"""Plans that cannot be answered with these laws: every problem at once, in plain words, before any search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from commanding import mixplan
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
    assert "source 'web' has neither tokens_available nor mds; give one of them" in text
    assert "source 'code'" in text and "nowhere" in text and "`mixplan scan` counts text" in text
    assert "source 'r1': tokens behind s3://bucket/r1 are not counted; give tokens_available" in text


def test_scan_counts_what_recommend_does_not() -> None:
    plan = plan_dict()
    del plan["sources"][0]["tokens_available"], plan["sources"][1]["tokens_available"]
    plan["sources"][0]["text"] = ["text/web"]
    plan["sources"][1]["data"] = {"format": "npy", "paths": ["tokens"]}
    text = problems(plan)
    assert (
        "'web' has neither tokens_available nor mds; `mixplan scan` counts its text and fills it in" in text
    )
    assert (
        "'code' has neither tokens_available nor mds; `mixplan scan` counts its data and fills it in" in text
    )


def test_less_than_one_sample() -> None:
    plan = plan_dict()
    plan["sources"][2]["tokens_available"] = 127
    assert "source 'r1': tokens_available=127 is less than one sample of 128" in problems(plan)
    plan["sources"][2]["tokens_available"] = 0
    with pytest.raises(ValidationError, match="greater than 0"):
        Plan.model_validate(plan)


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
    assert "web holds no samples" in problems(plan, tmp_path)
    (tmp_path / "web" / "index.json").write_text('{"version": 2, "shards": []}')
    assert "lists no shards; the source is empty" in problems(plan, tmp_path)


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


def test_a_size_by_its_counts() -> None:
    counted = {"name": "other", "block_params": 1000, "embedding_params": 200}
    small, large = Plan.model_validate(plan_dict(sizes=["cpu_8k", counted])).shapes()
    assert (small.name, large.name) == ("other", "cpu_8k")
    assert small.total_params(257) == 1200 and small.flops_per_token(257, 16) == 6 * 1100
    told = {**counted, "training_flops_per_token": 9.0}
    assert Plan.model_validate(plan_dict(sizes=[told])).shapes()[0].flops_per_token(257, 16) == 9
    with pytest.raises(ValidationError, match=r"Extra inputs are not permitted"):
        Plan.model_validate(plan_dict(sizes=[{**counted, "d_model": 4}]))


def test_everything_wrong_is_said_at_once_and_nothing_is_searched() -> None:
    law = Logistic(loss=False)
    plan = plan_dict(budget={"tokens": 10}, min_tokens=1e3)
    plan["tasks"][0]["family"] = "compare"
    del plan["sources"][0]["tokens_available"]
    text = problems(plan, law=law)
    said = "was not calibrated", "neither tokens_available nor mds", "no LM-loss law", "less than one sample"
    assert all(part in text for part in said)
    assert law.calls == 0


# --- what the command says of a whole file: one problem a line, where it stands, nothing written ---


def change(place: str, value: Any) -> dict[str, Any]:
    """The plan with one value set, e.g. at `tasks.0.confidence`."""
    plan: Any = plan_dict()
    *way, last = (int(part) if part.isdigit() else part for part in place.split("."))
    inner = plan
    for part in way:
        inner = inner[part]
    inner[last] = value
    return plan


BOUNDED = [{**source, "max_share": 0.2} for source in plan_dict()["sources"]]
GROUPS = [
    {"name": "common", "sources": ["web", "code"], "max_share": 0.5},
    {"name": "rare", "sources": ["r1", "r2"], "max_share": 0.3},
]

BAD = {
    "no tokens": (
        change("sources.2.tokens_available", 0),
        "sources[2].tokens_available: must be > 0 (given: 0)",
    ),
    "in no source": (change("tasks.0.density", {}), "task 't1' is in no source; give `density` at least one"),
    "in an unknown source": (
        change("tasks.0.density", {"r11": 0.1}),
        "task 't1' is in an unknown source, 'r11'; did you mean 'r1'?",
    ),
    "shares of sources": (change("sources", BOUNDED), "the upper bounds on shares sum to 0.8"),
    "shares of groups": (change("groups", GROUPS), "the upper bounds on shares sum to 0.8"),
    "shares of a group's sources": (
        change("sources", BOUNDED[2:] + plan_dict()["sources"][:2])
        | {"groups": [{"name": "rare", "sources": ["r1", "r2"], "min_share": 0.5}]},
        "group 'rare': the max_share of its sources sum to 0.4, below min_share=0.5",
    ),
    "lower bounds": (
        change("groups", [{**group, "min_share": 0.6, "max_share": 1} for group in GROUPS]),
        "the lower bounds on shares sum to 1.2",
    ),
    "sure": (change("tasks.0.confidence", 1), "tasks[0].confidence: must be < 1 (given: 1)"),
    "percent": (change("tasks.0.confidence", 80), "tasks[0].confidence: must be < 1 (given: 80)"),
    "key of a source": (
        change("sources.2.max_epoch", 4),
        "unknown key 'sources[2].max_epoch'; did you mean 'max_epochs'?",
    ),
    "key of a task": (
        change("tasks.0.confidense", 0.8),
        "unknown key 'tasks[0].confidense'; did you mean 'confidence'?",
    ),
    "key of data": (
        change("sources.2.data", {"formt": "npy", "paths": ["x"]}),
        "unknown key 'sources[2].data.formt'; did you mean 'format'?",
    ),
    "key of a range": (
        change("sizes", [{"ladder": "cpu", "max_params": 1e5}]),
        "unknown key 'sizes[0].max_params'; did you mean 'max_block_params'?",
    ),
    "range without a size": (
        change("sizes", [{"ladder": "cpu", "min_block_params": 1e9}]),
        "sizes[0]: no cpu preset lies in this range; block parameters of that ladder: 8,336 (cpu_8k)",
    ),
    "unknown ladder": (change("sizes", [{"ladder": "olmo"}]), "did you mean 'olmo2'?"),
    "unknown objective": (change("objective", "cheap"), "did you mean 'cheapest'?"),
    "difficulty twice": (
        change("tasks.0.equivalent", {"family": "comparison", "complexity": 4}),
        "`equivalent` stands in place of family and complexity",
    ),
    "money without a price": (
        change("budget", {"money": 5}),
        "a budget in gpu_hours or money needs `hardware`",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_the_command_says_what_is_wrong_and_where_and_writes_nothing(case: str, tmp_path: Path) -> None:
    plan, said = BAD[case]
    path, out = tmp_path / "plan.yaml", tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    done = mixplan("recommend", path, "--calibration", "ref:quickstart", "-o", out)
    assert done.returncode == 2 and not out.exists()
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, "one thing is wrong"
    assert errors[0].startswith(f"error: {path}:") and said in errors[0]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"family": "comparisson"}, "family 'comparisson' was not calibrated; did you mean 'comparison'?"),
        ({"complexity": 5}, "complexity 5 of family 'comparison' was not calibrated"),
    ],
)
def test_the_command_on_what_was_not_calibrated(task: dict[str, Any], said: str, tmp_path: Path) -> None:
    plan = plan_dict(tasks=[{**plan_dict()["tasks"][0], **task}])
    path, out = tmp_path / "plan.yaml", tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(plan))
    done = mixplan("recommend", path, "--calibration", "ref:quickstart", "-o", out)
    assert done.returncode == 2 and not out.exists()
    assert f"error: task 't1': {said}" in done.stderr


def test_an_unreachable_target_and_starving_caps_write_nothing(tmp_path: Path) -> None:
    out = tmp_path / "recipe.yaml"
    path = tmp_path / "plan.yaml"
    task = {"name": "t1", "density": {"r1": 1e-9}, "family": "comparison", "complexity": 32}
    path.write_text(yaml.safe_dump(plan_dict(tasks=[task], sizes=["cpu_8k"])))
    done = mixplan("recommend", path, "--calibration", "ref:quickstart", "-o", out)
    assert done.returncode == 1 and not out.exists()
    assert "no: task 't1': no size of the plan reaches 0.8" in done.stderr
    starved = [{**source, "max_epochs": 1e-3} for source in plan_dict()["sources"]]
    path.write_text(yaml.safe_dump(plan_dict(sources=starved, tasks=[task])))
    done = mixplan("recommend", path, "--calibration", "ref:quickstart", "-o", out)
    assert done.returncode == 2 and not out.exists()
    assert "all sources at their max_epochs give 1.201e+05 tokens, less than the shortest" in done.stderr
