"""emit --format olmo-core: what OLMo-core's own builder makes of it is the recipe, sample by sample."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from olmo_core_making import sparse_mixture
from recipes_making import LENGTH, recipe_data, write_plan, write_recipe, write_text

from mixplan.documents.loading import load
from mixplan.documents.olmo_core import OlmoCoreMixture
from mixplan.errors import InputError
from mixplan.recipes import olmo_core_files
from mixplan.recipes.building import build
from mixplan.recipes.emitting import emit
from mixplan.recipes.olmo_core import (
    repetition_ratio,
    smallest_dtype,
    source_list,
    target_ratio,
)
from mixplan.recipes.olmo_core_reading import verify_olmo_core
from mixplan.recipes.shard_tokens import samples_of
from mixplan.recipes.verifying import How, verify
from mixplan.recipes.written import Options

SIZES = {"web": 60, "code": 40, "rare": 20}
CHOOSE = {"web": 50, "code": 40, "rare": 45}
WITH_DATA = Options(with_data=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for number, (name, samples) in enumerate(SIZES.items()):
        write_text(folder / "text" / name, samples, documents=20, seed=number)
    build(write_plan(folder, {name: {"text": [f"text/{name}"], "mds": f"mds/{name}"} for name in SIZES}))
    return folder


@pytest.fixture
def work(built: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    shutil.copytree(built / "mds", tmp_path / "mds")
    return tmp_path


@pytest.fixture
def emitted(work: Path) -> Path:
    emit(write_recipe(work, CHOOSE, ("rare",)), work / "out", "olmo-core", WITH_DATA)
    return work / "out"


def files_of(folder: Path, source: str) -> list[Any]:
    described = load(folder / "olmo_core.yaml", OlmoCoreMixture)
    return [file for file in described.files if file.source == source]


def rows_of(folder: Path, source: str) -> list[bytes]:
    """Samples in a source's files, each as its token ids in eight bytes."""
    dtype = load(folder / "olmo_core.yaml", OlmoCoreMixture).dtype
    arrays = [np.fromfile(file.path, dtype).reshape(-1, LENGTH) for file in files_of(folder, source)]
    return [row.tobytes() for row in np.concatenate(arrays).astype(np.int64)]


def samples_in(shards: Path) -> list[bytes]:
    return [row.tobytes() for part in samples_of(shards, 257) for row in part.astype(np.int64)]


def test_files_hold_whole_samples_of_their_source_each_once_in_random_order(
    work: Path, emitted: Path
) -> None:
    for name, choose in CHOOSE.items():
        held, there = rows_of(emitted, name), samples_in(work / "mds" / name)
        assert len(held) == min(choose, SIZES[name])
        assert not Counter(held) - Counter(there)
        places = [there.index(row) for row in held]
        assert places != sorted(places) and max(places) > len(held) // 2


def test_another_seed_draws_other_samples_into_files_of_another_name(work: Path, emitted: Path) -> None:
    recipe = write_recipe(work, CHOOSE, ("rare",), shuffle_seed=5)
    emit(recipe, work / "other", "olmo-core", WITH_DATA)
    assert set(rows_of(work / "other", "web")) != set(rows_of(emitted, "web"))
    assert Path(files_of(work / "other", "web")[0].path).name != Path(files_of(emitted, "web")[0].path).name


def test_files_do_not_depend_on_the_order_of_sources(work: Path, emitted: Path) -> None:
    recipe = write_recipe(work, dict(reversed(CHOOSE.items())), ("rare",))
    emit(recipe, work / "other", "olmo-core", WITH_DATA)
    for name in CHOOSE:
        assert rows_of(work / "other", name) == rows_of(emitted, name)
        assert Path(files_of(work / "other", name)[0].path).name == Path(files_of(emitted, name)[0].path).name


def test_what_olmo_core_makes_of_it_is_the_recipe(emitted: Path) -> None:
    found = verify_olmo_core(emitted)
    assert found.problems == [] and found.passed
    assert {one.name: one.samples for one in found.sources} == CHOOSE
    assert {one.name: one.distinct_samples for one in found.sources} == {"web": 50, "code": 40, "rare": 20}
    assert {one.name: one.most_repeats for one in found.sources} == {"web": 1, "code": 1, "rare": 3}
    assert {one.name: one.epochs for one in found.sources} == {"web": 50 / 60, "code": 1.0, "rare": 45 / 20}
    assert (found.samples, found.shards_checked, found.shards_hashed) == (135, 3, 3)
    assert found.resumption is not None
    assert found.resumption.same_order and found.resumption.other_state_refused
    assert (found.resumption.stopped_at_samples, found.resumption.samples) == (67, 68)


def test_many_files(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(olmo_core_files, "FILE_TOKENS", 18 * LENGTH)
    emit(write_recipe(work, CHOOSE, ("rare",)), work / "out", "olmo-core", WITH_DATA)
    assert [file.samples for file in files_of(work / "out", "web")] == [16, 17, 17]
    assert [file.samples for file in files_of(work / "out", "rare")] == [10, 10]
    assert [file.choose for file in files_of(work / "out", "rare")] == [25, 20]
    for name in CHOOSE:
        assert len(set(rows_of(work / "out", name))) == min(CHOOSE[name], SIZES[name])
    found = verify_olmo_core(work / "out")
    assert found.passed and {one.name: one.samples for one in found.sources} == CHOOSE


@pytest.mark.parametrize("seed", range(12))
def test_olmo_core_takes_exactly_the_samples_of_random_recipes(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 to 50 sources of up to 10⁸ tokens, 0.01 to 20 epochs, one to dozens of files a source."""
    from mixplan.recipes import olmo_core_loader

    rng = np.random.default_rng(seed)
    monkeypatch.setattr(olmo_core_files, "FILE_TOKENS", int(rng.choice([2**22, 2**25, 2**31])))
    recipe, described = sparse_mixture(tmp_path, rng)
    (tmp_path / "olmo_core.yaml").write_text(yaml.safe_dump(described.model_dump(mode="json")))
    (tmp_path / "source_mixture.yaml").write_text(source_list(described))
    dataset = olmo_core_loader.token_files(tmp_path).build()
    taken: Counter[str] = Counter()
    for path, (start, end) in zip(dataset.paths, dataset.offsets, strict=True):
        taken[Path(path).parent.name.removesuffix("-0")] += end - start
    assert dict(taken) == {source.name: source.choose for source in recipe.sources}
    olmo_core_loader.check_amounts(dataset, described.model_dump(mode="json"))


def test_ratios_are_the_least_that_give_the_tokens() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        requested = int(rng.integers(1, 2**42))
        tokens = int(rng.integers(1, requested + 1))
        ratio = target_ratio(tokens, requested)
        assert int(requested * ratio) == tokens and ratio == pytest.approx(tokens / requested, rel=1e-15)
        held = int(rng.integers(1, 2**31))
        repetition = repetition_ratio(tokens, held)
        assert int(held * repetition) >= tokens
        assert repetition == pytest.approx(max(1.0, tokens / held), rel=1e-15) and repetition >= 1


def test_dtype_is_the_one_that_olmo_core_assumes() -> None:
    from olmo_core.data import NumpyFSLDatasetConfig, TokenizerConfig

    for vocab_size in (2, 256, 257, 65536, 65537, 100278):
        tokenizer = TokenizerConfig(vocab_size=vocab_size, eos_token_id=0, pad_token_id=0)
        config = NumpyFSLDatasetConfig(paths=["a"], sequence_length=8, tokenizer=tokenizer)
        assert smallest_dtype(vocab_size) == np.dtype(config.get_dtype()).name
    with pytest.raises(InputError, match="does not fit 32 bits"):
        smallest_dtype(2**32 + 1)


def test_without_data_the_shards_are_read_through_the_adapter(work: Path) -> None:
    emitted = emit(write_recipe(work, CHOOSE, ("rare",)), work / "out", "olmo-core")
    names = {path.name for path in emitted.files}
    assert {"streams.yaml", "loader.py", "recipe.yaml", "olmo_core_loader.py"} <= names
    assert not {"olmo_core.yaml", "source_mixture.yaml"} & names and not (work / "out" / "data").exists()


def test_one_folder_holds_one_kind(work: Path, emitted: Path) -> None:
    recipe, shards = work / "recipe.yaml", work / "shards"
    for format in ("olmo-core", "streaming", "llm-foundry"):
        with pytest.raises(InputError, match=r"holds another mixture.*olmo_core\.yaml.* would go"):
            emit(recipe, emitted, format)
    for format in ("olmo-core", "streaming"):
        emit(recipe, shards, format, force=True)
        with pytest.raises(InputError, match=r"holds another mixture.*streams\.yaml would go"):
            emit(recipe, shards, "olmo-core", WITH_DATA)
        emit(recipe, shards, "olmo-core", WITH_DATA, force=True)
        assert not (shards / "streams.yaml").exists() and verify_olmo_core(shards).passed
    emit(recipe, shards, "streaming", force=True)
    assert not (shards / "olmo_core.yaml").exists()


def test_again_leaves_files_alone_and_says_which_are_not_of_this_mixture(work: Path, emitted: Path) -> None:
    paths = sorted((emitted / "data").rglob("*.npy"))
    before = [(path.stat().st_mtime_ns, path.stat().st_ino) for path in paths]
    emit(work / "recipe.yaml", emitted, "olmo-core", WITH_DATA)
    assert [(path.stat().st_mtime_ns, path.stat().st_ino) for path in paths] == before
    other = write_recipe(work, {**CHOOSE, "web": 51}, ("rare",))
    said = emit(other, emitted, "olmo-core", WITH_DATA, force=True).notes
    assert [note for note in said if "is not of this mixture" in note and "/web-" in note]
    assert len(sorted((emitted / "data").rglob("*.npy"))) == 4  # the others' were right as they were
    assert verify_olmo_core(emitted).passed


def test_interrupted_writing_leaves_nothing_and_starts_anew(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(work, CHOOSE, ("rare",))

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(olmo_core_files, "_held", stopped)
        with pytest.raises(KeyboardInterrupt):
            emit(recipe, work / "out", "olmo-core", WITH_DATA)
    assert not list((work / "out" / "data").iterdir())
    emit(recipe, work / "out", "olmo-core", WITH_DATA)
    emit(recipe, work / "whole", "olmo-core", WITH_DATA)
    assert {path.name: path.read_bytes() for path in (work / "out").rglob("*.npy")} == {
        path.name: path.read_bytes() for path in (work / "whole").rglob("*.npy")
    }


def test_each_phase_has_files_of_its_own(work: Path) -> None:
    stable, anneal = {"web": 40, "code": 30, "rare": 10}, {"web": 10, "code": 10, "rare": 35}
    phases = [
        {"name": "stable", "samples": 80, "choose": stable},
        {"name": "anneal", "samples": 55, "choose": anneal},
    ]
    emit(write_recipe(work, CHOOSE, ("rare",), phases=phases), work / "out", "olmo-core", WITH_DATA)
    for name, choose in (("01-stable", stable), ("02-anneal", anneal)):
        found = verify_olmo_core(work / "out" / name)
        assert found.passed and {one.name: one.samples for one in found.sources} == choose
    assert set(rows_of(work / "out" / "02-anneal", "web")) - set(rows_of(work / "out" / "01-stable", "web"))


def write_mds(folder: Path, samples: np.ndarray) -> None:
    """Shards that `build` did not write: nothing says which token ends a document."""
    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    from streaming import MDSWriter

    shutil.rmtree(folder)
    columns = {"tokens": f"ndarray:int32:{LENGTH}"}
    with MDSWriter(out=str(folder), columns=columns, progress_bar=False) as writer:
        for sample in samples.astype(np.int32):
            writer.write({"tokens": sample})


def test_a_file_without_the_end_of_a_document_is_refused(work: Path) -> None:
    write_mds(work / "mds" / "web", np.random.default_rng(0).integers(0, 256, (60, LENGTH)))
    with pytest.raises(
        InputError, match=r"source 'web': no document ends in web-.*: the token 256 is not in it"
    ):
        emit(write_recipe(work, CHOOSE, ("rare",)), work / "out", "olmo-core", WITH_DATA)
    assert not list((work / "out" / "data").iterdir())


def test_ids_beyond_the_vocabulary_are_refused(work: Path) -> None:
    write_mds(work / "mds" / "web", np.random.default_rng(0).integers(0, 258, (60, LENGTH)))
    with pytest.raises(InputError, match=r"source 'web': .*vocabulary has 257 tokens"):
        emit(write_recipe(work, CHOOSE, ("rare",)), work / "out", "olmo-core", WITH_DATA)
    assert not list((work / "out" / "data").iterdir())


def test_an_unknown_end_of_document_is_refused(work: Path) -> None:
    (work / "mds" / "web" / "source.json").unlink()
    (work / "mds" / "code" / "source.json").unlink()
    data = recipe_data(work, CHOOSE, ("rare",))
    data["tokenizer"] = {"kind": "huggingface", "path": "t"}
    shutil.rmtree(work / "mds" / "rare")
    data["sources"][2]["choose"] = 0
    for number, source in enumerate(data["sources"]):
        choose = (50, 40, 0)[number]
        source.update(choose=choose, share=choose / 90, tokens=choose * LENGTH)
    data.update(samples=90, tokens=90 * LENGTH)
    (work / "recipe.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(InputError) as caught:
        emit(work / "recipe.yaml", work / "out", "olmo-core", WITH_DATA)
    assert len(caught.value.problems) == 2
    assert all("which token ends a document is not known" in problem for problem in caught.value.problems)


def test_different_ends_of_documents_and_shared_shards_are_refused(work: Path) -> None:
    path = work / "mds" / "rare" / "source.json"
    path.write_text(path.read_text().replace('"end_of_document_id": 256', '"end_of_document_id": 0'))
    data = recipe_data(work, CHOOSE, ("rare",))
    data["sources"][0].update(mds="mds/code", tokens_available=640.0)
    (work / "recipe.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(InputError) as caught:
        emit(work / "recipe.yaml", work / "out", "olmo-core", WITH_DATA)
    said = "\n".join(caught.value.problems)
    assert "sources web, code read the same shards" in said
    assert "256 in web, code; 0 in rare" in said


def test_a_damaged_shard_is_not_copied(work: Path) -> None:
    shard = sorted((work / "mds" / "code").glob("*.mds*"))[0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"source 'code': .*content is not what was written"):
        emit(write_recipe(work, CHOOSE, ("rare",)), work / "out", "olmo-core", WITH_DATA)


def test_a_file_that_is_not_whole_is_not_taken_for_one(work: Path, emitted: Path) -> None:
    path = Path(files_of(emitted, "web")[0].path)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match="has 1,598 bytes, not 1,600; move"):
        emit(work / "recipe.yaml", emitted, "olmo-core", WITH_DATA)
    assert "has 1,598 bytes, not 1,600" in verify_olmo_core(emitted).problems[0]


def test_the_plan_looks_at_sizes_and_not_into_files(emitted: Path) -> None:
    flip(emitted)
    found = verify(emitted, How(plan_only=True))
    assert found.passed and found.shards_hashed == 0 < found.shards_checked
    (problem,) = verify(emitted).problems
    assert "its content is not what was written" in problem
    path = Path(files_of(emitted, "web")[0].path)
    path.write_bytes(path.read_bytes()[:-2])
    assert "has 1,598 bytes, not 1,600" in verify(emitted, How(plan_only=True)).problems[0]


def test_damage_of_the_same_size_is_seen_when_files_are_kept(work: Path, emitted: Path) -> None:
    flip(emitted)
    with pytest.raises(InputError, match=r"rare-.*its content is not what was written; move .* away"):
        emit(work / "recipe.yaml", emitted, "olmo-core", WITH_DATA)


def edit(path: Path, change: Any) -> None:
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data, sort_keys=False))


def flip(folder: Path) -> None:
    path = Path(files_of(folder, "rare")[0].path)
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(bytes(content))


def lose(folder: Path) -> None:
    Path(files_of(folder, "rare")[0].path).unlink()


def other_ratio(folder: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["sources"][0]["target_ratio"] -= 1 / 135
        data["sources"][2]["target_ratio"] += 1 / 135
        data["sources"][2]["max_repetition_ratio"] = 3.0

    edit(folder / "source_mixture.yaml", change)


def too_few_repeats(folder: Path) -> None:
    edit(folder / "source_mixture.yaml", lambda data: data["sources"][2].update(max_repetition_ratio=1.0))


def other_amounts(folder: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["files"][0]["choose"] -= 1
        data["files"][2]["choose"] += 1

    edit(folder / "olmo_core.yaml", change)


@pytest.mark.parametrize(
    ("damage", "messages"),
    [
        (flip, ["content is not what was written"]),
        (lose, ["is missing; emit again"]),
        (other_ratio, ["does not build the mixture"]),
        (too_few_repeats, ["Insufficient tokens for source: rare-"]),
        (other_amounts, ["was changed after it was emitted", "takes 49 samples, the recipe says 50"]),
    ],
)
def test_verify_finds(emitted: Path, damage: Any, messages: list[str]) -> None:
    damage(emitted)
    found = verify_olmo_core(emitted)
    assert not found.passed
    for message in messages:
        assert [problem for problem in found.problems if message in problem], found.problems


def test_verify_needs_olmo_core_and_its_files(emitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.delitem(sys.modules, "mixplan.recipes.olmo_core_loader", raising=False)
        patched.delattr("mixplan.recipes.olmo_core_loader", raising=False)
        patched.setitem(sys.modules, "olmo_core", None)
        patched.setitem(sys.modules, "olmo_core.data", None)
        with pytest.raises(InputError, match="pip install ai2-olmo-core"):
            verify_olmo_core(emitted)
    (emitted / "source_mixture.yaml").unlink()
    with pytest.raises(InputError, match=r"holds no source_mixture\.yaml"):
        verify_olmo_core(emitted)
