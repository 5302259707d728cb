"""Mistakes in documents: each is named in plain words, with its line, all at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixplan.documents import CalibrationSpec, Plan, Recipe, load, save
from mixplan.documents.registry import KINDS, schema, validate
from mixplan.errors import InputError

# Words of the validation library that mean nothing to a user.
JARGON = re.compile(
    r"function-after|function-before|Input should|valid dictionary|instance of|pydantic|Extra inputs"
    r"|Field required|Value error|type=|\[str\]|ValidationError"
)

SPEC = """\
schema_version: 1
corpus:
  paths: [text]
ladder:
  - cpu_8k
  - {name: own, d_model: 16, layers: 2, heads: 4, d_ffn: 64}
horizons: {tokens: [1e6]}
tasks:
  - family: comparison
    complexities: [4, 8]
    frequencies: [1e-3]
"""

PLAN = """\
sources:
  - {name: web, role: common, tokens_available: 1e6}
  - {name: rare, role: rare, tokens_available: 1e4}
tasks:
  - name: skill
    density: {rare: 0.01}
    family: comparison
    complexity: 8
sizes: [cpu_8k]
budget: {tokens: 1e6}
"""


def complaints(tmp_path: Path, text: str, kind: type = CalibrationSpec, name: str = "f.yaml") -> list[str]:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load(path, kind)
    assert caught.value.exit_code == 2
    for problem in caught.value.problems:
        assert not JARGON.search(problem), problem
    return [problem.removeprefix(f"{path}") for problem in caught.value.problems]


def test_the_correct_ones_are_correct(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "p.yaml").write_text(PLAN)
    spec = load(tmp_path / "s.yaml", CalibrationSpec)
    assert [shape.name for shape in spec.shapes()] == ["cpu_8k", "own"]
    assert spec.horizons.tokens == [1_000_000] and spec.tasks[0].frequencies == [0.001]
    assert load(tmp_path / "p.yaml", Plan).budget.tokens == 1e6


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("corpus:", "copus: 1\ncorpus:", ":2: unknown key 'copus'; did you mean 'corpus'?"),
        ("paths: [text]", "path: [text]", ":3: unknown key 'corpus.path'; did you mean 'paths'?"),
        ("d_ffn: 64", "d_ffn: 64, d_fn: 3", ":6: unknown key 'ladder[1].d_fn'; did you mean 'd_ffn'?"),
        ("family:", "frequency: 1\n    family:", ":9: unknown key 'tasks[0].frequency'; did you mean 'frequ"),
        ("tasks:", "probes: {retention: {delays: 1}}\ntasks:", ":8: unknown key 'probes.retention.delays';"),
        ("tasks:", "compile: true\ntasks:", ":8: unknown key 'compile'; did you mean 'training.compile'?"),
        ("tasks:", "modulus: 1\ntasks:", ":8: unknown key 'modulus'; known: architecture, corpus,"),
        ("corpus:", "1: x\ncorpus:", ":2: the key 1 must be text; put it in quotes"),
        ("- cpu_8k", "- cpu_9k", ":5: ladder[0]: 'cpu_9k' is no preset; did you mean"),
        ("- cpu_8k", "- 8", ":5: ladder[0]: text or a mapping with the keys name, d_model, layers, heads, d"),
        ("- cpu_8k", "-", ":5: ladder[0]: text or a mapping"),
        ("heads: 4", "heads: 3", ":6: ladder[1]: heads=3 must divide d_model=16 into an even head width; us"),
        ("heads: 4", "heads: four", ":6: ladder[1].heads: a number is needed, not text (given: 'four')"),
        ("heads: 4, ", "", ":6: ladder[1].heads is missing; it is required: Attention heads;"),
        ("name: own", "name: a/b", ":6: ladder[1].name: a name has only letters, digits"),
        ("name: own", "name: " + "x" * 101, ":6: ladder[1].name: at most 100 characters (given: 'xxx"),
        ("name: own", "name: cpu_8k", ":4: ladder: given twice: cpu_8k"),
        ("{tokens: [1e6]}", "", ":7: horizons: a mapping with the keys tokens, tokens_per_20_params, bra"),
        ("{tokens: [1e6]}", "{tokens: 1e6}", ":7: horizons.tokens: a list like [a, b] is needed (given: 1"),
        ("[1e6]", "[1e6, 2.5]", ":7: horizons.tokens[1]: a whole number is needed (given: 2.5)"),
        ("[1e6]", '["1e6"]', ":7: horizons.tokens[0]: a number is needed, not text (given: '1e6')"),
        ("[1e6]", "[true]", ":7: horizons.tokens[0]: a number is needed, not true or false"),
        ("[1e6]", "[.inf]", ":7: horizons.tokens[0]: "),
        ("[1e6]", "[0]", ":7: horizons.tokens[0]: must be ≥ 1 (given: 0)"),
        ("[1e-3]", "[-1e-3]", ":11: tasks[0].frequencies[0]: must be > 0 (given: -0.001)"),
        ("[1e-3]", "[1e-3, 1e-3]", ":11: tasks[0].frequencies: given twice: 0.001"),
        ("[1e-3]", "[.nan]", ":11: tasks[0].frequencies[0]: the number must be finite"),
        ("[4, 8]", "[2]", ":10: tasks[0].complexities: each complexity must be at least 3"),
        ("family: comparison", "family: comparision", ":9: tasks[0].family: must be 'comparison'"),
        ("schema_version: 1", "schema_version: 2", ":1: schema_version: this program reads version 1 (given"),
        ("corpus:", "name: 5\ncorpus:", ":2: name: text is needed; put it in quotes (given: 5)"),
        ("tasks:", "seeds: 3\ntasks:", ":8: seeds: a list like [a, b] is needed (given: 3)"),
        ("tasks:", "engine: local\ntasks:", ":8: engine: a mapping with the keys kind, device, slots,"),
        ("tasks:", "training: {compile: maybe}\ntasks:", ":8: training.compile: true or false is needed (gi"),
        ("tasks:", "training: {rule: fixed}\ntasks:", ":8: training: rule fixed needs both `learning_rate`"),
        ("tasks:", "tokenizer: {kind: none}\ntasks:", ":8: tokenizer: `vocab_size` and `end_of_document_id`"),
        ("corpus:\n  paths: [text]\n", "", ": corpus is missing; it is required"),
        ("paths: [text]", "paths: []", ":3: corpus.paths: at least one path is needed"),
    ],
)  # fmt: skip
def test_one_mistake_one_message_with_its_line(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in SPEC
    found = complaints(tmp_path, SPEC.replace(old, new, 1))
    assert any(
        text.startswith(problem) or text.replace(":1: ", ": ", 1).startswith(problem) for text in found
    ), found
    related = [text for text in found if "is missing" not in text]  # a misspelt key is also a missing one
    assert len(related) <= 1


def test_all_at_once_in_the_order_of_the_lines(tmp_path: Path) -> None:
    text = SPEC.replace("- cpu_8k", "- 8").replace("heads: 4", "heads: 3").replace("[4, 8]", "[4, x]")
    found = complaints(tmp_path, text.replace("paths:", "pahts:"))
    assert [int(text.split(":")[1]) for text in found] == [2, 3, 5, 6, 10]


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        ("{rare: 0.01}", "{rear: 0.01}", [
            ":6: tasks[0].density.rear: task 'skill' is in an unknown source, 'rear'; did you mean 'rare'?"]),
        ("{rare: 0.01}", "{}", [
            ":5: tasks[0]: task 'skill' is in no source; give `density` at least one source, or `source` "
            "for a source as a whole"]),
        ("{rare: 0.01}", "{rare: -1}", [":6: tasks[0].density.rare: must be > 0 (given: -1)"]),
        ("role: common, ", "role: rare, natural_share: 0.5, ", [
            ":1: at least one source needs role: common, or nothing gives way to the rare ones",
            ":1: natural_share is given for some sources only; give it for all or for none"]),
        ("[cpu_8k]", "[cpu_8k, cpu_9k]", [":9: sizes[1]: 'cpu_9k' is no preset; did you mean 'cpu_19k'?; "
                                          "`mixplan schema presets` lists them"]),
        ("{tokens: 1e6}", "{}", [":10: budget: give at least one of tokens, flops, gpu_hours, money"]),
        ("role: rare, ", "role: rare, max_share: 0.3, min_share: 0.6, ", [
            ":3: sources[1]: min_share=0.6 exceeds max_share=0.3"]),
    ],
)  # fmt: skip
def test_rules_over_several_fields_of_a_plan(tmp_path: Path, old: str, new: str, problems: list[str]) -> None:
    assert old in PLAN
    assert complaints(tmp_path, PLAN.replace(old, new, 1), Plan) == problems


@pytest.mark.parametrize(
    ("shares", "rule"),
    [
        (("natural_share: 0.5", "natural_share: 0.2"), "natural shares sum to 0.7; they must sum to 1"),
        (
            ("min_share: 0.7", "min_share: 0.6"),
            "the lower bounds on shares sum to 1.3; shares can only sum to 1: lower",
        ),
        (
            ("max_share: 0.3", "max_share: 0.6"),
            "the upper bounds on shares sum to 0.9; shares must sum to 1: raise them",
        ),
    ],
)
def test_shares_that_cannot_sum_to_one(tmp_path: Path, shares: tuple[str, str], rule: str) -> None:
    text = PLAN.replace("role: common", f"role: common, {shares[0]}").replace(
        "role: rare", f"role: rare, {shares[1]}"
    )
    (found,) = complaints(tmp_path, text, Plan)
    assert rule in found


def test_duplicates_do_not_hide_other_mistakes(tmp_path: Path) -> None:
    found = complaints(tmp_path, SPEC + "name: a\nname: b\nlader: 1\n")
    assert any("name is given twice (first in line 12)" in text for text in found)
    assert any("unknown key 'lader'; did you mean 'ladder'?" in text for text in found)


def test_json_has_the_same_messages_without_lines(tmp_path: Path) -> None:
    found = complaints(tmp_path, '{"corpus": {"pahts": []}, "ladder": [8]}', name="f.json")
    assert ": unknown key 'corpus.pahts'; did you mean 'paths'?" in found


def test_recipe_that_does_not_add_up_says_everything(tmp_path: Path) -> None:
    source = {
        "name": "a", "role": "common", "share": 0.5, "natural_share": 1, "rate": 1, "epochs": 1,
        "max_epochs": 4, "tokens": 7, "tokens_available": 100, "choose": 3,
    }  # fmt: skip
    text = (
        "name: r\nsize: {name: s, d_model: 16, layers: 2, heads: 4, d_ffn: 64}\nblock_params: 1\n"
        f"total_params: 1\nvocab_size: 257\nsequence_length: 4\nsamples: 4\ntokens: 17\n"
        f"sources: [{source}, {source}]\n"
    ).replace("'", "")
    found = complaints(tmp_path, text, Recipe)
    for rule in (
        "source 'a' is given twice", "`choose` sums to 6 over the sources, but samples is 4",
        "tokens is 17, but samples × sequence_length is 16", "share 0.5 is not choose ÷ samples = 0.75",
        "tokens is not choose × sequence_length",
    ):  # fmt: skip
        assert any(rule in text for text in found), rule


def test_validate_tells_the_kind_by_the_keys_and_then_by_the_name(tmp_path: Path) -> None:
    for name, text, kind in (
        ("ladder-for-code.yaml", SPEC, "calibration-spec"),
        ("calibration.yaml", SPEC, "calibration-spec"),
        ("what-i-want.yaml", PLAN, "plan"),
        ("old-recipe.yaml", PLAN, "plan"),
    ):
        (tmp_path / name).write_text(text)
        assert validate(tmp_path / name) == kind
    (tmp_path / "x.yaml").write_text("name: x\n")
    with pytest.raises(InputError, match="cannot tell what kind of document"):
        validate(tmp_path / "x.yaml")
    (tmp_path / "plan.yaml").write_text("name: x\n")
    with pytest.raises(InputError, match="sources is missing"):
        validate(tmp_path / "plan.yaml")
    with pytest.raises(InputError, match=r"no learning\.csv or learning\.parquet here"):
        validate(tmp_path)


def test_schemas() -> None:
    for name in KINDS:
        described = schema(name)
        assert described["additionalProperties"] is False
        assert described["properties"]["schema_version"]["const"] == 1
    assert {"learning", "retention", "interference", "features"} <= set(schema("measurements"))
    assert (
        schema("presets")["olmo2_1B"]["block_params"]
        == 16 * (4 * 2048**2 + 3 * 2048 * 8192) + 4 * 16 * 2048 + 2048
    )
    with pytest.raises(InputError, match="did you mean 'recipe'"):
        schema("receipe")


def test_saved_with_a_comment(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PLAN)
    plan = load(tmp_path / "p.yaml", Plan)
    save(plan, tmp_path / "q.yaml", header="line one\n\nline two")
    assert (tmp_path / "q.yaml").read_text().startswith("# line one\n#\n# line two\nschema_version: 1\n")
    assert load(tmp_path / "q.yaml", Plan) == plan
