"""verify of what emit writes for Megatron, nanotron and Hugging Face: weights and token files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from recipes_making import write_recipe
from typer.testing import CliRunner

from mixplan.cli import app
from mixplan.errors import InputError
from mixplan.recipes.emitting import emit
from mixplan.recipes.formats_settings import index_problem
from mixplan.recipes.verifying import How, verify
from mixplan.recipes.written import Options

pytest_plugins = ["recipes_verifying"]
PLAN = How(plan_only=True)
WITH_DATA = Options(with_data=True)
FORMATS = ("megatron", "nanotron", "huggingface")
WEIGHTED = {"megatron": "blend.txt", "nanotron": "nanotron.yaml", "huggingface": "hf_mixture.json"}
TOKENS = {"megatron": "tokens.bin", "nanotron": "00000.ds", "huggingface": "tokens.parquet"}


def emitted(small: Path, format: str, options: Options = WITH_DATA) -> Path:
    emit(small / "recipe.yaml", small / "other", format, options)
    return small / "other"


def tokens_of(folder: Path, format: str, source: str = "s40") -> Path:
    (path,) = folder.glob(f"data/{source}-*/{TOKENS[format]}")
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_written_is_verified(small: Path, format: str) -> None:
    folder = emitted(small, format)
    found = verify(folder)
    assert (found.problems, found.warnings, found.checked) == ([], [], "files")
    assert found.shards_hashed == found.shards_checked == (4 if format == "megatron" else 2)
    shown = CliRunner().invoke(app, ["verify", str(folder)])
    assert "the token files are those that were emitted; in which order the trainer reads" in shown.output


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_token_files_are_found(small: Path, format: str) -> None:
    folder = emitted(small, format)
    path = tokens_of(folder, format)
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + bytes(255 - byte for byte in whole[8:16]) + whole[16:])
    (problem,) = verify(folder).problems
    assert problem.startswith(f"source 's40': {path}: its content is not what was written")
    assert verify(folder, PLAN).passed  # sizes only, and it says so
    shown = CliRunner().invoke(app, ["verify", str(folder), "--plan-only"])
    assert "there in full size, what is in them was not read" in shown.output
    path.write_bytes(whole[:-2])
    for how in (How(), PLAN):
        (problem,) = verify(folder, how).problems
        assert problem.startswith(f"source 's40': {path} has {len(whole) - 2:,} bytes, not {len(whole):,}")
    path.unlink()
    (problem,) = verify(folder, PLAN).problems
    assert problem.startswith(f"source 's40': {path} is missing")


@pytest.mark.parametrize("format", FORMATS)
def test_changed_weights_are_found(small: Path, format: str) -> None:
    folder = emitted(small, format)
    path = folder / WEIGHTED[format]
    old = path.read_text()
    weight = {"megatron": "150 ", "nanotron": "- 150.0", "huggingface": '"choose": 150'}[format]
    assert weight in old
    path.write_text(old.replace(weight, weight.replace("150", "1500")))
    problems = verify(folder).problems
    assert f"{path}: source 's97': 1,500 samples are taken, the recipe says 150; emit again" in problems
    path.write_text(old.replace("s97-", "s96-").replace('"s97"', '"s96"'))
    assert any("where source 's97' should be" in problem for problem in verify(folder).problems)
    path.write_text("1 2 3: {")
    with pytest.raises(InputError, match="not what `mixplan emit` writes"):
        verify(folder)


@pytest.mark.parametrize(
    ("format", "name", "changes"),
    [
        ("megatron", "megatron.sh", ["--train-samples 180", "--seq-length 16"]),
        ("nanotron", "nanotron.yaml", ["sequence_length: 16"]),
        ("huggingface", "hf_mixture.json", ['"samples": 180', '"sequence_length": 16']),
    ],
)
def test_settings_of_another_run_are_found(small: Path, format: str, name: str, changes: list[str]) -> None:
    folder = emitted(small, format)
    before = (folder / name).read_text()
    for old in changes:
        assert before.count(old) == 1
        (folder / name).write_text(before.replace(old, f"{old}0"))
        said = "the run is 1,800 samples" if "180" in old else "samples have 160 tokens"
        assert any(said in problem for problem in verify(folder).problems)


@pytest.mark.parametrize("format", ["megatron", "nanotron"])
def test_without_data_only_the_weights_are_verified(small: Path, format: str) -> None:
    folder = emitted(small, format, Options())
    found = verify(folder)
    assert found.problems == [] and found.checked == "weights"
    assert "none of the token files" in found.warnings[1]


def test_the_shards_that_a_program_reads_are_verified(small: Path) -> None:
    folder = emitted(small, "huggingface", Options())
    assert verify(folder).problems == [] and verify(folder).checked == "files"
    shard = small / "mds" / "s40" / "shard.00003.mds"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 0x10
    shard.write_bytes(bytes(data))
    assert [str(shard) in problem for problem in verify(folder).problems] == [True]
    index = small / "mds" / "s97" / "index.json"
    index.write_text(index.read_text() + " ")
    assert any(f"{index} is not the one that" in problem for problem in verify(folder).problems)


def test_files_of_the_users_own_are_not_vouched_for(small: Path) -> None:
    folder = emitted(small, "megatron", Options())
    for name in ("a.bin", "a.idx", "b.bin", "b.idx"):
        (small / name).touch()
    (folder / "blend.txt").write_text(f"150 {small}/a\n30 {small}/b\n")
    found = verify(folder)
    assert found.problems == [] and found.checked == "weights"
    assert "was not written by emit" in found.warnings[-1]


def test_a_copied_megatron_folder_names_the_other(small: Path) -> None:
    folder = emitted(small, "megatron")
    folder.rename(small / "moved")
    problems = verify(small / "moved").problems
    assert f"megatron.sh lets Megatron read {folder}/blend.txt, not {small}/moved/blend.txt" in problems[0]


def test_several_formats_in_one_folder_are_all_verified(small: Path) -> None:
    emit(small / "recipe.yaml", small / "out", "megatron", WITH_DATA)
    found = verify(small / "out", PLAN)
    assert found.problems == [] and found.checked == "plan" and len(found.sources) == 2
    tokens_of(small / "out", "megatron").write_bytes(b"")
    (problem,) = verify(small / "out", PLAN).problems
    assert "has 0 bytes" in problem


def test_every_phase_has_the_recipes_weights(small: Path) -> None:
    phases = [
        {"name": "stable", "samples": 100, "choose": {"s97": 95, "s40": 5}},
        {"name": "anneal", "samples": 80, "choose": {"s97": 55, "s40": 25}},
    ]
    emit(write_recipe(small, {"s97": 150, "s40": 30}, phases=phases), small / "phased", "nanotron", WITH_DATA)
    found = verify(small / "phased")
    assert (found.problems, found.checked, found.shards_hashed) == ([], "files", 4)
    recipe = yaml.safe_load((small / "phased" / "recipe.yaml").read_text())
    recipe["phases"][0]["choose"] = {"s97": 94, "s40": 6}
    recipe["phases"][1]["choose"] = {"s97": 56, "s40": 24}
    (small / "phased" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert (
        "01-stable: source 's97': weights.json takes 95 samples, the recipe says 94; emit again"
        in verify(small / "phased").problems
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-8], "has not the size that its counts say"),
        (lambda data: data[:17] + b"\x07" + data[18:], "is no index of Megatron's"),
        (lambda data: data[:20], "is no index of Megatron's"),
    ],
)
def test_an_index_that_does_not_fit_its_tokens(
    small: Path, change: Callable[[bytes], bytes], said: str
) -> None:
    folder = emitted(small, "megatron")
    tokens = tokens_of(folder, "megatron")
    index = tokens.with_suffix(".idx")
    size = tokens.stat().st_size
    assert index_problem(index, size) is None
    assert f"describes {size:,} bytes of tokens" in str(index_problem(index, size + 2))
    index.write_bytes(change(index.read_bytes()))
    assert said in str(index_problem(index, size))


def test_the_report_shows_files(small: Path) -> None:
    from mixplan.documents.verification import Verified
    from mixplan.report.figures.verification import figure

    folder = emitted(small, "nanotron")
    drawn = figure(Verified.model_validate(json.loads(json.dumps(verify(folder).to_json()))))
    assert drawn.finding == "Weights and token files are as they were emitted."
    tokens_of(folder, "nanotron").unlink()
    drawn = figure(Verified.model_validate(json.loads(json.dumps(verify(folder).to_json()))))
    assert "1 problem" in drawn.finding
