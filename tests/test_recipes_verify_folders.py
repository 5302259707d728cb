"""verify of a run of several phases, and of folders that hold weights only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipes_making import write_recipe
from typer.testing import CliRunner

from mixplan.cli import app
from mixplan.errors import InputError
from mixplan.recipes.emitting import emit
from mixplan.recipes.verifying import How, verify

pytest_plugins = ["recipes_verifying"]
PLAN = How(plan_only=True)


@pytest.fixture
def phased(small: Path) -> Path:
    """s97 in both phases, s40 mostly in the second."""
    phases = [
        {"name": "stable", "samples": 100, "choose": {"s97": 95, "s40": 5}},
        {"name": "anneal", "samples": 80, "choose": {"s97": 55, "s40": 25}},
    ]
    emit(write_recipe(small, {"s97": 150, "s40": 30}, phases=phases), small / "phased")
    return small / "phased"


def test_phases_are_verified_one_by_one_and_together(phased: Path) -> None:
    found = verify(phased, PLAN)
    assert found.problems == []
    assert list(found.phases) == ["01-stable", "02-anneal"]
    assert [[source.samples for source in phase.sources] for phase in found.phases.values()] == [
        [95, 5],
        [55, 25],
    ]
    assert [(source.name, source.samples, source.epochs) for source in found.sources] == [
        ("s97", 150, 150 / 97),
        ("s40", 30, 30 / 40),
    ]
    assert (found.samples, found.samples_expected, found.checked) == (180, 180, "plan")
    shown = CliRunner().invoke(app, ["verify", str(phased), "--plan-only"])
    assert shown.exit_code == 0, shown.output
    assert "02-anneal: Planned, against the recipe" in shown.output
    assert "all phases together: Planned, against the recipe" in shown.output
    as_json = CliRunner().invoke(app, ["verify", str(phased), "--plan-only", "--json"])
    assert json.loads(as_json.stdout)["phases"]["01-stable"]["passed"]


def test_phases_are_read(phased: Path, here: None) -> None:
    found = verify(phased)
    assert found.problems == []
    assert all(phase.resumption and phase.resumption.same_order for phase in found.phases.values())


def test_damage_in_a_phase_is_that_phases(phased: Path, small: Path) -> None:
    path = small / "mds" / "s40" / "shard.00003.mds"
    path.unlink()
    found = verify(phased, PLAN)
    assert found.problems == [
        f"{phase}: source 's40': {path} is missing, though its index lists it"
        for phase in ("01-stable", "02-anneal")
    ]


def edit(path: Path, **more: Any) -> None:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **more}))


def test_folders_of_another_run_are_found(phased: Path, small: Path) -> None:
    other = [
        {"name": "stable", "samples": 100, "choose": {"s97": 90, "s40": 10}},
        {"name": "anneal", "samples": 80, "choose": {"s97": 60, "s40": 20}},
    ]
    emit(write_recipe(small, {"s97": 150, "s40": 30}, phases=other), small / "other")
    (phased / "01-stable").rename(small / "away")
    (small / "other" / "01-stable").rename(phased / "01-stable")
    found = verify(phased, PLAN)
    assert found.problems[0].startswith("01-stable: it is not the mixture that phases.yaml lists")
    assert "source 's40': 35 samples come in all phases together, the recipe says 30" in found.problems


def test_caps_hold_over_all_phases(phased: Path) -> None:
    recipe = yaml.safe_load((phased / "recipe.yaml").read_text())
    recipe["sources"][0]["max_epochs"] = 1.2
    edit(phased / "recipe.yaml", sources=recipe["sources"])
    (problem,) = verify(phased, PLAN).problems
    assert problem.startswith("source 's97', in all phases together: choose=150 is 1.55 epochs")


def test_a_missing_phase_is_an_error(phased: Path, small: Path) -> None:
    (phased / "02-anneal").rename(small / "away")
    with pytest.raises(InputError, match=r"02-anneal/streams.yaml.* are missing, which emitted.json lists"):
        verify(phased, PLAN)


@pytest.mark.parametrize("without_list", [False, True])
def test_a_run_whose_phases_are_not_listed_is_no_table_of_weights(phased: Path, without_list: bool) -> None:
    (phased / "phases.yaml").unlink()
    if without_list:
        (phased / "emitted.json").unlink()
    with pytest.raises(InputError, match=r"phases.yaml.* is missing"):
        verify(phased)


def test_a_mixture_without_its_streams_is_no_table_of_weights(phased: Path, small: Path) -> None:
    for folder in (phased / "01-stable", small / "out"):
        (folder / "streams.yaml").unlink()
        with pytest.raises(InputError, match=r"streams.yaml is missing, which emitted.json lists"):
            verify(folder)
    with pytest.raises(InputError, match=r"01-stable/streams.yaml is missing"):
        verify(phased)
    (small / "out" / "emitted.json").write_text("{}")
    with pytest.raises(InputError, match=r"emitted.json is broken"):
        verify(small / "out")


def test_options_that_do_not_apply_are_refused(small: Path) -> None:
    with pytest.raises(InputError, match="--plan-only and --resume-check"):
        verify(small / "out", How(plan_only=True, resume_to_end=True))
    emit(small / "recipe.yaml", small / "weights", "weights")
    with pytest.raises(InputError, match=r"^--ranks, --workers, --plan-only: .* holds weights"):
        verify(small / "weights", How(ranks=2, workers=1, plan_only=True))
    with pytest.raises(InputError, match=r"^--resume-check, --allow-uneven: .* none of these applies"):
        verify(small / "weights", How(resume_to_end=True, allow_uneven=True))
    (small / "olmo").mkdir()
    (small / "olmo" / "olmo_core.yaml").touch()
    with pytest.raises(InputError, match=r"^--ranks, --resume-check: .* of these only --plan-only applies"):
        verify(small / "olmo", How(ranks=2, resume_to_end=True))


def test_out_replaces_an_earlier_answer_and_nothing_else(small: Path) -> None:
    command = ["verify", str(small / "out"), "--plan-only", "-o", str(small / "verify.json")]
    for _ in range(2):
        assert CliRunner().invoke(app, command).exit_code == 0
    assert json.loads((small / "verify.json").read_text())["passed"]
    for text in ("mine", '{"passed": true}'):
        (small / "verify.json").write_text(text)
        refused = CliRunner().invoke(app, command)
        assert isinstance(refused.exception, InputError)
        assert "verify does not overwrite it" in str(refused.exception)
        assert (small / "verify.json").read_text() == text
    assert CliRunner().invoke(app, [*command, "--force"]).exit_code == 0
    assert json.loads((small / "verify.json").read_text())["passed"]


def test_weights_are_added_up(small: Path) -> None:
    emit(small / "recipe.yaml", small / "weights", "weights")
    found = verify(small / "weights")
    assert found.passed and (found.checked, found.samples, found.samples_expected) == ("weights", 0, 180)
    assert "only the sums of weights.json were checked" in found.warnings[0]
    path = small / "weights" / "weights.json"
    given = json.loads(path.read_text())
    given["sources"]["s40"]["choose"] = 31
    path.write_text(json.dumps(given))
    problems = verify(small / "weights").problems
    assert len(problems) == 3 and "`choose` sums to 181 over the sources, but samples is 180" in problems[0]
    given["sources"]["s40"] |= {"choose": 30, "max_epochs": 0.7}
    path.write_text(json.dumps(given))
    (problem,) = verify(small / "weights").problems
    assert "choose=30 is 0.75 epochs of its 40 samples, more than max_epochs=0.7 allows" in problem
    path.write_text(json.dumps({"sources": 3}))
    with pytest.raises(InputError, match="not what `mixplan emit` writes"):
        verify(small / "weights")


def test_an_edited_loader_is_said(small: Path) -> None:
    path = small / "out" / "loader.py"
    path.write_text(path.read_text() + "\n# mine\n")
    (warning,) = verify(small / "out", PLAN).warnings
    assert warning.startswith(f"{path} is not the loader of this version")


@pytest.mark.parametrize(("checked", "title"), [("plan", "not read"), ("weights", "no data was read")])
def test_the_report_says_what_was_not_read(small: Path, checked: str, title: str) -> None:
    from mixplan.documents.verification import Verified
    from mixplan.report.figures.verification import figure

    emit(small / "recipe.yaml", small / "weights", "weights")
    found = verify(small / "weights") if checked == "weights" else verify(small / "out", PLAN)
    drawn = figure(Verified.model_validate(json.loads(json.dumps(found.to_json()))))
    assert title in drawn.topic
    assert ("add up" if checked == "weights" else "exactly the recipe's samples") in drawn.finding
