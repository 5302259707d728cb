"""Phases: a mixture each, which together are the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from recipes_making import LENGTH, recipe_data
from recipes_orders import write_index

from mixplan.documents.loading import load
from mixplan.documents.mixture import Mixture
from mixplan.documents.phases import Phases
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError, NoAnswer
from mixplan.recipes.emitting import emit
from mixplan.recipes.replay import planned_order
from mixplan.recipes.written import Options

SHARDS = {"web": [100] * 20, "code": [100] * 10, "rare": [4] * 10}
STABLE = {"web": 1000, "code": 280, "rare": 20}
ANNEAL = {"web": 300, "rare": 100}
FOLDERS = ["01-stable", "02-anneal"]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for name, sizes in SHARDS.items():
        write_index(tmp_path / "mds" / name, sizes, LENGTH)
    return tmp_path


def write(work: Path, name: str = "recipe.yaml", **phases: dict[str, int]) -> Path:
    phases = phases or {"stable": STABLE, "anneal": ANNEAL}
    whole = {name: sum(choose.get(name, 0) for choose in phases.values()) for name in SHARDS}
    listed: list[dict[str, Any]] = [
        {"name": name, "samples": sum(choose.values()), "choose": choose} for name, choose in phases.items()
    ]
    path = work / name
    path.write_text(yaml.safe_dump(recipe_data(work, whole, ("rare",), phases=listed)))
    return path


def test_each_phase_is_a_mixture_of_its_own(work: Path) -> None:
    emitted = emit(write(work), work / "out")
    phases = load(work / "out" / "phases.yaml", Phases)
    assert [phase.folder for phase in phases.phases] == list(emitted.phases) == FOLDERS
    assert [(phase.first_sample, phase.samples) for phase in phases.phases] == [(0, 1300), (1300, 400)]
    seeds = set()
    for phase, choose in zip(phases.phases, (STABLE, ANNEAL), strict=True):
        mixture = load(work / "out" / phase.folder / "streams.yaml", Mixture)
        recipe = load(work / "out" / phase.folder / "recipe.yaml", Recipe)
        assert {name: stream.choose for name, stream in mixture.streams.items()} == choose
        assert mixture.fingerprint == phase.fingerprint == emitted.phases[phase.folder]
        assert {s.name: s.choose for s in recipe.sources if s.choose} == choose
        assert recipe.samples == phase.samples == mixture.samples and not recipe.tasks
        rare = next(source for source in recipe.sources if source.name == "rare")
        assert rare.epochs == choose["rare"] / 40
        assert rare.rate == pytest.approx(rare.share / rare.natural_share)
        planned = planned_order(mixture, [SHARDS[name] for name in mixture.streams])
        assert np.bincount(planned.stream).tolist() == list(choose.values())
        assert emitted.measured[phase.folder]["rare"]["rare"]["cv_ratio"] <= 1.3
        seeds.add(mixture.dataset.shuffle_seed)
    assert len(seeds) == 2
    assert load(work / "out" / "recipe.yaml", Recipe).phases


def test_notes_say_what_the_phases_do(work: Path) -> None:
    """Expected different samples of web: 2000·(1 − ½·0.85) = 1150; the replays agree."""
    emitted = emit(write(work), work / "out")
    assert any(
        "'web'" in note and "about 1,150 different ones of the 2,000" in note for note in emitted.notes
    )
    assert not any(note.startswith("source 'code'") for note in emitted.notes)  # in one phase only
    assert any("rare (1.538% in stable, 25.000% in anneal)" in note for note in emitted.notes)
    assert any(note.startswith("02-anneal: source 'code' has no samples") for note in emitted.notes)
    seen: set[int] = set()
    for folder in FOLDERS:
        mixture = load(work / "out" / folder / "streams.yaml", Mixture)
        planned = planned_order(mixture, [SHARDS[name] for name in mixture.streams])
        seen |= set(planned.sample_ids[planned.stream == 0].tolist())
    # 300 draws of 2000, half of which are taken: hypergeometric, standard deviation 8
    assert abs(len(seen) - 1150) < 4 * np.sqrt(300 * 0.25 * 1700 / 1999)


@pytest.mark.parametrize("format", ["weights", "megatron", "nanotron", "llm-foundry", "olmo-core"])
def test_every_format_has_phases(work: Path, format: str) -> None:
    emitted = emit(write(work), work / "out", format)
    assert [phase.folder for phase in load(work / "out" / "phases.yaml", Phases).phases] == FOLDERS
    assert list(emitted.phases) == FOLDERS
    for folder in FOLDERS:
        assert (work / "out" / folder / "weights.json").is_file()
    assert all(path.is_file() for path in emitted.files)


def test_caps_hold_for_the_whole_run(work: Path) -> None:
    path = write(work)
    data = yaml.safe_load(path.read_text())
    next(source for source in data["sources"] if source["name"] == "rare")["max_epochs"] = 2.6
    path.write_text(yaml.safe_dump(data))  # 0.5 and 2.5 epochs, 3 together
    for format in ("streaming", "weights"):
        with pytest.raises(InputError, match="'rare', in all phases together: choose=120 is 3 epochs"):
            emit(path, work / "out", format)
    assert not (work / "out").exists()


def test_nothing_is_written_when_one_phase_cannot_be(work: Path) -> None:
    path = write(work)
    (work / "mds" / "code" / "index.json").unlink()
    with pytest.raises(InputError, match=r"01-stable: source 'code'.*holds no index\.json"):
        emit(path, work / "out")
    assert not (work / "out").exists()


def test_a_cache_that_is_too_small_for_a_phase(work: Path) -> None:
    with pytest.raises(NoAnswer, match="01-stable: --cache-limit"):
        emit(write(work), work / "out", options=Options(cache_limit=20_000))
    assert not (work / "out").exists()


def test_folders_of_another_recipe_go_only_with_force(work: Path) -> None:
    out = work / "out"
    emit(write(work), out)
    again = write(work, "again.yaml", stable=STABLE, middle={"code": 10}, anneal=ANNEAL)
    with pytest.raises(InputError, match="holds another mixture"):
        emit(again, out)
    assert not (out / "02-middle").exists()
    emit(again, out, force=True)
    found = sorted(entry.name for entry in out.iterdir() if entry.is_dir())
    assert found == ["01-stable", "02-middle", "03-anneal"]
    (out / "02-middle" / "mine.txt").write_text("")
    path = write(work, "one.yaml", only={name: STABLE.get(name, 0) + 1 for name in SHARDS})
    emit(path, out, force=True)
    assert sorted(entry.name for entry in out.iterdir() if entry.is_dir()) == ["01-only", "02-middle"]
    assert [entry.name for entry in (out / "02-middle").iterdir()] == ["mine.txt"]
