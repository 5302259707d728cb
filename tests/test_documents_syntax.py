"""YAML and JSON: scalars as YAML 1.2 reads them, and every way a file can be broken."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mixplan.documents.loading import read_data, read_text
from mixplan.documents.syntax import dump_yaml, parse
from mixplan.errors import InputError

YAML, JSON = Path("f.yaml"), Path("f.json")

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(
        ["1e5", "no", "on", "010", "1:30", "~", "null", "0x1f", "1_000", ".5", "=", "<<", "2020-01-01"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_what_is_dumped_is_read_back(data: Any) -> None:
    found = parse(YAML, dump_yaml({"top": data}))
    assert found.problems == []
    assert found.data == {"top": data}
    assert _types(found.data["top"]) == _types(data)


@given(PLAIN)
def test_other_readers_read_the_same(data: Any) -> None:
    """Whoever reads with YAML 1.1 (PyYAML) gets the same, so no plain scalar may be ambiguous."""
    assert yaml.safe_load(dump_yaml({"top": data})) == {"top": data}


def _types(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _types(value) for key, value in data.items()}
    return [_types(value) for value in data] if isinstance(data, list) else type(data)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("2.5E6", 2.5e6), ("1e9", 1e9), (".5e3", 500.0), ("-1.5", -1.5), ("1_000", 1000),
        ("0x1f", 31), ("0o17", 15), ("-.inf", -math.inf), ("no", "no"), ("on", "on"), ("yes", "yes"),
        ("010", "010"), ("1:30", "1:30"), ("2020-01-01", "2020-01-01"), ("true", True), ("~", None),
        ("", None), ("1e", "1e"), ("+7", 7), ("'1'", "1"), ("1.", 1.0),
    ],
)  # fmt: skip
def test_scalars(text: str, value: Any) -> None:
    found = parse(YAML, f"a: {text}\n").data["a"]
    assert found == value and type(found) is type(value)


def test_lines_reach_into_lists_and_flow_mappings() -> None:
    lines = parse(YAML, "# top\na:\n  - x: 1\n    y: 2\n  -\n    x: 3\nb: {c: 1,\n    d: [5,\n 6]}\n").lines
    assert [lines[at] for at in (("a", 0, "y"), ("a", 1, "x"), ("b", "d"), ("b", "d", 1))] == [4, 6, 8, 9]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a is given twice (first in line 1); keep one"),
        ("s:\n - {n: 1,\n    n: 2}\n", "f.yaml:3: s[0].n is given twice (first in line 2); keep one"),
        ("a:\n\tb: 1\n", "f.yaml:2: not YAML: a tab where YAML allows only spaces; indent with spaces"),
        ("a: b: c\n", "f.yaml:1: not YAML: a second ': ' in one line"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: not YAML: a second document begins here"),
        ("a: 1\nb: \x01\n", "f.yaml:2: not YAML: a control character; is this a text file?"),
        ("a: [1, 2\nb: 3\n", "f.yaml:2: not YAML: expected ',' or ']'"),
        ("a: 'x\n", "f.yaml:2: not YAML: found unexpected end of stream"),
        ("a: !mine 3\n", "f.yaml:1: not YAML: could not determine a constructor"),
        ("? [1, 2]\n: 3\n", "f.yaml:1: not YAML: found unhashable key"),
        ("a: &x [*x]\n", "f.yaml: nested too deeply, or a YAML anchor that holds itself"),
        ("a: " + "9" * 5000, "f.yaml: a number has too many digits to be read"),
    ],
)
def test_broken_yaml(text: str, problem: str) -> None:
    (found,) = parse(YAML, text).problems
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1,\n "a": 2}', "f.json: key 'a' is given twice in one object; keep one"),
        ('{"a": 1,\n}', "f.json:2: not JSON:"),
        ('{"a": NaN}', "f.json: NaN is not JSON; every number must be finite"),
        ('{"a": -Infinity}', "f.json: -Infinity is not JSON"),
        ("[" * 100_000, "f.json: nested too deeply"),
    ],
)
def test_broken_json(text: str, problem: str) -> None:
    (found,) = parse(JSON, text).problems
    assert found.startswith(problem)


def test_marks_and_line_ends_of_other_systems(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes("\ufeffa: 1\r\nb:\r\n  c: 2\r\n".encode())
    parsed = read_data(path)
    assert parsed.data == {"a": 1, "b": {"c": 2}}
    assert parsed.lines["b", "c"] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; `mixplan init DIR`"),
        (b"# nothing but a comment\n", "is empty"),
        (b"- 1\n- 2\n", "at the top, not a list"),
        (b"just words\n", "not the single value 'just words'"),
        (b"\xff\xfe\x00\x01", "not UTF-8 text (byte 0)"),
        (b"\x93NUMPY\x01", "not UTF-8 text"),
        (b"\x00\x00\x00", "control character"),
    ],
)
def test_not_a_document(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_data(path)
    assert message in str(caught.value)


def test_no_such_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("a: 1")
    with pytest.raises(InputError, match=r"plna.yaml: no such file; did you mean 'plan.yaml'\?"):
        read_text(tmp_path / "plna.yaml")
    with pytest.raises(InputError, match=r"nothing: no such file$"):
        read_text(tmp_path / "nothing")
    with pytest.raises(InputError, match="is a folder; a file is needed"):
        read_text(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_text(tmp_path / "no" / "plan.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path / "plan.yaml" / "inside")
