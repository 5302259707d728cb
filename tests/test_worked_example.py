"""The worked example and the comparison of strategies: small versions, and what the documents say of them."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from mixplan.documents import Plan, Recipe, load

ROOT = Path(__file__).resolve().parents[1]
WORKED = ROOT / "examples" / "worked"
for place in (ROOT / "benchmarks", WORKED):
    sys.path.insert(0, str(place))
import controls  # noqa: E402
import mixing  # noqa: E402
import run as worked  # noqa: E402
import sources  # noqa: E402
import strategies  # noqa: E402
import train  # noqa: E402


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load(WORKED / "plan.yaml", Plan)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load(WORKED / "recipe.yaml", Recipe)


def table(name: str) -> list[dict[str, str]]:
    with (ROOT / "benchmarks" / name).open(newline="") as file:
        return list(csv.DictReader(file))


# The strategies' formulas.


def test_unimax_by_hand() -> None:
    # 12 tokens, 2 epochs at most: the source of 1 gives 2, the others divide 10 as 5 and 5.
    shares = strategies.unimax(np.array([100.0, 1.0, 40.0]), 12.0, epochs=2.0)
    np.testing.assert_allclose(shares, [5 / 12, 2 / 12, 5 / 12])


def test_unimax_is_uniform_without_scarcity_and_holds_the_cap_with_it() -> None:
    np.testing.assert_allclose(strategies.unimax(np.array([5.0, 9.0, 7.0]), 12.0), 1 / 3)
    available = np.array([3.0, 50.0, 900.0, 10.0])
    taken = strategies.unimax(available, 400.0) * 400
    assert (taken <= 4 * available * (1 + 1e-12)).all()
    assert taken[1] == pytest.approx(174.0)  # (400 − 12 − 40) ÷ 2, below its cap of 200
    assert taken[2] == pytest.approx(174.0)


def test_temperature_between_natural_and_uniform() -> None:
    natural = np.array([0.9, 0.09, 0.01])
    np.testing.assert_allclose(strategies.temperature(natural, 1.0), natural)
    np.testing.assert_allclose(strategies.temperature(natural, 0.0), 1 / 3)
    warm = strategies.temperature(natural, 0.5)
    np.testing.assert_allclose(warm / warm[0], [1, np.sqrt(0.1), np.sqrt(0.01 / 0.9)])


def test_random_mixtures_sum_to_one_within_caps_and_repeat_with_the_seed() -> None:
    natural, most = np.array([0.8, 0.15, 0.05]), np.array([1.0, 1.0, 0.2])
    drawn = strategies.random_mixtures(natural, most, 50, np.random.default_rng(1))
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0)
    assert (drawn <= most).all()
    assert drawn.std(axis=0).min() > 0.01
    again = strategies.random_mixtures(natural, most, 50, np.random.default_rng(1))
    np.testing.assert_array_equal(drawn, again)


def test_the_regression_finds_a_better_mixture_within_the_loss_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strategies, "CANDIDATES", 5000)
    generator = np.random.default_rng(3)
    natural, most = np.array([0.7, 0.2, 0.05, 0.05]), np.array([1.0, 1.0, 0.5, 0.5])

    def truth(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        skills = np.clip(shares[:, 2:] / np.array([0.3, 0.25]), 0, 1)
        return skills, 2.0 - 0.5 * shares[:, :2].sum(axis=1)

    shares = strategies.random_mixtures(natural, most, 24, generator)
    skills, losses = truth(shares)
    chosen, told = strategies.regmix(shares, skills, losses, natural, most, 0.15, 0.8, generator)
    assert len(told) == 3
    assert chosen.sum() == pytest.approx(1.0)
    (better, loss), (before, loss_before) = truth(chosen[None]), truth(natural[None])
    assert better.mean() > 3 * before.mean()
    assert loss[0] <= loss_before[0] + 0.15 + 0.02  # 0.02: what a linear fit to exact data may miss


def test_a_left_out_run_is_not_seen_by_the_fit_that_predicts_it() -> None:
    shares = strategies.random_mixtures(np.array([0.5, 0.3, 0.2]), np.ones(3), 16, np.random.default_rng(0))
    noise = np.random.default_rng(5).normal(size=16)
    _, error, _ = strategies.fit_best(shares, noise)
    assert error > 0.6 * noise.std()  # nothing can be predicted; an error near 0 would be memory


def test_predictions_of_a_strategy_are_those_of_the_recipe(plan: Plan, recipe: Recipe) -> None:
    natural = {f"share.{source.name}": source.natural_share for source in recipe.sources}
    own = {f"share.{source.name}": source.share for source in recipe.sources}
    before, after = strategies.predicted(plan, recipe, [natural, own])
    for task in recipe.tasks:
        # 0.02: the laws are asked as they are today, the recipe is as it was when the runs were trained.
        assert before[f"p.{task.name}"] == pytest.approx(task.natural.p_learned, abs=0.02)
        assert after[f"p.{task.name}"] == pytest.approx(task.recommended.p_learned, abs=0.02)
        assert after[f"low.{task.name}"] < after[f"expected.{task.name}"] < after[f"high.{task.name}"]
    assert before["predicted_loss_increase"] == 0.0
    assert after["predicted_loss_increase"] == pytest.approx(recipe.common_loss_increase_nats, abs=0.002)


def test_predictions_are_judged_run_by_run() -> None:
    said = {"p.a": 0.9, "expected.a": 0.7, "low.a": 0.5, "high.a": 0.85}
    lines = strategies.judged([{"skill.a": 0.8, **said}, {"skill.a": 0.4, **said}])
    # RMS of 0.1 and 0.3; one inside; one learned; Brier (0.01 + 0.81) ÷ 2.
    assert lines[-1] == "| all | 2 | 0.70 | 0.60 | 0.22 | 1 of 2 | 0.90 | 0.50 | 0.410 |"


# Shares, recipes, samples.


def test_other_shares_become_the_nearest_whole_samples(recipe: Recipe) -> None:
    shares = {source.name: source.natural_share for source in recipe.sources}
    own = mixing.recipe_of(recipe, mixing.Arm("natural", shares, 2))
    assert own.samples == recipe.samples == sum(source.choose for source in own.sources)
    for source in own.sources:
        assert abs(source.choose - shares[source.name] * own.samples) < 1
        assert source.rate == pytest.approx(1.0, abs=0.01)
    assert own.shuffle_seed != mixing.recipe_of(recipe, mixing.Arm("natural", shares, 1)).shuffle_seed
    assert own.tasks == [] and own.common_loss_nats is None


# The sources.


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    for name, mark in [*((one, "") for one in ("code", "techdoc", "essay", "dict", "kjv", "formal")), *(
        ("multilingual", mark) for mark in ("BEZEICHNUNG\n", "NOM\n")
    )]:  # fmt: skip
        for number in range(12):
            words = " ".join(f"{name}{word}" for word in generator.integers(0, 999, 240))
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{mark[:2]}{number}.txt").write_text(mark + words)
    return folder


@pytest.fixture(scope="module")
def world(corpus: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    sizes = dict(zip(sources.RARE, (16384, 12288, 8192, 4096), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "RARE", {k: (*v[:2], sizes[k]) for k, v in sources.RARE.items()})
        sources.write_sources(corpus, folder, plan)
    return folder


def samples_of(folder: Path, name: str) -> np.ndarray:
    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    import json

    from streaming.base.format import reader_from_json

    index = json.loads((folder / "sources" / name / "index.json").read_text())
    rows = []
    for shard in index["shards"]:
        reader = reader_from_json(str(folder / "sources" / name), None, shard)
        rows += [reader[at]["tokens"] for at in range(reader.size)]
    return np.stack(rows)


@pytest.mark.slow
def test_rare_sources_hold_each_task_at_its_density_and_no_other(world: Path, plan: Plan) -> None:
    facts = sources.realised(world)["sources"]
    tasks = sources.make_tasks(plan)
    own_symbols = {
        name: {token for one in task.train + task.test for token in one.document(256) if token > 256}
        for name, task in tasks.items()
    }
    for name in sources.RARE:
        rows = samples_of(world, name)
        assert rows.size == facts[name]["tokens"]
        expected = {task.name: task.density[name] for task in plan.tasks if name in task.density}
        assert set(facts[name]["instances"]) == set(expected)
        for task, count in facts[name]["instances"].items():
            assert abs(count - expected[task] * rows.size) <= 1
            labels = {choice for one in tasks[task].train for choice, *_ in one.choices}
            assert np.isin(rows, list(labels)).sum() == count  # one answer an instance
        there = set(rows[rows > 256].tolist())
        assert there <= set().union(*(own_symbols[task] for task in expected))


@pytest.mark.slow
def test_only_training_instances_are_written(world: Path, plan: Plan) -> None:
    task = sources.make_tasks(plan)["errors"]
    rows = samples_of(world, "french")
    taught = {one.document(256) for one in task.train}
    unseen = {one.document(256) for one in task.test}
    windows = {tuple(row[at : at + 5].tolist()) for row in rows for at in range(len(row) - 4)}
    assert windows & taught
    assert not windows & unseen


@pytest.mark.slow
def test_common_sources_are_the_ladders_training_text_alone(world: Path) -> None:
    held_out = np.load(world / "held_out.npy").astype(np.uint16)
    pieces = {
        bytes(part.astype(np.uint8)) for part in np.split(held_out, np.flatnonzero(held_out == 256) + 1)
    }
    for name in ("code", "techdoc", "essay", "dict"):
        rows = samples_of(world, name)
        assert rows.max() <= 256
        text = rows[rows < 256].astype(np.uint8).tobytes()
        assert text.count(name.encode()) > 100
        assert not any(piece[:60] in text for piece in pieces if len(piece) > 60)


# The training.


def test_a_run_has_the_ladders_optimisation(plan: Plan) -> None:
    from mixplan.calibrate.runs import plan_runs

    spec = sources.ladder()
    (ladder_run,) = [
        run
        for run in plan_runs(spec, plan.vocabulary)
        if run.shape.name == "cpu_33k" and run.seed == 0 and run.only_cell is None
    ]
    own = train.run_spec(spec, "cpu_33k", ladder_run.tokens // 128, 0, 128)
    for field in ("steps", "warmup_steps", "decay_steps", "learning_rate", "batch_sequences", "vocab_size"):
        assert getattr(own, field) == getattr(ladder_run, field), field


@pytest.mark.slow
def test_a_short_run_is_measured_and_repeats(world: Path, plan: Plan) -> None:
    spec = sources.ladder()
    samples = np.concatenate([samples_of(world, name)[:64] for name in sources.RARE])
    run = train.run_spec(spec, "cpu_8k", len(samples), 0, 128)
    held_out = np.load(world / "held_out.npy")
    found = []
    for _ in range(2):
        model = train.train(spec, run, samples, sources.END_OF_DOCUMENT)
        found.append(train.measure(model, spec, plan, held_out, 0))
    with np.load(world / "contexts.npz") as contexts:
        own = train.asked_behind_own_text(model, spec, plan, dict(contexts))
    assert found[0] == found[1]
    assert set(own) == set(found[0]["skill"]) and own != found[0]["skill"]
    assert set(found[0]["skill"]) == {task.name for task in plan.tasks}
    assert 2.0 < found[0]["lm_loss"] < np.log(plan.vocabulary)  # eight steps teach something, not much


@pytest.mark.slow
def test_the_control_spreads_the_same_instances_over_all_text(world: Path, plan: Plan) -> None:
    samples = np.concatenate([samples_of(world, name) for name in ("code", "dict")])[:70]
    counts = {task.name: 10 + place for place, task in enumerate(plan.tasks)}
    written = controls.spread_evenly(samples.astype(np.int16), plan, counts, seed=1)
    assert written.shape == (64, 128)
    for name, task in sources.make_tasks(plan).items():
        labels = {choice for one in task.train for choice, *_ in one.choices}
        assert np.isin(written, list(labels)).sum() == pytest.approx(counts[name], abs=1)
        rows = np.flatnonzero(np.isin(written, list(labels)).any(axis=1))
        assert rows.min() < 32 <= rows.max()  # in both steps


# What the documents say is what was measured.


def test_the_documents_hold_the_tables_of_the_results(recipe: Recipe) -> None:
    rows, tried = table("strategies.csv"), table("strategies_proxies.csv")
    page = (ROOT / "docs" / "worked-example.md").read_text(encoding="utf-8")
    told = worked.comparison(recipe, rows) + controls.compared(recipe, rows, table("strategies_even.csv"))
    for line in told + strategies.summary(rows, tried) + strategies.judged([*tried, *rows]):
        assert line in page
    compared = (ROOT / "benchmarks" / "strategies.md").read_text(encoding="utf-8")
    for line in [*strategies.summary(rows, tried), *strategies.judged([*tried, *rows])]:
        assert line in compared


def test_every_strategy_trained_as_many_tokens_and_flops(recipe: Recipe) -> None:
    rows = table("strategies.csv")
    assert len({(row["tokens"], row["flops"], row["size"]) for row in rows}) == 1
    assert {row["size"] for row in rows} == {recipe.size.name}
    arms = {row["arm"] for row in rows}
    assert all({row["seed"] for row in rows if row["arm"] == arm} == {"0", "1", "2"} for arm in arms)
    own = next(row for row in rows if row["arm"] == "recommended")
    for source in recipe.sources:
        assert float(own[f"share.{source.name}"]) == pytest.approx(source.share, abs=1e-6)
